"""asyncmy with a COMMIT that marks a job as done in the same trip."""

from __future__ import annotations

from typing import Any

import asyncmy.connection
from asyncmy import errors
from asyncmy.constants import SERVER_STATUS

from animica_hooks.store import mariadb_sql as sql
from animica_hooks.store.inbox import lease_lost
from animica_hooks.store.records import Mark


async def connect(**options: Any) -> Connection:
    """Open a connection; the options are those of ``asyncmy.connect``."""
    opened = Connection(**options)
    await opened.connect()
    return opened


class Connection(asyncmy.connection.Connection):
    """A connection, for the one coroutine that has it."""

    server_status: int  # as the server's last answer had it

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._mark: tuple[Mark, int] | None = None
        self._has_just_committed = False

    def commit_with(self, mark: Mark, now: int) -> None:
        """Have the next COMMIT write a plain mark, or else raise ``LeaseLost``."""
        self._mark = mark, now

    async def commit(self) -> None:
        carried, self._mark = self._mark, None
        if carried is None:
            await super().commit()
            return
        mark, now = carried
        try:
            complete = sql.COMPLETE_AND_COMMIT.format(id=mark.job_id, fence=mark.fence, now=now)
            await self.query(complete)  # type: ignore[no-untyped-call]
        except errors.MySQLError as error:
            if sql.LEASE_LOST not in str(error):
                raise
            raise lease_lost(mark) from None
        # Of a COMMIT in a compound statement the server tells only with its next answer.
        self.server_status &= ~SERVER_STATUS.SERVER_STATUS_IN_TRANS
        self._has_just_committed = True

    async def rollback(self) -> None:
        """Roll back, but not as the first thing after a commit: the pool would, at each return."""
        has_just_committed, self._has_just_committed = self._has_just_committed, False
        if not has_just_committed or self.get_transaction_status():
            await super().rollback()
