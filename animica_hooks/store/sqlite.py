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
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from copy import copy
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from animica_hooks.core.event import Event, hash_body
from animica_hooks.core.fair import share
from animica_hooks.core.order import Aftermath, Line, aftermath
from animica_hooks.core.outcome import COMPLETED, from_micros
from animica_hooks.errors import ConfigurationError, StoreRefused, StoreUnavailable
from animica_hooks.store import inbox, schema
from animica_hooks.store import sqlite_sql as sql
from animica_hooks.store.base import Store
from animica_hooks.store.checkpoints import Checkpoints
from animica_hooks.store.peers import Peers
from animica_hooks.store.records import (
    Batch,
    Committed,
    LeasedJob,
    Mark,
    NewEvent,
    NewJob,
    NewQuarantined,
)
from animica_hooks.store.session import (
    SqliteUnit,
    Unit,
    connected,
    give_back_all,
    listen,
    open_session,
    open_sync_session,
)
from animica_hooks.store.tables import UNSORTED
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
                schema.require_current(version)
            # In its turn, for several processes that turn a new file to WAL at once are locked out.
            async with self._turn("open"):
                self._open_inbox()
                alone = self._peers.join()
            self._file = _identity(self.path)
            if version != schema.HEAD:
                async with self.write("migration") as connection:
                    await connection.run_sync(schema.upgrade)
            if alone:
                await self._shorten_leases()
        except sqlite3.DatabaseError as error:
            if _code(error) in _PASSING:
                raise self._unavailable(error) from error
            raise ConfigurationError(
                f"{self.path} can not be used as an SQLite database: {error}."
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
        except TimeoutError:  # a handler keeps it for ever, or the disk hangs
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
                lambda: self._end(connection, self._execute(connection, batch))
            )
        committed = self._execute(connection, batch)
        return await self._thread.run(lambda: self._end(connection, committed))

    def _end(self, connection: sqlite3.Connection, committed: Committed) -> Committed:
        """Commit; and end the turn here, for the loop may be blocked for a while."""
        connection.execute("COMMIT")
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

    def _execute(self, connection: sqlite3.Connection, batch: Batch) -> Committed:
        now = self.now()
        fenced = self._mark(connection, batch.marks, now) if batch.marks else 0
        committed = self._receive(connection, batch, now)
        committed.fenced = fenced
        if batch.claim:
            committed.claimed = self._claim(connection, batch, now)
        return committed

    def _mark(self, connection: sqlite3.Connection, marks: Sequence[Mark], now: int) -> int:
        """Carry out transitions; return how many came too late."""
        plain = [mark for mark in marks if mark.is_plain]
        changed = self._complete(connection, plain, now)
        for mark in marks:
            if mark.is_plain:
                continue
            if not connection.execute(sql.MARK, _mark_values(mark, now)).rowcount:
                continue
            changed += 1
            if mark.line is not None:
                self._move_line(connection, mark.line, mark, now)
            if failure := mark.failure:
                connection.execute(
                    sql.INSERT_FAILURE,
                    (mark.job_id, mark.attempt, now, *failure),
                )
                connection.execute(
                    sql.TRIM_FAILURES, (mark.job_id, mark.attempt - inbox.KEPT_FAILURES)
                )
        return len(marks) - changed

    def _complete(self, connection: sqlite3.Connection, marks: Sequence[Mark], now: int) -> int:
        by_fence = inbox.by_fence((mark.job_id, mark.fence) for mark in marks)
        changed = 0
        for fence, ids in by_fence.items():
            for chunk in inbox.chunks(ids):
                changed += connection.execute(
                    sql.complete(len(chunk)), (now, fence, *chunk)
                ).rowcount
        return changed

    def _move_line(self, connection: sqlite3.Connection, line: Line, mark: Mark, now: int) -> None:
        """Do to those behind a job what its end means for them."""
        match aftermath(mark.transition.state, line.on_dead):
            case Aftermath.CALL_NEXT:
                due_at = now + line.interval
                connection.execute(sql.CALL_NEXT, (due_at, line.handler_id, line.key))
            case Aftermath.PARK:
                connection.execute(sql.PARK, (line.handler_id, line.key, mark.job_id))
                connection.execute(sql.CALL_NEXT, (now, line.handler_id, line.key))  # before it
            case Aftermath.NONE:
                pass

    def _receive(self, connection: sqlite3.Connection, batch: Batch, now: int) -> Committed:
        committed = Committed()
        seqs = self._insert_events(connection, batch.deliveries) if batch.deliveries else {}
        [(job_id,)] = connection.execute(sql.LAST_JOB)
        as_leased = ("leased", now + self.lease, 1, self.owner, now)
        as_available = ("available", now, 0, None, now)
        rows: list[tuple[Any, ...]] = []
        others: list[tuple[int, int, NewJob]] = []
        for position, delivery in enumerate(batch.deliveries):
            if isinstance(delivery, NewQuarantined):
                self._quarantine(connection, delivery)
                committed.receipts.append("quarantined")
                continue
            seq = seqs.get(position)
            if seq is None:
                self._redeliver(connection, delivery, committed)
                continue
            committed.receipts.append("new")
            event, shared = delivery.event, len(delivery.handler_ids) > 1
            for job in delivery.others:
                job_id += 1
                others.append((job_id, seq, job))
            for handler_id in delivery.handler_ids:
                job_id += 1
                if len(committed.leased) < batch.room:
                    rows.append((job_id, seq, handler_id, *as_leased))
                    own = copy(event) if shared else event  # handlers do not share its payload
                    committed.leased.append(LeasedJob(job_id, 1, handler_id, own, now))
                else:
                    rows.append((job_id, seq, handler_id, *as_available))
                    committed.waiting = True
        _insert_many(connection, sql.insert_jobs, rows)
        committed.waiting |= bool(others)
        for job_id, seq, job in others:
            self._insert_other(connection, job_id, seq, job, now)
        return committed

    def _insert_other(
        self, connection: sqlite3.Connection, job_id: int, seq: int, job: NewJob, now: int
    ) -> None:
        newest = None
        if job.line is not None:
            where = job.line.handler_id, job.line.key
            newest = connection.execute(sql.NEWEST_IN_LINE, where).fetchone()
        state, due_at = inbox.joined(job, newest, now)
        connection.execute(
            sql.INSERT_JOB,
            (
                job_id,
                seq,
                job.handler_id,
                state,
                due_at,
                now,
                job.line.key if job.line else None,
                job.unusable,
                now if job.unusable else None,
                UNSORTED if job.unsorted else 0,
            ),
        )

    def _insert_events(
        self, connection: sqlite3.Connection, deliveries: Sequence[NewEvent | NewQuarantined]
    ) -> dict[int, int]:
        """Insert events whose id is new; return their sequence numbers, by position.

        The numbers are given here, under the write lock: asking for them with RETURNING costs
        twice as much as the insert.
        """
        [(last,)] = connection.execute(sql.LAST_EVENT)
        seqs: dict[int, int] = {}
        rows: list[tuple[Any, ...]] = []
        for position, new in enumerate(deliveries):
            if isinstance(new, NewEvent):
                e = new.event
                seqs[position] = seq = last + position + 1
                rows.append((seq, e.endpoint, e.id, e.type, new.received_at, e.raw_headers, e.body))
        if _insert_many(connection, sql.insert_events, rows) < len(rows):
            stored = {seq for (seq,) in connection.execute(sql.EVENTS_AFTER, (last,))}
            seqs = {position: seq for position, seq in seqs.items() if seq in stored}
        return seqs

    def _redeliver(
        self, connection: sqlite3.Connection, delivery: NewEvent, committed: Committed
    ) -> None:
        e = delivery.event
        found = connection.execute(sql.FIND_EVENT, (e.endpoint, e.id)).fetchone()
        seq, first_body, first_hash = found
        first_hash, body_hash = first_hash or hash_body(first_body), hash_body(e.body)
        conflict = first_hash != body_hash
        connection.execute(sql.REDELIVER, (seq, body_hash, conflict, delivery.received_at))
        committed.receipts.append("conflict" if conflict else "duplicate")
        if conflict:
            committed.conflicts.append((e.endpoint, e.id, first_hash.hex(), body_hash.hex()))

    def _quarantine(self, connection: sqlite3.Connection, held: NewQuarantined) -> None:
        connection.execute(
            sql.QUARANTINE,
            (
                held.endpoint, held.body_hash, held.received_at, held.reason, held.raw_headers,
                held.body,
            ),
        )  # fmt: skip

    def _claim(self, connection: sqlite3.Connection, batch: Batch, now: int) -> list[LeasedJob]:
        """Lease due jobs, each handler in its turn an equal share of what may be claimed."""
        claimed: list[tuple[Any, ...]] = []
        until, left = now + self.lease, batch.claim
        for position, claimant in enumerate(batch.claim_for):
            most = share(left, batch.claim_for[position:])
            tokens = 0.0
            if claimant.is_limited:
                limited = connection.execute(sql.LIMITED, (claimant.handler_id,)).fetchone()
                most, tokens = inbox.grant(claimant, most, limited, now)
            found = connection.execute(
                sql.CLAIM,
                (until, self.owner, claimant.handler_id, int(batch.claim_orphans), now, most),
            ).fetchall()
            if found and claimant.rate is not None:
                spent = (tokens - len(found), now, claimant.handler_id)
                connection.execute(sql.SPEND, spent)
            claimed += found
            left -= len(found)
        events = self._load_events(connection, {row[1] for row in claimed})
        claimed.sort(key=lambda row: row[0])
        return [
            LeasedJob(
                id=id,
                fence=fence,
                handler_id=handler_id,
                event=copy(events[seq]),  # handlers do not share its payload
                created_at=created_at,
                attempts=attempts,
                failed=failed,
                orphaned=bool(orphaned),
                replayed_from=replayed_from,
                keyed_by=keyed_by,
                ordering_key=ordering_key,
            )
            for (
                id, seq, handler_id, fence, created_at, attempts, failed, orphaned,
                replayed_from, keyed_by, ordering_key,
            ) in claimed
        ]  # fmt: skip

    def _load_events(
        self, connection: sqlite3.Connection, seqs: Iterable[int]
    ) -> dict[int, Event[Any]]:
        events: dict[int, Event[Any]] = {}
        for seq in seqs:
            found = connection.execute(sql.LOAD_EVENT, (seq,)).fetchone()
            endpoint, id, type, received_at, headers, body = found
            events[seq] = Event(
                id=id,
                type=type,
                body=body,
                endpoint=endpoint,
                received_at=from_micros(received_at),
                raw_headers=headers,
            )
        return events

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
            **_engine_options(pool_size, factory=_ClosesItself),
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
    """Return what tells a file from another of its name; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
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


def _insert_many(
    connection: sqlite3.Connection,
    statement: Callable[[int], str],
    rows: Sequence[tuple[Any, ...]],
) -> int:
    """Insert rows; return how many were."""
    inserted = 0
    for chunk in inbox.chunks(rows):
        values = list(chain.from_iterable(chunk))
        inserted += connection.execute(statement(len(chunk)), values).rowcount
    return inserted


def _mark_values(mark: Mark, now: int) -> tuple[Any, ...]:
    values = inbox.mark_parameters(mark, now)
    return tuple(values[name] for name in sql.MARK_ORDER)
