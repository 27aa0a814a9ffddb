"""A row that the database does not take harms nobody: not those of its batch, not later ones."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from databases import DATABASES, MARIADB, PGBOUNCER, engine_of
from sqlalchemy import text
from storekit import (
    all_rows,
    claim,
    commit_leased,
    completed,
    job_row,
    new_event,
    until,
    unusable,
)

from animica_hooks.core.fair import Claimant
from animica_hooks.errors import StoreError, StoreRefused, StoreUnavailable
from animica_hooks.store.base import Store
from animica_hooks.store.committer import Committer
from animica_hooks.store.records import Batch, Committed
from animica_hooks.store.tables import events, quarantine
from animica_hooks.telemetry import Telemetry

on_each = pytest.mark.parametrize("database_kind", [*DATABASES, PGBOUNCER], indirect=True)

CANARY = b"CANARY-in-the-payload"
NEVER_DONE, NEVER_LEASED = 13, 14  # handlers
# What the tests' databases do not take, by table.
REFUSED = {
    "hooks_events": "type = 'refused'",
    "hooks_quarantine": "length(body) > 100",
    "hooks_jobs": f"(handler_id = {NEVER_DONE} AND state = 'succeeded')"
    f" OR (handler_id = {NEVER_LEASED} AND state = 'leased')",
}


def by_trigger(table: str, moment: str) -> str:
    condition = REFUSED[table]
    for column in ("type", "body", "handler_id", "state"):
        condition = condition.replace(column, f"NEW.{column}")
    return (
        f"CREATE TRIGGER refuse_{table}_{moment} BEFORE {moment} ON {table} WHEN {condition}"
        " BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )


@pytest.fixture
def refusing(store: Store, database_kind: str, inbox_url: str) -> Iterator[Store]:
    """A store on a database that somebody has given rules of their own."""
    if database_kind == "sqlite":  # adds no constraint to a table that exists
        plant = [by_trigger(table, moment) for table in REFUSED for moment in ("INSERT", "UPDATE")]
        undo = []
    else:
        plant = [
            f"ALTER TABLE {table} ADD CONSTRAINT refused_{table} CHECK (NOT ({condition}))"
            for table, condition in REFUSED.items()
        ]
        undo = [f"ALTER TABLE {table} DROP CONSTRAINT refused_{table}" for table in REFUSED]
    engine = engine_of(database_kind, inbox_url)
    run(engine, plant)
    yield store
    run(engine, undo)
    engine.dispose()


def run(engine: Any, statements: list[str]) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


class Counting:
    """A store that counts its commits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.begun = 0

    async def commit(self, batch: Batch) -> Committed:
        self.begun += 1
        return await self._store.commit(batch)

    def slow_writer(self) -> None:
        return None


@pytest.fixture
def counting(refusing: Store) -> Counting:
    return Counting(refusing)


@pytest.fixture
async def committer(counting: Counting) -> AsyncIterator[Committer]:
    committer = start(counting)
    yield committer
    await committer.close()


def start(store: Any) -> Committer:
    return Committer(
        store,
        Telemetry([]),
        room=lambda: 0,
        on_leased=lambda jobs, waiting: None,
        ack_deadline=30.0,
    )


async def ends(*futures: asyncio.Future[Any]) -> list[str]:
    ended = await asyncio.gather(*futures, return_exceptions=True)
    return [type(end).__name__ if isinstance(end, BaseException) else end for end in ended]


