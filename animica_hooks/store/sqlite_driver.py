"""aiosqlite with one switch to its thread for a statement, where it takes four.

A switch costs more than most statements. So a cursor is made and closed without one, a statement
brings its first rows along, a transaction begins with its first statement and ends with what a
commit has to carry, and where there is none nothing is asked to end it. And the thread is our own:
aiosqlite's dies of an answer to a loop that has closed, and leaves its connection open.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Self, TypeAlias

import aiosqlite
from aiosqlite.context import contextmanager
from aiosqlite.core import _STOP_RUNNING_SENTINEL, set_exception, set_result

FIRST_ROWS = 1000  # of a result, which come with the statement

_Before: TypeAlias = Callable[[sqlite3.Connection], None]
_Asked: TypeAlias = SimpleQueue[tuple[asyncio.Future[Any] | None, Callable[[], Any]]]


def connect(database: str, **options: Any) -> Connection:
    """Return a connection that is made when it is awaited; the options are those of ``sqlite3``."""
    return Connection(partial(sqlite3.connect, database, **options))


class Connection(aiosqlite.Connection):
    """A connection, for the one coroutine that has it."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, FIRST_ROWS)
        self._thread = Thread(target=_work, args=(self._tx,), daemon=True)  # as SQLAlchemy has it
        # Counted apart, each by one thread.
        self._asked = 0
        self._ended = 0
        self._begins = False
        self._with_commit: tuple[_Before | None, Callable[[], None]] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether its thread is at work; for who was cancelled, and so did not wait for that."""
        return self._asked != self._ended

    def begin_with_next(self) -> None:
        """Begin a transaction to write, with the next that is asked for."""
        self._begins = True

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._asked += 1
        begins, self._begins = self._begins, False
        run = self._begin_and_run if begins else self._run
        return await super()._execute(run, fn, *args, **kwargs)  # type: ignore[no-untyped-call]

    def _begin_and_run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            self._conn.execute("BEGIN IMMEDIATE")
            return fn(*args, **kwargs)
        finally:
            self._ended += 1

    def _run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            self._ended += 1

    @contextmanager
    async def cursor(self) -> aiosqlite.Cursor:
        return Cursor(self, self._conn.cursor())

    def commit_with(self, before: _Before | None, after: Callable[[], None]) -> None:
        """Have the next commit do that before and after it, without a further switch."""
        self._with_commit = before, after

    async def commit(self) -> None:
        with_it, self._with_commit = self._with_commit, None
        if with_it is not None:
            await self._execute(self._commit_with, *with_it)
        elif self.is_busy or self.in_transaction:
            await super().commit()

    def _commit_with(self, before: _Before | None, after: Callable[[], None]) -> None:
        if before is not None:
            before(self._conn)
        self._conn.commit()
        after()

    async def rollback(self) -> None:
        self._begins, self._with_commit = False, None
        if self.is_busy or self.in_transaction:  # a BEGIN may be under way
            await super().rollback()


def _work(asked: _Asked) -> None:
    """Do what is asked for, in the connection's thread, until it is told to stop."""
    while True:
        future, function = asked.get()
        give: Callable[[asyncio.Future[Any], Any], None] = set_result
        try:
            answer = function()
        except BaseException as error:  # noqa: BLE001 - it is the asker's
            answer, give = error, set_exception
        if future is not None:
            with suppress(RuntimeError):  # its loop has closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(give, future, answer)
        if answer is _STOP_RUNNING_SENTINEL:
            return
        del future, function, answer  # not until somebody asks again


class Cursor(aiosqlite.Cursor):
    """A cursor that has the first rows of its result."""

    def __init__(self, connection: Connection, cursor: sqlite3.Cursor) -> None:
        super().__init__(connection, cursor)
        self._connection = connection
        self._rows: list[Any] = []
        self._more = False

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> Self:
        given = () if parameters is None else parameters
        self._rows, self._more = await self._connection._execute(self._begin, sql, given)
        return self

    def _begin(self, sql: str, parameters: Any) -> tuple[list[Any], bool]:
        self._cursor.execute(sql, parameters)
        if self._cursor.description is None:
            return [], False
        rows = self._cursor.fetchmany(FIRST_ROWS)
        return rows, len(rows) == FIRST_ROWS

    async def fetchone(self) -> Any:
        rows = await self.fetchmany(1)
        return rows[0] if rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        size = size or self.arraysize
        rows, self._rows = self._rows[:size], self._rows[size:]
        if self._more and len(rows) < size:
            rows += await super().fetchmany(size - len(rows))
        return rows

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        if self._more:
            rows += await super().fetchall()
        return rows

    async def close(self) -> None:
        if self._connection.is_busy:
            await super().close()
        else:
            self._cursor.close()
