"""Measure receivers against each other; see README.md in this folder."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from benchmarks import load, machine, report, scratch, self_check
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.options import between
from benchmarks.results import Results
from benchmarks.window import MAX_SECONDS, Plan, Window, run_window

ROUNDS = 3
SECONDS = 3
PACKAGES = (
    "uvicorn",
    "uvloop",
    "httptools",
    "msgspec",
    "sqlalchemy",
    "fastapi",
    "celery",
    "dbos",
    "procrastinate",
    "hookspool",
    "hookrelay",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or its self-check; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.self_check:
        return self_check.main()
    chosen = [one for one in CONTESTANTS if one.name in options.contestants]
    absent = {one.name: fault for one in chosen if (fault := one.fault())}
    contestants = [one for one in chosen if one.name not in absent]
    for name, fault in absent.items():
        print(f"left out: {name}, {fault}", file=sys.stderr)
    plan = Plan(seconds=options.seconds, scratch=scratch.folder())
    windows = tuple(_run(contestants, options.connections, options.rounds, plan))
    run = report.Run(
        date=datetime.now(UTC).date().isoformat(),
        environment=_environment(contestants),
        absent=absent | report.UNMEASURED,
        rounds=options.rounds,
        seconds=options.seconds,
        results=Results(windows),
    )
    print(report.write(run))
    return _status(contestants, windows)


def _run(
    contestants: Sequence[Contestant], asked: Sequence[int], rounds: int, plan: Plan
) -> Iterator[Window]:
    wanted = {one.name: asked or one.connections for one in contestants}
    for round_number in range(rounds):
        # Every other round runs backwards, so that none is always the first or the last.
        order = contestants if round_number % 2 == 0 else contestants[::-1]
        for count in sorted({count for counts in wanted.values() for count in counts}):
            for contestant in [one for one in order if count in wanted[one.name]]:
                began = time.monotonic()
                window = run_window(contestant, plan, connections=count, round_number=round_number)
                took = time.monotonic() - began
                print(f"{window.summary} ({took:.0f} s)", file=sys.stderr, flush=True)
                yield window


def _status(contestants: Sequence[Contestant], windows: Sequence[Window]) -> int:
    trusted = {contestant.name for contestant in contestants if contestant.trusted}
    return int(any(window.failures and window.contestant in trusted for window in windows))


def _environment(contestants: Sequence[Contestant]) -> dict[str, str]:
    kinds = dict.fromkeys(one.database for one in contestants if one.database)
    return machine.describe(PACKAGES, kinds) | {"load from": load.generator_name()}


def _parser() -> argparse.ArgumentParser:
    names = [contestant.name for contestant in CONTESTANTS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=between(1, 100), default=ROUNDS, help="default: 3")
    parser.add_argument(
        "--seconds", type=between(1, MAX_SECONDS), default=SECONDS, help="a window's; default: 3"
    )
    parser.add_argument(
        "--connections",
        type=between(1, 10_000),
        nargs="+",
        default=(),
        metavar="N",
        help="for all; default: what each one's goals ask for, of 1, 64 and 256",
    )
    parser.add_argument(
        "--contestants", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {names}"
    )
    parser.add_argument(
        "--self-check", action="store_true", help="show that planted bugs are caught"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
