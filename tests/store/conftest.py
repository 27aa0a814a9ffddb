"""A store on a new database. Tests marked ``on_every_database`` run on each kind there is."""

import pytest

from animica_hooks.store.base import Store
from animica_hooks.testing.store_contract import anyio_backend, clock, open_store
from animica_hooks.testing.store_contract.kit import Opens

__all__ = ["anyio_backend", "clock", "open_store"]

collect_ignore = ["third_party"]  # a project of its own, which a test installs and runs


@pytest.fixture
async def store(open_store: Opens, inbox_url: str) -> Store:
    """A store on a database with its tables and nothing in them."""
    return await open_store()
