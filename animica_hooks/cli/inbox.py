"""How commands get at the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from animica_hooks.config import Settings, find_database_url
from animica_hooks.errors import AnimicaHooksError, ConfigurationError, StoreError

if TYPE_CHECKING:
    from animica_hooks.admin import Admin
    from animica_hooks.store.base import Store

T = TypeVar("T")


class NotFound(AnimicaHooksError):
    """There is nothing of that id."""


def no_handler(name: str) -> NotFound:
    """Return the error that says so of a handler's name."""
    return NotFound(f"the database knows no handler {name}: 'animica-hooks handlers list' does.")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine.

    Raises:
        StoreError: the database failed.
    """
    from sqlalchemy.exc import DBAPIError

    try:
        return asyncio.run(work)
    except DBAPIError as error:
        raise StoreError(f"the database failed: {error.orig}.") from error


@asynccontextmanager
async def store_of(database_url: str | None) -> AsyncIterator[Store]:
    """Yield a database that may be new, not opened."""
    from animica_hooks.runtime import open_store

    store = open_store(Settings(database_url=find_database_url(database_url)))
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def opened(database_url: str | None) -> AsyncIterator[Admin]:
    """Yield a database that is there already, and never make one.

    Raises:
        ConfigurationError: there is none, or its schema is not current.
    """
    from animica_hooks.admin import Admin

    require_database(database_url)
    async with store_of(database_url) as store:
        await store.open(migrate=False)
        yield Admin(store)


def require_database(database_url: str | None) -> None:
    """Raise ``ConfigurationError`` where the URL is none, or of a file that is not there."""
    from animica_hooks.store.connect import parse_url

    url = parse_url(find_database_url(database_url))
    if url.get_backend_name() != "sqlite" or not url.database:
        return
    path = Path(url.database).absolute()
    if not path.exists():
        raise ConfigurationError(
            f"there is no database {path}: name the app's with --database-url or "
            "ANIMICA_HOOKS_DATABASE_URL, or make one with 'animica-hooks db upgrade'."
        )
