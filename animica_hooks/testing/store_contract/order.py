"""What every store promises of order within a key, and of handlers that are limited."""

import pytest

from animica_hooks.core.fair import Claimant
from animica_hooks.core.order import Line, OnDead
from animica_hooks.core.outcome import SECOND
from animica_hooks.store import inbox
from animica_hooks.store.base import Store
from animica_hooks.store.records import Batch, LeasedJob, Mark, NewEvent, NewJob
from animica_hooks.store.tables import jobs
from animica_hooks.testing.store_contract.kit import (
    NOON,
    Clock,
    Opens,
    all_rows,
    buried,
    claim,
    completed,
    handler,
    job_row,
    line,
    new_event,
    released,
    retried,
    states,
    take,
)


def of_line(id: str, in_line: Line) -> NewEvent:
    return new_event(id, handlers=(), others=[NewJob(in_line.handler_id, in_line)])


def ends(mark: Mark, in_line: Line) -> Mark:
    mark.line = in_line
    return mark


async def store_in_line(store: Store, in_line: Line, *ids: str) -> None:
    """Store events of one line, in one batch."""
    committed = await store.commit(Batch(deliveries=[of_line(id, in_line) for id in ids], room=9))
    assert [] == committed.leased
    assert committed.waiting


async def claimed_ids(store: Store, most: int = 100) -> list[str]:
    return [job.event.id for job in await claim(store, most)]


async def test_only_the_first_of_a_line_is_due(store: Store) -> None:
    """Of the jobs of one key one can be claimed; the end of it calls the next."""
    await store_in_line(store, line(), "evt_1", "evt_2")
    await store_in_line(store, line(), "evt_3")

    for id in ("evt_1", "evt_2", "evt_3"):
        job = await take(store)
        assert (id, "k") == (job.event.id, job.ordering_key)
        assert [] == await claimed_ids(store)
        await store.commit(Batch(marks=[ends(completed(job), line())]))
    assert [] == await claimed_ids(store)


async def test_lines_do_not_wait_for_each_other(store: Store) -> None:
    """Other keys, and the same key of another handler, are lines of their own."""
    for in_line in (line("a"), line("b"), line("a", handler=2)):
        await store_in_line(store, in_line, f"evt_{in_line.key}_{in_line.handler_id}")

    assert ["evt_a_1", "evt_b_1"] == await claimed_ids(store)
    assert ["evt_a_2"] == [job.event.id for job in await claim(store, handlers=(2,))]


async def test_a_failed_attempt_keeps_its_place(store: Store, clock: Clock) -> None:
    """Nobody overtakes a job that waits for its next attempt, or that was given back."""
    await store_in_line(store, line(), "evt_1", "evt_2")
    job = await take(store)
    await store.commit(Batch(marks=[ends(retried(job, NOON + 9 * SECOND), line())]))
    assert [] == await claimed_ids(store)
    clock.advance(9)
    job = await take(store)
    await store.commit(Batch(marks=[ends(released(job, clock(), orphaned=True), line())]))
    assert [] == await claimed_ids(store)
    [job] = await claim(store, orphans=True)
    assert "evt_1" == job.event.id


async def test_a_lost_lease_calls_nobody(store: Store) -> None:
    """A mark that comes too late does not let the next one begin."""
    await store_in_line(store, line(), "evt_1", "evt_2")
    job = await take(store)
    await store.commit(Batch(marks=[ends(released(job, NOON), line())]))
    [again] = await claim(store)
    committed = await store.commit(Batch(marks=[ends(completed(job), line())]))
    assert 1 == committed.fenced
    assert [] == await claimed_ids(store)
    assert "evt_1" == again.event.id


@pytest.mark.parametrize(
    ("on_dead", "behind", "later"),
    [
        ("park", ("parked", False), ("parked", False)),
        ("skip", ("available", True), ("available", False)),
        ("block", ("available", False), ("available", False)),
    ],
)
async def test_what_a_dead_job_does_to_those_behind_it(
    store: Store, on_dead: OnDead, behind: tuple[str, bool], later: tuple[str, bool]
) -> None:
    """They are parked, go on, or wait; and so do those that come later."""
    in_line = line(on_dead=on_dead)
    await store_in_line(store, in_line, "evt_1", "evt_2")
    await store.commit(Batch(marks=[ends(buried(await take(store)), in_line)]))
    await store_in_line(store, in_line, "evt_3")

    assert [("dead", False), behind, later] == await states(store)


