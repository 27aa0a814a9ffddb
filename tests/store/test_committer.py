"""Group commit: what shares a commit, who waits for it, and what a failing database does."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from storekit import (
    NOON,
    all_rows,
    claim,
    commit_leased,
    completed,
    job_row,
    new_event,
    released,
    until,
    unusable,
)

from animica_hooks.core.fair import Claimant
from animica_hooks.errors import StoreUnavailable
from animica_hooks.store import admission
from animica_hooks.store import committer as committer_module
from animica_hooks.store.base import Store
from animica_hooks.store.committer import Committer
from animica_hooks.store.records import Batch, Committed, LeasedJob
from animica_hooks.store.tables import events
from animica_hooks.telemetry import Fenced, Observation, SlowWriter, Stored, Telemetry


class Watched:
    """A store that counts its commits, and can be made slow, failing or buggy.

    Attributes:
        begun, ended: batches whose commit has begun, and has ended well.
        gate: closed, it holds each commit before it begins.
        error: what each commit raises instead.
        before_end: called when a commit has ended and nobody knows it yet.
        writer: who holds the write slot, and since when by the loop's clock.
        looks: how often the committer has asked for that.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.begun: list[Batch] = []
        self.ended: list[Batch] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.before_end: Callable[[], object] = lambda: None
        self.writer: tuple[str, float] | None = None
        self.looks = 0

    async def commit(self, batch: Batch) -> Committed:
        self.begun.append(batch)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        committed = await self._store.commit(batch)
        self.ended.append(batch)
        self.before_end()
        return committed

    def slow_writer(self) -> tuple[str, float] | None:
        self.looks += 1
        if self.writer is None:
            return None
        holder, since = self.writer
        return holder, asyncio.get_running_loop().time() - since


class Taken:
    """Stands for the worker: takes jobs, and has room for some."""

    def __init__(self) -> None:
        self.room = 0
        self.calls: list[tuple[list[LeasedJob], bool]] = []

    def __call__(self, jobs: list[LeasedJob], waiting: bool) -> None:
        self.calls.append((jobs, waiting))

    @property
    def jobs(self) -> list[LeasedJob]:
        return [job for jobs, _ in self.calls for job in jobs]


@pytest.fixture
def watched(store: Store) -> Watched:
    return Watched(store)


@pytest.fixture
def worker() -> Taken:
    return Taken()


@pytest.fixture
def seen() -> list[Observation]:
    return []


@pytest.fixture
async def committer(
    watched: Watched, worker: Taken, seen: list[Observation]
) -> AsyncIterator[Committer]:
    async with running(watched, worker, seen) as committer:
        yield committer


@asynccontextmanager
async def running(
    watched: Watched, worker: Taken, seen: list[Observation], *, ack_deadline: float = 30.0
) -> AsyncIterator[Committer]:
    committer = Committer(
        watched,
        Telemetry([seen.append]),
        room=lambda: worker.room,
        on_leased=worker,
        ack_deadline=ack_deadline,
    )
    try:
        yield committer
    finally:
        watched.gate.set()
        async with asyncio.timeout(20):
            await committer.close()


async def outcomes(futures: list[asyncio.Future[Any]]) -> list[str]:
    """Wait for all; return receipts, and the class names of what was raised."""
    ended = await asyncio.gather(*futures, return_exceptions=True)
    return [type(end).__name__ if isinstance(end, BaseException) else end for end in ended]


def many(first: int, last: int) -> list[Any]:
    return [new_event(f"evt_{n}") for n in range(first, last)]


# Sharing


async def test_a_lone_delivery_is_committed_at_once(committer: Committer, watched: Watched) -> None:
    """Where nothing else happens a delivery has a commit of its own, without a delay."""
    assert "new" == await committer.deliver(new_event())
    assert [1] == [len(batch.deliveries) for batch in watched.begun]


async def test_what_arrives_during_a_commit_shares_the_next(
    committer: Committer, watched: Watched
) -> None:
    """While one commit runs others queue, and one commit serves them all."""
    watched.gate.clear()
    first = committer.deliver(new_event("evt_first"))
    await until(lambda: len(watched.begun) == 1)
    rest = [committer.deliver(delivery) for delivery in many(0, 20)]
    watched.gate.set()

    assert ["new"] * 21 == await outcomes([first, *rest])
    assert [1, 20] == [len(batch.deliveries) for batch in watched.ended]


