"""Measure receivers against each other; see README.md in this folder."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from benchmarks import load, report, scratch, self_check
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.databases import is_reachable
from benchmarks.results import Results
from benchmarks.window import Plan, Window, run_window

ROUNDS = 3
SECONDS = 5
# Signatures are made before the window and must still be fresh at its end.
MAX_SECONDS = 120
CONNECTIONS = (1, 64, 256)
PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "sqlalchemy", "fastapi")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or its self-check; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.self_check:
        return self_check.main()
    contestants = [one for one in CONTESTANTS if one.name in options.contestants]
    for missing in [c for c in contestants if c.database and not is_reachable(c.database)]:
        print(f"left out: {missing.name}, whose server does not answer", file=sys.stderr)
        contestants.remove(missing)
    plan = Plan(seconds=options.seconds, scratch=scratch.folder())
    windows = tuple(_run(contestants, options.connections, options.rounds, plan))
    run = report.Run(
        date=datetime.now(UTC).date().isoformat(),
        environment=_environment(),
        rounds=options.rounds,
        seconds=options.seconds,
        results=Results(windows),
    )
    print(report.write(run))
    return _status(contestants, windows)


def _run(
    contestants: Sequence[Contestant], connections: Sequence[int], rounds: int, plan: Plan
) -> Iterator[Window]:
    for round_number in range(rounds):
        for count in connections:
            # Every other round runs backwards, so that none is always the first or the last.
            for contestant in contestants if round_number % 2 == 0 else contestants[::-1]:
                window = run_window(contestant, plan, connections=count, round_number=round_number)
                _show_progress(window)
                yield window


def _show_progress(window: Window) -> None:
    where = (
        f"round {window.round_number + 1}, {window.connections} connections, {window.contestant}"
    )
    if window.failures:
        outcome = f"FAILED: {'; '.join(window.failures)}"
    else:
        assert window.figures is not None
        outcome = f"{window.figures.received_per_second:,.0f}/s"
    print(f"{where}: {outcome}", file=sys.stderr, flush=True)


def _status(contestants: Sequence[Contestant], windows: Sequence[Window]) -> int:
    trusted = {contestant.name for contestant in contestants if contestant.trusted}
    return int(any(window.failures and window.contestant in trusted for window in windows))


def _environment() -> dict[str, str]:
    packages = {name: found for name in PACKAGES if (found := _version(name))}
    return {
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        **packages,
        "load from": load.generator_name(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _parser() -> argparse.ArgumentParser:
    names = [contestant.name for contestant in CONTESTANTS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=_between(1, 100), default=ROUNDS, help="default: 3")
    parser.add_argument(
        "--seconds", type=_between(1, MAX_SECONDS), default=SECONDS, help="a window's; default: 5"
    )
    parser.add_argument(
        "--connections",
        type=_between(1, 10_000),
        nargs="+",
        default=CONNECTIONS,
        metavar="N",
        help="default: 1 64 256",
    )
    parser.add_argument(
        "--contestants", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {names}"
    )
    parser.add_argument(
        "--self-check", action="store_true", help="show that planted bugs are caught"
    )
    return parser


def _between(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"not between {least} and {most}")
        return number

    return parse


if __name__ == "__main__":
    raise SystemExit(main())
