"""What every store promises of jobs that join a line late or by hand, and of handlers' rows."""

from dataclasses import replace as with_changes

import pytest

from animica_hooks.admin import Admin
from animica_hooks.core.order import Line, OnDead
from animica_hooks.core.outcome import SECOND
from animica_hooks.core.routing import Handler
from animica_hooks.store import inbox, lines
from animica_hooks.store.base import Store
from animica_hooks.store.records import Batch, LeasedJob, NewJob
from animica_hooks.store.replay import ReplayFilters
from animica_hooks.store.tables import handlers, jobs
from animica_hooks.testing.store_contract.kit import (
    NOON,
    Clock,
    all_rows,
    buried,
    claim,
    completed,
    handler,
    line,
    new_event,
    retried,
    states,
    take,
)


async def register(store: Store, *registered: Handler, now: int = NOON) -> dict[str, int]:
    async with store.write("registration") as connection:
        return await inbox.register_handlers(connection, registered, now)


async def put(store: Store, in_line: Line, *ids: str) -> None:
    jobs_of = [NewJob(in_line.handler_id, in_line)]
    await store.commit(Batch(deliveries=[new_event(id, handlers=(), others=jobs_of) for id in ids]))


async def end(store: Store, in_line: Line, job: LeasedJob, *, dead: bool = False) -> None:
    mark = buried(job) if dead else completed(job)
    mark.line = in_line
    await store.commit(Batch(marks=[mark]))


async def run_all(store: Store, in_line: Line) -> list[str]:
    """Run what is due, one after the other; return the events in this order."""
    ran: list[str] = []
    while claimed := await claim(store):
        [job] = claimed  # never two of one line
        ran.append(job.event.id)
        await end(store, in_line, job)
    return ran


@pytest.mark.parametrize("on_dead", ["park", "block"])
async def test_unparked_jobs_go_on_in_order(store: Store, on_dead: OnDead) -> None:
    """Those behind a dead job go on, the first of them at once; later ones come after them."""
    await register(store, handler("mine"))
    await put(store, line(on_dead=on_dead), "evt_1", "evt_2", "evt_3")
    await put(store, line("other", on_dead=on_dead), "evt_other")
    [dead, other] = await claim(store)
    await end(store, line(on_dead=on_dead), dead, dead=True)
    await end(store, line("other", on_dead=on_dead), other)
    assert [] == await claim(store)

    admin = Admin(store)
    parked = 2 if on_dead == "park" else 0
    assert (1, parked) == ((stats := await admin.stats()).dead, stats.parked)
    assert [0, 0, 0, parked] == [job.parked async for job in admin.jobs()]
    assert 0 == await admin.unpark(handler="unheard of")
    assert 0 == await admin.unpark(key="other")
    assert 2 == await admin.unpark(handler="mine", key="k", ids=[dead.id])
    assert 0 == await admin.unpark()
    await put(store, line(on_dead=on_dead), "evt_4")

    assert ["evt_2", "evt_3", "evt_4"] == await run_all(store, line(on_dead=on_dead))


async def test_a_retried_job_waits_for_who_runs(store: Store) -> None:
    """A dead job that is tried again does not run beside another one of its line."""
    await put(store, line(on_dead="skip"), "evt_1", "evt_2", "evt_3")
    dead = await take(store)
    await end(store, line(on_dead="skip"), dead, dead=True)
    second = await take(store)

    assert await Admin(store).retry_job(dead.id)
    assert [] == await claim(store)
    await end(store, line(on_dead="skip"), second)
    assert ["evt_1", "evt_3"] == await run_all(store, line(on_dead="skip"))


async def test_a_job_that_waits_for_its_next_attempt_is_due_now(store: Store, clock: Clock) -> None:
    """It keeps its attempts and its age; who waits behind it goes on waiting."""
    await put(store, line(), "evt_1", "evt_2")
    job = await take(store)
    await store.commit(Batch(marks=[retried(job, NOON + 3600 * SECOND)]))
    clock.advance(1)
    assert [] == await claim(store)

    first, second = [row.id for row in await all_rows(store, jobs)]
    assert not await Admin(store).retry_job(second)
    assert await Admin(store).retry_job(first)
    assert await Admin(store).retry_job(first)  # it is so already

    [again] = await claim(store)
    assert ("evt_1", 1, 1, NOON) == (again.event.id, again.attempts, again.failed, again.created_at)
    assert not await Admin(store).retry_job(first)


async def test_new_events_wait_for_a_retried_job(store: Store) -> None:
    """Even where the newest job of the line has ended."""
    await put(store, line(on_dead="skip"), "evt_1", "evt_2")
    dead = await take(store)
    await end(store, line(on_dead="skip"), dead, dead=True)
    await end(store, line(on_dead="skip"), await take(store))

    assert await Admin(store).retry_job(dead.id)
    await put(store, line(on_dead="skip"), "evt_3")
    assert ["evt_1", "evt_3"] == await run_all(store, line(on_dead="skip"))


