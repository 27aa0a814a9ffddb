"""What every store promises, whatever its database: the same suite for each of them."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

import pytest

from animica_hooks.core.event import hash_body, pack_headers
from animica_hooks.core.fair import Claimant
from animica_hooks.core.outcome import SECOND
from animica_hooks.store import inbox
from animica_hooks.store.base import Store
from animica_hooks.store.records import Batch, Due, LeasedJob, Mark
from animica_hooks.store.tables import events, handlers, jobs, quarantine, redeliveries
from animica_hooks.testing.store_contract.kit import (
    NOON,
    Clock,
    Opens,
    all_rows,
    buried,
    cancelled,
    claim,
    commit_leased,
    completed,
    failed_attempts,
    handler,
    job_row,
    new_event,
    released,
    retried,
    unusable,
)

LEASE = 30 * SECOND

Marks: TypeAlias = Callable[[LeasedJob], Mark]


class Unexpected(Exception):
    """Raised by the tests, in places where nobody catches it."""


# Deliveries


async def test_a_new_event_is_stored_with_a_job_for_each_handler(store: Store) -> None:
    """A new event becomes one row, and one job for each of its handlers."""
    committed = await store.commit(Batch(deliveries=[new_event(handlers=(3, 5))]))

    assert ["new"] == committed.receipts
    assert ["evt_1"] == [row.id for row in await all_rows(store, events)]
    assert [(3, "available"), (5, "available")] == [
        (row.handler_id, row.state) for row in await all_rows(store, jobs)
    ]
    assert committed.waiting is True
    assert [] == committed.leased


async def test_an_event_without_handlers_is_stored_all_the_same(store: Store) -> None:
    """An event that nobody handles is kept, so that it can be replayed one day."""
    committed = await store.commit(Batch(deliveries=[new_event(handlers=())], room=10))

    assert ["new"] == committed.receipts
    assert 1 == len(await all_rows(store, events))
    assert [] == await all_rows(store, jobs)
    assert committed.waiting is False


async def test_jobs_are_inserted_leased_while_there_is_room(store: Store) -> None:
    """The first ``room`` jobs come back leased to this process, the others wait."""
    batch = Batch(deliveries=[new_event(f"evt_{n}", handlers=(1, 2)) for n in range(2)], room=3)

    committed = await store.commit(batch)

    assert [("evt_0", 1), ("evt_0", 2), ("evt_1", 1)] == [
        (job.event.id, job.handler_id) for job in committed.leased
    ]
    assert committed.waiting is True
    rows = await all_rows(store, jobs)
    assert ["leased", "leased", "leased", "available"] == [row.state for row in rows]
    assert ["one", "one", "one", None] == [row.leased_by for row in rows]
    assert [NOON + LEASE] * 3 + [NOON] == [row.due_at for row in rows]


async def test_a_leased_job_proves_its_lease(store: Store) -> None:
    """Jobs that come leased with their event can be marked with the fence they came with."""
    [job] = await commit_leased(store, new_event())

    committed = await store.commit(Batch(marks=[completed(job)]))

    assert 0 == committed.fenced
    assert "succeeded" == (await job_row(store, job.id)).state


async def test_an_event_in_two_batches_is_stored_once(store: Store) -> None:
    """A delivery of a stored event is a duplicate: counted, without jobs."""
    await store.commit(Batch(deliveries=[new_event()]))
    committed = await store.commit(Batch(deliveries=[new_event(received_at=NOON + 7)], room=10))

    assert ["duplicate"] == committed.receipts
    assert [] == committed.leased
    assert 1 == len(await all_rows(store, events))
    assert 1 == len(await all_rows(store, jobs))
    assert [(False, 1, NOON + 7)] == [
        (row.conflict, row.count, row.last_at) for row in await all_rows(store, redeliveries)
    ]


async def test_an_event_twice_in_one_batch_is_stored_once(store: Store) -> None:
    """Of equal deliveries that are committed together the first is new."""
    batch = Batch(
        deliveries=[new_event("evt_a"), new_event("evt_b"), new_event("evt_a"), new_event("evt_a")],
        room=10,
    )

    committed = await store.commit(batch)

    assert ["new", "new", "duplicate", "duplicate"] == committed.receipts
    assert ["evt_a", "evt_b"] == [job.event.id for job in committed.leased]
    assert [2] == [row.count for row in await all_rows(store, redeliveries)]


async def test_another_body_is_a_conflict_and_the_first_wins(store: Store) -> None:
    """An id that comes again with another body changes nothing; both hashes are told."""
    first, other = new_event(body=b"first"), new_event(body=b"other")
    await store.commit(Batch(deliveries=[first]))

    committed = await store.commit(Batch(deliveries=[other, first, other], room=10))

    assert ["conflict", "duplicate", "conflict"] == committed.receipts
    hashes = hash_body(b"first"), hash_body(b"other")
    told = ("animica", "evt_1", hashes[0].hex(), hashes[1].hex())
    assert [told, told] == committed.conflicts
    assert [b"first"] == [row.body for row in await all_rows(store, events)]
    counted = {
        (row.body_hash, row.conflict, row.count) for row in await all_rows(store, redeliveries)
    }
    assert {(hashes[0], False, 1), (hashes[1], True, 2)} == counted


async def test_a_conflict_within_a_batch_is_seen(store: Store) -> None:
    """Of two bodies with one id in one batch the first counts."""
    batch = Batch(deliveries=[new_event(body=b"first"), new_event(body=b"other")], room=10)

    committed = await store.commit(batch)

    assert ["new", "conflict"] == committed.receipts
    assert [b"first"] == [job.event.body for job in committed.leased]
    assert [b"first"] == [row.body for row in await all_rows(store, events)]


async def test_endpoints_do_not_share_ids(store: Store) -> None:
    """The same id at two endpoints is two events."""
    batch = Batch(deliveries=[new_event(endpoint="animica"), new_event(endpoint="github")])

    assert ["new", "new"] == (await store.commit(batch)).receipts


@pytest.mark.parametrize(
    "other", ["EVT_1", "evt_1 ", " evt_1", "evt_1.", "evt-1", "evt_1" + "0" * 250]
)
async def test_ids_are_told_apart_byte_for_byte(store: Store, other: str) -> None:
    """No collation takes two ids for one: neither case nor space nor length is lost."""
    committed = await store.commit(Batch(deliveries=[new_event("evt_1"), new_event(other)]))

    assert ["new", "new"] == committed.receipts
    assert ["evt_1", other] == [row.id for row in await all_rows(store, events)]


@pytest.mark.parametrize("size", [1, 2, 3, 63, 64, 65, 127, 256])
async def test_batches_of_any_size_keep_the_order_of_receipt(store: Store, size: int) -> None:
    """Events and jobs are numbered in the order of delivery, batch after batch."""
    ids = [f"evt_{n}" for n in range(2 * size)]

    first = await commit_leased(store, *map(new_event, ids[:size]))
    second = await commit_leased(store, *map(new_event, ids[size:]))

    assert ids == [row.id for row in await all_rows(store, events)]
    assert ids == [job.event.id for job in first + second]
    numbers = [job.id for job in first + second]
    assert sorted(set(numbers)) == numbers


async def test_mixed_deliveries_have_their_receipts_in_order(store: Store) -> None:
    """Each delivery of a batch has its own receipt, in its own place."""
    batch = Batch(
        deliveries=[
            unusable(),
            new_event("evt_a"),
            new_event("evt_a"),
            unusable(),
            new_event("evt_a", body=b"other"),
            new_event("evt_b"),
        ]
    )

    committed = await store.commit(batch)

    expected = ["quarantined", "new", "duplicate", "quarantined", "conflict", "new"]
    assert expected == committed.receipts
    assert ["evt_a", "evt_b"] == [row.id for row in await all_rows(store, events)]


async def test_quarantined_deliveries_are_counted_by_body(store: Store) -> None:
    """The same unusable body again is counted; another one, or another endpoint, is another row."""
    await store.commit(Batch(deliveries=[unusable(b"a"), unusable(b"b"), unusable(b"a")]))
    await store.commit(Batch(deliveries=[unusable(b"a"), unusable(b"a", endpoint="github")]))

    assert [("animica", b"a", 3), ("animica", b"b", 1), ("github", b"a", 1)] == [
        (row.endpoint, row.body, row.deliveries) for row in await all_rows(store, quarantine)
    ]


async def test_a_claimed_event_is_what_was_delivered(store: Store) -> None:
    """Body, type, endpoint, headers and time come out of a claim as they went in."""
    headers = pack_headers([(b"user-agent", b"Animica/1"), (b"x-odd", b"\xff: \xe9")])
    body = bytes(range(256)) * 40
    delivered = new_event(
        type="zahlung.möglich 🎉\n", body=body, headers=headers, received_at=NOON + 123_456
    )
    await store.commit(Batch(deliveries=[delivered]))

    [job] = await claim(store)

    assert delivered.event == job.event
    assert body == job.event.body
    assert "zahlung.möglich 🎉\n" == job.event.type
    assert {"user-agent": "Animica/1", "x-odd": "ÿ: é"} == job.event.headers
    assert datetime(2023, 11, 14, 22, 13, 20, 123_456, UTC) == job.event.received_at


@pytest.mark.parametrize("room", [0, 10])
async def test_each_job_has_an_event_of_its_own(store: Store, room: int) -> None:
    """What one handler does to the payload no other handler of the same event sees."""
    body = b'{"id": "evt_1", "data": {"amount": 1}}'
    batch = Batch(deliveries=[new_event(body=body, handlers=(1, 2))], room=room)

    leased = (await store.commit(batch)).leased or await claim(store, handlers=(1, 2))
    first, second = (job.event for job in leased)
    first.data["amount"] = 2

    assert {"amount": 1} == second.data


# Marks


async def test_a_completed_job_is_done(store: Store, clock: Clock) -> None:
    """A completed job has succeeded, with its one attempt counted and nobody holding it."""
    [job] = await commit_leased(store, new_event())
    clock.advance(2)

    await store.commit(Batch(marks=[completed(job)]))

    row = await job_row(store, job.id)
    assert ("succeeded", 1, 0, None) == (row.state, row.attempts, row.failed, row.due_at)
    assert (NOON + 2 * SECOND, None, None) == (row.finished_at, row.leased_by, row.reason)


async def test_a_failed_attempt_is_counted_and_tried_again(store: Store) -> None:
    """A job to be tried again is available from its due date, and keeps what went wrong."""
    [job] = await commit_leased(store, new_event())

    await store.commit(Batch(marks=[retried(job, NOON + 5 * SECOND)]))

    row = await job_row(store, job.id)
    assert ("available", 1, 1, NOON + 5 * SECOND) == (
        row.state, row.attempts, row.failed, row.due_at,
    )  # fmt: skip
    assert (None, None, "ValueError") == (row.finished_at, row.leased_by, row.reason)
    assert [1] == await failed_attempts(store, job.id)


async def test_a_buried_job_is_dead(store: Store) -> None:
    """A dead job keeps its reason and its last failure, and is never due."""
    [job] = await commit_leased(store, new_event())

    await store.commit(Batch(marks=[buried(job)]))

    row = await job_row(store, job.id)
    assert ("dead", None, "ValueError", NOON) == (
        row.state, row.due_at, row.reason, row.finished_at,
    )  # fmt: skip
    assert [1] == await failed_attempts(store, job.id)
    assert [] == await claim(store)


async def test_a_cancelled_job_keeps_its_reason(store: Store) -> None:
    """A discarded job is cancelled with the words that the handler gave."""
    [job] = await commit_leased(store, new_event())

    await store.commit(Batch(marks=[cancelled(job, "not ours")]))

    row = await job_row(store, job.id)
    assert ("cancelled", "not ours", 1, 0) == (row.state, row.reason, row.attempts, row.failed)


@pytest.mark.parametrize("orphaned", [False, True])
async def test_a_released_job_is_not_counted(store: Store, orphaned: bool) -> None:
    """A job that is given back is available as it was, and says whether it has to run alone."""
    [job] = await commit_leased(store, new_event())

    await store.commit(Batch(marks=[released(job, NOON, orphaned=orphaned)]))

    row = await job_row(store, job.id)
    assert ("available", 0, 0, orphaned) == (
        row.state, row.attempts, row.failed, bool(row.orphaned),
    )  # fmt: skip
    assert [] == await claim(store, orphans=not orphaned)
    [again] = await claim(store, orphans=orphaned)
    assert (job.id, orphaned) == (again.id, again.orphaned)


MARKS = [
    pytest.param(completed, id="complete"),
    pytest.param(lambda job: retried(job, NOON), id="retry"),
    pytest.param(buried, id="bury"),
    pytest.param(lambda job: cancelled(job, "late"), id="cancel"),
    pytest.param(lambda job: released(job, NOON), id="release"),
]


@pytest.mark.parametrize("late", MARKS)
async def test_a_mark_without_the_lease_changes_nothing(store: Store, late: Marks) -> None:
    """Once another worker has the job, whatever the first one says comes too late."""
    [job] = await commit_leased(store, new_event())
    await store.commit(Batch(marks=[released(job, NOON)]))
    [again] = await claim(store)
    before = await job_row(store, job.id)

    committed = await store.commit(Batch(marks=[late(job)]))

    assert 1 == committed.fenced
    assert before == await job_row(store, job.id)
    assert [] == await failed_attempts(store, job.id)
    assert 0 == (await store.commit(Batch(marks=[completed(again)]))).fenced


@pytest.mark.parametrize("late", MARKS)
async def test_a_job_ends_once(store: Store, late: Marks) -> None:
    """Of two ends of one attempt, in one batch or in two, the first counts."""
    [job, other] = await commit_leased(store, new_event("evt_1"), new_event("evt_2"))

    first = await store.commit(Batch(marks=[cancelled(job, "first"), late(job)]))
    second = await store.commit(Batch(marks=[late(job), completed(other)]))

    assert [1, 1] == [first.fenced, second.fenced]
    # "complete" may be carried out before the other mark of its batch, but only one of both is.
    row = await job_row(store, job.id)
    assert row.attempts == 1
    assert row.state in ("cancelled", "succeeded")
    assert "succeeded" == (await job_row(store, other.id)).state


async def test_only_the_newest_failures_are_kept(store: Store) -> None:
    """A job that fails for ever keeps its 20 newest failures, and another job's stay."""
    [job, other] = await commit_leased(store, new_event("evt_1"), new_event("evt_2"))
    await store.commit(Batch(marks=[retried(other, NOON + 10**9)]))

    for _ in range(25):
        await store.commit(Batch(marks=[retried(job, NOON)]))
        [job] = await claim(store)

    assert list(range(6, 26)) == await failed_attempts(store, job.id)
    assert [1] == await failed_attempts(store, other.id)
    assert (25, 25) == (job.attempts, job.failed)


