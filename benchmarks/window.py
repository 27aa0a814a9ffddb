"""One window: a fresh server and database, probed, warmed up, loaded, and then audited.

The audit is what makes a figure count: every delivery that was acknowledged is looked for in
the contestant's database, and every event in it must end up handled. A window that fails the
audit is reported as FAILED and its speed is not.
"""

import sqlite3
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from subprocess import SubprocessError
from tempfile import TemporaryDirectory

from sqlalchemy.exc import SQLAlchemyError

from benchmarks.contestants import Contestant
from benchmarks.deck import BODY_BYTES, Deck, prepare
from benchmarks.disk import fsync_ms
from benchmarks.ledgers import Counts
from benchmarks.load import Load, drive
from benchmarks.probe import find_faults
from benchmarks.server import Server, ServerError

Drive = Callable[..., Load]

WARM_UP_SECONDS = 1
# Signatures are made before the window and must still be fresh at its end.
MAX_SECONDS = 120
# More than anybody receives in the warm-up, whose rate then sizes the real deck: who stores
# nothing, ours, and others, which receive hundreds. Bodies that are not sent cost a run minutes.
LIMITS_WARM_UP, OUR_WARM_UP, PEERS_WARM_UP = 200_000, 100_000, 10_000
DECK_MARGIN = 2.5
DECK_FLOOR_PER_SECOND = 4_000
# Where bodies are large it is these that are more than anybody receives in a second, and the floor.
WARM_UP_BYTES, DECK_FLOOR_BYTES = 512 * 1024 * 1024, 128 * 1024 * 1024

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
# Others are not waited for so long: what is left is told, and no failure while it shrinks.
PEERS_DRAIN_SECONDS = 15
# After the warm-up even less: a worker that is behind has no less to do in the window for that.
PEERS_PAUSE_SECONDS = 4
STALL_SECONDS = 10
POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How every window of a run is made; `scratch` is a folder on a real disk."""

    seconds: int
    scratch: Path
    body_bytes: int = BODY_BYTES
    stall_seconds: float = STALL_SECONDS


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one window measured; what needs a database is None where there is none."""

    received_per_second: float
    handled_per_second: float | None
    drain_seconds: float | None
    p50_ms: float
    p99_ms: float
    fsync_ms: float
    waiting: int
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

    @property
    def summary(self) -> str:
        """What came out, in a line."""
        where = f"round {self.round_number + 1}, {self.connections} connections, {self.contestant}"
        if self.failures:
            return f"{where}: FAILED: {'; '.join(self.failures)}"
        assert self.figures is not None
        return f"{where}: {self.figures.received_per_second:,.0f}/s"


@dataclass(frozen=True)
class Drained:
    """The state in which a server came to rest, and how long that took."""

    counts: Counts
    seconds: float
    # It was not waited for any longer, though it had not stood still.
    is_moving: bool = False

    @property
    def waiting(self) -> int:
        """The events that are not handled yet."""
        return self.counts.stored - self.counts.handled


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
        trial = _Trial(plan, server, connections, partial(drive, connections=connections))
        try:
            with server:
                figures, failures = trial.run()
        except BREAKDOWNS as error:
            # One contestant's breakdown must not cost the others' windows.
            print(f"{error}\n{server.last_words()}", file=sys.stderr)
            figures, failures = None, [describe(error)]
    return Window(
        contestant=contestant.name,
        connections=connections,
        round_number=round_number,
        failures=tuple(failures),
        figures=figures,
    )


def describe(error: Exception) -> str:
    """Return what to report of a breakdown."""
    # Other errors' texts may hold commands and paths, which are no result.
    return str(error) if isinstance(error, ServerError) else f"broke down: {type(error).__name__}"


