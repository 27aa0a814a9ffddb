"""The inbox in MariaDB.

Rule 1: events are inserted by plain INSERTs in the order of their receipt, which numbers them so.
        That one is stored already shows by the key that refuses it: then the transaction begins
        anew, looks first, and leaves those out.
Rule 2: two processes that store the same events in different orders can wait for each other. The
        database ends one of the two transactions, which is done again, and looks first.
Rule 3: a connection isolates by READ COMMITTED: at the default, reads lock the gaps between rows.
Rule 4: a connection of the inbox on which anything failed is closed: asyncmy's state is then not
        to be relied on, and closing rolls back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import asyncmy
from asyncmy import errors
from asyncmy.cursors import DictCursor
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.dialects.mysql.asyncmy import MySQLDialect_asyncmy
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from animica_hooks.core.event import hash_body
from animica_hooks.core.fair import share
from animica_hooks.core.job import State
from animica_hooks.core.order import Line, aftermath
from animica_hooks.errors import ConfigurationError, StoreRefused
from animica_hooks.store import inbox as shared
from animica_hooks.store import mariadb_driver, schema
from animica_hooks.store import mariadb_sql as sql
from animica_hooks.store.records import (
    Batch,
    Committed,
    LeasedJob,
    Mark,
    NewEvent,
    NewJob,
    NewQuarantined,
)
from animica_hooks.store.server import (
    CLOSE_S,
    CONNECT_S,
    PING_S,
    ServerStore,
    address_of,
    limit_ping,
    warn_of_lost_promise,
)
from animica_hooks.store.server_batch import (
    Arrivals,
    EventKey,
    claimed_jobs,
    handlers_to_hold,
    leased_job,
)
from animica_hooks.store.session import MarkingUnit, Unit
from animica_hooks.store.tables import UNSORTED

MIN_VERSION = (10, 6)  # SKIP LOCKED
MIN_PACKET = 4 * 1024 * 1024  # bytes: a body of the usual limit, escaped, and its headers
_ROW_BYTES = 2048  # of an event in a statement, beside its type, headers and body
_LARGEST = 64  # rows of a statement
_PREPARED = 128  # statements that a connection keeps: all that there are, of the usual sizes
_OPTIONS = frozenset({"ssl_ca", "ssl_cert", "ssl_key", "unix_socket"})
_DUPLICATE = 1062
_TRY_AGAIN = frozenset({1020, 1205, 1213})  # record changed, lock wait timeout, deadlock
_REFUSED = "refuses the user or the password of database_url: change them."
# What is wrong, by the number with which a start fails.
_WRONG = {
    1044: "does not let the user of database_url in: GRANT it all rights on the database.",
    1045: _REFUSED,
    1049: "does not exist: create the database, or name another in database_url.",
    1698: _REFUSED,
}


class MariadbStore(ServerStore["asyncmy.Connection"]):
    """See the module."""

    product = "MariaDB"
    failures = (OSError, TimeoutError, errors.MySQLError)
    hears = False

    def __init__(self, url: URL, *, owner: str, lease_s: float, handlers: int) -> None:
        name = URL.create(url.drivername, host=url.host, port=url.port, database=url.database)
        by_socket = url.query.get("unix_socket")
        address = str(by_socket) if by_socket else address_of(url.host, url.port or 3306)
        super().__init__(str(name), address, owner=owner, lease_s=lease_s, handlers=handlers)
        if unknown := sorted(url.query.keys() - _OPTIONS):
            raise ConfigurationError(
                f"database_url has the option {unknown[0]}, which is not supported: "
                f"{', '.join(sorted(_OPTIONS))} are."
            )
        for option in ("ssl_ca", "ssl_cert", "ssl_key"):
            path = url.query.get(option)
            if path is not None and not os.access(str(path), os.R_OK):
                raise ConfigurationError(
                    f"database_url has {option}={path}, which is not there or can not be read: "
                    "name a file that can be."
                )
        self._url = url.set(drivername="mysql+asyncmy")
        # It logs the server's warnings, which can quote values.
        if (driver_logger := logging.getLogger("asyncmy")).level == logging.NOTSET:
            driver_logger.setLevel(logging.ERROR)
        self._packet = MIN_PACKET
        self._look_first = False

    async def _connect(self) -> asyncmy.Connection:
        dialect = MySQLDialect_asyncmy(dbapi=MySQLDialect_asyncmy.import_dbapi())
        _, options = dialect.create_connect_args(self._url)
        inbox = await self._dial(**options, autocommit=False, stmt_cache_size=_PREPARED)
        try:
            for statement in (sql.ISOLATION, sql.MODE, sql.LOCK_WAIT):
                await _change(inbox, statement)
        except BaseException:
            inbox.close()
            raise
        return inbox

    async def _dial(self, **options: Any) -> asyncmy.Connection:
        # The driver's own limit ends where the server begins to greet.
        async with asyncio.timeout(CONNECT_S):
            return await mariadb_driver.connect(charset="utf8mb4", **options)

    async def _disconnect(self, inbox: asyncmy.Connection) -> None:
        try:
            with suppress(*self.failures):
                async with asyncio.timeout(CLOSE_S):
                    await inbox.ensure_closed()
        finally:
            inbox.close()

    async def _check(self, inbox: asyncmy.Connection) -> None:
        [found] = await _select(inbox, sql.VERSION)
        version = found["version"]
        if "mariadb" not in version.lower():
            raise ConfigurationError(
                f"{self.name} is MySQL {version}, and only MariaDB is supported: name a server of "
                f"MariaDB {_dotted(MIN_VERSION)} or newer, a PostgreSQL or an SQLite file."
            )
        if _numbers(version) < MIN_VERSION:
            raise ConfigurationError(
                f"MariaDB {version} is too old: {_dotted(MIN_VERSION)} or newer is needed."
            )
        [found] = await _select(inbox, sql.SETTINGS)
        if found["read_only"]:
            raise ConfigurationError(
                f"{self.name} is read-only: name the primary, or SET GLOBAL read_only = 0."
            )
        self._packet = found["packet"]
        if self._packet < MIN_PACKET:
            raise ConfigurationError(
                f"{self.name} takes statements of at most {self._packet:,} bytes, and events may "
                f"need {MIN_PACKET:,}: raise max_allowed_packet."
            )
        if found["flush"] != 1:
            warn_of_lost_promise(
                f"MariaDB has innodb_flush_log_at_trx_commit = {found['flush']}, not 1"
            )
        if found["log_bin"] and found["sync_binlog"] != 1:
            warn_of_lost_promise(
                f"MariaDB has log_bin with sync_binlog = {found['sync_binlog']}, not 1"
            )

    async def _read_clock(self, inbox: asyncmy.Connection) -> int:
        [found] = await _select(inbox, sql.CLOCK)
        return int(found["now"])

    async def _migrate(self) -> None:
        async with self.read() as connection:
            await connection.execute(text(sql.LOCK_MIGRATION))
            await connection.execute(text(sql.GIVE_WAY))
            # What others have done while this waited is seen by a new transaction only.
            await connection.commit()
            try:
                await connection.run_sync(schema.upgrade)
                await connection.commit()
            finally:
                # The lock is the connection's, and ends with it.
                await connection.invalidate()

    async def _make_engine(self, pool_size: int) -> AsyncEngine:
        engine = create_async_engine(
            self._url,
            connect_args={"async_creator_fn": self._dial, "init_command": sql.MODE},
            **_engine_options(pool_size),
        )
        limit_ping(engine, self._ping, self.failures)
        return engine

    def _unit(self, holder: str, *, record: bool) -> Unit:
        return MarkingUnit(holder, record)

    async def _ping(self, driver: asyncmy.Connection) -> None:
        async with asyncio.timeout(PING_S):
            await driver.ping(reconnect=False)

    def _make_sync_engine(self, pool_size: int) -> Engine:
        return create_engine(
            self._url.set(drivername="mysql+pymysql"),
            connect_args={
                "charset": "utf8mb4",
                "connect_timeout": CONNECT_S,
                "init_command": sql.MODE,
            },
            **_engine_options(pool_size),
        )

    def _may_try_again(self, error: BaseException) -> bool:
        return _code(error) in _TRY_AGAIN

    def _advice(self, error: BaseException) -> str | None:
        return _WRONG.get(_code(error) or 0) or super()._advice(error)

    def _describe(self, error: BaseException) -> str:
        code = _code(error)
        return super()._describe(error) + (f" {code}" if code else "")

    async def _transact(self, inbox: asyncmy.Connection, batch: Batch) -> Committed:
        self._check_sizes(batch)
        arrivals = Arrivals(batch)
        try:
            while True:
                stored = await self._look(inbox, arrivals) if self._look_first else set()
                try:
                    committed = await self._execute(inbox, batch, arrivals, stored)
                except errors.IntegrityError as error:
                    if _code(error) != _DUPLICATE or sql.EVENTS_KEY not in str(error):
                        raise
                    await inbox.rollback()
                    self._look_first = True
                    continue
                await inbox.commit()
                # Duplicates come in crowds: after a pause of the receiver, or of the network.
                self._look_first = bool(stored)
                return committed
        except BaseException:
            self._look_first = True
            inbox.close()
            raise

    def _check_sizes(self, batch: Batch) -> None:
        """Refuse what the server would not read to its end: it would end the connection."""
        most = self._packet - _ROW_BYTES
        if batch.size > most and any(len(new.body) > most for new in batch.deliveries):
            raise StoreRefused(
                f"the database {self.name} takes statements of at most {self._packet:,} bytes: "
                "raise max_allowed_packet, or lower max_body."
            )

    async def _look(self, inbox: asyncmy.Connection, arrivals: Arrivals) -> set[EventKey]:
        """Return the events that are stored already."""
        return {
            (endpoint, row["id"])
            for endpoint, ids in _by_endpoint(arrivals.first).items()
            for row in await _select(inbox, sql.LOOK, endpoint, among=ids)
        }

    async def _execute(
        self,
        inbox: asyncmy.Connection,
        batch: Batch,
        arrivals: Arrivals,
        stored: Collection[EventKey],
    ) -> Committed:
        now = self.now()
        committed = Committed()
        await _hold(inbox, handlers_to_hold(batch))
        committed.fenced = await self._mark(inbox, batch.marks, now)
        fresh = [key for key in arrivals.first if key not in stored]
        seqs = await self._insert_events(inbox, arrivals, fresh)
        jobs = [job for job in arrivals.jobs(batch.room) if job[0] in seqs]
        job_ids = await self._insert_jobs(inbox, jobs, seqs, now)
        committed.leased = [
            leased_job(id, handler_id, arrivals.first[key], now)
            for id, (key, handler_id, leased) in zip(job_ids, jobs, strict=True)
            if leased
        ]
        others = arrivals.others(seqs)
        await self._insert_others(inbox, others, now)
        committed.waiting = len(committed.leased) < len(jobs) or bool(others)
        again = arrivals.again(seqs)
        first_hashes = await self._redeliver(inbox, again) if again else {}
        for delivery in batch.deliveries:
            if isinstance(delivery, NewQuarantined):
                await self._quarantine(inbox, delivery)
        arrivals.tell(committed, again, first_hashes)
        if batch.claim:
            committed.claimed = await self._claim(inbox, batch, now)
        return committed

    async def _renew(
        self, connection: asyncmy.Connection, leases: Sequence[tuple[int, int]]
    ) -> None:
        until = self.now() + self.lease
        for fence, ids in shared.by_fence(leases).items():
            await _change(connection, sql.RENEW, until, fence, among=ids)
        await connection.commit()

    async def _insert_events(
        self, inbox: asyncmy.Connection, arrivals: Arrivals, keys: Sequence[EventKey]
    ) -> dict[EventKey, int]:
        """Insert events; return their sequence numbers."""
        fresh = [arrivals.first[key] for key in keys]
        rows = [
            (e.endpoint, e.id, e.type, new.received_at, e.raw_headers, e.body)
            for new in fresh
            for e in (new.event,)
        ]
        seqs = await _insert(inbox, sql.insert_events, rows, _largest(fresh, self._packet))
        return dict(zip(keys, seqs, strict=True))

    async def _insert_jobs(
        self,
        inbox: asyncmy.Connection,
        jobs: Sequence[tuple[EventKey, int, bool]],
        seqs: Mapping[EventKey, int],
        now: int,
    ) -> list[int]:
        """Insert jobs of events that are new; return their ids."""
        held = ("leased", now + self.lease, 1, self.owner, now)
        free = ("available", now, 0, None, now)
        rows = [
            (seqs[key], handler_id, *(held if leased else free)) for key, handler_id, leased in jobs
        ]
        return await _insert(inbox, sql.insert_jobs, rows)

    async def _insert_others(
        self, inbox: asyncmy.Connection, others: Sequence[tuple[int, NewJob]], now: int
    ) -> None:
        """Insert jobs that may not be leased at once. The handlers of their lines are held."""
        newest: dict[tuple[int, str], tuple[str, int | None] | None] = {}
        rows = []
        for seq, job in others:
            where = job.line[:2] if job.line else None
            if where and where not in newest:
                found = await _select(inbox, sql.NEWEST_IN_LINE, *where)
                if found and State(found[0]["state"]).final:
                    found = await _select(inbox, sql.UNFINISHED_IN_LINE, *where) or found
                newest[where] = (found[0]["state"], found[0]["finished_at"]) if found else None
            joined = shared.joined(job, newest[where] if where else None, now)
            if where:
                newest[where] = joined[0], None
            key, ended_at = where[1] if where else None, now if job.unusable else None
            orphaned = UNSORTED if job.unsorted else 0
            rows.append((seq, job.handler_id, *joined, now, key, job.unusable, ended_at, orphaned))
        for chunk in shared.chunks(rows):
            await _change(inbox, sql.insert_others(len(chunk)), *chain.from_iterable(chunk))

    async def _redeliver(
        self, inbox: asyncmy.Connection, again: Sequence[NewEvent]
    ) -> dict[int, bytes]:
        """Count deliveries; return the hashes of the bodies that are stored, by place."""
        found = {
            (endpoint, row["id"]): (row["seq"], row["first_hash"])
            for endpoint, ids in _by_endpoint(
                (new.event.endpoint, new.event.id) for new in again
            ).items()
            for row in await _select(inbox, sql.FIND_EVENTS, endpoint, among=ids)
        }
        first_hashes: dict[int, bytes] = {}
        counts: dict[tuple[int, bytes], tuple[bool, int, int]] = {}
        for place, new in enumerate(again):
            if (key := (new.event.endpoint, new.event.id)) not in found:
                continue  # pruned since
            seq, first_hash = found[key]
            first_hashes[place] = first_hash
            body_hash = hash_body(new.body)
            _, count, last_at = counts.get((seq, body_hash), (False, 0, 0))
            counts[seq, body_hash] = (
                body_hash != first_hash, count + 1, max(last_at, new.received_at),
            )  # fmt: skip
        # In one order, so that processes do not wait for each other in a circle.
        for chunk in shared.chunks([(*key, *counts[key]) for key in sorted(counts)]):
            await _change(inbox, sql.redeliver(len(chunk)), *chain.from_iterable(chunk))
        return first_hashes

    async def _quarantine(self, inbox: asyncmy.Connection, held: NewQuarantined) -> None:
        await _change(
            inbox, sql.QUARANTINE, held.endpoint, held.body_hash, held.received_at, held.reason,
            held.raw_headers, held.body,
        )  # fmt: skip

    async def _mark(self, inbox: asyncmy.Connection, marks: Sequence[Mark], now: int) -> int:
        """Carry out transitions; return how many came too late."""
        done = shared.by_fence((m.job_id, m.fence) for m in marks if m.is_plain)
        changed = 0
        for fence, ids in done.items():
            changed += await _change(inbox, sql.COMPLETE, now, fence, among=ids)
        for mark in sorted(marks, key=lambda mark: mark.job_id):
            if mark.is_plain:
                continue
            values = shared.mark_parameters(mark, now)
            if not await _change(inbox, sql.MARK, *(values[name] for name in sql.MARK_ORDER)):
                continue
            changed += 1
            if line := mark.line:
                parks, due_at = aftermath(mark.transition.state, line, now)
                if parks:
                    await _change(inbox, sql.PARK, line.handler_id, line.key, mark.job_id)
                if due_at is not None:
                    await self._call_next(inbox, line, due_at)
            if failure := mark.failure:
                await _change(inbox, sql.INSERT_FAILURE, mark.job_id, mark.attempt, now, *failure)
                oldest = mark.attempt - shared.KEPT_FAILURES
                await _change(inbox, sql.TRIM_FAILURES, mark.job_id, oldest)
        return len(marks) - changed

    async def _call_next(self, inbox: asyncmy.Connection, line: Line, due_at: int) -> None:
        for row in await _select(inbox, sql.NEXT_IN_LINE, line.handler_id, line.key):
            await _change(inbox, sql.CALL, due_at, row["id"])

    async def _claim(self, inbox: asyncmy.Connection, batch: Batch, now: int) -> list[LeasedJob]:
        """Lease due jobs, each handler in its turn an equal share of what may be claimed."""
        due: list[dict[str, Any]] = []
        for position, claimant in enumerate(batch.claim_for):
            id, tokens = claimant.handler_id, 0.0
            most = share(batch.claim - len(due), batch.claim_for[position:])
            if claimant.is_limited:
                limited = [tuple(row.values()) for row in await _select(inbox, sql.LIMITED, id)]
                most, tokens = shared.grant(claimant, most, limited[0] if limited else None, now)
            found = await _select(inbox, sql.DUE, id, int(batch.claim_orphans), now, most)
            if found and await _select(inbox, sql.UNSORTED, id):
                continue
            if found and claimant.rate is not None:
                await _change(inbox, sql.SPEND, tokens - len(found), now, id)
            due += found
        if not due:
            return []
        ids = sorted(row["id"] for row in due)
        await _change(inbox, sql.LEASE, now + self.lease, self.owner, among=ids)
        seqs = list({row["event_seq"] for row in due})
        events = {row["seq"]: row for row in await _select(inbox, sql.LOAD_EVENTS, among=seqs)}
        return claimed_jobs([{**events[row["event_seq"]], **row} for row in due])


async def _hold(inbox: asyncmy.Connection, handler_ids: Collection[int]) -> None:
    if handler_ids:
        await _select(inbox, sql.HOLD_HANDLERS, among=sorted(handler_ids))


async def _insert(
    inbox: asyncmy.Connection,
    statement: Callable[[int], str],
    rows: Sequence[tuple[Any, ...]],
    largest: int = _LARGEST,
) -> list[int]:
    """Insert rows; return the keys they were given, in order."""
    keys: list[int] = []
    for chunk in shared.chunks(rows, largest):
        async with inbox.cursor() as cursor:
            await cursor.execute(statement(len(chunk)), tuple(chain.from_iterable(chunk)))
            keys.extend(key for (key,) in await cursor.fetchall())
    return keys


async def _select(
    inbox: asyncmy.Connection, statement: str, *values: Any, among: Sequence[Any] = ()
) -> Sequence[dict[str, Any]]:
    """Run a query.

    Args:
        among: what its list names.
    """
    listed = _padded(among)
    async with inbox.cursor(DictCursor) as cursor:
        await cursor.execute(sql.listing(statement, len(listed)), (*values, *listed))
        rows: Sequence[dict[str, Any]] = await cursor.fetchall()
        return rows


async def _change(
    inbox: asyncmy.Connection, statement: str, *values: Any, among: Sequence[Any] = ()
) -> int:
    """Run a statement; return how many rows it has changed. See ``_select``."""
    listed = _padded(among)
    async with inbox.cursor() as cursor:
        changed: int = await cursor.execute(sql.listing(statement, len(listed)), (*values, *listed))
        return changed


def _padded(items: Sequence[Any]) -> list[Any]:
    """Repeat the last of a list up to a power of two, so that there are few statements."""
    if not items:
        return []
    size = 1 << (len(items) - 1).bit_length()
    return [*items, *[items[-1]] * (size - len(items))]


def _by_endpoint(keys: Iterable[EventKey]) -> dict[str, list[str]]:
    """Return ids, sorted, by endpoint: MariaDB finds no pairs by an index."""
    found: dict[str, set[str]] = defaultdict(set)
    for endpoint, id in keys:
        found[endpoint].add(id)
    return {endpoint: sorted(ids) for endpoint, ids in sorted(found.items())}


def _largest(new: Iterable[NewEvent], packet: int) -> int:
    """Return of how many of these events a statement may be."""
    # Where it is not prepared after all, a byte takes two, escaped; and a character is four bytes.
    most = max((len(n.body) + len(n.event.raw_headers) + len(n.event.type) for n in new), default=0)
    largest = _LARGEST
    while largest > 1 and largest * (_ROW_BYTES + 4 * most) > packet:
        largest //= 2
    return largest


def _engine_options(pool_size: int) -> dict[str, Any]:
    return {
        "isolation_level": "READ COMMITTED",
        "pool_size": pool_size,
        "max_overflow": 0,
        "hide_parameters": True,
    }


def _code(error: BaseException) -> int | None:
    """Return the number of an error that is MariaDB's."""
    code = error.args[0] if error.args and isinstance(error, errors.MySQLError) else None
    return code if isinstance(code, int) else None


def _numbers(version: str) -> tuple[int, ...]:
    """Return 10, 11, 6 of ``5.5.5-10.11.6-MariaDB-1``: a proxy may put the first in front."""
    found = re.search(r"(\d+)\.(\d+)\.(\d+)-MariaDB", version, re.IGNORECASE)
    return tuple(map(int, found.groups())) if found else ()


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
