"""asyncpg with transactions that mark a job as done in the trip of their COMMIT."""

from __future__ import annotations

from typing import Any

import asyncpg
from asyncpg.transaction import Transaction

from animica_hooks.store import postgres_sql as sql
from animica_hooks.store.inbox import lease_lost
from animica_hooks.store.records import Mark


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection on which the server keeps what was prepared, for the one coroutine that has it.

    Attributes:
        mark: what the next COMMIT writes, and when.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mark: tuple[Mark, int] | None = None
        self._is_prepared = False

    def commit_with(self, mark: Mark, now: int) -> None:
        """Have the next COMMIT write a plain mark, or else raise ``LeaseLost``."""
        self.mark = mark, now

    def transaction(
        self, *, isolation: Any = None, readonly: bool = False, deferrable: bool = False
    ) -> Transaction:
        return _Transaction(self, isolation, readonly, deferrable)

    async def commit_marked(self, mark: Mark, now: int) -> None:
        if not self._is_prepared:
            await self.execute(sql.PREPARE_COMPLETE)
            self._is_prepared = True
        complete = sql.COMPLETE.format(id=mark.job_id, fence=mark.fence, now=now)
        try:
            # One string is one trip; where its first statement fails, the second is not run.
            await self.execute(f"{complete}; COMMIT")
        except asyncpg.UndefinedObjectError as error:
            if sql.LEASE_LOST not in str(error):
                raise
            raise lease_lost(mark) from None


class _Transaction(Transaction):  # type: ignore[misc]
    async def commit(self) -> None:
        connection = self._connection
        carried, connection.mark = connection.mark, None
        if carried is None:
            await super().commit()
            return
        connection._top_xact = None  # as Transaction has it; else nothing could begin any more
        await connection.commit_marked(*carried)