# Leases


async def test_a_renewal_prolongs_the_lease(store: Store, clock: Clock) -> None:
    """A renewed lease runs from now, and only that one."""
    [job, other] = await commit_leased(store, new_event("evt_1"), new_event("evt_2"))
    clock.advance(20)

    await asyncio.to_thread(store.renew, [(job.id, job.fence)])

    assert NOON + 20 * SECOND + LEASE == (await job_row(store, job.id)).due_at
    assert NOON + LEASE == (await job_row(store, other.id)).due_at


async def test_a_lease_that_was_lost_can_not_be_renewed(store: Store, clock: Clock) -> None:
    """A renewal with an old fence changes nothing, and is no alarm: the job may just have ended."""
    [job] = await commit_leased(store, new_event())
    await store.commit(Batch(marks=[released(job, NOON)]))
    await claim(store)
    clock.advance(20)

    await asyncio.to_thread(store.renew, [(job.id, job.fence)])

    assert NOON + LEASE == (await job_row(store, job.id)).due_at


async def test_leases_that_have_run_out_are_listed(store: Store, clock: Clock) -> None:
    """Only leases whose time is over are listed, oldest first, with what decides about them."""
    [first] = await commit_leased(store, new_event("evt_1"))
    clock.advance(10)
    [second] = await commit_leased(store, new_event("evt_2", handlers=(2,)))
    await store.commit(Batch(marks=[retried(second, NOON)]))
    [second] = await claim(store, handlers=(2,))
    await commit_leased(store, new_event("evt_3"))
    clock.advance(20)

    async with store.read() as connection:
        at_first = await inbox.expired_leases(connection, [1, 2], clock())
    clock.advance(10)
    async with store.read() as connection:
        later = await inbox.expired_leases(connection, [1, 2], clock())

    assert [first.id] == [lease.id for lease in at_first]
    assert 3 == len(later)
    assert first.id == later[0].id
    [found] = [lease for lease in later if lease.id == second.id]
    assert (second.fence, 2, 1, 1, NOON + 10 * SECOND, False) == (
        found.fence, found.handler_id, found.attempts, found.failed, found.created_at,
        found.orphaned,
    )  # fmt: skip


