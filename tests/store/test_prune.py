"""Retention: what is pruned, what never is, and what a pruned or erased body means."""

import asyncio
import re
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from databases import on_every_database
from sqlalchemy import Engine, event, select, update
from storekit import (
    NOON,
    Clock,
    Opens,
    all_rows,
    buried,
    claim,
    commit_leased,
    completed,
    handler,
    job_row,
    new_event,
    retried,
    until,
    unusable,
)

from animica_hooks.core.event import hash_body
from animica_hooks.core.job import State
from animica_hooks.core.order import Line
from animica_hooks.core.retention import DAY_S, Retention
from animica_hooks.errors import ConfigurationError, ReplayRefused
from animica_hooks.store import inbox, lines, queries, replay
from animica_hooks.store import prune as prune_module
from animica_hooks.store.base import Store
from animica_hooks.store.erase import erase
from animica_hooks.store.prune import Pruner, prune
from animica_hooks.store.records import Batch, LeasedJob, NewEvent, NewJob
from animica_hooks.store.replay import ReplayFilters
from animica_hooks.store.tables import (
    events,
    failures,
    jobs,
    quarantine,
    redeliveries,
    replays,
    tasks,
)
from animica_hooks.store.views import Erased, Pruned

AGES = Retention(bodies=1 * DAY_S, events=10 * DAY_S, quarantine=5 * DAY_S)
BODY = b'{"id": "evt_1"}'


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune_module, "REST", 0.0)
    monkeypatch.setattr(prune_module, "MIN_REST_S", 0.0)


async def done(store: Store, *stored: NewEvent) -> list[LeasedJob]:
    """Store events and end their jobs well."""
    leased = await commit_leased(store, *stored)
    await store.commit(Batch(marks=[completed(job) for job in leased]))
    return leased


async def stored_ids(store: Store) -> dict[str, bool]:
    """Return which events there are, and whether they have their bodies."""
    return {row.id: row.body is not None for row in await all_rows(store, events)}


async def newest(store: Store, clock: Clock) -> None:
    """Store an event that is never old, so that all others may go."""
    await done(store, new_event("evt_new", received_at=clock.micros))


# What is asked for


def test_the_defaults_know_an_event_for_longer_than_senders_try() -> None:
    """Payloads for a month, ids for three, dead letters for ever."""
    found = Retention()
    assert (30 * DAY_S, 90 * DAY_S, None, 90 * DAY_S) == (
        found.bodies,
        found.events,
        found.dead,
        found.quarantine,
    )


@pytest.mark.parametrize(
    ("ages", "problem"),
    [
        ({"bodies": 0, "events": 3 * DAY_S - 1}, "three days"),
        ({"bodies": 10 * DAY_S, "events": 9 * DAY_S}, "events .* must be bodies"),
        ({"dead": 29 * DAY_S}, "dead .* must be bodies"),
        ({"bodies": -1}, "bodies must be seconds"),
        ({"bodies": None}, "bodies must be seconds"),
        ({"quarantine": float("inf")}, "quarantine must be seconds"),
        ({"events": True}, "events must be seconds"),
    ],
)
def test_ages_that_would_break_dedup_are_refused(ages: dict[str, Any], problem: str) -> None:
    """No setting forgets an id that its sender may send again."""
    with pytest.raises(ConfigurationError, match=problem):
        Retention(**ages)


# Bodies


@on_every_database
async def test_a_body_goes_and_its_digest_stays(store: Store, clock: Clock) -> None:
    """A delivery of the same id is a duplicate, and one with another body a conflict, for long."""
    await done(store, new_event(body=BODY, headers=b"a\nb"))
    clock.advance(2 * DAY_S)
    assert Pruned(bodies=1) == await prune(store, AGES)

    [row] = await all_rows(store, events)
    assert (None, hash_body(BODY), b"") == (row.body, row.body_hash, row.headers)
    again = [new_event(body=BODY), new_event(body=b"{}")]
    committed = await store.commit(Batch(deliveries=[*again]))
    assert ["duplicate", "conflict"] == committed.receipts
    [conflict] = committed.conflicts
    assert (hash_body(BODY).hex(), hash_body(b"{}").hex()) == conflict[2:]


