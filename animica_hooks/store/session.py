"""The ``session`` of a handler: one transaction with the mark that its job is done.

Rule 1: the transaction ends with the handler. ``session.commit()`` in a handler only flushes, and
        what it wrote commits together with the mark, or not at all.
Rule 2: on SQLite reads before the first write run outside any transaction and take no lock; the
        first write waits for its turn and begins the transaction (``BEGIN IMMEDIATE``), which can
        then not fail for having read something that has changed since. Servers begin it with the
        first statement.
Rule 3: the mark names the fence of the lease. Where another worker has the job by now, nothing
        is committed.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, UpdateBase, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from animica_hooks.errors import CommitUnknown, HandlerError
from animica_hooks.store import sqlite_driver, sqlite_sql
from animica_hooks.store.inbox import MARK, call_next, lease_lost, mark_parameters
from animica_hooks.store.records import Mark
from animica_hooks.store.turns import WriteTurns

_GIVE_BACK_S = 1.0
_COMPLETE = sqlite_sql.complete(1)
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
    """One handler's unit of work.

    Attributes:
        holder: names the handler, in warnings about a turn that lasts too long.
        record: list the writes, for a dry run.
        ending: the statement that ends the job, shortly before the commit.
        recorded: the writes so far, as ``INSERT orders`` and rows.
        begun: something has been done in the transaction that may have to be committed.
    """

    holder: str
    record: bool = False
    ending: UpdateBase = MARK
    recorded: list[tuple[str, int]] = field(default_factory=list, init=False)
    begun: bool = field(default=False, init=False)
    may_commit: bool = field(default=False, init=False)

    def before(self, connection: Connection, cursor: Any, statement: str) -> None:  # noqa: ARG002
        """Prepare for a statement. A SELECT, too, can call a function that writes."""
        self.begun = True

    def complete(self, session: Session, mark: Mark, now: int) -> bool:
        """Commit what the handler wrote, together with ``mark``, and close the session.

        Returns:
            False where it has written nothing: there is nothing to commit the mark with.

        Raises:
            LeaseLost: another worker has the job by now; nothing was committed.
            CommitUnknown: the connection was lost before the database answered.
        """
        session.flush()
        if not self.begun:
            return False
        connection = session.connection()
        self.commit(connection, mark, now)
        # Here, and not as two further tasks of who opened them.
        session.close()
        connection.close()
        return True

    def commit(self, connection: Connection, mark: Mark, now: int) -> None:
        """End the transaction with the mark."""
        self.write_mark(connection, mark, now)
        self.commit_marked(connection)

    def write_mark(self, connection: Connection, mark: Mark, now: int) -> None:
        if not connection.execute(self.ending, mark_parameters(mark, now)).rowcount:
            raise lease_lost(mark)
        if mark.line is not None:  # it has succeeded
            connection.execute(call_next(mark.line, now))

    def commit_marked(self, connection: Connection) -> None:
        self.may_commit = True
        try:
            connection.commit()
        except BaseException as error:
            is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
            is_refused = isinstance(error, DBAPIError) and not is_lost
            # SQLAlchemy takes the transaction for ended, and would keep the connection with it.
            if not (is_refused and self.roll_back(connection)):
                connection.invalidate()
            if is_lost:
                why = "the connection to the database was lost in a commit."
                raise CommitUnknown(why) from error
            raise

    def roll_back(self, connection: Connection) -> bool:  # noqa: ARG002
        """Roll back after a commit that the database refused; False where that is not certain."""
        return False

    def end(self) -> None:
        """Let go of what is held for the transaction, which has ended."""


@dataclass(slots=True)
class MarkingUnit(Unit):
    """A unit of work whose driver writes a plain mark with its COMMIT, in one trip."""

    def commit(self, connection: Connection, mark: Mark, now: int) -> None:
        if mark.is_plain:
            driver: Any = connection.connection.driver_connection
            driver.commit_with(mark, now)
        else:
            self.write_mark(connection, mark, now)
        self.commit_marked(connection)


@dataclass(slots=True)
class SqliteUnit(Unit):
    """A unit of work in an SQLite file, which is written in its turn."""

    turns: WriteTurns = field(kw_only=True)
    # At most one: whoever takes it out ends the turn, in the event loop or in a thread.
    has_turn: list[WriteTurns] = field(default_factory=list, init=False)

    def before(self, connection: Connection, cursor: Any, statement: str) -> None:
        if not writes(statement):
            return
        pooled = connection.connection
        driver: Any = pooled.driver_connection
        if self.begun and driver.in_transaction:
            return
        if isinstance(driver, sqlite_driver.Connection):
            if not self.has_turn:
                adapted: Any = pooled.dbapi_connection
                adapted.run_async(lambda _: self.turns.take(self.holder))
                self.has_turn.append(self.turns)
            driver.begin_with_next()
        else:
            if not self.has_turn:
                self.turns.take_blocking(self.holder)
                self.has_turn.append(self.turns)
            cursor.execute("BEGIN IMMEDIATE")
        self.begun = True

    def commit(self, connection: Connection, mark: Mark, now: int) -> None:
        driver = connection.connection.driver_connection
        ending = None
        if mark.is_plain and isinstance(driver, sqlite_driver.Connection):
            ending = partial(_complete, mark, now)
        else:
            self.write_mark(connection, mark, now)
        if isinstance(driver, sqlite_driver.Connection):
            # In the thread others may write as soon as it is committed: the loop may be blocked.
            driver.commit_with(ending, self.end)
        self.commit_marked(connection)

    def roll_back(self, connection: Connection) -> bool:
        try:
            connection.connection.rollback()
        except sqlite3.Error:
            return False
        return True

    def end(self) -> None:
        with suppress(IndexError):
            self.has_turn.pop().give()


def _complete(mark: Mark, now: int, driver: sqlite3.Connection) -> None:
    """Do in SQLite what ``write_mark`` does of a plain mark, on the driver's own connection."""
    if not driver.execute(_COMPLETE, (now, mark.fence, mark.job_id)).rowcount:
        raise lease_lost(mark)


