"""One window: a fresh server and database, probed, warmed up, loaded, and then audited.

The audit is what makes a figure count: every delivery that was acknowledged is looked for in
the contestant's database, and every event in it must end up handled. A window that fails the
audit is reported as FAILED and its speed is not.
"""

import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from subprocess import SubprocessError
from tempfile import TemporaryDirectory

from sqlalchemy.exc import SQLAlchemyError

from benchmarks.contestants import Contestant, Counts
from benchmarks.deck import prepare
from benchmarks.load import Load, drive
from benchmarks.probe import find_faults
from benchmarks.server import Server, ServerError

Drive = Callable[..., Load]

WARM_UP_SECONDS = 1
# More than any single process can receive in the warm-up; its rate then sizes the real deck.
WARM_UP_DECK = 100_000
DECK_MARGIN = 2.5
DECK_FLOOR_PER_SECOND = 4_000

DECK = "deck"

# What a server that is dead, deaf or without its tables makes of probes, loads and counts.
BREAKDOWNS = (
    ServerError,
    OSError,
    HTTPException,
    SubprocessError,
    sqlite3.Error,
    SQLAlchemyError,
)

# Handlers have this long to finish after the load, and must never stand still for so long.
DRAIN_SECONDS = 60
STALL_SECONDS = 10
POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How every window of a run is made; `scratch` is a folder on a real disk."""

    seconds: int
    scratch: Path
    stall_seconds: float = STALL_SECONDS


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one window measured; what needs a database is None where there is none."""

    received_per_second: float
    handled_per_second: float | None
    drain_seconds: float | None
    p50_ms: float
    p99_ms: float
    cpu_us_per_event: float
    peak_memory_mb: float
    load: Load


@dataclass(frozen=True, kw_only=True)
class Window:
    """One contestant at one number of connections in one round."""

    contestant: str
    connections: int
    round_number: int
    failures: tuple[str, ...]
    figures: Figures | None


@dataclass(frozen=True)
class Drained:
    """The state in which a server came to rest, and how long that took."""

    counts: Counts
    seconds: float


def run_window(
    contestant: Contestant,
    plan: Plan,
    *,
    connections: int,
    round_number: int = 0,
    drive: Drive = drive,
) -> Window:
    """Measure a fresh server once; whatever goes wrong with it is in `failures`."""
    with TemporaryDirectory(dir=plan.scratch) as directory:
        server = Server(contestant, Path(directory))
        trial = _Trial(plan, server, partial(drive, port=server.port, connections=connections))
        try:
            with server:
                figures, failures = trial.run()
        except BREAKDOWNS as error:
            # One contestant's breakdown must not cost the others' windows.
            print(f"{error}\n{server.last_words()}", file=sys.stderr)
            figures, failures = None, [_describe(error)]
    return Window(
        contestant=contestant.name,
        connections=connections,
        round_number=round_number,
        failures=tuple(failures),
        figures=figures,
    )


def _describe(error: Exception) -> str:
    # Other errors' texts may hold commands and paths, which are no result.
    return str(error) if isinstance(error, ServerError) else f"broke down: {type(error).__name__}"


@dataclass(frozen=True)
class _Trial:
    """The steps of one window, on a server that is listening."""

    plan: Plan
    server: Server
    drive: Drive

    def run(self) -> tuple[Figures, list[str]]:
        failures = find_faults(self.server)
        start = self._drain()
        warm_up = self._load(WARM_UP_DECK, WARM_UP_SECONDS)
        before = self._drain()

        cpu_before = self.server.cpu_seconds()
        load = self._load(_deck_size(warm_up, self.plan.seconds), self.plan.seconds)
        at_end = self._count()
        after = self._drain()
        cpu_seconds = self.server.cpu_seconds() - cpu_before

        failures += _audit_loads(warm_up, load)
        if start and after:
            failures += audit(warm_up.acked + load.acked, start.counts, after.counts)
        figures = Figures(
            received_per_second=load.acked / load.seconds,
            handled_per_second=_handled(before, at_end, load),
            drain_seconds=after.seconds if after else None,
            p50_ms=load.p50_ms,
            p99_ms=load.p99_ms,
            cpu_us_per_event=cpu_seconds * 1e6 / max(load.acked, 1),
            peak_memory_mb=self.server.peak_memory_mb(),
            load=load,
        )
        return figures, failures

    def _load(self, count: int, seconds: int) -> Load:
        deck = prepare(self.server.directory / DECK, count)
        return self.drive(deck, seconds=seconds)

    def _count(self) -> Counts | None:
        ledger = self.server.contestant.ledger
        return ledger.count(self.server.directory) if ledger else None

    def _drain(self) -> Drained | None:
        """Wait until the server rests, with all it stored handled, or moves no more."""
        began = moved = time.monotonic()
        counts = self._count()
        while counts is not None:
            self.server.check()
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            latest = self._count()
            if latest != counts:
                counts, moved = latest, now
            elif counts.handled >= counts.stored:
                return Drained(counts, moved - began)
            elif now - moved > self.plan.stall_seconds or now - began > DRAIN_SECONDS:
                return Drained(counts, now - began)
        return None


def _handled(before: Drained | None, at_end: Counts | None, load: Load) -> float | None:
    if before is None or at_end is None:
        return None
    return (at_end.handled - before.counts.handled) / load.seconds


def _deck_size(warm_up: Load, seconds: int) -> int:
    per_second = max(DECK_FLOOR_PER_SECOND, warm_up.answered / warm_up.seconds * DECK_MARGIN)
    return int(per_second * seconds)


def _audit_loads(*loads: Load) -> list[str]:
    failures = []
    if any(load.exhausted for load in loads):
        failures.append("the deck ran out: too few bodies were prepared")
    if any(load.acked == 0 for load in loads):
        failures.append("nothing was acked")
    return failures


def audit(acked: int, start: Counts, end: Counts) -> list[str]:
    """Return what is wrong with the database after `acked` deliveries of distinct events.

    It may hold more events than were acked: some were stored, but not answered, when the load
    stopped.
    """
    failures = []
    stored = end.stored - start.stored
    if stored < acked:
        failures.append(f"lost {acked - stored:,} of {acked:,} acked events")
    if end.handled < end.stored:
        failures.append(f"{end.stored - end.handled:,} of {end.stored:,} events not handled")
    if end.effects is not None and end.effects != end.handled:
        failures.append(f"handlers wrote {end.effects:,} rows for {end.handled:,} events")
    return failures