async def test_a_job_that_is_parked_again_leaves_nobody_behind(store: Store) -> None:
    """An older one that was tried again meanwhile is called, when who ran before it dies."""
    await put(store, line(), "evt_1", "evt_2", "evt_3")
    first = await take(store)
    await end(store, line(), first, dead=True)
    assert 2 == await Admin(store).unpark()
    second = await take(store)
    assert await Admin(store).retry_job(first.id)
    await end(store, line(), second, dead=True)

    assert ["evt_1"] == await run_all(store, line())
    assert [("succeeded", False), ("dead", False), ("parked", False)] == await states(store)


async def test_replayed_jobs_join_the_end(store: Store, clock: Clock) -> None:
    """They wait for those before them, keep the key, and come no faster than asked for."""
    await register(store, handler("mine"))
    await put(store, line(), "evt_1", "evt_2")
    assert ["evt_1", "evt_2"] == await run_all(store, line())
    await put(store, line(), "evt_3")

    done = await Admin(store).replay(ReplayFilters(ids=["evt_1", "evt_2"]), rate=0.1)

    assert 2 == done.created
    rows = (await all_rows(store, jobs))[3:]
    assert [("k", None), ("k", None)] == [(row.ordering_key, row.due_at) for row in rows]
    assert ["evt_3", "evt_1"] == await run_all(store, line())
    clock.advance(10)
    assert ["evt_2"] == await run_all(store, line())


async def test_a_replay_repeats_a_dead_job_of_a_line(store: Store) -> None:
    """The dead job at the end of a line does not park its own repetition."""
    await register(store, handler("mine"))
    await put(store, line(), "evt_1")
    await end(store, line(), await take(store), dead=True)

    await Admin(store).replay(ReplayFilters(states=["dead"]))
    assert ["evt_1"] == await run_all(store, line())


# Jobs that were made where their handler was not


def keyed(on_dead: OnDead = "park") -> Handler:
    return with_changes(
        handler("mine"), key=lambda event: event.payload.get("customer"), on_dead=on_dead
    )


async def put_unsorted(store: Store, *ids: str, customer: str = '"k"') -> None:
    await store.commit(
        Batch(
            deliveries=[
                new_event(
                    id,
                    body=f'{{"id": "{id}", "customer": {customer}}}'.encode(),
                    handlers=(),
                    others=[NewJob(1, unsorted=True)],
                )
                for id in ids
            ]
        )
    )


async def test_unsorted_jobs_are_in_order(store: Store) -> None:
    """Nobody begins until their lines are found; those that came later come after them."""
    await put_unsorted(store, "evt_1", "evt_2")
    await put(store, line(), "evt_3")
    await put_unsorted(store, "evt_4")
    assert [] == await claim(store)
    async with store.read() as connection:
        assert [] == await inbox.due(connection, [1])
    await register(store, keyed())
    async with store.read() as connection:
        [due] = await inbox.due(connection, [1])
    assert due.unsorted

    await lines.sort(store, {1: keyed()})

    assert ["evt_1", "evt_2", "evt_3", "evt_4"] == await run_all(store, line())


async def test_unsorted_jobs_wait_for_who_runs(store: Store) -> None:
    """One that has begun, or waits for its next attempt, keeps its place."""
    await put(store, line(), "evt_1")
    running = await take(store)
    await put_unsorted(store, "evt_2")
    await lines.sort(store, {1: keyed()})

    assert [] == await claim(store)
    await end(store, line(), running)
    assert ["evt_2"] == await run_all(store, line())


async def test_unsorted_jobs_behind_a_dead_one(store: Store) -> None:
    """They are parked like any other; one without a key needs no order."""
    await put(store, line(), "evt_1")
    await end(store, line(), await take(store), dead=True)
    await put_unsorted(store, "evt_2")
    await put_unsorted(store, "evt_3", customer="null")
    await put_unsorted(store, "evt_4", customer="[]")

    await lines.sort(store, {1: keyed()})

    assert [("dead", False), ("parked", False), ("available", True), ("dead", False)] == (
        await states(store)
    )
    [*_, row] = await all_rows(store, jobs)
    assert "key= made a list, and not a string or an int" == row.reason
    assert await Admin(store).retry_job(row.id)  # perhaps with another key=
    await lines.sort(store, {1: with_changes(keyed(), key=lambda event: "new")})
    assert ["evt_3", "evt_4"] == [job.event.id for job in await claim(store)]


# Handlers


async def test_a_renamed_handler_keeps_its_jobs(store: Store) -> None:
    """The row is the same; what was paused stays so."""
    await register(store, handler("old"))
    await put(store, line(), "evt_1")
    assert await Admin(store).pause("old")

    assert {"new": 1} == await register(store, with_changes(handler("new"), aliases=("old",)))

    [view] = await Admin(store).handlers()
    assert ("new", 1, True) == (view.name, view.waiting, view.paused_at is not None)