# Claims


async def test_a_claim_takes_what_is_due_and_nothing_else(store: Store, clock: Clock) -> None:
    """Jobs of other handlers, of the future, leased and finished ones are left alone."""
    [done, later, held] = await commit_leased(store, *[new_event(f"evt_{n}") for n in range(3)])
    await store.commit(Batch(marks=[completed(done), retried(later, NOON + 60 * SECOND)]))
    await store.commit(
        Batch(deliveries=[new_event("evt_due"), new_event("evt_other", handlers=(2,))])
    )

    assert ["evt_due"] == [job.event.id for job in await claim(store)]
    assert [] == await claim(store)
    clock.advance(60)
    [again] = await claim(store)
    assert (later.id, 1, 1, NOON) == (again.id, again.attempts, again.failed, again.created_at)
    assert again.fence > later.fence
    assert "leased" == (await job_row(store, held.id)).state


async def test_a_claim_takes_the_oldest_first(store: Store, clock: Clock) -> None:
    """Of many due jobs those are claimed that have been due for longest."""
    for n in range(6):
        await store.commit(Batch(deliveries=[new_event(f"evt_{n}")]))
        clock.advance(1)

    first = await claim(store, 2)
    rest = await claim(store, 100)

    assert ["evt_0", "evt_1"] == [job.event.id for job in first]
    assert [f"evt_{n}" for n in range(2, 6)] == [job.event.id for job in rest]


