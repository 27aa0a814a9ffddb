"""How claims, inserts and pruning fare in tables that hold many events already."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from animica_hooks.core.event import Event
from animica_hooks.core.fair import Claimant
from animica_hooks.core.outcome import COMPLETED, from_micros
from animica_hooks.core.retention import DAY_S, Retention
from animica_hooks.store.base import Store
from animica_hooks.store.connect import make_store
from animica_hooks.store.prune import prune
from animica_hooks.store.records import Batch, LeasedJob, Mark, NewEvent
from benchmarks import databases
from benchmarks.contestants import Contestant
from benchmarks.goals import GROWN
from benchmarks.growth.filling import BODY_BYTES, HANDLER, Size, filled
from benchmarks.pages import number
from benchmarks.server import ServerError
from benchmarks.window import describe

# The times of each thing that was measured, in seconds; and how many events are stored and handled.
Found = dict[str, list[float]]
Due = Callable[[Found], tuple[int, int]]
Work = Callable[[Store, str], Awaitable[Any]]

BATCH = 64
INSERT = f"insert {BATCH} events"
CLAIM = f"claim {BATCH} jobs"
ALONE, BESIDE = f"{INSERT}, alone", f"{INSERT} beside pruning"
PRUNING = "statements of a batch of pruning"
COLUMNS = ("database", "what", "pending", "finished", "p50 ms", "p99 ms", "longest ms", "audit")


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long it took, of many times, in milliseconds."""

    p50_ms: float
    p99_ms: float
    longest_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Return those of what was measured."""
        cuts = statistics.quantiles(seconds, n=100, method="inclusive")
        return cls(p50_ms=cuts[49] * 1e3, p99_ms=cuts[98] * 1e3, longest_ms=max(seconds) * 1e3)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How long one thing took beside so many events, or why that is not known."""

    contestant: str
    what: str
    size: Size
    times: Times | None = None
    failure: str | None = None

    @property
    def summary(self) -> str:
        """What came out, in a line."""
        where = f"{self.what}, {self.size} events, {self.contestant}"
        if self.times is None:
            return f"{where}: FAILED: {self.failure}"
        return f"{where}: {self.times.p50_ms:.1f} ms"

    @property
    def row(self) -> list[str]:
        """Return what is below `COLUMNS`."""
        times = self.times
        figures = (times.p50_ms, times.p99_ms, times.longest_ms) if times else (None,) * 3
        return [
            self.contestant,
            self.what,
            f"{self.size.pending:,}",
            f"{self.size.finished:,}",
            *(number(figure, 1) for figure in figures),
            f"FAILED: {self.failure}" if self.failure else "passed",
        ]


def kept(measures: Sequence[Measure]) -> Iterator[str]:
    """Tell how much of the rate of inserts is left beside the most events."""
    for name, goal in GROWN.items():
        found = [m for m in measures if m.contestant == name and m.what == INSERT and m.times]
        if len(found) > 1:
            found.sort(key=lambda measure: measure.size.total)
            few, many = found[0], found[-1]
            assert few.times is not None
            assert many.times is not None
            ratio = few.times.p50_ms / many.times.p50_ms
            verdict = "met" if ratio >= goal else "MISSED"
            yield (
                f"{name}: beside {many.size.total:,} events it stores at {ratio:.2f} of the rate "
                f"beside {few.size.total:,}, goal >= {goal} ({verdict})"
            )


def measure(contestant: Contestant, size: Size, times: int) -> list[Measure]:
    """Take turns at a batch of new events and a claim of as many jobs as that."""

    async def work(store: Store, _url: str) -> Found:
        inserts: list[float] = []
        claims: list[float] = []
        for _ in range(times):
            await _timed(inserts, store.commit(Batch(deliveries=_events())))
            claim = Batch(claim=BATCH, claim_for=[Claimant(HANDLER)])
            committed = await _timed(claims, store.commit(claim))
            await store.commit(Batch(marks=[_completed(job) for job in committed.claimed]))
        return {INSERT: inserts, CLAIM: claims}

    def due(_: Found) -> tuple[int, int]:
        return size.total + times * BATCH, size.finished + times * BATCH

    return _measure(contestant, (INSERT, CLAIM), size, work, due)


