"""Measure clients against each other; see README.md in the folder above."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import machine
from benchmarks.sdk import measures, report, self_check
from benchmarks.sdk.contestants import CONTESTANTS, Contestant
from benchmarks.sdk.crew import Breakdown, crew
from benchmarks.sdk.results import Results, Window
from benchmarks.sdk.serving import Serving
from benchmarks.sdk.soak import soak
from benchmarks.sdk.start import PYTHON, start, start_nothing

ROUNDS = 5
SECONDS = 0.3
PACKAGES = ("openai", "anthropic", "animica-ai", "httpx2", "aiohttp", "pyreqwest", "msgspec")

Found = dict[str, float] | Breakdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or its self-check; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.self_check:
        return self_check.main()
    chosen = [one for one in CONTESTANTS if one.name in options.contestants]
    present = [one for one in chosen if one.is_installed()]
    with TemporaryDirectory() as folder, Serving(Path(folder)) as serving:
        windows = tuple(_run(present, options, serving))
        server_seconds = serving.cpu_seconds()
    run = report.Run(
        date=datetime.now(UTC).date().isoformat(),
        environment=_environment(server_seconds),
        rounds=options.rounds,
        seconds=options.seconds,
        contestants=tuple(one.name for one in present),
        absent=tuple(one.name for one in chosen if one not in present),
        results=Results(windows),
    )
    print(report.write(run))
    trusted = {contestant.name for contestant in present if contestant.trusted}
    return int(any(window.failure and window.contestant in trusted for window in windows))


def _run(
    contestants: Sequence[Contestant], options: argparse.Namespace, serving: Serving
) -> Iterator[Window]:
    wanted = set(options.measures)
    for contestant in contestants:
        # Not counted: the first time, byte code is written and files come from the disk.
        start(contestant, serving)
    for round_number in range(options.rounds):
        # Every other round runs backwards, so that none is always the first or the last.
        order = contestants if round_number % 2 == 0 else contestants[::-1]
        _show(f"round {round_number + 1} of {options.rounds}")
        if wanted & {measure.name for measure in measures.STARTS}:
            yield from _starts(order, round_number, serving)
        yield from _work(order, round_number, serving, wanted, options.seconds)
    if wanted & {measure.name for measure in measures.SOAKS}:
        for contestant in contestants:
            if contestant.soaked:
                _show(f"soak of {contestant.name}")
                yield from _windows(measures.SOAKS, contestant.name, 0, soak(contestant, serving))


def _starts(
    contestants: Sequence[Contestant], round_number: int, serving: Serving
) -> Iterator[Window]:
    nothing = start_nothing(contestants[0])
    yield from _windows(measures.STARTS, PYTHON, round_number, nothing)
    for contestant in contestants:
        found = start(contestant, serving)
        yield from _windows(measures.STARTS, contestant.name, round_number, found)


def _windows(
    group: Sequence[measures.Measure], name: str, round_number: int, found: Found
) -> Iterator[Window]:
    failure = str(found) if isinstance(found, Breakdown) else None
    for measure in group:
        yield Window(
            measure=measure.name,
            contestant=name,
            round_number=round_number,
            value=None if isinstance(found, Breakdown) else found[measure.name],
            failure=failure,
        )


def _work(
    contestants: Sequence[Contestant],
    round_number: int,
    serving: Serving,
    wanted: set[str],
    seconds: float,
) -> Iterator[Window]:
    names = [measure.name for measure in measures.WORK if measure.name in wanted]
    if not names:
        return
    with crew(contestants, serving) as members:
        for name in names:
            for member in members:
                answer = member.measure(name, seconds)
                yield Window(
                    measure=name,
                    contestant=member.contestant.name,
                    round_number=round_number,
                    value=answer.get("cpu_us"),
                    failure=answer.get("failure"),
                )


def _show(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _environment(server_seconds: float) -> dict[str, str]:
    server = {"the server's own processor time": f"{server_seconds:.1f} s in all"}
    return machine.describe(PACKAGES) | server


def _parser() -> argparse.ArgumentParser:
    names = [contestant.name for contestant in CONTESTANTS]
    known = [measure.name for measure in measures.ALL]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdk", description=__doc__)
    parser.add_argument("--rounds", type=_positive(int), default=ROUNDS, help="default: 5")
    parser.add_argument(
        "--seconds", type=_positive(float), default=SECONDS, help="a window's; default: 0.3"
    )
    parser.add_argument(
        "--contestants", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {names}"
    )
    parser.add_argument(
        "--measures", nargs="+", choices=known, default=known, metavar="NAME", help=f"of {known}"
    )
    parser.add_argument(
        "--self-check", action="store_true", help="show that what is planted is measured"
    )
    return parser


def _positive(kind: type[int | float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        number = kind(text)
        if number <= 0:
            raise argparse.ArgumentTypeError("not above 0")
        return number

    return parse


if __name__ == "__main__":
    raise SystemExit(main())
