"""A store on a new database. Tests marked ``on_every_database`` run on each kind there is."""

from collections.abc import AsyncIterator

import pytest
from storekit import Clock, Opens

from animica_hooks.store.base import Store
from animica_hooks.store.connect import make_store


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def open_store(
    database_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Opens]:
    """Opens the database, with the tests' clock; all that was opened is closed at the end."""
    opened: list[Store] = []

    async def open_store(
        *, owner: str = "one", lease_s: float = 30.0, migrate: bool = True
    ) -> Store:
        store = make_store(database_url, owner=owner, lease_s=lease_s, handlers=4)
        monkeypatch.setattr(store, "now", clock)
        opened.append(store)
        await store.open(migrate=migrate)
        return store

    yield open_store
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: Opens, inbox_url: str) -> Store:
    """A store on a database with its tables and nothing in them."""
    return await open_store()