async def test_jobs_move_to_the_new_name(store: Store) -> None:
    """Where both names are there the older's jobs are the newer's, each event's only once."""
    await register(store, handler("new"), handler("old"))
    await store.commit(
        Batch(
            deliveries=[
                new_event("evt_1", handlers=(), others=[NewJob(1), NewJob(2)]),
                new_event("evt_2", handlers=(), others=[NewJob(2)]),
            ]
        )
    )
    renamed = with_changes(handler("new"), aliases=("old",))

    assert {"new": 1} == await register(store, renamed)
    assert [(1, "available"), (1, "cancelled"), (1, "available")] == [
        (row.handler_id, row.state) for row in await all_rows(store, jobs)
    ]
    # An old process goes on for a while.
    late = new_event("evt_3", handlers=(), others=[NewJob(2)])
    await store.commit(Batch(deliveries=[late]))
    await register(store, renamed)
    assert ["evt_1", "evt_2", "evt_3"] == [job.event.id for job in await claim(store)]
    assert ["new"] == [view.name for view in await Admin(store).handlers()]


async def test_an_older_release_has_the_handler_that_a_newer_has_renamed(store: Store) -> None:
    """Started after it: the same row, by the newer name, and not another with jobs of its own."""
    await register(store, handler("old"))
    renamed = with_changes(handler("new", "order.*"), aliases=("old",))
    await register(store, renamed)

    assert {"old": 1} == await register(store, handler("old", "order.paid"))

    [row] = await all_rows(store, handlers)
    assert ("new", '["order.*"]') == (row.name, row.patterns)
    assert {"new": 1} == await register(store, with_changes(renamed, aliases=()))
    assert {"old": 1} == await register(store, handler("old"))  # taken back by two releases
    # The name is given to another handler: that is not the one which had it.
    assert {"new": 1, "old": 2} == await register(store, handler("new"), handler("old"))
    assert {"old": 2} == await register(store, handler("old"))


async def test_an_older_release_does_not_bring_back_what_a_newer_has_taken_over(
    store: Store,
) -> None:
    """Where both names have been there the older one stays forgotten."""
    await register(store, handler("new"), handler("old"))
    await register(store, with_changes(handler("new"), aliases=("old",)))

    assert {"old": 1} == await register(store, handler("old"))
    assert ["new"] == [view.name for view in await Admin(store).handlers()]
    assert 0 == await Admin(store).remove_handler("new")
    assert {"old": 2} == await register(store, handler("old"))  # it is back, as itself


async def test_a_removed_handler_is_forgotten(store: Store, clock: Clock) -> None:
    """What waits is cancelled, and what a dead process has left; it is back when it starts."""
    await register(store, handler("mine"))
    admin = Admin(store)
    await put(store, line(), "evt_1", "evt_2")
    await take(store)
    await put(store, Line(1, "running", "park"), "evt_3")
    clock.advance(31)
    await take(store)

    assert 2 == await admin.remove_handler("mine")

    assert ["cancelled", "cancelled", "leased"] == [
        row.state for row in await all_rows(store, jobs)
    ]
    assert [] == await admin.handlers()
    assert await admin.remove_handler("mine") is None
    assert not await admin.pause("mine")
    async with store.write("test") as connection:
        await inbox.renew_handlers(connection, [1], clock())
        assert [] == await inbox.recorded_handlers(connection, clock(), own=[1])
    assert {"mine": 1} == await register(store, handler("mine"))
    assert 1 == len(await admin.handlers())


async def test_own_handlers_get_jobs_whatever_the_clock_says(store: Store) -> None:
    """After a jump of the clock, too; another process's are left out after a day."""
    await register(store, handler("own"), handler("theirs"))
    later = NOON + 48 * 3600 * SECOND
    async with store.write("test") as connection:
        found = await inbox.recorded_handlers(connection, later, own=[1])
        assert ["own"] == [record.name for record in found]
        await inbox.renew_handlers(connection, [2], later)
        found = await inbox.recorded_handlers(connection, later)
        assert ["theirs"] == [record.name for record in found]


async def test_handlers_that_are_gone_are_found(store: Store) -> None:
    """No process has noted for a minute that it has them; after a day only if jobs wait."""
    await register(store, handler("gone"), handler("idle"), handler("removed"), handler("alive"))
    await put(store, line(), "evt_1", "evt_2")
    assert 0 == await Admin(store).remove_handler("removed")
    minute, day = NOON + 60 * SECOND, NOON + 24 * 3600 * SECOND
    async with store.write("test") as connection:
        await inbox.renew_handlers(connection, [4], minute)
        assert [] == await inbox.gone_handlers(connection, minute)
        found = await inbox.gone_handlers(connection, minute + 1)
        assert [("gone", 2), ("idle", 0)] == found
        assert [("gone", 2)] == await inbox.gone_handlers(connection, minute + 1, {"idle"})
        await inbox.renew_handlers(connection, [4], day)
        assert [("gone", 2)] == await inbox.gone_handlers(connection, day)


async def test_a_pause_counts_from_its_beginning(store: Store, clock: Clock) -> None:
    """Pausing again does not change since when; resuming ends it."""
    await register(store, handler("mine"))
    for _ in range(2):
        assert await Admin(store).pause("mine")
        clock.advance(60)
    [row] = await all_rows(store, handlers)
    assert NOON == row.paused_at
    assert await Admin(store).resume("mine")
    assert not await Admin(store).resume("unheard of")
    [row] = await all_rows(store, handlers)
    assert row.paused_at is None