async def test_a_claim_is_shared_evenly_between_handlers(store: Store) -> None:
    """A handler with a long queue leaves the others their share, and takes what they leave."""
    many = [new_event(f"evt_{n}", handlers=(1,)) for n in range(50)]
    few = [new_event("evt_few", handlers=(2,))]
    some = [new_event(f"evt_some_{n}", handlers=(3,)) for n in range(20)]
    await store.commit(Batch(deliveries=[*many, *few, *some]))

    first = await claim(store, 12, handlers=(1, 2, 3))
    greedy_last = await claim(store, 12, handlers=(2, 3, 1))

    assert {1: 4, 2: 1, 3: 7} == Counter(job.handler_id for job in first)
    assert {3: 6, 1: 6} == Counter(job.handler_id for job in greedy_last)


async def test_a_claim_never_takes_more_than_was_asked_for(store: Store) -> None:
    """With more handlers than jobs asked for, some get nothing."""
    everybody = tuple(range(1, 8))
    await store.commit(Batch(deliveries=[new_event(handlers=everybody)]))

    claimed = [len(await claim(store, 3, handlers=everybody)) for _ in range(3)]

    assert [3, 3, 1] == claimed


async def test_two_processes_never_claim_the_same_job(store: Store, open_store: Opens) -> None:
    """Each job goes to one of two processes, which the row names."""
    other = await open_store(owner="two")
    await store.commit(Batch(deliveries=[new_event(f"evt_{n}") for n in range(10)]))

    mine, theirs = await claim(store, 6), await claim(other, 6)

    assert [6, 4] == [len(mine), len(theirs)]
    assert set() == {job.id for job in mine} & {job.id for job in theirs}
    owners = {row.id: row.leased_by for row in await all_rows(store, jobs)}
    assert {"one"} == {owners[job.id] for job in mine}
    assert {"two"} == {owners[job.id] for job in theirs}


