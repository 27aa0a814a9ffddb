"""Fixtures of the receiver's tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from receiving import SECRET, url

from animica_hooks import Hooks


@pytest.fixture
def anyio_backend() -> str:
    """The receiver runs on asyncio."""
    return "asyncio"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "hooks.db"


@pytest.fixture
def make_hooks(database: Path) -> Callable[..., Hooks]:
    """Make a ``Hooks`` of this test's database, with no handlers of other tests."""

    def make(**options: Any) -> Hooks:
        options = {"signing_secret": SECRET, "database_url": url(database), **options}
        return Hooks(routers=[], **options)

    return make


@pytest.fixture
def hooks(make_hooks: Callable[..., Hooks]) -> Hooks:
    return make_hooks()
