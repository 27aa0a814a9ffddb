"""Measure how the receiver fares as things grow; see README.md in the folder above.

Those of the curves are measured that an option names, with the sizes that it gives or with its own;
without any, all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from animica_hooks.config import MAX_BODY_BYTES
from benchmarks import load, machine, replay, scratch
from benchmarks.contestants import CONTESTANTS, LIMIT, Contestant
from benchmarks.deck import SHORTEST_BYTES
from benchmarks.goals import OURS
from benchmarks.growth import curves, report, tables
from benchmarks.growth.curves import BODIES, CONNECTIONS, HANDLERS, Curve
from benchmarks.growth.filling import Size
from benchmarks.growth.tables import Measure
from benchmarks.options import between
from benchmarks.replay import Replay
from benchmarks.results import Results
from benchmarks.window import MAX_SECONDS, Plan, Window

ROUNDS = 1
SECONDS = 2
TIMES = 200
SIZES = (Size(0, 10_000), Size(0, 100_000), Size(0, 1_000_000))
# What the goals are of, and what takes long to fill.
FULL = (Size(1_000_000, 0), Size(0, 10_000_000))
REPLAYED = (10_000, 30_000, 100_000)
PRUNED = 5000
PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "sqlalchemy")

# What options name, and how large it gets where they do not say.
GROWING: dict[str, tuple[int | Size, ...]] = {
    "handlers": HANDLERS.sizes,
    "bodies": BODIES.sizes,
    "connections": CONNECTIONS.sizes,
    "sizes": SIZES,
    "prune": (PRUNED,),
    "replayed": REPLAYED,
}

Outcome = TypeVar("Outcome", Window, Measure, Replay)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = _options(arguments)
    chosen = [one for one in CONTESTANTS if one.name in options.databases]
    absent = {one.name: fault for one in chosen if (fault := one.fault())}
    present = [one for one in chosen if one.name not in absent]
    asked = tuple(_curves(options, [one.name for one in present]))
    plan = Plan(seconds=options.seconds, scratch=scratch.folder())
    kinds = [one.database for one in present if one.database]
    run = report.Run(
        date=datetime.now(UTC).date().isoformat(),
        environment=machine.describe(PACKAGES, kinds) | {"load from": load.generator_name()},
        absent=absent,
        rounds=options.rounds,
        seconds=options.seconds,
        times=options.times,
        curves=asked,
        results=Results(tuple(_shown(curves.measure(asked, plan, options.rounds)))),
        measures=tuple(_shown(_measures(options, present))),
        replays=tuple(_shown(_replays(options, present))),
    )
    print(report.write(run))
    return int(run.is_failed())


def _curves(options: argparse.Namespace, names: Sequence[str]) -> Iterator[Curve]:
    for curve, sizes in (
        (HANDLERS, options.handlers),
        (BODIES, options.bodies),
        (CONNECTIONS, options.connections),
    ):
        if sizes:
            taking_part = tuple(one for one in curve.contestants if one in (LIMIT, *names))
            yield replace(curve, sizes=tuple(sorted(sizes)), contestants=taking_part)


def _measures(options: argparse.Namespace, present: Sequence[Contestant]) -> Iterator[Measure]:
    for one in present:
        for size in options.sizes:
            yield from tables.measure(one, size, options.times)
        for events in options.prune:
            yield from tables.measure_pruning(one, Size(0, events), options.times)


def _replays(options: argparse.Namespace, present: Sequence[Contestant]) -> Iterator[Replay]:
    for one in present:
        for events in options.replayed:
            yield replay.measure(one, events)


def _shown(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Tell of each when it is known."""
    for outcome in outcomes:
        print(f"{datetime.now(UTC):%H:%M:%S} {outcome.summary}", file=sys.stderr, flush=True)
        yield outcome


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = _parser().parse_args(arguments)
    is_any_named = any(getattr(options, name) is not None for name in GROWING)
    for name, sizes in GROWING.items():
        asked = getattr(options, name)
        if asked is None and is_any_named:
            chosen = ()
        elif options.full and name == "sizes" and not asked:
            chosen = (*sizes, *FULL)
        else:
            chosen = tuple(asked or sizes)
        setattr(options, name, chosen)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    for name, kind, metavar, about in (
        ("handlers", between(1, 1000), "N", "handlers per event"),
        ("bodies", between(SHORTEST_BYTES, MAX_BODY_BYTES), "BYTES", "bytes of a body"),
        ("connections", between(1, 10_000), "N", "senders at once"),
        ("sizes", Size.read, "PENDING+FINISHED", "events that are there beforehand"),
        ("prune", between(100, 100_000_000), "N", "events that are pruned beside writing"),
        ("replayed", between(1, 100_000_000), "N", "events that are replayed"),
    ):
        default = " ".join(map(str, GROWING[name]))
        parser.add_argument(
            f"--{name}", nargs="*", type=kind, metavar=metavar, help=f"{about}: {default}"
        )
    parser.add_argument(
        "--full", action="store_true", help=f"to the default sizes add {' '.join(map(str, FULL))}"
    )
    parser.add_argument(
        "--databases", nargs="+", choices=OURS, default=OURS, help="default: those that answer"
    )
    parser.add_argument("--rounds", type=between(1, 100), default=ROUNDS, help="default: 1")
    parser.add_argument(
        "--seconds", type=between(1, MAX_SECONDS), default=SECONDS, help="a window's; default: 2"
    )
    parser.add_argument(
        "--times",
        type=between(2, 1_000_000),
        default=TIMES,
        help=f"inserts and claims beside each of the sizes; default: {TIMES}",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