@dataclass(frozen=True)
class _Trial:
    """The steps of one window, on a server that is listening."""

    plan: Plan
    server: Server
    connections: int
    drive: Drive

    def run(self) -> tuple[Figures, list[str]]:
        failures = find_faults(self.server)
        self._drain()
        warm_up = self._drive(self._deck(self._warm_up_size()), WARM_UP_SECONDS, late=0)
        before = self._drain(PEERS_PAUSE_SECONDS)
        one_fsync_ms = fsync_ms(self.server.directory)

        deck = self._deck(self._deck_size(warm_up))
        cpu_before = self.server.cpu_seconds()
        with ThreadPoolExecutor() as beside:
            # While late answers are waited for, handlers go on.
            at_end = beside.submit(self._count_after, self.plan.seconds)
            load = self._drive(deck, self.plan.seconds)
        after = self._drain()
        cpu_seconds = self.server.cpu_seconds() - cpu_before

        failures += _audit_loads(warm_up, load)
        if before and after:
            is_excused = after.is_moving and not self.server.contestant.trusted
            failures += audit(load, before.counts, after.counts, is_excused=is_excused)
        figures = Figures(
            received_per_second=load.acked_in_time(self.connections) / self.plan.seconds,
            handled_per_second=_handled(before, at_end.result(), self.plan.seconds),
            drain_seconds=after.seconds if after else None,
            p50_ms=load.p50_ms,
            p99_ms=load.p99_ms,
            fsync_ms=one_fsync_ms,
            waiting=after.waiting if after else 0,
            cpu_us_per_event=cpu_seconds * 1e6 / max(load.acked, 1),
            peak_memory_mb=self.server.peak_memory_mb(),
            load=load,
        )
        return figures, failures

    def _deck(self, size: int) -> Deck:
        path = self.server.contestant.path
        body_bytes = self.plan.body_bytes
        return prepare(self.server.directory / DECK, size, url_path=path, body_bytes=body_bytes)

    def _drive(self, deck: Deck, seconds: int, **options: int) -> Load:
        return self.drive(deck, port=self.server.port, seconds=seconds, **options)

    def _warm_up_size(self) -> int:
        contestant = self.server.contestant
        most = WARM_UP_BYTES // self.plan.body_bytes
        if contestant.ledger is None:
            return min(LIMITS_WARM_UP, most)
        return min(OUR_WARM_UP if contestant.trusted else PEERS_WARM_UP, most)

    def _deck_size(self, warm_up: Load) -> int:
        floor = min(DECK_FLOOR_PER_SECOND, DECK_FLOOR_BYTES // self.plan.body_bytes)
        per_second = max(floor, warm_up.answered / WARM_UP_SECONDS * DECK_MARGIN)
        return int(per_second * self.plan.seconds)

    def _count_after(self, seconds: float) -> Counts | None:
        time.sleep(seconds)
        return self._count()

    def _count(self) -> Counts | None:
        ledger = self.server.contestant.ledger
        return ledger.count(self.server.directory) if ledger else None

    def _drain(self, peers_seconds: int = PEERS_DRAIN_SECONDS) -> Drained | None:
        """Wait until the server rests, with all it stored handled, or moves no more."""
        limit = DRAIN_SECONDS if self.server.contestant.trusted else peers_seconds
        began = moved = time.monotonic()
        counts = self._count()
        if counts is None:
            return None
        while True:
            self.server.check()
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            latest = self._count()
            assert latest is not None
            if latest != counts:
                counts, moved = latest, now
            elif counts.handled >= counts.stored:
                return Drained(counts, moved - began)
            elif now - moved > self.plan.stall_seconds:
                return Drained(counts, now - began)
            if now - began > limit:
                return Drained(counts, now - began, is_moving=True)


def _handled(before: Drained | None, at_end: Counts | None, seconds: int) -> float | None:
    if before is None or at_end is None:
        return None
    return (at_end.handled - before.counts.handled) / seconds


def _audit_loads(*loads: Load) -> list[str]:
    failures = []
    if any(load.exhausted for load in loads):
        failures.append("the deck ran out: too few bodies were prepared")
    if any(load.acked == 0 for load in loads):
        failures.append("nothing was acked")
    return failures


def audit(load: Load, start: Counts, end: Counts, *, is_excused: bool = False) -> list[str]:
    """Return what is wrong with the database after a load of distinct events.

    It may hold more events than were acked: those of which the sender does not know. Who
    `is_excused` may have events left to handle.
    """
    failures = []
    stored = end.stored - start.stored
    if stored < load.acked:
        failures.append(f"lost {load.acked - stored:,} of {load.acked:,} acked events")
    if end.handled < end.stored and not is_excused:
        failures.append(f"{end.stored - end.handled:,} of {end.stored:,} events not handled")
    if end.effects is not None and end.effects != end.handled:
        failures.append(f"handlers wrote {end.effects:,} rows for {end.handled:,} events")
    return failures
