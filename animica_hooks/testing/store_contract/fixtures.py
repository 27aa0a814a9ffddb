"""A store on a database that the ``database_url`` fixture names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from animica_hooks.store.base import Store
from animica_hooks.store.connect import make_store
from animica_hooks.testing.store_contract.kit import Clock, Opens


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as the package does."""
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    """The time, as all stores of a test tell it."""
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
async def store(open_store: Opens) -> Store:
    """A store on a database with its tables and nothing in them."""
    return await open_store()