async def test_orphans_are_claimed_only_as_orphans(store: Store) -> None:
    """Jobs that have to run alone are not handed out with others, nor others with them."""
    [orphan, plain] = await commit_leased(store, new_event("evt_1"), new_event("evt_2"))
    await store.commit(Batch(marks=[released(orphan, NOON, orphaned=True), released(plain, NOON)]))

    together = await claim(store)
    alone = await claim(store, 1, orphans=True)

    assert [(plain.id, False)] == [(job.id, job.orphaned) for job in together]
    assert [(orphan.id, True)] == [(job.id, job.orphaned) for job in alone]


async def test_a_claim_sees_the_events_of_its_own_batch(store: Store) -> None:
    """What one batch stores, its claim can take: nobody waits for another round."""
    batch = Batch(deliveries=[new_event()], claim=5, claim_for=[Claimant(1)])

    assert ["evt_1"] == [job.event.id for job in (await store.commit(batch)).claimed]


async def test_the_next_due_dates_are_known(store: Store) -> None:
    """Each handler's earliest due date is told, apart for those that have to run alone."""
    async with store.write("registration") as connection:
        ids = await inbox.register_handlers(connection, [handler("a"), handler("b")], NOON)
    a, b = ids["a"], ids["b"]
    held = await commit_leased(
        store, *[new_event(f"evt_{n}", handlers=(a,)) for n in range(3)], new_event(handlers=(b,))
    )
    await store.commit(
        Batch(
            marks=[
                retried(held[0], NOON + 50),
                retried(held[1], NOON + 40),
                released(held[2], NOON + 60, orphaned=True),
            ]
        )
    )

    async with store.read() as connection:
        due = await inbox.due(connection, [a, b])

    assert [Due(a, NOON + 40, NOON + 60, False), Due(b, None, None, False)] == sorted(
        due, key=lambda found: found.handler_id
    )