@on_each
async def test_others_of_the_batch_are_stored_in_order(
    committer: Committer, counting: Counting, refusing: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 32 deliveries in one batch the 31 good ones are acknowledged, in few commits."""
    deliveries = [new_event(f"evt_{n}") for n in range(32)]
    deliveries[17] = new_event("evt_17", type="refused", body=CANARY)

    with caplog.at_level(logging.ERROR, "animica_hooks"):
        ended = await ends(*map(committer.deliver, deliveries))

    assert [*["new"] * 17, "StoreRefused", *["new"] * 14] == ended
    expected = [f"evt_{n}" for n in range(32) if n != 17]
    assert expected == [row.id for row in await all_rows(refusing, events)]
    assert counting.begun <= 1 + 2 * 5
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("the event evt_17 at animica is not stored")
    assert CANARY.decode() not in caplog.text
    assert committer.failing is False


@on_each
async def test_several_of_a_batch_are_told_apart(committer: Committer, refusing: Store) -> None:
    """Refused events and quarantined bodies, among duplicates and conflicts, are found each."""
    deliveries = [
        new_event("evt_a"),
        new_event("evt_bad_1", type="refused"),
        unusable(b"x" * 101),
        new_event("evt_a"),
        unusable(b"y"),
        new_event("evt_a", body=b"other"),
        new_event("evt_bad_2", type="refused"),
        new_event("evt_b"),
    ]

    assert [
        "new", "StoreRefused", "StoreRefused", "duplicate", "quarantined", "conflict",
        "StoreRefused", "new",
    ] == await ends(*map(committer.deliver, deliveries))  # fmt: skip
    assert ["evt_a", "evt_b"] == [row.id for row in await all_rows(refusing, events)]
    assert [b"y"] == [row.body for row in await all_rows(refusing, quarantine)]


@on_each
async def test_an_end_that_can_not_be_noted_keeps_nobody_else_from_theirs(
    committer: Committer, counting: Counting, refusing: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The others' ends and the deliveries are written; the refused one is not tried for ever."""
    jobs = await commit_leased(
        refusing,
        *[new_event(f"evt_{n}", handlers=(NEVER_DONE if n == 2 else 1,)) for n in range(4)],
    )
    for job in jobs:
        committer.mark(completed(job))

    assert ["new"] == await ends(committer.deliver(new_event("evt_new")))
    states = [(await job_row(refusing, job.id)).state for job in jobs]
    assert ["succeeded", "succeeded", "leased", "succeeded"] == states
    assert f"how job {jobs[2].id} ended can not be noted" in caplog.text
    before = counting.begun
    assert ["new"] == await ends(committer.deliver(new_event("evt_later")))
    assert 1 == counting.begun - before


@on_each
async def test_a_claim_that_is_refused_fails_alone(committer: Committer, refusing: Store) -> None:
    """Deliveries that share a batch with a claim that the database refuses are acknowledged."""
    await refusing.commit(Batch(deliveries=[new_event("evt_0", handlers=(NEVER_LEASED,))]))
    claiming = asyncio.ensure_future(committer.claim(1, [Claimant(NEVER_LEASED)]))
    await asyncio.sleep(0)
    delivery = committer.deliver(new_event("evt_1"))

    assert ["StoreRefused", "new"] == await ends(claiming, delivery)
    assert ["evt_1"] == [job.event.id for job in await claim(refusing)]


@on_each
async def test_what_the_driver_itself_can_not_send_is_found_as_well(
    committer: Committer, refusing: Store
) -> None:
    """Text that no encoding has, and numbers that no column has, do not get to the database."""
    too_large = new_event("evt_large")
    too_large.received_at = 2**70
    deliveries = [new_event("evt_a"), new_event("evt_text", type="\ud800"), too_large,
                  new_event("evt_b")]  # fmt: skip

    first, *odd, last = await asyncio.gather(
        *map(committer.deliver, deliveries), return_exceptions=True
    )

    assert ("new", "new") == (first, last)
    assert all(isinstance(end, StoreError) for end in odd)
    await until(lambda: not committer.failing)


@pytest.mark.parametrize("database_kind", DATABASES[1:], indirect=True)
async def test_a_trigger_of_the_users_is_a_refusal(
    store: Store, database_kind: str, inbox_url: str
) -> None:
    """What a trigger raises is about the row, whatever the database calls it."""
    engine = engine_of(database_kind, inbox_url)
    if database_kind == MARIADB:
        before, what = [], "SIGNAL SQLSTATE '45000'"
        undo = ["DROP TRIGGER refuse"]
    else:
        raising = "$$ BEGIN RAISE EXCEPTION 'refused'; END $$"
        before = [f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS {raising}"]
        what = "EXECUTE FUNCTION refuse()"
        undo = ["DROP TRIGGER refuse ON hooks_events", "DROP FUNCTION refuse"]
    each = f"CREATE TRIGGER refuse BEFORE INSERT ON hooks_events FOR EACH ROW {what}"
    plant = [*before, each]
    run(engine, plant)
    try:
        with pytest.raises(StoreRefused, match="does not take a row"):
            await store.commit(Batch(deliveries=[new_event()]))
    finally:
        # Beside the loop, which has yet to close the connection that was refused.
        await asyncio.to_thread(run, engine, undo)
        engine.dispose()


@pytest.mark.parametrize("database_kind", [MARIADB], indirect=True)
async def test_a_body_beyond_what_the_server_reads_is_refused_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body larger than max_allowed_packet, which would end the connection, says what to raise."""
    monkeypatch.setattr(store, "_packet", 4 * 1024 * 1024)
    committer = start(store)

    large = committer.deliver(new_event("evt_large", body=b"x" * 4 * 1024 * 1024))
    small = committer.deliver(new_event("evt_small", body=b"x" * 1024 * 1024))

    assert ["StoreRefused", "new"] == await ends(large, small)
    with pytest.raises(StoreRefused, match="raise max_allowed_packet, or lower max_body"):
        await large
    await committer.close()


class Going:
    """A store that refuses three batches, and then is gone."""

    def __init__(self) -> None:
        self.begun = 0

    async def commit(self, batch: Batch) -> Committed:
        self.begun += 1
        raise StoreRefused("a row.") if self.begun <= 3 else StoreUnavailable("gone.")

    def slow_writer(self) -> None:
        return None


async def test_a_database_that_goes_meanwhile_is_asked_no_more() -> None:
    """Where it does not answer one part, those that are left are given up without asking."""
    going = Going()
    committer = start(going)

    ended = await ends(*[committer.deliver(new_event(f"evt_{n}")) for n in range(32)])

    assert ["StoreUnavailable"] * 32 == ended
    assert 4 == going.begun
    await committer.close()
