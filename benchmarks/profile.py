"""Where the server's processor time goes, per event: `python -m benchmarks.profile CONTESTANT`.

Two runs: one without a profiler for the true cost, one under cProfile for its parts. cProfile
slows every call, small ones most, and sees the event loop's thread only: trust the calls per
event and the order, not the sums. What the loop and C extensions do by themselves (reading,
parsing and writing HTTP in uvloop) counts for the function that called into them.
"""

import argparse
import os
import pstats
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import scratch
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.deck import prepare
from benchmarks.load import Load, drive
from benchmarks.profiled import PROFILE
from benchmarks.server import Server
from benchmarks.window import WARM_UP_SECONDS, Plan, run_window

CONNECTIONS = 64
SECONDS = 5
TOP = 40
# More than a server under a profiler can receive.
DECK_PER_SECOND = 60_000
WRITE_SECONDS = 10
BUILT_IN = "built in"


@dataclass(frozen=True)
class Cost:
    """What one function costs per event, in microseconds without those it calls."""

    function: str
    package: str
    calls: float
    own_us: float


def main() -> None:
    """Print the table."""
    options = _options()
    contestant = next(one for one in CONTESTANTS if one.name == options.contestant)
    plan = Plan(seconds=SECONDS, scratch=scratch.folder())
    window = run_window(contestant, plan, connections=options.connections)
    if window.figures is None or window.failures:
        raise SystemExit(f"FAILED: {'; '.join(window.failures)}")
    costs = _profile(contestant, options.connections, plan.scratch)
    costs.sort(key=lambda cost: cost.own_us, reverse=True)
    print(f"{contestant.name}, {options.connections} connections")
    print(f"without a profiler: {window.figures.cpu_us_per_event:.1f} us of CPU per event")
    print(f"under cProfile: {sum(cost.own_us for cost in costs):.1f} us per event in the loop\n")
    _print_packages(costs)
    _print_functions(costs[: options.top])


def _options() -> argparse.Namespace:
    names = [contestant.name for contestant in CONTESTANTS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("contestant", choices=names)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--top", type=int, default=TOP, help="functions to list; default: 40")
    return parser.parse_args()


def _profile(contestant: Contestant, connections: int, folder: Path) -> list[Cost]:
    with (
        TemporaryDirectory(dir=folder) as directory,
        Server(contestant, Path(directory), wrapper=("benchmarks.profiled",)) as server,
    ):
        _load(server, connections, WARM_UP_SECONDS)
        os.kill(server.pid, signal.SIGUSR1)
        load = _load(server, connections, SECONDS)
        os.kill(server.pid, signal.SIGUSR2)
        path = _wait_for(server, Path(directory) / PROFILE)
        return list(_costs(path, load.acked))


def _load(server: Server, connections: int, seconds: int) -> Load:
    deck = prepare(
        server.directory / "deck", DECK_PER_SECOND * seconds, url_path=server.contestant.path
    )
    load = drive(deck, port=server.port, connections=connections, seconds=seconds)
    if load.exhausted:
        raise SystemExit("the deck ran out: raise DECK_PER_SECOND")
    return load


def _wait_for(server: Server, path: Path) -> Path:
    deadline = time.monotonic() + WRITE_SECONDS
    while not path.exists() and time.monotonic() < deadline:
        server.check()
        time.sleep(0.1)
    return path


def _costs(path: Path, events: int) -> Iterator[Cost]:
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]]
    stats = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
    for (file, line, name), (_, calls, own, _, _) in stats.items():
        package, place = _place(file)
        yield Cost(
            function=f"{place}:{line} {name}" if place else name,
            package=package,
            calls=calls / events,
            own_us=own * 1e6 / events,
        )


def _place(file: str) -> tuple[str, str]:
    """Return a file's package, and its path from there on."""
    parts = Path(file).parts
    if len(parts) < 2:
        return BUILT_IN, ""
    for root in ("site-packages", "animica_hooks", "benchmarks"):
        if root in parts:
            start = parts.index(root) + (root == "site-packages")
            return parts[start], "/".join(parts[start:])
    return "standard library", "/".join(parts[-2:])


def _print_packages(costs: list[Cost]) -> None:
    sums: defaultdict[str, float] = defaultdict(float)
    for cost in costs:
        sums[cost.package] += cost.own_us
    print("own us  package")
    for package, own_us in sorted(sums.items(), key=lambda item: item[1], reverse=True):
        print(f"{own_us:6.1f}  {package}")
    print()


def _print_functions(costs: list[Cost]) -> None:
    print("own us  calls  function")
    for cost in costs:
        print(f"{cost.own_us:6.1f}  {cost.calls:5.2f}  {cost.function}")


if __name__ == "__main__":
    main()