@on_every_database
async def test_age_counts_from_the_end_of_the_last_job(store: Store, clock: Clock) -> None:
    """An event that was long on its way keeps its body for as long as any other afterwards."""
    [job] = await commit_leased(store, new_event())
    clock.advance(2 * DAY_S)
    await store.commit(Batch(marks=[completed(job)]))
    clock.advance(0.9 * DAY_S)
    assert Pruned() == await prune(store, AGES)
    clock.advance(0.2 * DAY_S)
    assert Pruned(bodies=1) == await prune(store, AGES)


@on_every_database
async def test_what_is_to_run_keeps_its_event(store: Store, clock: Clock) -> None:
    """Leased, available, parked and dead jobs keep body and event, however old they are."""
    leased, waiting, parked, dead = await commit_leased(
        store, *[new_event(f"evt_{n}") for n in range(4)]
    )
    await store.commit(Batch(marks=[retried(waiting, NOON), buried(dead)]))
    async with store.write("test") as connection:
        parks = update(jobs).where(jobs.c.id == parked.id).values(state="parked", due_at=None)
        await connection.execute(parks)
    await done(store, new_event("evt_done"))
    await newest(store, clock)
    clock.advance(1000 * DAY_S)
    await done(store, new_event("evt_today", received_at=clock.micros))

    assert Pruned(bodies=0, events=2) == await prune(store, AGES)
    kept = {"evt_0": True, "evt_1": True, "evt_2": True, "evt_3": True, "evt_today": True}
    assert kept == await stored_ids(store)
    assert leased.id in {row.id for row in await all_rows(store, jobs)}


@on_every_database
async def test_dead_jobs_go_only_when_asked(store: Store, clock: Clock) -> None:
    """With an age of their own, counted from their death, they go with their events."""
    [job] = await commit_leased(store, new_event())
    await store.commit(Batch(marks=[buried(job)]))
    clock.advance(15 * DAY_S)
    await newest(store, clock)
    asked = Retention(bodies=DAY_S, events=10 * DAY_S, dead=20 * DAY_S)
    assert Pruned() == await prune(store, asked)
    clock.advance(6 * DAY_S)

    assert 1 == (await prune(store, asked)).events
    assert {"evt_new": False} == await stored_ids(store)
    assert [] == await all_rows(store, failures)


@on_every_database
async def test_a_dead_job_that_others_wait_behind_stays(store: Store, clock: Clock) -> None:
    """Were it gone, nobody would ever call the rest of its line."""
    async with store.write("test") as connection:
        [id] = (await inbox.register_handlers(connection, [handler("h")], NOON)).values()
    line = Line(id, "customer", "block")
    lined = [new_event(f"evt_{n}", handlers=(), others=(NewJob(id, line),)) for n in range(2)]
    await store.commit(Batch(deliveries=[*lined]))
    [first] = await claim(store, handlers=[id])
    mark = buried(first)
    mark.line = line
    await store.commit(Batch(marks=[mark]))
    clock.advance(100 * DAY_S)
    await newest(store, clock)

    assert Pruned() == await prune(store, Retention(bodies=0, dead=0))
    assert "evt_0" in await stored_ids(store)


# Events, and all else


@on_every_database
async def test_an_event_goes_with_all_about_it(store: Store, clock: Clock) -> None:
    """Jobs, failures and redeliveries too; then the id is new again."""
    [job] = await commit_leased(store, new_event())
    await store.commit(Batch(marks=[retried(job, NOON)]))
    [job] = await claim(store)
    await store.commit(Batch(marks=[completed(job)], deliveries=[new_event()]))
    await newest(store, clock)
    clock.advance(11 * DAY_S)

    assert 1 == (await prune(store, AGES)).events
    for table in (failures, redeliveries):
        assert [] == await all_rows(store, table)
    assert ["evt_new"] == [row.id for row in await all_rows(store, events)]
    assert 1 == len(await all_rows(store, jobs))
    assert ["new"] == (await store.commit(Batch(deliveries=[new_event()]))).receipts


@on_every_database
async def test_no_number_is_given_twice(store: Store, clock: Clock) -> None:
    """The newest event stays, without its body, so that new ones are numbered on from there."""
    await done(store, new_event("evt_1"), new_event("evt_2"))
    before = [max(row[0] for row in await all_rows(store, table)) for table in (events, jobs)]
    clock.advance(100 * DAY_S)
    await prune(store, AGES)
    assert {"evt_2": False} == await stored_ids(store)

    await done(store, new_event("evt_3"))
    after = [max(row[0] for row in await all_rows(store, table)) for table in (events, jobs)]
    assert all(new > old for new, old in zip(after, before, strict=True))


