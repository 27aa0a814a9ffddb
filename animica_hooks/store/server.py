"""What the stores of database servers have in common.

Rule 1: the inbox has a connection of its own, and so have handlers: neither waits for the other's.
Rule 2: times are the database's, so that no clock of another machine counts. Each process asks for
        it now and then, and reckons on from there by its own monotonic clock.
Rule 3: a connection that has failed, or that did not answer in time, is thrown away. What became of
        its last statement is not known, which deduplication and fences make harmless.
Rule 4: who changes tables in use gives way. A change waits for every transaction on its table, and
        all that come meanwhile wait behind it: so it gives up soon, and tries again.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Generic, TypeVar

from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from animica_hooks.errors import ConfigurationError, StoreRefused, StoreUnavailable
from animica_hooks.store import schema
from animica_hooks.store.base import Store
from animica_hooks.store.inbox import MARK
from animica_hooks.store.records import Batch, Committed
from animica_hooks.store.session import (
    Unit,
    connected,
    give_back_all,
    listen,
    open_session,
    open_sync_session,
)
from animica_hooks.telemetry import logger

CONNECT_S = 3.0
ANSWER_S = 5.0  # for a transaction of the inbox
CLOSE_S = 1.0
TRIES = 3  # of a transaction that the database broke off because of another
CLOCK_S = 5.0  # between two looks at the database's clock
ADMIN_POOL = 4
UPGRADE_S = 60.0  # for how long an upgrade tries, and how long it rests in between
UPGRADE_REST_S = 0.5
PING_S = 1.0
PING_AFTER_S = 1.0  # of handlers' connections: asking is a round trip for each job
_IDLE_SINCE = "animica_hooks_idle_since"
# Classes of SQLSTATEs that say that the database does not take what a row holds: of data, of
# constraints, of views, of triggers (the standard's and PostgreSQL's), and of sizes.
_REFUSALS = frozenset({"22", "23", "44", "45", "P0", "54"})

C = TypeVar("C")  # the driver's connection


class ServerStore(Store, Generic[C]):
    """A database server. One instance belongs to one event loop of one process.

    Args:
        name: the database, as messages may name it: without user and password.
        address: where the server listens: host and port, or the path of a socket.
        handlers: sessions of handlers that may be open at once.
    """

    migrates_itself = False
    product = "its server"  # what it is, in messages
    failures: tuple[type[Exception], ...]  # what the driver raises
    ending = MARK  # what a handler's transaction ends with

    def __init__(
        self, name: str, address: str, *, owner: str, lease_s: float, handlers: int
    ) -> None:
        super().__init__(owner=owner, lease_s=lease_s)
        self.name = name
        self._address = address
        self._handlers = handlers
        self._offset = time.time_ns() // 1000 - _monotonic()
        self._inbox: C | None = None
        self._inbox_turn = asyncio.Lock()
        self._engine: AsyncEngine | None = None
        self._handler_engine: AsyncEngine | None = None
        self._handler_sync_engine: Engine | None = None
        self._making = threading.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def _all_failures(self) -> tuple[type[Exception], ...]:
        return (DBAPIError, *self.failures)

    def now(self) -> int:
        return _monotonic() + self._offset

    async def open(self, *, migrate: bool) -> None:
        with self._first_use():
            await self._open(migrate=migrate)

    async def version(self) -> str | None:
        with self._first_use():
            return await super().version()

    @contextmanager
    def _first_use(self) -> Iterator[None]:
        """Raise ``ConfigurationError`` where it is the set-up why the database can not be used."""
        try:
            yield
        except StoreUnavailable as error:
            cause = error.__cause__
            if cause is None or self._advice(_of_driver(cause)) is None:
                raise
            raise ConfigurationError(str(error)) from None

    async def _open(self, *, migrate: bool) -> None:
        async with self._inbox_turn:
            with self._errors():
                inbox = await self._connected()
                await self._check(inbox)
                await self._set_clock(inbox)
        version = await super().version()
        if schema.suffices(version):
            return
        if not migrate:
            schema.require_enough(version)
        await self._upgrade()

    async def _upgrade(self) -> None:
        """Migrate as soon as those who use the tables let it: see rule 4."""
        give_up_at = time.monotonic() + UPGRADE_S
        while True:
            try:
                return await self._migrate()
            except StoreUnavailable as error:
                if not self._may_try_again(_of_driver(error.__cause__ or error)):
                    raise
                if time.monotonic() >= give_up_at:
                    raise StoreUnavailable(
                        f"the database {self.name} can not be upgraded just now: for "
                        f"{UPGRADE_S:.0f} s there was always a transaction on its tables that went "
                        "on for longer than receiving may wait. Try again when handlers that take "
                        "long, or others, have ended theirs."
                    ) from error
            await asyncio.sleep(UPGRADE_REST_S)

    def start_maintenance(self, on_due: Callable[[], None] | None) -> None:
        self._tasks = [asyncio.create_task(self._keep_time(), name="animica-hooks clock")]
        if on_due is not None:
            ear = asyncio.create_task(self._hear(on_due), name="animica-hooks ear")
            self._tasks.append(ear)

    async def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await give_back_all()
        for engine in (self._engine, self._handler_engine):
            if engine is not None:
                with suppress(*self.failures):
                    async with asyncio.timeout(CLOSE_S):
                        await engine.dispose()
        if self._handler_sync_engine is not None:
            self._handler_sync_engine.dispose()
        await self._drop_inbox()

    def slow_writer(self) -> tuple[str, float] | None:
        return None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        with self._errors():
            if self._engine is None:
                async with asyncio.timeout(ANSWER_S):
                    self._engine = await self._make_engine(ADMIN_POOL)
                    ping_idle(self._engine.sync_engine, after=0)
            async with connected(self._engine, within=ANSWER_S) as connection:
                yield connection

    @asynccontextmanager
    async def write(self, holder: str) -> AsyncIterator[AsyncConnection]:  # noqa: ARG002
        async with self.read() as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def session(
        self, holder: str, *, record: bool = False
    ) -> AsyncIterator[tuple[AsyncSession, Unit]]:
        if self._handler_engine is None:
            engine = await self._make_engine(self._handlers)
            listen(engine.sync_engine)
            ping_idle(engine.sync_engine, after=PING_AFTER_S)
            self._handler_engine = engine
        unit = self._unit(holder, record=record)
        async with open_session(self._handler_engine, unit) as session:
            yield session, unit

    @contextmanager
    def sync_session(self, holder: str, *, record: bool = False) -> Iterator[tuple[Session, Unit]]:
        with self._making:  # of two that are made at once nobody would close one
            if self._handler_sync_engine is None:
                engine = self._make_sync_engine(self._handlers)
                listen(engine)
                ping_idle(engine, after=PING_AFTER_S)
                event.listen(engine, "checkin", self._close_late)
                self._handler_sync_engine = engine
        unit = Unit(holder, record, ending=self.ending)
        with open_sync_session(self._handler_sync_engine, unit) as session:
            yield session, unit

    async def commit(self, batch: Batch) -> Committed:
        async with self._inbox_turn:
            with self._errors():
                for tries_left in reversed(range(TRIES)):
                    try:
                        async with asyncio.timeout(ANSWER_S):
                            return await self._transact(await self._connected(), batch)
                    except BaseException as error:
                        await self._drop_inbox()  # rule 3
                        if not tries_left or not self._may_try_again(error):
                            raise
                raise AssertionError("unreachable")

    def renew(self, leases: Sequence[tuple[int, int]]) -> None:
        # In a loop of its own, so that the same deadlines hold as for the inbox.
        with self._errors():
            asyncio.run(self._renew_apart(sorted(leases)))

    async def _renew_apart(self, leases: Sequence[tuple[int, int]]) -> None:
        async with asyncio.timeout(CONNECT_S):
            connection = await self._connect()
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._renew(connection, leases)
        finally:
            await self._disconnect(connection)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise ``StoreUnavailable``, or ``StoreRefused``, for whatever the driver raises."""
        try:
            yield
        except self._all_failures as error:
            driver = _of_driver(error)
            # The text of a driver's error can quote a statement's values.
            if str(getattr(driver, "sqlstate", None))[:2] in _REFUSALS:
                raise StoreRefused(
                    f"the database {self.name} does not take a row: {self._describe(driver)}."
                ) from error
            why = self._advice(driver) or self._outage(driver)
            raise StoreUnavailable(f"the database {self.name} {why}") from error

    def _outage(self, error: BaseException) -> str:
        if _is_refused(_of_network(error), by_socket=self._address.startswith("/")):
            return (
                f"can not be reached: nothing listens at {self._address}. Start the server, or "
                "change where database_url looks for it."
            )
        if isinstance(error, TimeoutError):
            return (
                f"does not answer in time: see that {self.product} runs at {self._address}, is not "
                "overloaded, and can be reached from here."
            )
        return f"can not be used just now: {self._describe(error)}."

    def _describe(self, error: BaseException) -> str:
        return type(error).__name__

    async def _connected(self) -> C:
        if self._inbox is None:
            async with asyncio.timeout(CONNECT_S):
                self._inbox = await self._connect()
        return self._inbox

    async def _drop_inbox(self) -> None:
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            await self._disconnect(inbox)

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_S)
            try:
                async with self._inbox_turn, asyncio.timeout(ANSWER_S):
                    if self._inbox is not None:
                        await self._set_clock(self._inbox)
            except self.failures:
                await self._drop_inbox()

    async def _set_clock(self, inbox: C) -> None:
        asked = _monotonic()
        theirs = await self._read_clock(inbox)
        self._offset = theirs - (asked + _monotonic()) // 2

    async def _hear(self, on_due: Callable[[], None]) -> None:
        """Wait for other processes to tell of new jobs, where the database passes that on."""

    @abstractmethod
    async def _connect(self) -> C:
        """Open a connection."""

    @abstractmethod
    async def _disconnect(self, inbox: C) -> None:
        """Close a connection that may not answer any more."""

    def _advice(self, error: BaseException) -> str | None:
        """Say what is wrong with the set-up, and what to change, where that is why ``open`` fails.

        The text follows the database's name.
        """
        if isinstance(_of_network(error), socket.gaierror):
            return "is at a host that is not known: change the host in database_url."
        return None

    @abstractmethod
    async def _check(self, inbox: C) -> None:
        """Refuse a server that can not keep the promises; warn of one that keeps them badly."""

    @abstractmethod
    async def _read_clock(self, inbox: C) -> int:
        """Return the database's time, in microseconds since the epoch."""

    @abstractmethod
    async def _migrate(self) -> None:
        """Bring the schema up to date, one process at a time. It may be begun anew: see rule 4."""

    @abstractmethod
    async def _make_engine(self, pool_size: int) -> AsyncEngine: ...

    @abstractmethod
    def _unit(self, holder: str, *, record: bool) -> Unit:
        """Return the unit of work of an ``async def`` handler."""

    @abstractmethod
    def _make_sync_engine(self, pool_size: int) -> Engine: ...

    @abstractmethod
    async def _transact(self, inbox: C, batch: Batch) -> Committed:
        """Do all of a batch in one transaction."""

    @abstractmethod
    async def _renew(self, connection: C, leases: Sequence[tuple[int, int]]) -> None:
        """Prolong leases, given in the order of ids, on a connection of another event loop."""

    @abstractmethod
    def _may_try_again(self, error: BaseException) -> bool:
        """Tell whether nothing was done, and the same may well succeed now."""


