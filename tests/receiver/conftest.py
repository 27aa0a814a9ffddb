"""Fixtures of the receiver's tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from receiving import SECRET, Database, url

from animica_hooks import Hooks


@pytest.fixture
def anyio_backend() -> str:
    """The receiver runs on asyncio."""
    return "asyncio"


@pytest.fixture
def database(request: pytest.FixtureRequest, database_kind: str, tmp_path: Path) -> Database:
    """A database that no other test uses; without tables where it is a file."""
    if database_kind == "sqlite":
        return tmp_path / "hooks.db"
    url: str = request.getfixturevalue("empty_database")(database_kind)
    return url


@pytest.fixture
def make_hooks(database: Database) -> Callable[..., Hooks]:
    """Make a ``Hooks`` of this test's database, with no handlers of other tests."""

    def make(**options: Any) -> Hooks:
        usual = {"signing_secret": SECRET, "database_url": url(database), "routers": []}
        return Hooks(**{**usual, **options})

    return make


@pytest.fixture
def hooks(make_hooks: Callable[..., Hooks]) -> Hooks:
    return make_hooks()