@on_every_database
async def test_quarantine_and_replays_have_their_ages(store: Store, clock: Clock) -> None:
    """Of both the newest stays."""
    await done(store, new_event())
    held = [unusable(b"1"), unusable(b"2")]
    await store.commit(Batch(deliveries=[*held]))
    for _ in range(2):
        await replay.replay(store, ReplayFilters(ids=["evt_9"]), None)
    clock.advance(6 * DAY_S)
    assert 1 == (await prune(store, AGES)).quarantined
    clock.advance(5 * DAY_S)
    assert 1 == (await prune(store, AGES)).replays
    assert [b"2"] == [row.body for row in await all_rows(store, quarantine)]
    assert 1 == len(await all_rows(store, replays))


@on_every_database
async def test_a_dry_run_counts_and_changes_nothing(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what pruning then does, over several pages and batches."""
    monkeypatch.setattr(prune_module, "PAGE", 7)
    monkeypatch.setattr(prune_module, "BATCH", 3)
    await done(store, *[new_event(f"evt_{n}") for n in range(20)])
    clock.advance(5 * DAY_S)
    late = [new_event(f"late_{n}", received_at=clock.micros) for n in range(20)]
    await done(store, *late)
    clock.advance(6 * DAY_S)
    await newest(store, clock)
    before = await all_rows(store, events)
    planned = await prune(store, AGES, dry_run=True)

    assert Pruned(bodies=20, events=20) == planned
    assert before == await all_rows(store, events)
    seen: list[Pruned] = []
    assert planned == await prune(store, AGES, on_progress=seen.append)
    assert planned == seen[-1]
    assert max(b.total - a.total for a, b in pairwise(seen)) <= 3
    assert Pruned() == await prune(store, AGES)


# Without a body


@on_every_database
async def test_no_job_is_made_or_revived_without_a_body(store: Store, clock: Clock) -> None:
    """A replay skips the event and says how many jobs that were; a retry is refused."""
    async with store.write("test") as connection:
        [id] = (await inbox.register_handlers(connection, [handler("h")], NOON)).values()
    [dead] = await commit_leased(store, new_event(handlers=[id]))
    await store.commit(Batch(marks=[buried(dead)]))
    clock.advance(2 * DAY_S)
    await prune(store, Retention(bodies=DAY_S, dead=DAY_S))
    filters = ReplayFilters(all=True)
    plan = await replay.plan(store, filters, None)
    made = await replay.replay(store, filters, None)

    assert (0, 0, 1) == (plan.count, plan.skipped, plan.without_body)
    assert (0, 0, 1) == (made.planned, made.created, made.skipped)
    with pytest.raises(ReplayRefused, match="pruned or erased"):
        async with store.write("test") as connection:
            await lines.revive(connection, dead.id, NOON)
    assert [] == await claim(store, handlers=[id])
    [view] = [view async for view in queries.find_events(store)]
    assert not view.has_body
    assert b"" == (await queries.load_event(store, view.seq)).body


@on_every_database
async def test_a_replay_and_a_pruning_at_once_leave_no_job_without_a_body(
    store: Store, open_store: Opens, clock: Clock
) -> None:
    """Whichever holds an event first, no job is due whose event has no body."""
    async with store.write("test") as connection:
        [id] = (await inbox.register_handlers(connection, [handler("h")], NOON)).values()
    await done(store, *[new_event(f"evt_{n}", handlers=[id]) for n in range(600)])
    clock.advance(2 * DAY_S)
    other = await open_store(owner="other")
    await asyncio.gather(
        replay.replay(store, ReplayFilters(all=True), None),
        prune(other, AGES),
    )
    async with store.read() as connection:
        query = (
            select(jobs.c.id)
            .join(events, events.c.seq == jobs.c.event_seq)
            .where(jobs.c.state == State.AVAILABLE.value, events.c.body.is_(None))
        )
        assert [] == (await connection.scalars(query)).all()


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_an_event_that_is_held_is_passed_over(
    store: Store, open_store: Opens, clock: Clock
) -> None:
    """While a replay that has not committed holds an event, pruning leaves it and goes on."""
    await done(store, new_event("evt_1"), new_event("evt_2"))
    clock.advance(2 * DAY_S)
    [first, _] = await all_rows(store, events)
    other = await open_store(owner="other")
    async with store.write("replay") as connection:
        assert {first.seq} == await inbox.hold_bodies(connection, [first.seq])
        assert 1 == (await prune(other, AGES)).bodies
    assert {"evt_1": True, "evt_2": False} == await stored_ids(store)


# Erasing


@on_every_database
async def test_erasing_leaves_the_digest(store: Store) -> None:
    """Payload, headers and what failures said are gone; jobs that wait are cancelled."""
    first, second, _ = await commit_leased(
        store, new_event(body=BODY, headers=b"a\nb", handlers=[1, 2]), new_event("evt_2")
    )
    await store.commit(Batch(marks=[retried(first, NOON), completed(second)]))

    assert Erased(events=1, cancelled=1) == await erase(store, "evt_1", None)
    row, other = await all_rows(store, events)
    assert (None, hash_body(BODY), b"") == (row.body, row.body_hash, row.headers)
    assert other.body is not None
    found = await job_row(store, first.id)
    assert ("cancelled", "erased", None) == (found.state, found.reason, found.due_at)
    assert "succeeded" == (await job_row(store, second.id)).state
    assert [] == await all_rows(store, failures)
    assert [] == await claim(store)
    again = await store.commit(Batch(deliveries=[new_event(body=BODY), new_event(body=b"{}")]))
    assert ["duplicate", "conflict"] == again.receipts
    assert Erased(events=1, cancelled=0) == await erase(store, "evt_1", "animica")
    assert Erased(events=0, cancelled=0) == await erase(store, "evt_1", "elsewhere")
    assert Erased(events=0, cancelled=0) == await erase(store, "evt_9", None)


@on_every_database
async def test_a_running_job_of_an_erased_event_changes_nothing(store: Store) -> None:
    """Its lease is void, so that it is neither done nor tried again."""
    [job] = await commit_leased(store, new_event())
    await erase(store, "evt_1", None)
    committed = await store.commit(Batch(marks=[retried(job, NOON)]))

    assert 1 == committed.fenced
    assert "cancelled" == (await job_row(store, job.id)).state
    assert [] == await claim(store)


@on_every_database
@pytest.mark.parametrize("erased", ["evt_0", "evt_1"])
async def test_the_line_goes_on_after_an_erasure(store: Store, erased: str) -> None:
    """Of a line one job is due, whether the first or one behind it was erased."""
    async with store.write("test") as connection:
        [id] = (await inbox.register_handlers(connection, [handler("h")], NOON)).values()
    line = Line(id, "customer", "block")
    lined = [new_event(f"evt_{n}", handlers=(), others=(NewJob(id, line),)) for n in range(3)]
    await store.commit(Batch(deliveries=[*lined]))
    await erase(store, erased, None)
    handled = []
    while claimed := await claim(store, handlers=[id]):
        [job] = claimed
        handled.append(job.event.id)
        mark = completed(job)
        mark.line = line
        await store.commit(Batch(marks=[mark]))

    assert [f"evt_{n}" for n in range(3) if f"evt_{n}" != erased] == handled


# Beside others


async def test_it_rests_for_longer_than_it_writes(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three batches each is followed by a rest in which whoever waited gets to write."""
    monkeypatch.setattr(prune_module, "REST", 3.0)
    monkeypatch.setattr(prune_module, "BATCH", 1)
    await done(store, *(new_event(f"evt_{n}") for n in range(3)))
    clock.advance(2 * DAY_S)
    spans: list[tuple[float, float]] = []
    transact = store.transact

    async def slowly(*arguments: Any) -> Any:
        began = time.monotonic()
        await asyncio.sleep(0.02)
        result = await transact(*arguments)
        spans.append((began, time.monotonic()))
        return result

    monkeypatch.setattr(store, "transact", slowly)
    assert Pruned(bodies=3) == await prune(store, AGES)
    spans.append((time.monotonic(), 0))

    assert 4 == len(spans)
    for (began, ended), (following, _) in pairwise(spans):
        assert following - ended >= 2 * (ended - began)


# By itself


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune_module, "LOOK_S", 0.01)


