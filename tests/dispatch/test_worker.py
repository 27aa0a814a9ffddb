"""The worker: what it runs, when, how much at once, and what it lets go in the end."""

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from databases import on_every_database
from dispatchkit import (
    FULL,
    PATIENCE_S,
    Bench,
    MakeBench,
    numbered,
    until,
)
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from animica_hooks import Event, RetryPolicy, Router
from animica_hooks.dispatch import worker as worker_module
from animica_hooks.dispatch.slots import HELD_PER_SLOT
from animica_hooks.errors import StoreUnavailable
from animica_hooks.store import inbox
from animica_hooks.store.records import Batch, ExpiredLease

pytestmark = [pytest.mark.usefixtures("no_poll"), on_every_database]


# Promptly


async def test_a_fresh_event_is_handled_at_once(start_bench: MakeBench, router: Router) -> None:
    """A new event is handled with the commit that stored it: nobody waits for a poll."""
    ran: list[str] = []

    @router.on("*", name="coroutine")
    async def coroutine(event: Event) -> None:
        ran.append(event.id)

    @router.on("*", name="plain")
    def plain(event: Event) -> None:
        ran.append(event.id)

    bench = await start_bench(router)
    await bench.idle()
    looks = bench.looks
    await bench.deliver("evt_1")
    await until(lambda: ["evt_1", "evt_1"] == ran)
    await bench.deliver("evt_2")
    await until(lambda: 4 == len(ran))

    assert looks == bench.looks


async def test_what_waits_at_the_start_is_handled_at_once(
    start_bench: MakeBench, router: Router
) -> None:
    """A worker that starts finds what was stored before it."""
    ran: list[str] = []

    @router.on("*", name="late")
    async def late(event: Event) -> None:
        ran.append(event.id)

    first = await start_bench(router, concurrency=1)
    await stored_without_running(first, 30)
    second = await start_bench(router, owner="second")

    await until(lambda: 30 == len(ran))
    await second.settled()
    assert sorted(numbered(30)) == sorted(ran)


async def stored_without_running(bench: Bench, count: int) -> None:
    """Stop a bench's worker and store events with their jobs beside it."""
    await bench.worker.drain(0.1)
    await bench.store.commit(Batch(deliveries=[bench.new(id) for id in numbered(count)]))


