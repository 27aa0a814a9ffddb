"""The ``session`` of a handler: one transaction with the mark that its job is done.

Rule 1: the transaction ends with the handler. ``session.commit()`` in a handler only flushes, and
        what it wrote commits together with the mark, or not at all.
Rule 2: on SQLite reads before the first write run outside any transaction and take no lock; the
        first write waits for its turn and begins the transaction (``BEGIN IMMEDIATE``), which can
        then not fail for having read something that has changed since.
Rule 3: the mark names the fence of the lease. Where another worker has the job by now, nothing
        is committed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from animica_hooks.errors import HandlerError, LeaseLost
from animica_hooks.store.inbox import MARK, mark_parameters
from animica_hooks.store.records import Mark
from animica_hooks.store.turns import WriteTurns

_OPTION = "animica_hooks_unit"
_KEYWORD = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|\()*([A-Za-z]+)", re.DOTALL)
_WRITE_WORD = re.compile(r"\b(?:INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_TARGET = re.compile(
    r"(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|UPDATE(?:\s+OR\s+\w+)?|DELETE\s+FROM|REPLACE\s+INTO)"
    r"\s+([\w.\"`]+)",
    re.IGNORECASE,
)
_READ_KEYWORDS = frozenset({"SELECT", "VALUES", "EXPLAIN", "PRAGMA"})


@dataclass(slots=True)
class Unit:
    """One handler's unit of work: the transaction, and whose turn it is written in.

    Attributes:
        holder: names the handler, in warnings about a turn that lasts too long.
        record: list the writes, for a dry run.
        recorded: the writes so far, as ``INSERT orders`` and rows.
    """

    turns: WriteTurns
    holder: str
    record: bool = False
    recorded: list[tuple[str, int]] = field(default_factory=list, init=False)
    has_turn: bool = field(default=False, init=False)
    begun: bool = field(default=False, init=False)
    may_commit: bool = field(default=False, init=False)

    def complete(self, session: Session, mark: Mark, now: int) -> bool:
        """Commit what the handler wrote, together with ``mark``.

        Returns:
            False where it has written nothing: there is nothing to commit the mark with.

        Raises:
            LeaseLost: another worker has the job by now; nothing was committed.
        """
        session.flush()
        if not self.begun:
            return False
        connection = session.connection()
        if not connection.execute(MARK, mark_parameters(mark, now)).rowcount:
            raise LeaseLost(f"the lease of job {mark.job_id} ran out while its handler ran.")
        self.may_commit = True
        connection.commit()
        return True

    def end(self) -> None:
        if self.has_turn:
            self.has_turn = False
            self.turns.give()


@asynccontextmanager
async def open_session(engine: AsyncEngine, unit: Unit) -> AsyncIterator[AsyncSession]:
    """Open the session of an ``async def`` handler; closing rolls back what is not committed."""
    try:
        connection = await engine.connect()
        try:
            await connection.execution_options(**{_OPTION: unit})
            await connection.begin()
            async with AsyncSession(connection, expire_on_commit=False) as session:
                yield session
        finally:
            await asyncio.shield(connection.close())
    finally:
        unit.end()


@contextmanager
def open_sync_session(engine: Engine, unit: Unit) -> Iterator[Session]:
    """Open the session of a plain ``def`` handler, in its thread."""
    try:
        with engine.connect().execution_options(**{_OPTION: unit}) as connection:
            connection.begin()
            with Session(connection, expire_on_commit=False) as session:
                yield session
    finally:
        unit.end()


def listen(engine: Engine) -> None:
    """Make an SQLite engine begin units at their first write, and end them only by ``complete``."""
    event.listen(engine, "before_cursor_execute", _begin_at_first_write)
    event.listen(engine, "after_cursor_execute", _record)
    event.listen(engine, "rollback", _begin_anew)
    event.listen(engine, "commit", _refuse_commit)
    event.listen(engine, "checkin", _leave_no_transaction)


def _begin_at_first_write(connection: Connection, cursor: Any, statement: str, *_: object) -> None:
    unit = _unit(connection)
    if unit is None or unit.begun or not writes(statement):
        return
    if not unit.has_turn:
        driver: Any = connection.connection.dbapi_connection
        if hasattr(driver, "run_async"):
            driver.run_async(lambda _: unit.turns.take(unit.holder))
        else:
            unit.turns.take_blocking(unit.holder)
        unit.has_turn = True
    cursor.execute("BEGIN IMMEDIATE")
    unit.begun = True


def _record(connection: Connection, cursor: Any, statement: str, *_: object) -> None:
    unit = _unit(connection)
    if unit is None or not unit.record or not writes(statement):
        return
    if target := _TARGET.search(statement):
        verb, table = target[0].split()[0].upper(), target[1].strip('`"')
        unit.recorded.append((f"{verb} {table}", max(cursor.rowcount, 0)))


def _begin_anew(connection: Connection) -> None:
    if unit := _unit(connection):
        unit.begun = False


def _refuse_commit(connection: Connection) -> None:
    unit = _unit(connection)
    if unit is not None and not unit.may_commit:
        raise HandlerError(
            "a handler's session can not be committed after a rollback: it commits by itself, "
            "together with its job, when the handler returns."
        )


def _leave_no_transaction(driver: Any, _: object) -> None:
    """Roll back after a commit that failed: SQLAlchemy takes that transaction for ended."""
    if driver is not None and getattr(driver, "driver_connection", driver).in_transaction:
        driver.rollback()


def _unit(connection: Connection) -> Unit | None:
    unit: Unit | None = connection.get_execution_options().get(_OPTION)
    return unit


def writes(statement: str) -> bool:
    """Tell whether a statement may write; in doubt it does."""
    found = _KEYWORD.match(statement)
    keyword = found[1].upper() if found else ""
    if keyword == "WITH":
        return _WRITE_WORD.search(statement) is not None
    return keyword not in _READ_KEYWORDS