@pytest.mark.parametrize(
    ("on_dead", "later"),
    [("park", ("parked", False)), ("skip", ("available", True)), ("block", ("available", False))],
)
async def test_a_dead_job_with_nobody_behind_it(
    store: Store, on_dead: OnDead, later: tuple[str, bool]
) -> None:
    """It has its effect on the next one that comes, however late."""
    in_line = line(on_dead=on_dead)
    await store_in_line(store, in_line, "evt_1")
    await store.commit(Batch(marks=[ends(buried(await take(store)), in_line)]))
    await store_in_line(store, in_line, "evt_2")

    assert [("dead", False), later] == await states(store)


async def test_a_line_has_a_pace(store: Store, clock: Clock) -> None:
    """With a rate for each key the next job is due an interval after the end of the last."""
    in_line = line(interval=10)
    await store_in_line(store, in_line, "evt_1", "evt_2")
    await store.commit(Batch(marks=[ends(completed(await take(store)), in_line)]))
    clock.advance(9.9)
    assert [] == await claimed_ids(store)
    clock.advance(0.1)
    await store.commit(Batch(marks=[ends(completed(await take(store)), in_line)]))
    await store_in_line(store, in_line, "evt_3")
    clock.advance(9.9)
    assert [] == await claimed_ids(store)
    clock.advance(0.1)
    assert ["evt_3"] == await claimed_ids(store)


async def test_a_job_that_can_not_be_run_is_dead_from_the_start(store: Store) -> None:
    """Where no key could be made of an event the job is kept, with the reason."""
    unusable = NewJob(1, unusable="key= raised KeyError")
    await store.commit(Batch(deliveries=[new_event(handlers=(2,), others=[unusable])]))

    found = {row.handler_id: row for row in await all_rows(store, jobs)}
    assert ("dead", "key= raised KeyError", NOON) == (
        found[1].state,
        found[1].reason,
        found[1].finished_at,
    )
    assert "available" == found[2].state


async def test_a_handlers_session_calls_the_next(store: Store) -> None:
    """A job that is marked in its handler's own transaction calls the next one, too."""
    await store_in_line(store, line(), "evt_1", "evt_2")
    job = await take(store)
    async with store.session("test") as (session, unit):
        await session.execute(jobs.update().values(reason="touched"))
        assert await session.run_sync(unit.complete, ends(completed(job), line()), NOON)

    assert "succeeded" == (await job_row(store, job.id)).state
    assert ["evt_2"] == await claimed_ids(store)


async def test_a_handlers_session_keeps_the_pace(store: Store, clock: Clock) -> None:
    """The end that a handler's own transaction writes lets the next wait for the interval, too."""
    in_line = line(interval=10)
    await store_in_line(store, in_line, "evt_1", "evt_2")
    job = await take(store)
    async with store.session("test") as (session, unit):
        await session.execute(jobs.update().values(reason="touched"))
        assert await session.run_sync(unit.complete, ends(completed(job), in_line), NOON)

    clock.advance(9.9)
    assert [] == await claimed_ids(store)
    clock.advance(0.1)
    assert ["evt_2"] == await claimed_ids(store)


# Limits


async def registered(store: Store) -> int:
    async with store.write("registration") as connection:
        ids = await inbox.register_handlers(connection, [handler("limited")], NOON)
    return ids["limited"]


async def claim_as(store: Store, claimant: Claimant, most: int = 100) -> list[LeasedJob]:
    return (await store.commit(Batch(claim=most, claim_for=[claimant]))).claimed


async def fill(store: Store, handler_id: int, count: int = 20) -> None:
    new = [new_event(f"evt_{n}", others=[NewJob(handler_id)], handlers=()) for n in range(count)]
    await store.commit(Batch(deliveries=new))


