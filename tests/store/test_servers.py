"""What only database servers have: several clients at once, and connections that come and go."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from databases import POSTGRESQL, engine_of, on_every_server
from proxy import Proxy
from sqlalchemy import insert, make_url, text
from sqlalchemy.exc import DBAPIError
from storekit import (
    PATIENCE_S,
    Opens,
    all_rows,
    commit_leased,
    completed,
    handler,
    new_event,
    released,
    until,
)

from animica_hooks.core.outcome import SECOND
from animica_hooks.store import inbox
from animica_hooks.store.base import Store
from animica_hooks.store.connect import make_store
from animica_hooks.store.records import Batch, Committed
from animica_hooks.store.tables import events, handlers

pytestmark = on_every_server


@pytest.fixture
async def cut_off(inbox_url: str) -> AsyncIterator[tuple[Store, Proxy]]:
    """A store that reaches the database through a proxy."""
    url = make_url(inbox_url)
    async with Proxy(url.port or 0) as proxy:
        through = url.set(host="127.0.0.1", port=proxy.port)
        store = make_store(
            through.render_as_string(hide_password=False), owner="cut", lease_s=30, handlers=4
        )
        await store.open(migrate=False)
        yield store, proxy
        await store.close()


async def test_where_the_first_inserter_rolls_back_the_second_stores(
    store: Store, database_kind: str, inbox_url: str
) -> None:
    """Who waits for another's insert of the same event says neither new nor duplicate too early."""
    engine = engine_of(database_kind, inbox_url)
    event = new_event().event
    row = {"endpoint": event.endpoint, "id": event.id, "type": event.type, "received_at": 1}
    with engine.connect() as first:
        first.execute(insert(events).values(**row, headers=b"", body=b""))
        second = asyncio.create_task(store.commit(Batch(deliveries=[new_event()])))
        done, _ = await asyncio.wait([second], timeout=0.3)
        assert set() == done
        first.rollback()
        async with asyncio.timeout(PATIENCE_S):
            assert ["new"] == (await second).receipts
    engine.dispose()

    [stored] = await all_rows(store, events)
    assert event.body == stored.body


async def test_what_a_handler_was_cut_off_from_does_not_lock_the_inbox(
    cut_off: tuple[Store, Proxy], open_store: Opens, database_kind: str
) -> None:
    """Between a handler's mark and its commit, which never comes, the job is locked for a moment.

    Whoever gives the job back meanwhile, in one batch with deliveries, has it done within the
    deadline of their senders.
    """
    if database_kind != POSTGRESQL:
        pytest.skip("the server ends idle transactions only by a setting of its own")
    left, proxy = cut_off
    other = await open_store(owner="other")
    [job] = await commit_leased(left, new_event())
    commits: list[asyncio.Task[Committed]] = []
    took: list[float] = []

    async def handle() -> None:
        async with left.session("handler") as (session, unit):
            connection = await session.connection()
            parameters = inbox.mark_parameters(completed(job), left.now())
            await connection.execute(unit.ending, parameters)
            proxy.swallows = True
            began = time.monotonic()
            batch = Batch(deliveries=[new_event("evt_2")], marks=[released(job, other.now())])
            committing = asyncio.create_task(other.commit(batch))
            commits.append(committing)
            await asyncio.wait([committing], timeout=3.0)
            took.append(time.monotonic() - began)
            proxy.swallows = False
            proxy.cut()
            await session.execute(text("SELECT 1"))

    with pytest.raises(DBAPIError):
        await handle()
    committed = await commits[0]
    assert (["new"], 0) == (committed.receipts, committed.fenced)
    assert took[0] < 2.9


async def test_processes_that_start_at_once_register_the_same_handlers(
    open_store: Opens, inbox_url: str
) -> None:
    """New handlers get one id each, in whatever order and how many processes bring them."""
    stores = [await open_store(owner=f"{n}") for n in range(6)]
    names = [f"handler {n}" for n in range(30)]

    async def register(store: Store, names: list[str]) -> dict[str, int]:
        async with store.write("registration") as connection:
            found = [handler(name) for name in names]
            return await inbox.register_handlers(connection, found, store.now())

    for _ in range(3):
        ids = await asyncio.gather(*[register(store, names) for store in stores])
        assert [ids[0]] * 6 == ids

    assert sorted(names) == sorted(row.name for row in await all_rows(stores[0], handlers))


async def test_an_idle_connection_that_the_server_ended_is_replaced(
    store: Store, database_kind: str, inbox_url: str
) -> None:
    """After a restart of the server the first delivery gets in: nothing of it was under way."""
    if database_kind != POSTGRESQL:
        pytest.skip("the end of a connection is seen only when it is used")
    end_connections(database_kind, inbox_url)
    await asyncio.sleep(0.1)

    assert ["new"] == (await store.commit(Batch(deliveries=[new_event()]))).receipts


async def test_a_lost_notification_is_made_up_for(
    open_store: Opens, database_kind: str, inbox_url: str
) -> None:
    """A listener whose connection was ended listens again, and looks for what it missed."""
    if database_kind != POSTGRESQL:
        pytest.skip("nothing is told from process to process")
    hears, tells = await open_store(owner="hears"), await open_store(owner="tells")
    heard: list[float] = []
    hears.start_maintenance(lambda: heard.append(time.monotonic()))
    await until(lambda: bool(heard))
    for n in range(3):
        end_connections(database_kind, inbox_url, "query LIKE 'LISTEN%'")
        heard.clear()
        await tells.commit(Batch(deliveries=[new_event(f"evt_{n}")]))  # nobody listens
        await until(lambda: bool(heard), 5)
        heard.clear()
        await tells.commit(Batch(deliveries=[new_event(f"evt_{n}_again")]))
        await until(lambda: bool(heard), 0.5)


def end_connections(kind: str, url: str, which: str = "true") -> None:
    """End other connections to a database."""
    engine = engine_of(kind, url)
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND {which}"
            )
        )
    engine.dispose()


async def test_the_clock_of_the_machine_does_not_matter(
    inbox_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases and due dates are reckoned by the database's clock, and on from there evenly."""
    store = make_store(inbox_url, owner="one", lease_s=30, handlers=1)
    monkeypatch.setattr("time.time_ns", lambda: 0)
    await store.open(migrate=False)
    before = store.now()
    monkeypatch.setattr("time.time_ns", lambda: 10**20)
    after = store.now()
    monkeypatch.undo()
    await store.close()

    assert 0 <= after - before < SECOND
    assert abs(before - time.time() * SECOND) < 5 * SECOND
