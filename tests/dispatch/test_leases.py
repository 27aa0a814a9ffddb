"""Leases: kept while a handler runs, and what becomes of the jobs of a process that has died."""

import asyncio
import logging
from collections import Counter

import pytest
from databases import on_every_database
from dispatchkit import NOON, Bench, Clock, MakeBench, numbered, until
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from animica_hooks import Event, RetryPolicy, Router
from animica_hooks.core.fair import Claimant
from animica_hooks.core.job import Verb
from animica_hooks.core.outcome import SECOND, Transition, from_micros
from animica_hooks.store.records import Batch, LeasedJob, Mark

pytestmark = [pytest.mark.usefixtures("quick_poll"), on_every_database]


async def leave_behind(bench: Bench, *ids: str) -> list[LeasedJob]:
    """Store events whose jobs are leased to a process that is gone in the same moment."""
    batch = Batch(deliveries=[bench.new(id) for id in ids], room=100)
    return (await bench.store.commit(batch)).leased


async def test_a_handler_longer_than_its_lease_runs_once(
    start_bench: MakeBench, router: Router
) -> None:
    """The lease of a running job, and of one that waits for its slot, is renewed in time."""
    ran: list[str] = []

    @router.on("*", name="long")
    async def long(event: Event) -> None:
        ran.append(event.id)
        await asyncio.sleep(3.0)

    first = await start_bench(router, concurrency=1, lease_s=1.2)
    await first.deliver("evt_1", "evt_2")
    await until(lambda: bool(ran))
    second = await start_bench(router, owner="second", lease_s=1.2)
    await second.settled()

    assert ["evt_1", "evt_2"] == sorted(ran)
    assert {"complete": 2} == attempts(first)
    assert {} == attempts(second)


def attempts(bench: Bench) -> dict[str, int]:
    """Return how attempts ended, by how many."""
    counted = bench.counters.counts.items()
    return {name[9:]: count for name, count in counted if name.startswith("attempts.")}