async def test_a_long_queue_is_committed_in_bounded_batches(
    committer: Committer, watched: Watched, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are large, but not larger than the limit, and the order of arrival is kept."""
    monkeypatch.setattr(committer_module, "MAX_BATCH", 100)

    ended = await outcomes([committer.deliver(delivery) for delivery in many(0, 300)])

    assert ["new"] * 300 == ended
    sizes = [len(batch.deliveries) for batch in watched.ended]
    assert 100 == max(sizes)
    assert len(sizes) <= 12
    assert [f"evt_{n}" for n in range(300)] == [row.id for row in await all_rows(store, events)]


async def test_equal_deliveries_of_one_batch_are_told_apart(
    committer: Committer, watched: Watched
) -> None:
    """Each waits for its own receipt: one is new, the others are duplicates."""
    watched.gate.clear()
    waiting = [committer.deliver(new_event()) for _ in range(5)]
    watched.gate.set()

    assert ["new", *["duplicate"] * 4] == await outcomes(waiting)


# Acknowledging


async def test_an_ack_follows_the_commit(
    committer: Committer, watched: Watched, store: Store
) -> None:
    """Nobody is told anything before the commit has ended."""
    known_early: list[bool] = []
    watched.before_end = lambda: known_early.append(delivery.done())
    delivery = committer.deliver(new_event())

    assert "new" == await delivery
    assert [False] == known_early
    assert 1 == len(await all_rows(store, events))


async def test_a_delivery_that_is_not_on_disk_in_time_is_given_up(
    watched: Watched, worker: Taken, seen: list[Observation]
) -> None:
    """After the ack deadline the sender is told to come again, though the database hangs."""
    async with running(watched, worker, seen, ack_deadline=0.2) as committer:
        watched.gate.clear()
        began = asyncio.get_running_loop().time()
        waiting = [committer.deliver(new_event("evt_a"))]
        await until(lambda: len(watched.begun) == 1)
        waiting.append(committer.deliver(new_event("evt_b")))

        assert ["StoreUnavailable"] * 2 == await outcomes(waiting)
        assert 0.2 <= asyncio.get_running_loop().time() - began < 2
        watched.gate.set()
        assert "new" == await committer.deliver(new_event("evt_c"))


async def test_what_was_given_up_is_not_written_later(
    watched: Watched, worker: Taken, seen: list[Observation], store: Store
) -> None:
    """A delivery that was still waiting when its sender was sent away is left out."""
    async with running(watched, worker, seen, ack_deadline=0.2) as committer:
        watched.gate.clear()
        waiting = [committer.deliver(new_event("evt_committing"))]
        await until(lambda: len(watched.begun) == 1)
        waiting.append(committer.deliver(new_event("evt_waiting")))
        assert ["StoreUnavailable"] * 2 == await outcomes(waiting)
        watched.gate.set()
        await committer.deliver(new_event("evt_later"))

    # The first one's commit was under way: it may be stored, and deduplication makes it harmless.
    assert ["evt_committing", "evt_later"] == [row.id for row in await all_rows(store, events)]


async def test_a_request_that_is_gone_does_not_hurt_the_others(
    committer: Committer, watched: Watched
) -> None:
    """A delivery whose request was cancelled in the middle of a commit is passed over."""
    watched.gate.clear()
    gone, stays = committer.deliver(new_event("evt_a")), committer.deliver(new_event("evt_b"))
    await until(lambda: len(watched.begun) == 1)
    gone.cancel()
    watched.gate.set()

    assert "new" == await stays


async def test_a_request_that_can_not_be_told_does_not_hurt_the_others(
    committer: Committer, watched: Watched, worker: Taken, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails is said once, the others are told, and the jobs of all of them run."""
    told: list[object] = []

    def fail(_: object) -> None:
        raise KeyError("planted")

    watched.gate.clear()
    worker.room = 10
    committer.submit(new_event("evt_a"), fail)
    committer.submit(new_event("evt_b"), told.append)
    watched.gate.set()
    await until(lambda: bool(told))

    assert ["new"] == told
    assert ["evt_a", "evt_b"] == [job.event.id for job in worker.jobs]
    assert 1 == caplog.text.count("KeyError: 'planted'")


# Marks


async def test_marks_wait_for_company(committer: Committer, watched: Watched, store: Store) -> None:
    """Marks that come close to each other share one commit, which comes by itself."""
    leased = await commit_leased(store, *many(0, 20))
    for job in leased:
        committer.mark(completed(job))
        await asyncio.sleep(0)

    await until(lambda: len(watched.ended) == 1)
    assert [20] == [len(batch.marks) for batch in watched.ended]
    assert {"succeeded"} == {(await job_row(store, job.id)).state for job in leased}


async def test_marks_ride_along_with_deliveries(
    committer: Committer, watched: Watched, store: Store
) -> None:
    """A delivery's commit takes the marks with it, so that they cost no other."""
    [job] = await commit_leased(store, new_event("evt_0"))
    committer.mark(completed(job))

    await committer.deliver(new_event("evt_1"))

    assert [(1, 1)] == [(len(batch.deliveries), len(batch.marks)) for batch in watched.ended]
    assert "succeeded" == (await job_row(store, job.id)).state


async def test_marks_outlive_failing_commits(
    committer: Committer, watched: Watched, store: Store
) -> None:
    """Marks that could not be written are written once the database is back, in order."""
    [first, second] = await commit_leased(store, *many(0, 2))
    watched.error = StoreUnavailable("down")
    committer.mark(completed(first))
    await until(lambda: len(watched.begun) >= 2)
    committer.mark(completed(second))
    await until(lambda: len(watched.begun[-1].marks) == 2)
    watched.error = None

    await until(lambda: bool(watched.ended))
    assert [first.id, second.id] == [mark.job_id for mark in watched.ended[0].marks]
    assert "succeeded" == (await job_row(store, first.id)).state


async def test_a_mark_that_comes_too_late_is_told(
    committer: Committer, store: Store, seen: list[Observation]
) -> None:
    """A fenced mark is an observation, once, and is not tried again."""
    [job] = await commit_leased(store, new_event())
    await store.commit(Batch(marks=[released(job, NOON)]))
    committer.mark(completed(job))

    await until(lambda: bool(seen))
    await committer.deliver(new_event("evt_1"))
    assert [Fenced(1)] == [each for each in seen if isinstance(each, Fenced)]


# A failing database


async def test_a_failing_database_fails_those_who_wait(
    committer: Committer, watched: Watched, store: Store
) -> None:
    """All deliveries of a failed commit are told so, and later ones succeed."""
    watched.gate.clear()
    waiting = [committer.deliver(delivery) for delivery in many(0, 5)]
    watched.error = StoreUnavailable("disk full")
    watched.gate.set()

    assert ["StoreUnavailable"] * 5 == await outcomes(waiting)
    assert committer.failing is True
    watched.error = None
    assert "new" == await committer.deliver(new_event("evt_0"))
    assert ["evt_0"] == [row.id for row in await all_rows(store, events)]


async def test_a_failing_database_is_tried_again_without_deliveries(
    committer: Committer, watched: Watched
) -> None:
    """Readiness comes back by itself once the database works, without a delivery."""
    watched.error = StoreUnavailable("down")
    assert ["StoreUnavailable"] == await outcomes([committer.deliver(new_event())])
    await until(lambda: len(watched.begun) >= 3)
    assert committer.failing is True
    watched.error = None

    await until(lambda: not committer.failing)


async def test_a_bug_in_the_store_does_not_end_the_committer(
    committer: Committer, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that no store should raise is logged, told as unavailable, and survived."""
    watched.error = ZeroDivisionError("a bug")

    with caplog.at_level(logging.ERROR, "animica_hooks"):
        assert ["StoreUnavailable"] == await outcomes([committer.deliver(new_event())])

    assert "failed unexpectedly" in caplog.text
    watched.error = None
    assert "new" == await committer.deliver(new_event())


# Overload


async def test_too_many_waiting_deliveries_are_refused_at_once(
    watched: Watched, worker: Taken, seen: list[Observation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound a delivery is refused without waiting, until there is room again."""
    monkeypatch.setattr(admission, "MAX_WAITING", 3)
    async with running(watched, worker, seen) as committer:
        watched.gate.clear()
        waiting = [committer.deliver(new_event("evt_committing"))]
        await until(lambda: len(watched.begun) == 1)
        waiting += [committer.deliver(delivery) for delivery in many(0, 3)]

        with pytest.raises(StoreUnavailable):
            committer.deliver(new_event("evt_too_many"))

        watched.gate.set()
        assert ["new"] * 4 == await outcomes(waiting)
        assert "new" == await committer.deliver(new_event("evt_too_many"))


async def test_too_many_waiting_bytes_are_refused_at_once(
    committer: Committer, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large bodies count by their size, so that a queue can not fill the memory."""
    monkeypatch.setattr(committer_module, "MAX_WAITING_BYTES", 1000)
    watched.gate.clear()
    waiting = [committer.deliver(new_event("evt_committing", body=b"x" * 900))]
    await until(lambda: len(watched.begun) == 1)
    waiting.append(committer.deliver(new_event("evt_waiting", body=b"x" * 900)))

    with pytest.raises(StoreUnavailable):
        committer.deliver(new_event("evt_large", body=b"x" * 101))
    waiting.append(committer.deliver(new_event("evt_small", body=b"x" * 100)))

    watched.gate.set()
    assert ["new"] * 3 == await outcomes(waiting)
    assert "new" == await committer.deliver(new_event("evt_large", body=b"x" * 1000))


# Jobs


async def test_fresh_jobs_go_to_the_worker_that_has_room(
    committer: Committer, worker: Taken, store: Store
) -> None:
    """With the commit of their event jobs are leased here, as many as there is room for."""
    worker.room = 2
    await committer.deliver(new_event("evt_0", handlers=(1, 2, 3)))
    worker.room = 0
    await committer.deliver(new_event("evt_1", handlers=(1,)))
    await committer.deliver(new_event("evt_2", handlers=()))

    assert [(2, True), (0, True)] == [(len(jobs), waiting) for jobs, waiting in worker.calls]
    assert [1, 2] == [job.handler_id for job in worker.jobs]


async def test_a_claim_rides_along(committer: Committer, watched: Watched, store: Store) -> None:
    """A claim is one more thing that a batch does, and leaves room for what it asks for."""
    await store.commit(Batch(deliveries=many(0, 3)))

    claimed = await committer.claim(2, [Claimant(1)])

    assert ["evt_0", "evt_1"] == [job.event.id for job in claimed]
    assert 1 == len(watched.ended)


async def test_a_claim_and_fresh_jobs_share_the_room(
    committer: Committer, watched: Watched, worker: Taken, store: Store
) -> None:
    """A process is never given more jobs than it has room for, claimed and fresh together."""
    await store.commit(Batch(deliveries=many(0, 3)))
    worker.room = 4

    claiming = asyncio.ensure_future(committer.claim(3, [Claimant(1)]))
    await asyncio.sleep(0)
    delivered = [committer.deliver(new_event(f"evt_new_{n}")) for n in range(3)]
    claimed = await claiming
    await outcomes(delivered)

    assert [3] == [len(batch.deliveries) for batch in watched.ended]
    assert 3 == len(claimed)
    assert 1 == len(worker.jobs)


async def test_a_claim_that_fails_says_so(committer: Committer, watched: Watched) -> None:
    """Whoever asked for jobs is told that the database did not give any."""
    watched.error = StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        await committer.claim(2, [Claimant(1)])


async def test_jobs_claimed_for_somebody_who_is_gone_are_handed_on(
    committer: Committer, watched: Watched, worker: Taken, store: Store
) -> None:
    """A claim that is cancelled during its commit does not leave jobs leased to nobody."""
    await store.commit(Batch(deliveries=many(0, 2)))
    watched.gate.clear()
    claiming = asyncio.ensure_future(committer.claim(2, [Claimant(1)]))
    await until(lambda: len(watched.begun) == 1)
    claiming.cancel()
    watched.gate.set()

    await until(lambda: bool(worker.calls))
    assert ["evt_0", "evt_1"] == [job.event.id for job in worker.jobs]


async def test_a_claim_cancelled_at_its_end_is_handed_on_too(
    committer: Committer, watched: Watched, worker: Taken, store: Store
) -> None:
    """Nor does one that is cancelled when the jobs are claimed, but not yet handed over."""
    await store.commit(Batch(deliveries=many(0, 2)))
    claiming = asyncio.ensure_future(committer.claim(2, [Claimant(1)]))
    loop = asyncio.get_running_loop()
    watched.before_end = lambda: loop.call_soon(claiming.cancel)

    [ended] = await asyncio.gather(claiming, return_exceptions=True)

    got = worker.jobs if isinstance(ended, BaseException) else ended
    assert ["evt_0", "evt_1"] == [job.event.id for job in got]


# Telling


async def test_what_was_stored_is_told_once_a_batch(
    committer: Committer, watched: Watched, seen: list[Observation]
) -> None:
    """Observers hear of a batch, with its receipts counted, and not of each delivery."""
    watched.gate.clear()
    first = committer.deliver(new_event("evt_0"))
    await until(lambda: len(watched.begun) == 1)
    rest: list[Any] = [
        new_event("evt_1"),
        new_event("evt_1"),
        new_event("evt_1", body=b"other"),
        unusable(),
    ]
    waiting = [committer.deliver(delivery) for delivery in rest]
    watched.gate.set()
    await outcomes([first, *waiting])

    stored = [dict(each.receipts) for each in seen if isinstance(each, Stored)]
    assert [{"new": 1}, {"new": 1, "duplicate": 1, "conflict": 1, "quarantined": 1}] == stored


async def test_a_slow_writer_is_named_once(
    committer: Committer, watched: Watched, seen: list[Observation]
) -> None:
    """Who sits on the write slot while deliveries wait is named, once for each time."""

    def named() -> list[str]:
        return [each.holder for each in seen if isinstance(each, SlowWriter)]

    watched.gate.clear()
    waiting = [committer.deliver(new_event())]
    watched.writer = ("orders.sync", asyncio.get_running_loop().time() - 0.9)
    await until(lambda: bool(named()))
    looks = watched.looks
    await until(lambda: watched.looks >= looks + 3)

    assert ["orders.sync"] == named()
    watched.gate.set()
    await outcomes(waiting)


# Closing


async def test_closing_commits_what_waits(
    watched: Watched, worker: Taken, seen: list[Observation], store: Store
) -> None:
    """Deliveries and marks that wait at the end are on disk when close returns."""
    [job] = await commit_leased(store, new_event("evt_0"))
    async with running(watched, worker, seen) as committer:
        waiting = [committer.deliver(delivery) for delivery in many(1, 400)]
        committer.mark(completed(job))

    assert ["new"] * 399 == await outcomes(waiting)
    assert "succeeded" == (await job_row(store, job.id)).state
    with pytest.raises(StoreUnavailable):
        committer.deliver(new_event("evt_late"))


async def test_a_refusing_committer_still_commits_what_it_has(
    committer: Committer, watched: Watched
) -> None:
    """While draining no delivery is taken, and those taken before are finished."""
    watched.gate.clear()
    taken = committer.deliver(new_event())
    committer.refuse()

    with pytest.raises(StoreUnavailable):
        committer.deliver(new_event("evt_late"))
    watched.gate.set()
    assert "new" == await taken


async def test_closing_ends_though_the_database_fails(
    watched: Watched, worker: Taken, seen: list[Observation], store: Store
) -> None:
    """A database that is down at the end does not keep the process: leases run out instead."""
    [job] = await commit_leased(store, new_event("evt_0"))
    async with running(watched, worker, seen) as committer:
        watched.error = StoreUnavailable("down")
        committer.mark(completed(job))
        waiting = [committer.deliver(new_event("evt_1"))]

    assert ["StoreUnavailable"] == await outcomes(waiting)
    assert "leased" == (await job_row(store, job.id)).state
    assert [] == await claim(store)


async def test_closing_answers_all_though_a_handler_keeps_the_database(
    watched: Watched, worker: Taken, seen: list[Observation]
) -> None:
    """Where the commit is given up, so are the requests that wait for it and for the next."""
    async with running(watched, worker, seen) as committer:
        watched.gate.clear()
        waiting = [committer.deliver(new_event("evt_1"))]
        await until(lambda: bool(watched.begun))
        waiting.append(committer.deliver(new_event("evt_2")))
        watched.writer = ("handler", asyncio.get_running_loop().time() - 60)
        await committer.close()
        assert ["StoreUnavailable"] * 2 == await outcomes(waiting)


async def test_a_worker_that_raises_does_not_end_the_committer(
    committer: Committer, worker: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows a commit may fail; the deliveries after it are committed all the same."""

    def fail(self: Taken, jobs: list[LeasedJob], waiting: bool) -> None:
        raise RuntimeError

    monkeypatch.setattr(Taken, "__call__", fail)
    worker.room = 1
    assert "new" == await committer.deliver(new_event("evt_1"))
    assert "new" == await committer.deliver(new_event("evt_2"))