# All in one transaction


async def test_a_batch_does_everything_at_once(store: Store, clock: Clock) -> None:
    """Deliveries, marks and a claim share one batch."""
    [done] = await commit_leased(store, new_event("evt_1"))
    clock.advance(5)
    batch = Batch(
        deliveries=[new_event("evt_3"), new_event("evt_4", handlers=(2,)), unusable()],
        marks=[completed(done)],
        room=1,
        claim=1,
        claim_for=[Claimant(2)],
    )

    committed = await store.commit(batch)

    assert ["new", "new", "quarantined"] == committed.receipts
    assert ["evt_3"] == [job.event.id for job in committed.leased]
    assert ["evt_4"] == [job.event.id for job in committed.claimed]
    assert 0 == committed.fenced
    assert "succeeded" == (await job_row(store, done.id)).state


async def test_an_empty_batch_is_committed(store: Store) -> None:
    """A batch of nothing succeeds where the database works: it is how readiness is probed."""
    committed = await store.commit(Batch())

    assert ([], [], [], False, 0, []) == (
        committed.receipts, committed.leased, committed.claimed, committed.waiting,
        committed.fenced, committed.conflicts,
    )  # fmt: skip


async def test_what_was_committed_outlives_the_process(open_store: Opens) -> None:
    """A store that is opened again finds events, jobs and leases as they were."""
    first = await open_store(owner="one")
    [job] = await commit_leased(first, new_event())
    second = await open_store(owner="two")

    committed = await second.commit(Batch(deliveries=[new_event()], marks=[completed(job)]))

    assert (["duplicate"], 0) == (committed.receipts, committed.fenced)


async def test_a_write_commits_or_leaves_nothing(store: Store) -> None:
    """A write block commits at its end, and rolls back whatever raises in it."""

    async def handle() -> None:
        async with store.write("test") as connection:
            await inbox.register_handlers(connection, [handler("lost")], NOON)
            raise Unexpected

    with pytest.raises(Unexpected):
        await handle()
    async with store.write("test") as connection:
        await inbox.register_handlers(connection, [handler("kept")], NOON)

    assert ["kept"] == [row.name for row in await all_rows(store, handlers)]


async def test_a_handler_has_one_id_in_all_processes(store: Store, open_store: Opens) -> None:
    """A name is registered once; later registrations update what it listens to."""
    other = await open_store(owner="two")
    async with store.write("registration") as connection:
        before = await inbox.register_handlers(
            connection, [handler("a", "x"), handler("b", "y")], NOON
        )
    async with other.write("registration") as connection:
        after = await inbox.register_handlers(
            connection, [handler("c"), handler("a", "x", "z.*")], NOON + 5
        )

    assert before["a"] == after["a"]
    assert 3 == len({*before.values(), *after.values()})
    patterns = {row.name: (row.patterns, row.seen_at) for row in await all_rows(store, handlers)}
    assert {
        "a": ('["x", "z.*"]', NOON + 5),
        "b": ('["y"]', NOON),
        "c": ('["*"]', NOON + 5),
    } == patterns