async def test_a_renewal_of_what_has_just_ended_is_no_alarm(
    start_bench: MakeBench, router: Router
) -> None:
    """Where every job ends under its own lease nobody is told that something came too late."""

    @router.on("*", name="short")
    async def short(event: Event) -> None:
        await asyncio.sleep(0.01)

    @router.on("*", name="writes")
    async def writes(event: Event, session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO effects VALUES (:id)"), {"id": event.id})

    async def beat_all_the_time() -> None:
        while True:
            bench.worker._heartbeat.wake()
            await asyncio.sleep(0.005)

    bench = await start_bench(router, concurrency=4)
    async with bench.store.write("test") as connection:
        await connection.exec_driver_sql("CREATE TABLE effects (id TEXT)")
    beating = asyncio.create_task(beat_all_the_time())
    await bench.deliver(*numbered(150))
    await bench.settled()
    beating.cancel()

    assert {"complete": 300} == attempts(bench)
    assert 0 == bench.counters.counts["fenced"]


async def test_a_process_that_was_only_late_keeps_its_jobs(
    start_bench: MakeBench, router: Router, clock: Clock
) -> None:
    """A lease that ran out while its holder is well is renewed by the holder, not given back."""
    ran: list[str] = []
    go_on = asyncio.Event()

    @router.on("*", name="slow")
    async def slow(event: Event) -> None:
        ran.append(event.id)
        await go_on.wait()

    bench = await start_bench(router, clock=clock)
    await bench.deliver("evt_1")
    await until(lambda: bool(ran))
    clock.advance(31)
    until_then = from_micros(NOON + 61 * SECOND)

    async def renewed() -> bool:
        return (await bench.job()).due_at == until_then

    async with asyncio.timeout(5):  # the next heartbeat is later
        await until(renewed)
    go_on.set()
    await bench.settled()

    job = await bench.job()
    assert ["evt_1"] == ran
    assert ("succeeded", 1, 0) == (job.state, job.attempts, job.failed)


async def test_the_jobs_of_a_dead_process_run_again(
    start_bench: MakeBench, router: Router, clock: Clock
) -> None:
    """When their lease has run out they are given back uncounted, and run; not before."""
    ran: list[str] = []

    @router.on("*", name="one")
    async def one(event: Event) -> None:
        ran.append(event.id)

    bench = await start_bench(router, clock=clock)
    await leave_behind(bench, *numbered(3))
    clock.advance(29.9)
    await bench.looked()
    assert [] == ran
    clock.advance(0.1)
    await bench.settled()

    assert [*numbered(3)] == ran
    assert [("succeeded", 1, 0)] * 3 == [
        (job.state, job.attempts, job.failed) for job in await bench.jobs()
    ]
    assert [] == [f for job in await bench.jobs() for f in await bench.failures(job.id)]


async def test_orphans_run_alone(start_bench: MakeBench, router: Router, clock: Clock) -> None:
    """While a job runs whose process died, nothing else does, and others go on afterwards."""
    running: list[str] = []
    beside: dict[str, list[str]] = {}

    @router.on("*", name="one")
    async def one(event: Event) -> None:
        running.append(event.id)
        for _ in range(5):
            await asyncio.sleep(0.002)
            beside.setdefault(event.id, []).extend(running)
        running.remove(event.id)

    bench = await start_bench(router, clock=clock)
    await leave_behind(bench, "orphan_1", "orphan_2")
    clock.advance(31)
    for id in numbered(20):
        await bench.deliver(id)
    await bench.settled()

    assert {"orphan_1"} == set(beside["orphan_1"])
    assert {"orphan_2"} == set(beside["orphan_2"])
    assert 22 == await bench.count("succeeded")
    assert max(len(set(beside[id])) for id in numbered(20)) > 1


async def test_an_orphan_does_not_stop_the_others(
    start_bench: MakeBench, router: Router, clock: Clock
) -> None:
    """While an orphan waits for a long handler to end, so that it runs alone, others begin."""
    ran: list[str] = []
    release = asyncio.Event()

    @router.on("long.*", name="long")
    async def long(event: Event) -> None:
        ran.append(event.id)
        await release.wait()

    @router.on("order.*", name="short")
    async def short(event: Event) -> None:
        ran.append(event.id)

    bench = await start_bench(router, clock=clock)
    await leave_behind(bench, "evt_orphan")
    await bench.deliver("evt_long", type="long.one")
    await until(lambda: ["evt_long"] == ran)
    clock.advance(31)
    await bench.idle()
    await bench.deliver("evt_fresh")
    try:
        async with asyncio.timeout(2):
            await until(lambda: "evt_fresh" in ran)
    finally:
        release.set()
    await bench.settled()


async def died_alone(bench: Bench, clock: Clock) -> None:
    """Leave a job behind whose second process died of it, too, when it ran alone."""
    [job] = await leave_behind(bench, "evt_bad")
    released = Transition(Verb.RELEASE, clock(), attempts=0, failed=0, orphaned=True)
    await bench.store.commit(Batch(marks=[Mark(job.id, job.fence, 1, released)]))
    claim = Batch(claim=1, claim_for=[Claimant(job.handler_id)], claim_orphans=True)
    assert 1 == len((await bench.store.commit(claim)).claimed)


@pytest.mark.parametrize("most", [1, 2])
async def test_a_job_that_kills_its_process_alone_is_charged(
    start_bench: MakeBench, router: Router, clock: Clock, most: int
) -> None:
    """Only then is it a failed attempt; after the last of these the job is dead as crashed."""
    ran: list[str] = []

    @router.on("*", name="deadly", retry=RetryPolicy(max_attempts=most, base=0))
    async def deadly(event: Event) -> None:
        ran.append(event.id)

    first = await start_bench(router, clock=clock)
    await first.worker.drain(0.1)
    await died_alone(first, clock)
    clock.advance(31)
    second = await start_bench(router, clock=clock, owner="second")
    await second.settled()

    job = await second.job()
    [failure] = await second.failures(job.id)
    assert ("HandlerCrashed", 1) == (failure.error, failure.attempt)
    if most == 1:
        assert ("dead", 1, []) == (job.state, job.attempts, ran)
        assert "crashed (failed attempt 1 of 1)" == job.reason
    else:
        assert ("succeeded", 2, ["evt_bad"]) == (job.state, job.attempts, ran)


@pytest.mark.parametrize(("deaths", "at_once"), [(8, 1), (1, 12)])
async def test_lost_jobs_are_told_of_once(
    start_bench: MakeBench,
    router: Router,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    deaths: int,
    at_once: int,
) -> None:
    """A dead process makes one line, however many jobs it leaves; and no mark comes too late."""

    @router.on("*", name="one")
    async def one(event: Event) -> None: ...

    bench = await start_bench(router, clock=clock)
    expected = []
    with caplog.at_level(logging.WARNING, "animica_hooks"):
        for _ in range(deaths):
            left = await leave_behind(bench, *(f"evt_{len(expected)}_{n}" for n in range(at_once)))
            expected.append(line_of([job.id for job in left]))
            clock.advance(31)
            await bench.settled()

    assert expected == caplog.messages
    assert 0 == bench.counters.counts["fenced"]


def line_of(ids: list[int]) -> str:
    """Return what is logged of a dead process by which so many jobs were lost."""
    if len(ids) == 1:
        return f"job {ids[0]} lost its process: it will run alone"
    first = ", ".join(map(str, ids[:5]))
    return f"{len(ids)} jobs lost their process: each will run alone ({first}, ...)"


async def test_processes_share_the_work(start_bench: MakeBench, router: Router) -> None:
    """Several processes at one database handle each job once, and each of them some."""
    ran: Counter[str] = Counter()

    @router.on("*", name="one")
    async def one(event: Event) -> None:
        ran[event.id] += 1
        await asyncio.sleep(0.005)

    first = await start_bench(router, concurrency=1)
    others = [await start_bench(router, concurrency=1, owner=f"other {n}") for n in range(2)]
    await first.deliver(*numbered(150))
    await first.settled()

    assert 150 == len(ran)
    assert {1} == set(ran.values())
    shares = [attempts(bench)["complete"] for bench in (first, *others)]
    assert 150 == sum(shares)
    assert min(shares) > 0
