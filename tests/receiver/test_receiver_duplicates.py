"""An event that is delivered again is acknowledged again, and stored and handled once."""

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from databases import on_every_database
from receiving import Database, Server, ask, count, deliver, rows, signed, stored_ids, until, write
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from animica_hooks import Event, Hooks
from animica_hooks.core import event as core_event
from animica_hooks.testing import make_event

pytestmark = on_every_database
REPLAYS = 100


@pytest.fixture
def hooks(make_hooks: Callable[..., Hooks], database: Database) -> Hooks:
    """Return a receiver whose handler leaves one row for each time it has run."""
    hooks = make_hooks(auto_migrate=True)
    write(database, "CREATE TABLE effects (event_id TEXT)")

    @hooks.on("*", name="effect")
    async def effect(event: Event, session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO effects VALUES (:id)"), {"id": event.id})

    return hooks


def _all_done(database: Database) -> bool:
    return not rows(database, "SELECT id FROM hooks_jobs WHERE state <> 'succeeded'")


async def _replay_at_once(hooks: Hooks, database: Database) -> tuple[list[int], int, int]:
    """Send one request many times at once; return the statuses, the events and the effects."""
    body = make_event("payment.succeeded")
    async with hooks.lifespan():
        replies = await asyncio.gather(*(ask(hooks, signed(body)) for _ in range(REPLAYS)))
        await until(lambda: _all_done(database))
    statuses = [reply.status for reply in replies]
    return statuses, count(database, "hooks_events"), count(database, "effects")


async def test_replays_at_once(hooks: Hooks, database: Database) -> None:
    """One request sent 100 times at once is answered 204 each time, stored once, handled once."""
    assert ([204] * REPLAYS, 1, 1) == await _replay_at_once(hooks, database)
    assert [(REPLAYS - 1, 0)] == rows(database, "SELECT count, conflict FROM hooks_redeliveries")


async def test_replays_at_once_would_show_a_missing_deduplication(
    hooks: Hooks, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above fails for a receiver that takes each delivery for an event of its own."""
    numbers = itertools.count()
    check = core_event.check_identity

    def make_unique(payload: dict[str, Any]) -> tuple[str, str]:
        id, type = check(payload)
        return f"{id}-{next(numbers)}", type

    monkeypatch.setattr("animica_hooks.receiver.app.check_identity", make_unique)
    expected = ([204] * REPLAYS, REPLAYS, REPLAYS)
    assert expected == await _replay_at_once(hooks, database)


def test_replays_at_once_over_http(hooks: Hooks, database: Database) -> None:
    """The same holds over real connections."""
    request = signed(make_event("payment.succeeded"))

    async def send_all(url: str) -> list[int]:
        limits = httpx2.Limits(max_connections=20)
        async with httpx2.AsyncClient(limits=limits, trust_env=False) as client:
            replies = await asyncio.gather(
                *(
                    client.post(url, content=request.body, headers=request.headers)
                    for _ in range(REPLAYS)
                )
            )
        return [reply.status_code for reply in replies]

    with Server(hooks) as server:
        assert [204] * REPLAYS == asyncio.run(send_all(f"http://127.0.0.1:{server.port}/"))
        asyncio.run(until(lambda: _all_done(database)))
    assert (1, 1) == (count(database, "hooks_events"), count(database, "effects"))


async def test_other_body_is_a_conflict(
    hooks: Hooks, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """An id that comes again with another body: the first counts, both hashes are recorded."""
    first, second = (make_event("a.b", {"amount": n}, id="evt_1") for n in (1, 2))
    hashes = [hashlib.sha256(body) for body in (first, second)]
    async with hooks.lifespan():
        for body in (first, second, second, first):
            assert 204 == (await deliver(hooks, body)).status
        [event] = [event async for event in hooks.events()]
        counts = (await hooks.stats()).counts

    assert [(first,)] == rows(database, "SELECT body FROM hooks_events")
    assert [(hashes[0].digest(), 0, 1), (hashes[1].digest(), 1, 2)] == rows(
        database, "SELECT body_hash, conflict, count FROM hooks_redeliveries ORDER BY conflict"
    )
    assert (4, 2) == (event.deliveries, event.conflicts)
    assert (1, 1, 2) == tuple(
        counts[f"deliveries.{receipt}"] for receipt in ("new", "duplicate", "conflict")
    )
    [line] = {r.getMessage() for r in caplog.records if "another body" in r.getMessage()}
    assert all(known.hexdigest() in line for known in hashes)
    assert "amount" not in caplog.text


async def test_conflict_within_one_commit(hooks: Hooks, database: Database) -> None:
    """Two bodies under one id that are committed together: one counts, the other is a conflict."""
    bodies = [make_event("a.b", {"amount": n}, id="evt_1") for n in range(10)]
    async with hooks.lifespan():
        replies = await asyncio.gather(*(deliver(hooks, body) for body in bodies))
        await until(lambda: _all_done(database))
    assert {204} == {reply.status for reply in replies}
    assert [(bodies[0],)] == rows(database, "SELECT body FROM hooks_events")
    assert [(1,)] * 9 == rows(database, "SELECT conflict FROM hooks_redeliveries")
    assert 1 == count(database, "effects")


async def test_duplicate_after_a_restart(
    make_hooks: Callable[..., Hooks], hooks: Hooks, database: Database
) -> None:
    """What was delivered before a restart is a duplicate after it."""
    body = make_event("a.b", id="evt_1")
    for app in (hooks, make_hooks()):
        async with app.lifespan():
            assert 204 == (await deliver(app, body)).status
    assert ["evt_1"] == stored_ids(database)
    assert 1 == count(database, "hooks_jobs")


@pytest.mark.parametrize(
    "alike",
    [("evt_a", "EVT_A"), ("evt_a", "evt_a "), ("evt_" + "x" * 250 + "a", "evt_" + "x" * 250 + "b")],
)
async def test_ids_are_told_apart_byte_by_byte(
    hooks: Hooks, database: Database, alike: tuple[str, str]
) -> None:
    """Ids that differ in case, by a space at the end, or only late are different events."""
    async with hooks.lifespan():
        for id in alike:
            await deliver(hooks, make_event("a.b", id=id))
    assert list(alike) == stored_ids(database)