@asynccontextmanager
async def connected(
    engine: AsyncEngine, *, within: float | None = None
) -> AsyncIterator[AsyncConnection]:
    """Lend a connection that is open within so many seconds; take it back whatever happens.

    SQLAlchemy drops a connection, open as it is, when it is cancelled while it sets it up.
    """
    connection = await _connected(engine, within=within)
    try:
        yield connection
    finally:
        await asyncio.shield(_begin_closing(connection.close()))


async def _connected(engine: AsyncEngine, *, within: float | None = None) -> AsyncConnection:
    opening = asyncio.ensure_future(_connect(engine))
    try:
        async with asyncio.timeout(within):
            return await asyncio.shield(opening)
    except (asyncio.CancelledError, TimeoutError):
        _begin_closing(_close(opening))
        raise


_closing: set[asyncio.Task[None]] = set()  # nobody else holds them


def _begin_closing(closing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Close what nobody may wait for any more; ``give_back_all`` does."""
    task = asyncio.ensure_future(closing)
    _closing.add(task)
    task.add_done_callback(_closing.discard)
    return task


async def give_back_all() -> None:
    """Wait a moment for the connections that are still on their way back."""
    if _closing:
        await asyncio.wait(_closing, timeout=_GIVE_BACK_S)


async def _connect(engine: AsyncEngine) -> AsyncConnection:
    return await engine.connect()


async def _close(opening: asyncio.Task[AsyncConnection]) -> None:
    try:
        connection = await opening
    except Exception:  # noqa: BLE001 - nobody waits for it any more
        return
    await connection.close()


@asynccontextmanager
async def open_session(engine: AsyncEngine, unit: Unit) -> AsyncIterator[AsyncSession]:
    """Open the session of an ``async def`` handler; closing rolls back what is not committed."""
    try:
        connection = await _connected(engine)
        within = connection.sync_connection
        assert within is not None, "it is connected"
        session = AsyncSession(connection, expire_on_commit=False)
        try:
            # Neither asks the database anything, and so neither needs another greenlet.
            within.execution_options(**{_OPTION: unit})
            within.begin()
            yield session
        finally:
            if not within.closed:  # or else it is complete
                await asyncio.shield(_begin_closing(_roll_back(session, connection)))
    finally:
        unit.end()


async def _roll_back(session: AsyncSession, connection: AsyncConnection) -> None:
    try:
        await session.close()
    finally:
        await connection.close()


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
    """Make an engine's units begin with their first statement, and end only by ``complete``."""
    event.listen(engine, "before_cursor_execute", _before)
    event.listen(engine, "after_cursor_execute", _record)
    event.listen(engine, "rollback", _begin_anew)
    event.listen(engine, "commit", _refuse_commit)


def _before(connection: Connection, cursor: Any, statement: str, *_: object) -> None:
    if unit := _unit(connection):
        unit.before(connection, cursor, statement)


def _record(
    connection: Connection, cursor: Any, statement: str, parameters: Any, _: object, many: bool
) -> None:
    unit = _unit(connection)
    if unit is None or not unit.record or not writes(statement):
        return
    if target := _TARGET.search(statement):
        verb, table = target[0].split()[0].upper(), target[1].strip('`"')
        rows: int = cursor.rowcount
        if rows < 0:  # asyncpg does not say, of a statement that runs once for each of many rows
            rows = len(parameters) if many else 0
        unit.recorded.append((f"{verb} {table}", rows))


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