async def test_concurrency_is_of_all_processes(store: Store, open_store: Opens) -> None:
    """What one process has leased, another one may not begin."""
    claimant = Claimant(await registered(store), concurrency=3)
    await fill(store, claimant.handler_id)
    other = await open_store(owner="two")

    held = await claim_as(store, claimant, most=2)
    assert [2, 1, 0] == [
        len(held),
        len(await claim_as(other, claimant)),
        len(await claim_as(store, claimant)),
    ]
    await store.commit(Batch(marks=[completed(held[0])]))
    assert 1 == len(await claim_as(other, claimant))


async def test_a_rate_is_of_all_processes(store: Store, open_store: Opens, clock: Clock) -> None:
    """So many a second are begun, whoever begins them; what was not used does not pile up."""
    claimant = Claimant(await registered(store), rate=4)
    await fill(store, claimant.handler_id)
    other = await open_store(owner="two")

    assert [3, 1, 0] == [
        len(await claim_as(store, claimant, most=3)),
        len(await claim_as(other, claimant)),
        len(await claim_as(store, claimant)),
    ]
    clock.advance(0.5)
    assert 2 == len(await claim_as(other, claimant))
    clock.advance(60)
    assert 4 == len(await claim_as(store, claimant))


async def test_a_slow_rate_lets_one_go_at_last(store: Store, clock: Clock) -> None:
    """A rate below one a second is one job each so many seconds."""
    claimant = Claimant(await registered(store), rate=0.1)
    await fill(store, claimant.handler_id)

    assert 1 == len(await claim_as(store, claimant))
    clock.advance(9)
    assert 0 == len(await claim_as(store, claimant))
    clock.advance(1)
    assert 1 == len(await claim_as(store, claimant))


async def test_priorities_come_first_and_starve_nobody(store: Store) -> None:
    """The higher priority takes nearly all there is room for, the lower ones each a little."""
    for handler_id in (1, 2, 3):
        events = [
            new_event(f"evt_{handler_id}_{n}", handlers=(), others=[NewJob(handler_id)])
            for n in range(20)
        ]
        await store.commit(Batch(deliveries=events))
    claimants = [Claimant(2, priority=5), Claimant(1), Claimant(3)]

    committed = await store.commit(Batch(claim=10, claim_for=claimants))

    taken = [job.handler_id for job in committed.claimed]
    assert [1, 8, 1] == [taken.count(id) for id in (1, 2, 3)]


async def test_paused_handlers_are_not_due(store: Store) -> None:
    """The worker is not told of the jobs of a handler that is paused."""
    id = await registered(store)
    await fill(store, id, 1)
    async with store.read() as connection:
        assert [id] == [due.handler_id for due in await inbox.due(connection, [id])]
    async with store.write("pause") as connection:
        assert await inbox.pause(connection, "limited", NOON)
        assert not await inbox.pause(connection, "unheard of", NOON)
    async with store.read() as connection:
        assert [] == await inbox.due(connection, [id])
        [recorded] = await inbox.recorded_handlers(connection, NOON)
    assert recorded.paused


async def test_a_rate_is_kept_over_seconds(store: Store, open_store: Opens, clock: Clock) -> None:
    """Two processes that ask all the time begin within a fifth of what is allowed."""
    claimant = Claimant(await registered(store), rate=10)
    await fill(store, claimant.handler_id, 300)
    other = await open_store(owner="two")
    await claim_as(store, claimant)  # what may be begun at once at first

    begun = 0
    for _ in range(40):
        clock.advance(0.25)
        begun += len(await claim_as(other, claimant)) + len(await claim_as(store, claimant))
    assert 80 <= begun <= 120


async def test_many_old_jobs_of_one_handler_starve_no_other(store: Store) -> None:
    """A claim has something of each handler whose jobs are due, however many one has."""
    await store.commit(
        Batch(
            deliveries=[
                new_event(f"evt_{n}", handlers=(), others=[NewJob(1 if n < 50 else 2)])
                for n in range(52)
            ]
        )
    )
    claimants = [Claimant(1), Claimant(2)]
    committed = await store.commit(Batch(claim=10, claim_for=claimants))
    taken = [job.handler_id for job in committed.claimed]
    assert [5, 2] == [taken.count(id) for id in (1, 2)]
    [job] = (await store.commit(Batch(claim=9, claim_for=[Claimant(1, most=1)]))).claimed
    assert 1 == job.handler_id
