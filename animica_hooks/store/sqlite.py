"""The inbox in one SQLite file.

Rule 1: the inbox writes through one connection of its own, one transaction at a time: a few
        statements of many rows each, in the event loop, and the COMMIT in a thread, while the
        loop takes the deliveries of the next. (In a thread the statements would need the GIL back
        some thirty times a batch, each time at the cost of a switch and a wait.) Whatever can
        wait for long, a lock or the disk, does so outside the loop.
Rule 2: nobody writes without the turn (``WriteTurns``): not the inbox, not a handler's session,
        not an operator's command, not another process of ours.
Rule 3: nobody checkpoints but ``Checkpoints``.
Rule 4: WAL with synchronous=FULL: a commit is on the disk before it returns. With NORMAL a power
        cut loses what was acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from animica_hooks.core.outcome import COMPLETED
from animica_hooks.errors import ConfigurationError, StoreRefused, StoreUnavailable
from animica_hooks.store import inbox, schema, sqlite_driver
from animica_hooks.store import sqlite_sql as sql
from animica_hooks.store.base import Store
from animica_hooks.store.checkpoints import Checkpoints
from animica_hooks.store.peers import Peers
from animica_hooks.store.records import Batch, Committed
from animica_hooks.store.session import (
    SqliteUnit,
    Unit,
    connected,
    give_back_all,
    listen,
    open_session,
    open_sync_session,
)
from animica_hooks.store.sqlite_batch import Batches
from animica_hooks.store.turns import WriteTurns
from animica_hooks.threads import DaemonThread, DaemonThreads, to_the_end

T = TypeVar("T")

MIN_VERSION = (3, 35, 0)  # RETURNING
FOREIGN_LOCK_S = 2.0  # how long another program may hold the file before a commit gives up
FOREIGN_LOCK_POLL_S = 0.01
ON_LOOP_BYTES = 512 * 1024  # the statements of batches up to here run in the event loop
CLOSING_TURN_S = 1.0
HEAR_S = 0.02  # between two looks at whether another process has made jobs
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA mmap_size = 0",
    "PRAGMA wal_autocheckpoint = 0",
)
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
# A constraint or trigger of the user's own, or more bytes than a row can have.
_REFUSALS = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}


class SqliteStore(Store):
    """See the module. One instance belongs to one event loop of one process."""

    migrates_itself = True

    def __init__(self, path: Path, *, owner: str, lease_s: float, handlers: int) -> None:
        super().__init__(owner=owner, lease_s=lease_s)
        self.path = path
        self.turns = WriteTurns(path.with_name(path.name + "-turns"))
        self._peers = Peers(path.with_name(path.name + "-peers"))
        self._batches = Batches(owner, self.lease)
        self._has_turn = False
        self._ear: asyncio.Task[None] | None = None
        self._thread = DaemonThread("animica-hooks-commit")
        self._inbox: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._checkpoints = Checkpoints(path, self.turns, self._connect)
        self._engine = self._make_engine(pool_size=4)
        self._handler_engine = self._make_engine(pool_size=handlers)
        self._handler_sync_engine = create_engine(
            URL.create("sqlite+pysqlite", database=str(path)), **_engine_options(handlers)
        )
        self._prepare(self._handler_sync_engine)
        self._batch_engine = create_engine(
            URL.create("sqlite+pysqlite", database=str(path)), **_engine_options(1)
        )
        self._prepare(self._batch_engine)
        self._batch_threads = DaemonThreads("animica-hooks-batch")

    async def open(self, *, migrate: bool = True) -> None:
        if sqlite3.sqlite_version_info < MIN_VERSION:
            raise ConfigurationError(
                f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed."
            )
        try:
            version = _version_of(self.path)
            if not migrate:
                # First: connecting to write would make of somebody else's file a WAL database.
                schema.require_enough(version)
            # In its turn, for several processes that turn a new file to WAL at once are locked out.
            async with self._turn("open"):
                self._open_inbox()
                alone = self._peers.join()
            self._file = _identity(self.path)
            if not schema.suffices(version):
                async with self.write("migration") as connection:
                    await connection.run_sync(schema.upgrade)
            if alone:
                await self._shorten_leases()
        except sqlite3.DatabaseError as error:
            if _code(error) in _PASSING:
                raise self._unavailable(error) from error
            raise self._unusable(error) from error
        except OSError as error:
            raise ConfigurationError(
                f"{error.filename} can not be made or opened ({error.strerror}), and the database "
                f"needs it: let this user write to {self.path.parent} and to the files in it."
            ) from error

    async def _shorten_leases(self) -> None:
        """End in time what processes held that are gone, though the clock was set back since."""
        until = self.now() + self.lease
        async with self.read() as connection:
            if not await inbox.has_leases_after(connection, until):
                return
        async with self.write("open") as connection:
            await inbox.shorten_leases(connection, until)

    def now(self) -> int:
        return self._peers.now()

    def start_maintenance(self, on_due: Callable[[], None] | None) -> None:
        self._checkpoints.start()
        if on_due is not None:
            self._ear = asyncio.create_task(self._hear(on_due), name="animica-hooks ear")

    async def _hear(self, on_due: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(HEAR_S)
            if self._peers.heard():
                on_due()

    async def close(self) -> None:
        self._closed = True
        if self._ear is not None:
            self._ear.cancel()
            await asyncio.gather(self._ear, return_exceptions=True)
        await self._checkpoints.close()
        await give_back_all()
        await self._engine.dispose()
        await self._handler_engine.dispose()
        self._handler_sync_engine.dispose()
        self._batch_engine.dispose()
        self._batch_threads.close()
        try:
            # The last connection to close a file checkpoints it: in its turn.
            async with asyncio.timeout(CLOSING_TURN_S), self._turn("close"):
                self._drop_inbox()
        except OSError:  # a handler keeps it for ever, the disk hangs; or there is no lock to take
            holder, _ = self.turns.held() or ("", 0)
            if holder != "inbox":
                self._drop_inbox()
        self._thread.close()
        self._peers.leave()
        self.turns.close()

    def slow_writer(self) -> tuple[str, float] | None:
        return self.turns.held()

    @asynccontextmanager
    async def session(
        self, holder: str, *, record: bool = False
    ) -> AsyncIterator[tuple[AsyncSession, Unit]]:
        unit = SqliteUnit(holder, record, turns=self.turns)
        async with open_session(self._handler_engine, unit) as session:
            yield session, unit

    @contextmanager
    def sync_session(self, holder: str, *, record: bool = False) -> Iterator[tuple[Session, Unit]]:
        unit = SqliteUnit(holder, record, turns=self.turns)
        with open_sync_session(self._handler_sync_engine, unit) as session:
            yield session, unit

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with connected(self._engine) as connection:
                yield connection
        except DBAPIError as error:
            if isinstance(error.orig, sqlite3.Error) and _code(error.orig) == sqlite3.SQLITE_NOTADB:
                raise self._unusable(error.orig) from error
            raise self._unavailable(error.orig) from error

    @asynccontextmanager
    async def write(self, holder: str) -> AsyncIterator[AsyncConnection]:
        try:
            # The connection closes before the turn ends, whatever happened.
            async with self._turn(holder), connected(self._engine) as connection:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                await connection.commit()
            self._peers.ring()
        except DBAPIError as error:
            raise self._unavailable(error.orig) from error

    async def transact(self, holder: str, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with self._batch_engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                result = work(connection)
                connection.commit()
                return result

        try:
            # In a thread at one go: others wait for the turn, and need not for the loop as well.
            async with self._turn(holder):
                return await to_the_end(self._batch_threads.submit(run))
        except DBAPIError as error:
            raise self._unavailable(error.orig) from error

    async def commit(self, batch: Batch) -> Committed:
        await self.turns.take("inbox")
        self._has_turn = True
        try:
            committed = await self._transact(batch)
        except sqlite3.Error as error:
            self._drop_inbox()
            if _code(error) in _REFUSALS:
                raise StoreRefused(
                    f"SQLite does not take a row into {self.path}: {error.sqlite_errorname}."
                ) from error
            raise self._unavailable(error) from error
        except BaseException:
            self._drop_inbox()
            raise
        finally:
            if self._has_turn:
                self.turns.give()
        if committed.waiting or any(mark.transition is not COMPLETED for mark in batch.marks):
            self._peers.ring()
        return committed

    def renew(self, leases: Sequence[tuple[int, int]]) -> None:
        self._check_file()
        try:
            with self.turns.apart(), closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                until = self.now() + self.lease
                values = [(until, id, fence) for id, fence in leases]
                connection.executemany(sql.RENEW, values)
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    @asynccontextmanager
    async def _turn(self, holder: str) -> AsyncIterator[None]:
        await self.turns.take(holder)
        try:
            yield
        finally:
            self.turns.give()

    def _unusable(self, error: BaseException) -> ConfigurationError:
        return ConfigurationError(f"{self.path} can not be used as an SQLite database: {error}.")

    def _unavailable(self, error: BaseException | None) -> StoreUnavailable:
        why = getattr(error, "sqlite_errorname", None) or error
        return StoreUnavailable(f"SQLite could not use {self.path} just now: {why}.")

    async def _transact(self, batch: Batch) -> Committed:
        self._check_file()
        connection = self._inbox
        if connection is None:
            connection = await self._thread.run(self._open_inbox)
        await self._begin(connection)
        if batch.size > ON_LOOP_BYTES:
            return await self._thread.run(
                lambda: self._end(connection, self._batches.execute(connection, batch, self.now()))
            )
        committed = self._batches.execute(connection, batch, self.now())
        return await self._thread.run(lambda: self._end(connection, committed))

    def _end(self, connection: sqlite3.Connection, committed: Committed) -> Committed:
        """Commit; and end the turn here, for the loop may be blocked for a while."""
        if not connection.in_transaction:  # or else this would do nothing
            raise sqlite3.OperationalError("the transaction was ended by somebody else")
        # As a statement it would wait for the GIL twice.
        connection.commit()
        self._has_turn = False
        self.turns.give()
        return committed

    def _check_file(self) -> None:
        """See that the file is in its place: what is written to a deleted one is on no disk."""
        if _identity(self.path) != self._file:
            raise StoreUnavailable(
                f"{self.path} was deleted or replaced while it was in use: put the file back, or "
                "restart."
            )

    async def _begin(self, connection: sqlite3.Connection) -> None:
        """Begin to write as soon as programs that know nothing of turns let go of the file."""
        give_up_at = time.monotonic() + FOREIGN_LOCK_S
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up_at:
                    raise
            await asyncio.sleep(FOREIGN_LOCK_POLL_S)

    def _drop_inbox(self) -> None:
        """Close the connection, which rolls back; the next commit opens another."""
        if self._inbox is not None:
            try:
                self._inbox.close()
            except sqlite3.Error:
                pass
            self._inbox = None

    def _open_inbox(self) -> sqlite3.Connection:
        # Not left to the caller to keep, who may be cancelled meanwhile.
        connection = self._inbox = self._connect()
        connection.execute("PRAGMA busy_timeout = 0")  # nothing waits in the loop
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            timeout=FOREIGN_LOCK_S,
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            connection.execute("PRAGMA cache_size = -7000")  # KiB
            # Statements of many rows keep the pages they change, to undo themselves: not in a file.
            connection.execute("PRAGMA temp_store = MEMORY")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_engine(self, *, pool_size: int) -> AsyncEngine:
        # At DEBUG it logs all that handlers write, so not unless its own level asks for that.
        if (driver_logger := logging.getLogger("aiosqlite")).level == logging.NOTSET:
            driver_logger.setLevel(logging.INFO)
        engine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(self.path)),
            **_engine_options(
                pool_size, async_creator_fn=sqlite_driver.connect, factory=_ClosesItself
            ),
        )
        self._prepare(engine.sync_engine)
        return engine

    def _prepare(self, engine: Engine) -> None:
        event.listen(engine, "connect", _set_pragmas)
        listen(engine)
        event.listen(engine, "checkin", _leave_no_transaction)
        event.listen(engine, "checkin", self._close_late)


class _ClosesItself(sqlite3.Connection):
    """A connection for aiosqlite, which drops what it opens for a coroutine that is cancelled.

    Python closes it then, too, but from 3.13 on warns of it. (Where aiosqlite drops a connection
    that it had handed out, it warns itself.)
    """

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it was never opened
            self.close()


def _version_of(path: Path) -> str | None:
    """Read which schema a file is at, without changing it; None where it has none."""
    if not path.exists():
        return None
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        try:
            [(version,)] = connection.execute(f"SELECT version_num FROM {schema.VERSION_TABLE}")
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_ERROR:  # other than that there is no such table
                raise
            return None
    return str(version)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of its name; None where none can be reached."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _code(error: sqlite3.Error) -> int:
    """Return the primary code of an SQLite error."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _engine_options(pool_size: int, **connect_args: Any) -> dict[str, Any]:
    return {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": 60,
        "hide_parameters": True,
        "connect_args": {
            "isolation_level": None,
            "timeout": 5,
            "check_same_thread": False,
            **connect_args,
        },
    }


def _set_pragmas(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _leave_no_transaction(driver: Any, _: object) -> None:
    """Roll back after a commit that failed: SQLAlchemy takes that transaction for ended."""
    if driver is not None and getattr(driver, "driver_connection", driver).in_transaction:
        driver.rollback()