async def test_fresh_events_leave_room_for_older_ones(
    start_bench: MakeBench, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a worker does not know what waits, half of what it may hold is kept for that."""
    ran: list[str] = []

    @router.on("*", name="one")
    async def one(event: Event) -> None:
        ran.append(event.id)

    first = await start_bench(router)
    await stored_without_running(first, 3)
    may_look = asyncio.Event()
    expired_leases = inbox.expired_leases

    async def held_up(
        connection: AsyncConnection, handler_ids: Sequence[int], now: int
    ) -> Sequence[ExpiredLease]:
        await may_look.wait()
        return await expired_leases(connection, handler_ids, now)

    with monkeypatch.context() as patched:
        patched.setattr(inbox, "expired_leases", held_up)
        second = await start_bench(router, owner="second", concurrency=1)
        fresh = [f"evt_fresh_{number}" for number in range(HELD_PER_SLOT)]
        committed = await second.store.commit(
            Batch(deliveries=[second.new(id) for id in fresh], room=second.worker.room())
        )
        assert HELD_PER_SLOT // 2 == len(committed.leased)
        second.worker.accept(committed.leased, waiting=True)
        may_look.set()
        await second.settled()

    assert {*numbered(3), *fresh} == set(ran)


async def test_a_backlog_larger_than_the_room_is_worked_off(
    start_bench: MakeBench, router: Router
) -> None:
    """More events than the process may hold are all handled, once each, without polls."""
    ran: Counter[tuple[str, str]] = Counter()

    @router.on("*", name="coroutine")
    async def coroutine(event: Event) -> None:
        await asyncio.sleep(0)
        ran["coroutine", event.id] += 1

    @router.on("*", name="plain")
    def plain(event: Event) -> None:
        ran["plain", event.id] += 1

    bench = await start_bench(router, concurrency=2, threads=1)
    await bench.deliver(*numbered(300))
    assert bench.worker.slots.held <= bench.worker.slots.capacity == 16
    await bench.settled()

    assert 600 == len(ran)
    assert {1} == set(ran.values())
    assert 600 == await bench.count("succeeded")


async def test_a_backlog_is_claimed_without_a_look_each_time(
    start_bench: MakeBench, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as claims bring jobs the worker relies on what its last look has found."""
    ran: list[str] = []

    @router.on("*", name="one")
    async def one(event: Event) -> None:
        ran.append(event.id)

    monkeypatch.setattr(worker_module, "_RELY_S", 600.0)
    first = await start_bench(router)
    await stored_without_running(first, 200)
    second = await start_bench(router, owner="second", concurrency=1)
    await second.settled()

    assert sorted(numbered(200)) == sorted(ran)
    assert second.looks < 200 / second.worker.slots.capacity / 2


async def test_jobs_that_nobody_tells_of_are_looked_for_more_often_while_there_are_some(
    start_bench: MakeBench, router: Router, no_poll: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that passes nothing on costs a part of a poll, where there was traffic."""
    ran: list[str] = []

    @router.on("*", name="one")
    async def one(event: Event) -> None:
        ran.append(event.id)

    bench = await start_bench(router)
    monkeypatch.setattr(bench.store, "hears", False)
    await bench.idle()
    await bench.store.commit(Batch(deliveries=[bench.new("evt_1")]))
    bench.worker.wake()
    await until(lambda: ["evt_1"] == ran)
    await bench.idle()
    await bench.store.commit(Batch(deliveries=[bench.new("evt_2")]))

    await until(lambda: ["evt_1", "evt_2"] == ran)


@pytest.mark.parametrize(
    "delay",
    [
        0.1,
        0.0,
    ],
)
async def test_a_retry_comes_when_it_is_due(
    start_bench: MakeBench, router: Router, delay: float
) -> None:
    """A short delay is not rounded up to a poll: the worker wakes for it."""
    attempts: list[float] = []
    policy = RetryPolicy(max_attempts=3, base=delay, factor=1, jitter=False)

    @router.on("*", name="bad", retry=policy)
    async def bad(event: Event) -> None:
        attempts.append(time.monotonic())
        raise ValueError

    bench = await start_bench(router)
    await bench.idle()
    await bench.deliver("evt_1")
    async with asyncio.timeout(3):
        await bench.settled()

    first, second, third = attempts
    assert second - first >= delay
    assert third - second >= delay


# Many at once


async def test_nothing_vanishes_under_garbage_collection(
    start_bench: MakeBench, router: Router
) -> None:
    """However often objects are collected, every job that began also ends."""
    ran: Counter[str] = Counter()

    @router.on("*", name="coroutine")
    async def coroutine(event: Event) -> None:
        await asyncio.sleep(0.001)
        ran["coroutine"] += 1

    @router.on("*", name="session")
    async def session(event: Event, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        ran["session"] += 1

    @router.on("*", name="plain")
    def plain(event: Event) -> None:
        ran["plain"] += 1

    bench = await start_bench(router)
    events = 2000 if FULL else 200

    async def collect() -> None:
        while True:
            gc.collect()
            await asyncio.sleep(0.01)

    gc.freeze()  # what was there before is not looked at, so that collecting is quick
    collecting = asyncio.create_task(collect())
    await bench.deliver(*numbered(events))
    await bench.settled()
    collecting.cancel()
    gc.unfreeze()

    assert {"coroutine": events, "session": events, "plain": events} == ran
    assert 3 * events == await bench.count("succeeded")


async def test_effects_commit_with_their_jobs(start_bench: MakeBench, router: Router) -> None:
    """Every event leaves its one effect, written by coroutines and plain functions alike."""

    @router.on("*", name="coroutine")
    async def coroutine(event: Event, session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO effects VALUES ('c', :id)"), {"id": event.id})

    @router.on("*", name="plain")
    def plain(event: Event, session: Session) -> None:
        session.execute(text("INSERT INTO effects VALUES ('p', :id)"), {"id": event.id})

    bench = await start_bench(router)
    async with bench.store.write("test") as connection:
        await connection.exec_driver_sql("CREATE TABLE effects (handler TEXT, id TEXT)")
    await bench.deliver(*numbered(100))
    await bench.settled()

    async with bench.store.read() as connection:
        effects = (await connection.exec_driver_sql("SELECT handler, id FROM effects")).all()
    expected = [(handler, id) for handler in "cp" for id in numbered(100)]
    assert expected == sorted(tuple(row) for row in effects)
    assert 200 == await bench.count("succeeded")


# Trouble with the database


async def test_a_worker_outlives_errors_of_the_database(
    start_bench: MakeBench, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When looking for jobs fails, the worker tries again."""

    @router.on("*", name="good")
    async def good(event: Event) -> None: ...

    bench = await start_bench(router)
    await bench.idle()
    failed = 0

    def failing() -> Any:
        nonlocal failed
        failed += 1
        raise StoreUnavailable("down") if failed < 3 else ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(bench.worker._store, "read", failing)
        for times in (1, 2, 3):
            bench.worker.wake()
            await until(lambda times=times: failed >= times)  # type: ignore[misc]
    await bench.store.commit(Batch(deliveries=[bench.new("evt_1")]))
    bench.worker.wake()

    await until(lambda: succeeded(bench, 1))


async def succeeded(bench: Bench, count: int) -> bool:
    return count == await bench.count("succeeded")


async def test_a_job_that_ended_while_the_database_was_away_ran_once(
    start_bench: MakeBench, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mark is kept, and written when the database is back."""
    ran: list[str] = []

    @router.on("*", name="good")
    async def good(event: Event) -> None:
        ran.append(event.id)

    bench = await start_bench(router)
    commit = bench.store.commit
    failed = 0

    async def failing(batch: Batch) -> Any:
        nonlocal failed
        if batch.marks and failed < 3:
            failed += 1
            raise StoreUnavailable("down")
        return await commit(batch)

    monkeypatch.setattr(bench.store, "commit", failing)
    await bench.deliver("evt_1")
    await bench.settled()

    assert 3 == failed
    assert ["evt_1"] == ran
    assert "succeeded" == (await bench.job()).state


async def test_jobs_of_handlers_that_are_not_here_wait(
    start_bench: MakeBench, router: Router
) -> None:
    """A process leaves the jobs of handlers it does not have to those that have them."""
    elsewhere = Router()

    @elsewhere.on("*", name="elsewhere")
    async def far(event: Event) -> None: ...

    @router.on("*", name="here")
    async def here(event: Event) -> None: ...

    other = await start_bench(elsewhere, owner="other")
    await stored_without_running(other, 1)
    bench = await start_bench(router)
    await bench.deliver("evt_1")
    await bench.idle()

    states = {job.handler: job.state for job in await bench.jobs()}
    assert {"elsewhere": "available", "here": "succeeded"} == states


# Letting go


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Set, it lets the hanging threads of a test go."""
    release = threading.Event()
    yield release
    release.set()


async def given_back(bench: Bench) -> list[str]:
    """Return the events whose jobs can run elsewhere at once, as if they had never been begun."""
    jobs = await bench.jobs(states=["available"])
    for job in jobs:
        assert (0, 0, None, None) == (job.attempts, job.failed, job.leased_by, job.reason)
        assert job.due_at is not None
        assert job.due_at.timestamp() <= time.time()
    async with bench.store.read() as connection:
        orphans = await connection.exec_driver_sql("SELECT sum(orphaned) FROM hooks_jobs")
        assert 0 == orphans.scalar()
    return [job.event_id for job in jobs]


async def drain(bench: Bench, seconds: float) -> float:
    """Let a worker drain and its marks be written; return how long it took."""
    began = time.monotonic()
    await bench.worker.drain(seconds)
    await bench.committer.close()
    return time.monotonic() - began


async def test_draining_lets_what_runs_end_and_gives_the_rest_back(
    start_bench: MakeBench, router: Router
) -> None:
    """At a shutdown what has begun may end; what has not is free for others, uncounted."""
    ran: list[str] = []
    go_on = asyncio.Event()

    @router.on("*", name="slow")
    async def slow(event: Event) -> None:
        ran.append(event.id)
        await go_on.wait()

    bench = await start_bench(router, concurrency=1)
    await bench.deliver(*numbered(5))
    await until(lambda: bool(ran))
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    took = await drain(bench, PATIENCE_S)

    assert took < PATIENCE_S / 2
    assert ["evt_0000"] == ran
    assert ["evt_0000"] == [job.event_id for job in await bench.jobs(states=["succeeded"])]
    assert [f"evt_{n:04}" for n in range(1, 5)] == await given_back(bench)


async def test_nothing_begins_while_a_shutdown_waits_for_a_look(
    start_bench: MakeBench, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the database takes for the last look, what has not begun does not begin."""
    ran: list[str] = []
    go_on, looking, may_look = asyncio.Event(), asyncio.Event(), asyncio.Event()
    expired_leases = inbox.expired_leases

    @router.on("*", name="slow")
    async def slow(event: Event) -> None:
        ran.append(event.id)
        await go_on.wait()

    async def held_up(
        connection: AsyncConnection, handler_ids: Sequence[int], now: int
    ) -> Sequence[ExpiredLease]:
        looking.set()
        await may_look.wait()
        return await expired_leases(connection, handler_ids, now)

    bench = await start_bench(router, concurrency=1)
    await bench.idle()
    await bench.deliver(*numbered(5))
    await until(lambda: bool(ran))
    monkeypatch.setattr(inbox, "expired_leases", held_up)
    bench.worker.wake()
    await looking.wait()
    go_on.set()
    asyncio.get_running_loop().call_later(0.2, may_look.set)
    await drain(bench, PATIENCE_S)

    assert ["evt_0000"] == ran
    assert [f"evt_{n:04}" for n in range(1, 5)] == await given_back(bench)


async def test_draining_gives_back_queued_plain_functions(
    start_bench: MakeBench, router: Router, release: threading.Event
) -> None:
    """The same where threads are what is short."""
    began: list[str] = []

    @router.on("*", name="plain")
    def plain(event: Event) -> None:
        began.append(event.id)
        release.wait(PATIENCE_S)

    bench = await start_bench(router, threads=2)
    await bench.deliver(*numbered(5))
    await until(lambda: 2 == len(began))
    asyncio.get_running_loop().call_later(0.05, release.set)
    await drain(bench, PATIENCE_S)

    assert 2 == await bench.count("succeeded")
    assert [f"evt_{n:04}" for n in range(2, 5)] == await given_back(bench)


async def test_a_coroutine_that_takes_too_long_is_broken_off_uncounted(
    start_bench: MakeBench, router: Router
) -> None:
    """Past the time for the shutdown a handler is cancelled, and its job is as if never begun."""
    cancelled: list[str] = []

    @router.on("*", name="slow")
    async def slow(event: Event, session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO effects VALUES (1)"))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(event.id)
            raise

    bench = await start_bench(router)
    async with bench.store.write("test") as connection:
        await connection.execute(text("CREATE TABLE effects (x INTEGER)"))
    await bench.deliver("evt_1")
    await bench.idle()
    took = await drain(bench, 0.1)

    assert took < 5
    assert ["evt_1"] == cancelled
    assert ["evt_1"] == await given_back(bench)
    async with bench.store.read() as connection:
        assert 0 == await connection.scalar(text("SELECT count(*) FROM effects"))


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_a_handler_that_can_not_be_stopped_does_not_keep_the_process(
    start_bench: MakeBench, router: Router, release: threading.Event, kind: str
) -> None:
    """A stuck thread, or a coroutine that swallows its cancellation, is left behind uncounted."""
    stop = asyncio.Event()

    async def coroutine(event: Event) -> None:
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                pass

    def plain(event: Event) -> None:
        release.wait(PATIENCE_S)

    router.on("*", name="stuck")(coroutine if kind == "coroutine" else plain)
    bench = await start_bench(router)
    await bench.deliver("evt_1")
    await until(lambda: bench.worker.slots.held == 1)
    await bench.idle()
    took = await drain(bench, 0.1)
    stop.set()

    assert took < 5
    assert ["evt_1"] == await given_back(bench)


def slow_commits(monkeypatch: pytest.MonkeyPatch, seconds: float) -> asyncio.Event:
    """Make what handlers write take so long to commit; the event is set when one has returned."""
    returned = asyncio.Event()
    run_sync = AsyncSession.run_sync

    async def slow_to_commit(self: AsyncSession, *arguments: Any, **options: Any) -> Any:
        returned.set()
        await asyncio.sleep(seconds)
        return await run_sync(self, *arguments, **options)

    monkeypatch.setattr(AsyncSession, "run_sync", slow_to_commit)
    return returned


async def test_a_commit_under_way_is_not_broken_off(
    start_bench: MakeBench, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that has returned is waited for while its effects are written, not cancelled."""

    @router.on("*", name="writes")
    async def writes(event: Event, session: AsyncSession) -> None:
        await session.execute(text("CREATE TABLE effects (x INTEGER)"))

    bench = await start_bench(router)
    committing = slow_commits(monkeypatch, 0.3)
    await bench.deliver("evt_1")
    await asyncio.wait_for(committing.wait(), PATIENCE_S)
    await drain(bench, 0.01)

    assert "succeeded" == (await bench.job()).state


async def test_a_timeout_is_the_handlers_and_not_its_commits(
    start_bench: MakeBench, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that returned in time has succeeded, however long its commit takes."""

    @router.on("*", name="writes", timeout=4.0, retry=RetryPolicy(max_attempts=1))
    async def writes(event: Event, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))

    bench = await start_bench(router)
    slow_commits(monkeypatch, 4.2)
    await bench.deliver("evt_1")
    await bench.settled()

    job = await bench.job()
    assert ("succeeded", []) == (job.state, await bench.failures(job.id))


async def test_what_was_given_back_runs_elsewhere_at_once(
    start_bench: MakeBench, router: Router
) -> None:
    """After a deploy the next process begins with what the last one had not."""
    ran: list[str] = []
    blocked = asyncio.Event()

    @router.on("*", name="slow")
    async def slow(event: Event) -> None:
        ran.append(event.id)
        if len(ran) == 1:
            await blocked.wait()

    first = await start_bench(router, concurrency=1)
    await first.deliver(*numbered(3))
    await until(lambda: len(ran) == 1)
    await drain(first, 0.05)
    second = await start_bench(router, owner="second")
    await second.settled()

    assert ["evt_0000", *numbered(3)] == [ran[0], *sorted(ran[1:])]
    assert 3 == await second.count("succeeded")


async def test_handlers_that_hold_sessions_keep_nobody_waiting(
    start_bench: MakeBench, router: Router
) -> None:
    """Their connections are their own: what is received is stored, and can be looked at."""
    begun: list[str] = []
    go_on = asyncio.Event()

    @router.on("*", name="holds")
    async def holds(event: Event, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        begun.append(event.id)
        await go_on.wait()

    bench = await start_bench(router, concurrency=8)
    await bench.deliver(*numbered(8))
    await until(lambda: len(begun) == 8)
    async with asyncio.timeout(PATIENCE_S):
        await bench.deliver("evt_more")
        assert 9 == len(await bench.jobs())
    go_on.set()
    await bench.settled()
