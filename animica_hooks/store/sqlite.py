"""The inbox in one SQLite file.

Rule 1: the inbox writes through one connection of its own, one transaction at a time, in a thread:
        a few statements of many rows each, which run without the GIL while the event loop takes
        the deliveries of the next.
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
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from copy import copy
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from animica_hooks.core.event import Event
from animica_hooks.core.outcome import COMPLETED, from_micros
from animica_hooks.errors import ConfigurationError, StoreUnavailable
from animica_hooks.store import inbox, schema
from animica_hooks.store import sqlite_sql as sql
from animica_hooks.store.base import Store
from animica_hooks.store.checkpoints import Checkpoints
from animica_hooks.store.records import (
    Batch,
    Committed,
    LeasedJob,
    Mark,
    NewEvent,
    NewQuarantined,
)
from animica_hooks.store.session import Unit, listen, open_session, open_sync_session
from animica_hooks.store.turns import WriteTurns
from animica_hooks.threads import DaemonThreads, to_the_end

MIN_VERSION = (3, 35, 0)  # RETURNING
FOREIGN_LOCK_S = 2.0  # how long another program may hold the file before a commit gives up
CLOSING_TURN_S = 1.0
KEPT_FAILURES = 20  # of each job, the newest
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA mmap_size = 0",
    "PRAGMA wal_autocheckpoint = 0",
)
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


class SqliteStore(Store):
    """See the module. One instance belongs to one event loop of one process."""

    def __init__(self, path: Path, *, owner: str, lease_s: float, handlers: int) -> None:
        super().__init__(owner=owner, lease_s=lease_s)
        self.path = path
        self.turns = WriteTurns(path.with_name(path.name + "-turns"))
        self._threads = DaemonThreads("animica-hooks-commit")
        self._inbox: sqlite3.Connection | None = None
        self._checkpoints = Checkpoints(path, self.turns, self._connect)
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
            version = _version_of(self.path)
            if not migrate:
                # First: connecting to write would make of somebody else's file a WAL database.
                schema.require_current(version)
            # In its turn, for several processes that turn a new file to WAL at once are locked out.
            async with self._turn("open"):
                self._inbox = self._connect()
            if version != schema.HEAD:
                async with self.write("migration") as connection:
                    await connection.run_sync(schema.upgrade)
        except sqlite3.DatabaseError as error:
            if _code(error) in _PASSING:
                raise self._unavailable(error) from error
            raise ConfigurationError(
                f"{self.path} can not be used as an SQLite database: {error}."
            ) from error

    def start_maintenance(self) -> None:
        self._checkpoints.start()

    async def close(self) -> None:
        await self._checkpoints.close()
        await self._engine.dispose()
        await self._handler_engine.dispose()
        self._handler_sync_engine.dispose()
        try:
            # The last connection to close a file checkpoints it: in its turn.
            async with asyncio.timeout(CLOSING_TURN_S), self._turn("close"):
                self._drop_inbox()
        except TimeoutError:  # a handler keeps it for ever, or the disk hangs
            holder, _ = self.turns.held() or ("", 0)
            if holder != "inbox":
                self._drop_inbox()
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
        try:
            async with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise self._unavailable(error.orig) from error

    @asynccontextmanager
    async def write(self, holder: str) -> AsyncIterator[AsyncConnection]:
        try:
            # The connection closes before the turn ends, whatever happened.
            async with self._turn(holder), self._engine.connect() as connection:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                await connection.commit()
        except DBAPIError as error:
            raise self._unavailable(error.orig) from error

    async def commit(self, batch: Batch) -> Committed:
        async with self._turn("inbox"):
            try:
                return await to_the_end(self._threads.submit(lambda: self._transact(batch)))
            except sqlite3.Error as error:
                self._drop_inbox()
                raise self._unavailable(error) from error
            except BaseException:
                self._drop_inbox()
                raise

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

    def _transact(self, batch: Batch) -> Committed:
        connection = self._inbox or self._connect()
        self._inbox = connection
        connection.execute("BEGIN IMMEDIATE")
        committed = self._execute(connection, batch)
        connection.commit()
        return committed

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
        changed = self._complete(connection, [m for m in marks if m.transition is COMPLETED], now)
        for mark in marks:
            if mark.transition is COMPLETED:
                continue
            if not connection.execute(sql.MARK, _mark_values(mark, now)).rowcount:
                continue
            changed += 1
            if failure := mark.failure:
                connection.execute(
                    sql.INSERT_FAILURE,
                    (mark.job_id, mark.attempt, now, *failure),
                )
                connection.execute(sql.TRIM_FAILURES, (mark.job_id, mark.attempt - KEPT_FAILURES))
        return len(marks) - changed

    def _complete(self, connection: sqlite3.Connection, marks: Sequence[Mark], now: int) -> int:
        by_fence: dict[int, list[int]] = {}
        for mark in marks:
            by_fence.setdefault(mark.fence, []).append(mark.job_id)
        changed = 0
        for fence, ids in by_fence.items():
            for chunk in _chunks(ids):
                changed += connection.execute(
                    sql.complete(len(chunk)), (now, fence, *chunk)
                ).rowcount
        return changed

    def _receive(self, connection: sqlite3.Connection, batch: Batch, now: int) -> Committed:
        committed = Committed()
        seqs = self._insert_events(connection, batch.deliveries) if batch.deliveries else {}
        [(job_id,)] = connection.execute(sql.LAST_JOB)
        rows: list[tuple[Any, ...]] = []
        until = now + self.lease
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
            for handler_id in delivery.handler_ids:
                job_id += 1
                if len(committed.leased) < batch.room:
                    rows.append((job_id, seq, handler_id, "leased", until, 1, now, self.owner))
                    event = (
                        delivery.event if len(delivery.handler_ids) == 1 else copy(delivery.event)
                    )
                    committed.leased.append(LeasedJob(job_id, 1, handler_id, event, now))
                else:
                    rows.append((job_id, seq, handler_id, "available", now, 0, now, None))
                    committed.waiting = True
        if rows:
            _insert_many(connection, sql.insert_jobs, rows)
        return committed

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
                rows.append(
                    (seq, e.endpoint, e.id, e.type, new.received_at, new.body_hash,
                     new.raw_headers, e.body)
                )  # fmt: skip
        if _insert_many(connection, sql.insert_events, rows) < len(rows):
            stored = {seq for (seq,) in connection.execute(sql.EVENTS_AFTER, (last,))}
            seqs = {position: seq for position, seq in seqs.items() if seq in stored}
        return seqs

    def _redeliver(
        self, connection: sqlite3.Connection, delivery: NewEvent, committed: Committed
    ) -> None:
        e, body_hash = delivery.event, delivery.body_hash
        seq, first_hash = connection.execute(sql.FIND_EVENT, (e.endpoint, e.id)).fetchone()
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
                event=copy(events[seq]),  # handlers do not share its payload
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

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            timeout=FOREIGN_LOCK_S,
        )
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        connection.execute("PRAGMA cache_size = -16000")  # KiB
        # Statements of many rows keep the pages they change, to undo themselves: not in a file.
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection

    def _make_engine(self, *, pool_size: int) -> AsyncEngine:
        # At DEBUG it logs all that handlers write, so not unless its own level asks for that.
        if (driver_logger := logging.getLogger("aiosqlite")).level == logging.NOTSET:
            driver_logger.setLevel(logging.INFO)
        engine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(self.path)),
            **_engine_options(pool_size),
        )
        _prepare(engine.sync_engine)
        return engine


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


def _code(error: sqlite3.Error) -> int:
    """Return the primary code of an SQLite error."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


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
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _insert_many(
    connection: sqlite3.Connection, statement: Callable[[int], str], rows: Sequence[tuple[Any, ...]]
) -> int:
    inserted = 0
    for chunk in _chunks(rows):
        inserted += connection.execute(
            statement(len(chunk)), list(chain.from_iterable(chunk))
        ).rowcount
    return inserted


def _chunks(items: Sequence[Any], largest: int = 64) -> Iterable[Sequence[Any]]:
    """Split a sequence so that few sizes of statement serve all lengths, each prepared once."""
    start, size = 0, largest
    while start < len(items):
        while size > len(items) - start:
            size //= 2
        yield items[start : start + size]
        start += size


def _mark_values(mark: Mark, now: int) -> tuple[Any, ...]:
    values = inbox.mark_parameters(mark, now)
    return tuple(values[name] for name in sql.MARK_ORDER)