def measure_pruning(contestant: Contestant, size: Size, times: int) -> list[Measure]:
    """Write without a pause, at first alone, then while another process prunes all that is old."""

    async def work(store: Store, url: str) -> Found:
        alone: list[float] = []
        beside: list[float] = []
        spawning = multiprocessing.get_context("spawn")
        told: Any = spawning.SimpleQueue()
        pruner = spawning.Process(target=_prune, args=(url, told))
        for _ in range(times):
            await _timed(alone, store.commit(Batch(deliveries=_events())))
        pruner.start()
        while told.empty() and pruner.is_alive():
            await _timed(beside, store.commit(Batch(deliveries=_events())))
        if told.empty():
            raise ServerError("the process that prunes died")
        return {ALONE: alone, BESIDE: beside, PRUNING: told.get()}

    def due(found: Found) -> tuple[int, int]:
        return (len(found[ALONE]) + len(found[BESIDE])) * BATCH, 0

    return _measure(contestant, (ALONE, BESIDE, PRUNING), size, work, due)


def _measure(
    contestant: Contestant,
    whats: Sequence[str],
    size: Size,
    work: Work,
    due: Due,
) -> list[Measure]:
    """Work beside so many events; then audit what is stored, and of that handled."""
    try:
        with filled(contestant, size) as directory:
            url = databases.url(contestant.database, directory)
            found = asyncio.run(_with_store(url, work))
            times = {what: Times.of(found[what]) for what in whats}
            assert contestant.ledger is not None
            counts = contestant.ledger.count(directory)
    except Exception as error:  # noqa: BLE001 - whatever it is, this point has no figure, and says why
        return [
            Measure(contestant=contestant.name, what=what, size=size, failure=describe(error))
            for what in whats
        ]
    stored, handled = due(found)
    failure = None
    if (counts.stored, counts.handled) != (stored, handled):
        failure = (
            f"{counts.stored:,} events stored and {counts.handled:,} handled "
            f"where {stored:,} and {handled:,} were due"
        )
    return [
        Measure(
            contestant=contestant.name,
            what=what,
            size=size,
            times=None if failure else times[what],
            failure=failure,
        )
        for what in whats
    ]


async def _with_store(url: str, work: Work) -> Any:
    store = make_store(url, owner="growth", lease_s=600, handlers=1)
    await store.open(migrate=False)
    try:
        store.start_maintenance(lambda: None)
        return await work(store, url)
    finally:
        await store.close()


async def _timed(times: list[float], work: Awaitable[Any]) -> Any:
    began = time.perf_counter()
    result = await work
    times.append(time.perf_counter() - began)
    return result


def _events() -> list[NewEvent]:
    now = time.time_ns() // 1000
    return [
        NewEvent(
            Event(
                id=f"evt_{uuid.uuid4().hex}",
                type="order.paid",
                body=os.urandom(BODY_BYTES),
                endpoint="animica",
                received_at=from_micros(now),
            ),
            now,
            (HANDLER,),
            "secret",
        )
        for _ in range(BATCH)
    ]


def _completed(job: LeasedJob) -> Mark:
    return Mark(job.id, job.fence, job.attempts + 1, COMPLETED)


def _prune(url: str, told: Any) -> None:
    """Delete all events of a month ago: their bodies in one pass, the rest in another.

    Args:
        told: in the end, for how long each batch kept what it had locked, but for its COMMIT.
    """
    held: list[float] = []

    async def work(store: Store, _url: str) -> None:
        transact = store.transact
        setattr(store, "transact", lambda h, work: transact(h, _timing(held, work)))  # noqa: B010
        began = time.monotonic()
        bare = await prune(store, Retention(bodies=DAY_S))
        gone = await prune(store, Retention(bodies=DAY_S, events=10 * DAY_S))
        seconds = time.monotonic() - began
        print(f"pruned {bare + gone} in {seconds:.0f} s", file=sys.stderr, flush=True)

    asyncio.run(_with_store(url, work))
    told.put(held)


def _timing(times: list[float], work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def timed(connection: Any) -> Any:
        began = time.perf_counter()
        result = work(connection)
        times.append(time.perf_counter() - began)
        return result

    return timed