async def passes(pruners: Sequence[Pruner], monkeypatch: pytest.MonkeyPatch) -> list[Pruner]:
    """Start pruners; return a list that each enters itself in when it prunes."""
    seen: list[Pruner] = []
    for pruner in pruners:
        own = pruner._pass

        async def counted(pruner: Pruner = pruner, own: Any = own) -> None:
            seen.append(pruner)
            await own()

        monkeypatch.setattr(pruner, "_pass", counted)
        pruner.start()
    return seen


@on_every_database
@pytest.mark.usefixtures("quick")
async def test_one_of_several_processes_prunes(
    store: Store, open_store: Opens, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in an hour, whichever comes first; all of them know when that was."""
    await done(store, new_event())
    clock.advance(2 * DAY_S)
    pruners = [Pruner(await open_store(owner=f"{n}"), AGES) for n in range(3)]
    seen = await passes(pruners, monkeypatch)
    try:
        async with asyncio.timeout(20):
            while await stored_ids(store) != {"evt_1": False}:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert 1 == len(seen)
            clock.advance(prune_module.EVERY_S + 1)
            await until(lambda: len(seen) == 2)
    finally:
        for pruner in pruners:
            await pruner.close()


@on_every_database
@pytest.mark.usefixtures("quick")
async def test_another_goes_on_after_one_that_died(store: Store, clock: Clock) -> None:
    """What a process had begun is begun again once its hold has run out."""
    await done(store, new_event())
    clock.advance(2 * DAY_S)
    dying, other = Pruner(store, AGES), Pruner(store, AGES)
    assert await dying._hold(prune_module.HELD_S)
    assert not await other._hold(prune_module.HELD_S)
    clock.advance(prune_module.HELD_S + 1)
    assert await other._hold(prune_module.HELD_S)
    [row] = await all_rows(store, tasks)
    assert ("prune", store.owner) == (row.name, row.held_by)


# Beside others


async def test_writers_go_between_batches(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wants to write waits for one small batch, and not for the next."""
    monkeypatch.setattr(prune_module, "BATCH", 10)
    await done(store, *[new_event(f"evt_{n}") for n in range(500)])
    clock.advance(1)
    told: list[str] = []
    transact = store.transact

    async def tells(holder: str, work: Any) -> Any:
        result = await transact(holder, work)
        told.append("prune")
        return result

    monkeypatch.setattr(store, "transact", tells)
    pruning = asyncio.create_task(prune(store, Retention(bodies=0)))
    while not pruning.done():
        await store.commit(Batch())
        told.append("commit")

    assert 50 == told.count("prune")
    longest = max(len(run) for run in re.findall("p+", "".join(word[0] for word in told)))
    assert longest <= 2  # one that had begun, and one that was waiting already


# Plans


@on_every_database
async def test_pruning_writes_by_index(
    store: Store, clock: Clock, database_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No statement of a pruning reads a table from one end to the other."""
    # As small beside the table as they are where it matters.
    monkeypatch.setattr(prune_module, "PAGE", 100)
    monkeypatch.setattr(prune_module, "BATCH", 20)
    if database_kind == "mariadb":
        pytest.skip("its plans are its own tests'")
    for thousand in range(3):
        await done(store, *[new_event(f"evt_{thousand}_{n}") for n in range(1000)])
    clock.advance(11 * DAY_S)
    await newest(store, clock)
    explain = "EXPLAIN QUERY PLAN " if database_kind == "sqlite" else "EXPLAIN "
    async with store.write("test") as connection:
        await connection.exec_driver_sql("ANALYZE")
    plans: dict[str, str] = {}

    def look(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")) and statement not in plans:
            one = parameters[0] if isinstance(parameters, list) else parameters
            plans[statement] = ""
            found = connection.exec_driver_sql(explain + statement, one).all()
            plans[statement] = "; ".join(str(row[-1]) for row in found)

    event.listen(Engine, "before_cursor_execute", look)
    half = Retention(bodies=DAY_S, events=20 * DAY_S)
    assert 3000 == (await prune(store, half)).bodies
    assert 3000 == (await prune(store, AGES)).events
    event.remove(Engine, "before_cursor_execute", look)

    assert len(plans) > 10
    for statement, plan in plans.items():
        assert not re.search("(SCAN|Seq Scan on) hooks_(events|jobs)", plan), (statement, plan)