def limit_ping(
    engine: AsyncEngine,
    ping: Callable[[Any], Awaitable[None]],
    failures: tuple[type[Exception], ...],
) -> None:
    """Have an engine ask within a time whether a connection is alive, by the driver's own means.

    SQLAlchemy's own ping would wait for ever for a server that has gone without a word.
    """

    def answers(connection: Any) -> bool:
        try:
            connection.run_async(ping)
        except failures:
            return False
        return True

    setattr(engine.dialect, "do_ping", answers)  # noqa: B010 - mypy takes it for a method


def ping_idle(engine: Engine, *, after: float) -> None:
    """Have an engine's pool ask a connection that was idle for so many seconds if it is alive."""

    def note(_: object, entry: ConnectionPoolEntry) -> None:
        entry.info[_IDLE_SINCE] = time.monotonic()

    def ask(driver: Any, entry: ConnectionPoolEntry, _: object) -> None:
        since = entry.info.get(_IDLE_SINCE)
        if since is None or time.monotonic() - since < after:
            return
        try:
            alive = engine.dialect.do_ping(driver)
        except engine.dialect.loaded_dbapi.Error:
            alive = False
        if not alive:
            raise InvalidatePoolError

    event.listen(engine, "checkin", note)
    event.listen(engine, "checkout", ask)


def warn_of_lost_promise(setting: str) -> None:
    """Warn of a setting of the database that breaks promise 1."""
    logger.warning(
        "%s: a crash of the database can lose events that were acknowledged, against promise 1. "
        "Change it, or accept that.",
        setting,
    )


def _of_driver(error: BaseException) -> BaseException:
    return (error.orig or error) if isinstance(error, DBAPIError) else error


def _of_network(error: BaseException) -> BaseException:
    """Return what the network said, where a driver wraps it."""
    return error.__cause__ if isinstance(error.__cause__, OSError) else error


def _is_refused(error: BaseException, *, by_socket: bool) -> bool:
    """Tell whether nothing listens; a name that has several addresses brings one error of all."""
    if not isinstance(error, OSError):
        return False
    refused = isinstance(error, ConnectionRefusedError) or (
        error.errno is None and f"[Errno {errno.ECONNREFUSED}]" in str(error)
    )
    return refused or (by_socket and isinstance(error, FileNotFoundError))


def address_of(host: str | None, port: object) -> str:
    """Return host and port as one writes them."""
    host = host or "localhost"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _monotonic() -> int:
    return time.monotonic_ns() // 1000
