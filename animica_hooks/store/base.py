"""The port to SQL: what each database brings, and the clock that all of them share."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from animica_hooks.core.outcome import SECOND
from animica_hooks.store import schema
from animica_hooks.store.records import Batch, Committed
from animica_hooks.store.session import Unit

T = TypeVar("T")


class Store(ABC):
    """One database, as one process uses it.

    Args:
        owner: names the process in the leases it holds.
        lease_s: seconds that a lease lasts unless it is renewed.

    Attributes:
        migrates_itself: ``open`` is to migrate where nobody says otherwise.
        hears: other processes' jobs are told of (``start_maintenance``); else they are looked for
            more often while there are some.
    """

    migrates_itself: bool
    hears = True

    def __init__(self, *, owner: str, lease_s: float) -> None:
        self.owner = owner
        self.lease = int(lease_s * SECOND)
        self._closed = False

    def _close_late(self, _: object, entry: ConnectionPoolEntry) -> None:
        """Close what a handler brings back that a shutdown has left behind: nobody else would."""
        if self._closed:
            entry.invalidate()

    def now(self) -> int:
        """Return the time that due dates and leases are reckoned in, in microseconds."""
        return time.time_ns() // 1000

    @abstractmethod
    async def open(self, *, migrate: bool) -> None:
        """Connect; bring the schema up to date or check that it is.

        Raises:
            ConfigurationError: the database can not be used, or its schema is not current.
        """

    async def version(self) -> str | None:
        """Return which version the tables are at, before ``open``; None where there are none.

        Raises:
            ConfigurationError: the database can not be used.
        """
        async with self.read() as connection:
            return await connection.run_sync(schema.current)

    @abstractmethod
    def start_maintenance(self, on_due: Callable[[], None] | None) -> None:
        """Begin what the database needs done beside the work, until ``close``.

        Args:
            on_due: called when another process may have made jobs that are due. A hint: some get
                lost, and some come for nothing. None where nobody here wants to know.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close every connection. Nothing may be under way."""

    @abstractmethod
    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a connection to read with."""

    @abstractmethod
    def write(self, holder: str) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction that commits at the end of the block, or rolls back if it raises."""

    async def transact(self, holder: str, work: Callable[[Connection], T]) -> T:
        """Run what is all statements and nothing else as one transaction, as short as can be."""
        async with self.write(holder) as connection:
            return await connection.run_sync(work)

    @abstractmethod
    async def commit(self, batch: Batch) -> Committed:
        """Do all of a batch in one transaction; when this returns it is on disk.

        Not for concurrent use.

        Raises:
            StoreRefused: the database does not take what a row holds; nothing was done. The caller
                finds out which by committing parts of the batch.
            StoreUnavailable: nothing was acknowledged; a commit whose outcome is unknown may yet
                have happened, which deduplication and fences make harmless.
        """

    @abstractmethod
    def renew(self, leases: Sequence[tuple[int, int]]) -> None:
        """Prolong leases that are still held; of the others nothing is said.

        Called in a thread, and waits there: whatever the event loop does does not hold it up.

        Args:
            leases: ids and fences of jobs.

        Raises:
            StoreUnavailable: some or all were not prolonged.
        """

    @abstractmethod
    def session(
        self, holder: str, *, record: bool = False
    ) -> AbstractAsyncContextManager[tuple[AsyncSession, Unit]]:
        """Open the session of an ``async def`` handler and its unit of work.

        Args:
            holder: names the handler.
            record: list the writes, for a dry run.
        """

    @abstractmethod
    def sync_session(
        self, holder: str, *, record: bool = False
    ) -> AbstractContextManager[tuple[Session, Unit]]:
        """Open the same for a plain ``def``, in its thread."""

    @abstractmethod
    def slow_writer(self) -> tuple[str, float] | None:
        """Return who keeps others from writing, and for how many seconds; None where nobody."""
