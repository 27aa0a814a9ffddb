"""The inbox in one SQLite file.

Rule 1: the inbox writes through one connection of its own, one transaction at a time. Its
        statements run on the event loop, where they take microseconds, and only COMMIT, which
        waits for the disk without the GIL, runs in a thread.
Rule 2: nobody writes without the turn (``WriteTurns``): not the inbox, not a handler's session,
        not an operator's command, not another process of ours.
Rule 3: only the inbox's connection checkpoints. SQLite before 3.51.3 can corrupt a database
        that several connections checkpoint (https://sqlite.org/wal.html#walresetbug).
Rule 4: WAL with synchronous=FULL: a commit is on the disk before it returns. With NORMAL a power
        cut loses what was acknowledged.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from animica_hooks.core.event import Event
from animica_hooks.core.job import State
from animica_hooks.core.outcome import from_micros
from animica_hooks.errors import ConfigurationError, StoreUnavailable
from animica_hooks.store import inbox, schema
from animica_hooks.store import sqlite_sql as sql
from animica_hooks.store.base import Store
from animica_hooks.store.records import (
    Batch,
    Committed,
    LeasedJob,
    Mark,
    NewEvent,
    NewQuarantined,
    Receipt,
)
from animica_hooks.store.session import Unit, listen, open_session, open_sync_session

from animica_hooks.store.turns import WriteTurns
from animica_hooks.threads import DaemonThreads

MIN_VERSION = (3, 35, 0)  # RETURNING
FOREIGN_LOCK_S = 2.0  # how long another program may hold the file before a commit gives up
KEPT_FAILURES = 20  # of each job, the newest
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA mmap_size = 0",
)
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class SqliteStore(Store):
    """See the module. One instance belongs to one event loop of one process."""

    def __init__(self, path: Path, *, owner: str, lease_s: float, handlers: int) -> None:
        super().__init__(owner=owner, lease_s=lease_s)
        self.path = path
        self.turns = WriteTurns(path.with_name(path.name + "-turns"))
        self._threads = DaemonThreads("animica-hooks-commit")
        self._inbox: sqlite3.Connection | None = None
        self._engine = self._make_engine(pool_size=4)
        self._handler_engine = self._make_engine(pool_size=handlers)
        self._handler_sync_engine = create_engine(
            URL.create("sqlite+pysqlite", database=str(path)), **_engine_options(handlers)
        )
        _prepare(self._handler_sync_engine)

    async def open(self, *, migrate: bool = True) -> None:
        if sqlite3.sqlite_version_info < MIN_VERSION:
            raise ConfigurationError(
                f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed."
            )
        try:
            self._inbox = self._connect()
            if migrate:
                async with self.write("migration") as connection:
                    await connection.run_sync(schema.upgrade)
            else:
                async with self.read() as connection:
                    await connection.run_sync(schema.require_current)
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(
                f"{self.path} can not be used as an SQLite database: {error}."
            ) from error

    async def close(self) -> None:
        await self._engine.dispose()
        await self._handler_engine.dispose()
        self._handler_sync_engine.dispose()
        if self._inbox is not None:
            # The last connection to close a file checkpoints it: in its turn.
            await self.turns.take("close")
            self._inbox.close()
            self._inbox = None
            self.turns.give()
        self._threads.close()
        self.turns.close()

    def slow_writer(self) -> tuple[str, float] | None:
        return self.turns.held()

    @asynccontextmanager
    async def session(
        self, holder: str, *, record: bool = False
    ) -> AsyncIterator[tuple[AsyncSession, Unit]]:
        unit = Unit(self.turns, holder, record)
        async with open_session(self._handler_engine, unit) as session:
            yield session, unit

    @contextmanager
    def sync_session(self, holder: str, *, record: bool = False) -> Iterator[tuple[Session, Unit]]:
        unit = Unit(self.turns, holder, record)
        with open_sync_session(self._handler_sync_engine, unit) as session:
            yield session, unit

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self, holder: str) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            await self.turns.take(holder)
            try:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                await connection.commit()
            finally:
                # Before the turn ends, whatever it ended in.
                await connection.close()
                self.turns.give()

    async def commit(self, batch: Batch) -> Committed:
        await self.turns.take("inbox")
        try:
            connection = self._inbox or self._connect()
            self._inbox = connection
            await self._begin(connection)
            committed = self._execute(connection, batch)
            await asyncio.wrap_future(self._threads.submit(connection.commit))
        except sqlite3.Error as error:
            self._drop_inbox()
            raise StoreUnavailable(
                f"SQLite could not commit to {self.path}: "
                f"{getattr(error, 'sqlite_errorname', None) or error}."
            ) from error
        except BaseException:
            self._drop_inbox()
            raise
        finally:
            self.turns.give()
        return committed

    async def _begin(self, connection: sqlite3.Connection) -> None:
        """Begin a transaction; wait, off the loop, for a program that does not take turns."""
        give_up_at = time.monotonic() + FOREIGN_LOCK_S
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > give_up_at:
                    raise
                await asyncio.sleep(0.005)
            else:
                return

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
        if batch.renewals:
            until = now + self.lease
            renewed = connection.executemany(
                sql.RENEW, [(until, id, fence) for id, fence in batch.renewals]
            )
            fenced += len(batch.renewals) - renewed.rowcount
        committed = self._receive(connection, batch, now)
        committed.fenced = fenced
        if batch.claim:
            committed.claimed = self._claim(connection, batch, now)
        return committed

    def _mark(self, connection: sqlite3.Connection, marks: Sequence[Mark], now: int) -> int:
        """Carry out transitions; return how many came too late."""
        plain = [_mark_values(mark, now) for mark in marks if mark.failure is None]
        changed = connection.executemany(sql.MARK, plain).rowcount if plain else 0
        for mark in marks:
            if (failure := mark.failure) is None:
                continue
            if not connection.execute(sql.MARK, _mark_values(mark, now)).rowcount:
                continue
            changed += 1
            connection.execute(
                sql.INSERT_FAILURE,
                (mark.job_id, mark.attempt, now, failure.error, failure.message, failure.traceback),
            )
            connection.execute(sql.TRIM_FAILURES, (mark.job_id, mark.attempt - KEPT_FAILURES))
        return len(marks) - changed

    def _receive(self, connection: sqlite3.Connection, batch: Batch, now: int) -> Committed:
        events = [d for d in batch.deliveries if isinstance(d, NewEvent)]
        seqs = self._insert_events(connection, events) if events else {}
        receipts: list[Receipt] = []
        conflicts: list[tuple[str, str, str, str]] = []
        leases: list[tuple[int, NewEvent]] = []
        rows: list[tuple[Any, ...]] = []
        room, waiting, until = batch.room, False, now + self.lease
        for delivery in batch.deliveries:
            if isinstance(delivery, NewQuarantined):
                self._quarantine(connection, delivery)
                receipts.append(Receipt.QUARANTINED)
                continue
            # The first delivery of an id in this batch is the one whose row was inserted.
            key = (delivery.event.endpoint, delivery.event.id)
            seq = seqs.pop(key, None)
            if seq is None:
                receipts.append(self._redeliver(connection, delivery, conflicts))
                continue
            receipts.append(Receipt.NEW)
            for handler_id in delivery.handler_ids:
                if room > 0:
                    room -= 1
                    leases.append((seq, delivery))
                    rows.append((seq, handler_id, State.LEASED, until, 1, now, self.owner))
                else:
                    waiting = True
                    rows.append((seq, handler_id, State.AVAILABLE, now, 0, now, None))
        leased = self._insert_jobs(connection, rows, leases, now) if rows else []
        return Committed(receipts, leased, [], waiting, 0, conflicts)

    def _insert_events(
        self, connection: sqlite3.Connection, events: Sequence[NewEvent]
    ) -> dict[tuple[str, str], int]:
        """Insert those whose id is new; return their sequence numbers by endpoint and id."""
        seqs: dict[tuple[str, str], int] = {}
        for chunk in _power_of_two_chunks(events):
            values: list[Any] = []
            for new in chunk:
                e = new.event
                values += (
                    e.endpoint, e.id, e.type, new.received_at, new.body_hash, new.raw_headers,
                    e.body,
                )  # fmt: skip
            for seq, endpoint, id in connection.execute(sql.insert_events(len(chunk)), values):
                seqs[endpoint, id] = seq
        return seqs

    def _insert_jobs(
        self,
        connection: sqlite3.Connection,
        rows: Sequence[tuple[Any, ...]],
        leases: Sequence[tuple[int, NewEvent]],
        now: int,
    ) -> list[LeasedJob]:
        events = dict(leases)
        leased: list[LeasedJob] = []
        for chunk in _power_of_two_chunks(rows):
            values = [value for row in chunk for value in row]
            for id, seq, handler_id, fence in connection.execute(
                sql.insert_jobs(len(chunk)), values
            ):
                if fence:
                    leased.append(LeasedJob(id, fence, handler_id, events[seq].event, now))
        return leased

    def _redeliver(
        self,
        connection: sqlite3.Connection,
        delivery: NewEvent,
        conflicts: list[tuple[str, str, str, str]],
    ) -> Receipt:
        e = delivery.event
        seq, first_hash = connection.execute(sql.FIND_EVENT, (e.endpoint, e.id)).fetchone()
        conflict = first_hash != delivery.body_hash
        connection.execute(sql.REDELIVER, (seq, delivery.body_hash, conflict, delivery.received_at))
        if not conflict:
            return Receipt.DUPLICATE
        conflicts.append((e.endpoint, e.id, first_hash.hex(), delivery.body_hash.hex()))
        return Receipt.CONFLICT

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
        for position, handler_id in enumerate(batch.claim_for):
            share = -(-left // (len(batch.claim_for) - position))
            found = connection.execute(
                sql.CLAIM,
                (until, self.owner, handler_id, int(batch.claim_orphans), now, share),
            ).fetchall()
            claimed += found
            left -= len(found)
        events = self._load_events(connection, {row[1] for row in claimed})
        claimed.sort(key=lambda row: row[0])
        return [
            LeasedJob(
                id=id,
                fence=fence,
                handler_id=handler_id,
                event=events[seq],
                created_at=created_at,
                attempts=attempts,
                failed=failed,
                orphaned=bool(orphaned),
                replayed_from=replayed_from,
                keyed_by=keyed_by,
            )
            for (
                id, seq, handler_id, fence, created_at, attempts, failed, orphaned,
                replayed_from, keyed_by,
            ) in claimed
        ]  # fmt: skip

    def _load_events(
        self, connection: sqlite3.Connection, seqs: Iterable[int]
    ) -> dict[int, Event[Any]]:
        events: dict[int, Event[Any]] = {}
        for chunk in _power_of_two_chunks(sorted(seqs)):
            found = connection.execute(sql.load_events(len(chunk)), chunk)
            for seq, endpoint, id, type, received_at, headers, body in found:
                events[seq] = Event(
                    id=id,
                    type=type,
                    body=body,
                    endpoint=endpoint,
                    received_at=from_micros(received_at),
                    raw_headers=headers,
                )
        return events

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            timeout=0,
        )
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        connection.execute("PRAGMA cache_size = -16000")  # KiB
        return connection

    def _make_engine(self, *, pool_size: int) -> AsyncEngine:
        engine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(self.path)),
            **_engine_options(pool_size),
        )
        _prepare(engine.sync_engine)
        return engine


def _engine_options(pool_size: int) -> dict[str, Any]:
    return {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": 60,
        "hide_parameters": True,
        "connect_args": {"isolation_level": None, "timeout": 5, "check_same_thread": False},
    }


def _prepare(engine: Engine) -> None:
    event.listen(engine, "connect", _set_pragmas)
    listen(engine)


def _set_pragmas(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in (*_PRAGMAS, "PRAGMA wal_autocheckpoint = 0"):
        cursor.execute(pragma)
    cursor.close()


def _mark_values(mark: Mark, now: int) -> tuple[Any, ...]:
    values = inbox.mark_parameters(mark, now)
    return tuple(values[name] for name in sql.MARK_ORDER)


def _power_of_two_chunks(items: Sequence[Any], largest: int = 64) -> Iterable[Sequence[Any]]:
    """Split a sequence so that few sizes of statement serve all lengths, each prepared once."""
    start, size = 0, largest
    while start < len(items):
        while size > len(items) - start:
            size //= 2
        yield items[start : start + size]
        start += size
