"""The inbox in PostgreSQL.

Rule 1: most batches are one statement, which is a transaction by itself: one round trip.
Rule 2: processes tell each other of jobs that nobody holds by NOTIFY. That is a hint, which a
        killed backend loses: the worker's poll is the truth.
Rule 3: behind a pooler that hands out a server connection per transaction (pgbouncer) nothing
        outlives a transaction: no prepared statement, no setting, no LISTEN, no session's lock.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from sqlalchemy import URL, Engine, create_engine, func, text, true
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from animica_hooks.core.event import hash_body
from animica_hooks.core.fair import share
from animica_hooks.core.order import aftermath
from animica_hooks.errors import ConfigurationError
from animica_hooks.store import inbox as shared
from animica_hooks.store import postgres_driver, schema
from animica_hooks.store import postgres_sql as sql
from animica_hooks.store.inbox import MARK
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
    ANSWER_S,
    CLOCK_S,
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

MIN_VERSION = 13
_MIGRATION_LOCK = 0x616E696D  # "anim"
_LISTEN_AGAIN_S = 1.0
_ANSWER_MS = round(ANSWER_S * 1000)
# libpq's options: a server that has gone without a word is noticed.
_LIBPQ = {
    "connect_timeout": f"{CONNECT_S:.0f}",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
# How long a handler may take from its mark, which locks the job, to its commit. Where its process
# was stopped or cut off in between, the inbox waits for the lock, and with it the senders.
_HANDLER_COMMIT_S = 2.0
_TRY_AGAIN = frozenset({"40001", "40P01", "55P03"})  # serialization, deadlock, lock_timeout
# What is wrong, by the SQLSTATE with which a start fails.
_WRONG = {
    "28": "refuses the user or the password of database_url: change them.",
    "3D000": "does not exist: create the database, or name another in database_url.",
    "42501": "does not let the user of database_url do that: GRANT it USAGE and CREATE on the "
    "schema and, where others have made them, rights to the tables.",
}


def _address(url: URL) -> str:
    host, port = url.host or url.query.get("host"), url.port or url.query.get("port", "5432")
    if isinstance(host, str) and host.startswith("/"):
        return f"{host}/.s.PGSQL.{port}"
    return address_of(host if isinstance(host, str) else None, port)


class PostgresStore(ServerStore["asyncpg.Connection[Any]"]):
    """See the module."""

    product = "PostgreSQL"
    failures = (
        OSError,
        TimeoutError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    )
    ending = MARK.returning(
        func.set_config(
            "idle_in_transaction_session_timeout", f"{_HANDLER_COMMIT_S * 1000:.0f}", true()
        )
    )

    def __init__(self, url: URL, *, owner: str, lease_s: float, handlers: int) -> None:
        name = URL.create("postgresql", host=url.host, port=url.port, database=url.database)
        super().__init__(str(name), _address(url), owner=owner, lease_s=lease_s, handlers=handlers)
        self._url = url.set(drivername="postgresql")
        self._pooled: bool | None = None  # behind a pooler; None while that is not known

    async def _connect(self) -> asyncpg.Connection[Any]:
        # Until it is known that there is no pooler, as if there were one.
        options: dict[str, Any] = {} if self._pooled is False else {"statement_cache_size": 0}
        url = self._url.render_as_string(hide_password=False)
        try:
            connection = await asyncpg.connect(
                url, timeout=CONNECT_S, connection_class=postgres_driver.Connection, **options
            )
        except asyncpg.UndefinedObjectError:  # options that the driver does not know go there
            raise asyncpg.ClientConfigurationError("the server knows no such option") from None
        if self._pooled is None:
            # Through a pooler it is not the backend that the greeting came from.
            async with asyncio.timeout(CONNECT_S), connection.transaction():
                backend = await connection.fetchval("SELECT pg_backend_pid()")
            self._pooled = backend != connection.get_server_pid()
            if not self._pooled:
                await connection.close(timeout=CLOSE_S)
                return await self._connect()
        if not self._pooled:
            await connection.execute(sql.KEEP_ALIVE, timeout=CONNECT_S)
        return connection

    async def _connected(self) -> asyncpg.Connection[Any]:
        if self._inbox is not None and self._inbox.is_closed():
            self._inbox = None  # by the server: nothing was under way
        if self._inbox is None and not self._pooled:
            inbox = await super()._connected()
            if not self._pooled:
                await inbox.execute(sql.LIMITS.format(scope="SESSION", ms=_ANSWER_MS))
        return await super()._connected()

    def _advice(self, error: BaseException) -> str | None:
        if isinstance(error, asyncpg.ClientConfigurationError):
            return "can not be reached as database_url says: one of its options is wrong."
        if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
            # Not asked for, its absence is no error: what answered does not know the question.
            asked = self._url.query.get("sslmode") or os.environ.get("PGSSLMODE", "prefer")
            if asked in ("allow", "prefer"):
                return f"is not PostgreSQL: something else listens at {self._address}."
            return (
                "has no TLS, which the sslmode of database_url asks for: change one of them. Or it "
                f"is not PostgreSQL that listens at {self._address}."
            )
        state = str(getattr(error, "sqlstate", None))
        return _WRONG.get(state) or _WRONG.get(state[:2]) or super()._advice(error)

    async def _disconnect(self, inbox: asyncpg.Connection[Any]) -> None:
        inbox.terminate()

    async def _check(self, inbox: asyncpg.Connection[Any]) -> None:
        async with inbox.transaction():  # rule 3: it is prepared, and then run
            found = await inbox.fetchrow(sql.SETTINGS)
        if found["version"] < MIN_VERSION * 10_000:
            raise ConfigurationError(
                f"PostgreSQL {found['version_text']} is too old: {MIN_VERSION} or newer is needed."
            )
        if found["in_recovery"]:
            raise ConfigurationError(
                f"{self.name} is a standby and can not be written: name the primary."
            )
        if found["encoding"] != "UTF8":
            raise ConfigurationError(
                f"{self.name} has the encoding {found['encoding']}, and events may have any text: "
                "create a database with ENCODING 'UTF8'."
            )
        if found["isolation"] != "read committed":
            raise ConfigurationError(
                f"{self.name} isolates transactions by {found['isolation']!r}, and 'read "
                "committed' is needed: ALTER DATABASE ... SET default_transaction_isolation TO "
                "'read committed'."
            )
        for setting in ("fsync", "synchronous_commit"):
            if found[setting] == "off":
                warn_of_lost_promise(f"PostgreSQL has {setting} = off")

    async def _read_clock(self, inbox: asyncpg.Connection[Any]) -> int:
        async with inbox.transaction():
            return int(await inbox.fetchval(sql.CLOCK))

    @asynccontextmanager
    async def write(self, holder: str) -> AsyncIterator[AsyncConnection]:
        async with super().write(holder) as connection:
            await connection.exec_driver_sql(sql.IDLE_LIMIT.format(scope="LOCAL", ms=_ANSWER_MS))
            yield connection

    async def _migrate(self) -> None:
        async with self.write("migration") as connection:
            # A lock of the transaction: a session's would stay with a pooler's connection.
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            await connection.execute(text(sql.GIVE_WAY))
            await connection.run_sync(schema.upgrade)

    async def _make_engine(self, pool_size: int) -> AsyncEngine:
        if self._pooled is None:
            await self._connected()
        pooled: dict[str, Any] = {
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"hooks_{uuid.uuid4().hex}",
        }
        engine = create_async_engine(
            "postgresql+asyncpg://",
            connect_args={
                "async_creator_fn": self._connect,
                **(pooled if self._pooled else {}),
            },
            pool_size=pool_size,
            max_overflow=0,
            hide_parameters=True,
        )
        limit_ping(engine, self._ping, self.failures)
        return engine

    def _unit(self, holder: str, *, record: bool) -> Unit:
        return (Unit if self._pooled else MarkingUnit)(holder, record, self.ending)

    async def _ping(self, driver: asyncpg.Connection[Any]) -> None:
        await driver.execute("SELECT 1", timeout=PING_S)

    def _make_sync_engine(self, pool_size: int) -> Engine:
        import psycopg

        url = self._url.set(query={**_LIBPQ, **self._url.query})

        def connect() -> Any:
            # prepare_threshold: as in rule 3.
            connection = psycopg.connect(
                url.render_as_string(hide_password=False), prepare_threshold=None
            )
            if not self._pooled:
                connection.execute(sql.KEEP_ALIVE)
                connection.commit()
            return connection

        return create_engine(
            "postgresql+psycopg://",
            creator=connect,
            pool_size=pool_size,
            max_overflow=0,
            hide_parameters=True,
        )

    def _may_try_again(self, error: BaseException) -> bool:
        # By SQLAlchemy's engines the driver's errors come wrapped, with their state.
        return (
            isinstance(error, asyncpg.InvalidCachedStatementError)
            or getattr(error, "sqlstate", None) in _TRY_AGAIN
        )

    async def _transact(self, inbox: asyncpg.Connection[Any], batch: Batch) -> Committed:
        if self._pooled or not _is_plain(batch):
            async with inbox.transaction():
                if self._pooled:
                    await inbox.execute(sql.LIMITS.format(scope="LOCAL", ms=_ANSWER_MS))
                if held := handlers_to_hold(batch):
                    await inbox.execute(sql.HOLD_HANDLERS, held)
                return await self._execute(inbox, batch)
        return await self._execute(inbox, batch)

    async def _execute(self, inbox: asyncpg.Connection[Any], batch: Batch) -> Committed:
        now = self.now()
        committed = Committed()
        await self._mark(inbox, batch, committed, now)
        await self._deliver(inbox, batch, committed, now)
        if batch.claim:
            committed.claimed = await self._claim(inbox, batch, now)
        return committed

    async def _mark(
        self, inbox: asyncpg.Connection[Any], batch: Batch, committed: Committed, now: int
    ) -> None:
        """End attempts that others may wait for, or that did not simply succeed, one by one."""
        marks = [mark for mark in batch.marks if not mark.is_plain]
        for mark in sorted(marks, key=lambda mark: mark.job_id):
            values = shared.mark_parameters(mark, now)
            changed = await inbox.fetchval(sql.MARK, *(values[name] for name in sql.MARK_ORDER))
            if changed is None:
                committed.fenced += 1
                continue
            if line := mark.line:
                parks, due_at = aftermath(mark.transition.state, line, now)
                if parks:
                    await inbox.execute(sql.PARK, line.handler_id, line.key, mark.job_id)
                if due_at is not None:
                    await inbox.execute(sql.CALL_NEXT, due_at, line.handler_id, line.key)
            if failure := mark.failure:
                await inbox.execute(sql.FAIL, mark.job_id, mark.attempt, now, *failure)
                oldest = mark.attempt - shared.KEPT_FAILURES
                await inbox.execute(sql.TRIM_FAILURES, mark.job_id, oldest)

    async def _deliver(
        self, inbox: asyncpg.Connection[Any], batch: Batch, committed: Committed, now: int
    ) -> None:
        """End attempts that succeeded, and store deliveries."""
        done = [mark for mark in batch.marks if mark.is_plain]
        done.sort(key=lambda mark: mark.job_id)
        arrivals = Arrivals(batch)
        stored: dict[EventKey, int] = {}
        if done or arrivals.first:
            rows = await inbox.fetch(sql.DELIVER, *self._columns(done, arrivals, batch.room, now))
            committed.fenced += len(done) - rows[0]["ended"]
            for seq, endpoint, id, job_id, handler_id, state, _, _ in rows:
                stored[endpoint, id] = seq
                if state == "leased":
                    new = arrivals.first[endpoint, id]
                    committed.leased.append(leased_job(job_id, handler_id, new, now))
                elif state is not None:
                    committed.waiting = True
        if others := arrivals.others(stored):
            committed.waiting = True
            await self._insert_others(inbox, others, now)
        again = arrivals.again(stored)
        first_hashes = await self._redeliver(inbox, again) if again else {}
        for delivery in batch.deliveries:
            if isinstance(delivery, NewQuarantined):
                await self._quarantine(inbox, delivery)
        arrivals.tell(committed, again, first_hashes)

    def _columns(
        self, done: Sequence[Mark], arrivals: Arrivals, room: int, now: int
    ) -> tuple[Any, ...]:
        """Return the parameters of ``DELIVER``."""
        first = arrivals.first.values()
        places = {key: place for place, key in enumerate(arrivals.first, 1)}
        jobs = list(arrivals.jobs(room))
        return (
            [mark.job_id for mark in done],
            [mark.fence for mark in done],
            now,
            [new.event.endpoint for new in first],
            [new.event.id for new in first],
            [new.event.type for new in first],
            [new.received_at for new in first],
            [new.event.raw_headers for new in first],
            [new.event.body for new in first],
            [places[key] for key, _, _ in jobs],
            [handler_id for _, handler_id, _ in jobs],
            [leased for _, _, leased in jobs],
            now + self.lease,
            self.owner,
        )

    async def _insert_others(
        self, inbox: asyncpg.Connection[Any], others: Sequence[tuple[int, NewJob]], now: int
    ) -> None:
        lines = {job.line[:2] for _, job in others if job.line is not None}
        newest: dict[tuple[int, str], tuple[str, int | None]] = {}
        if lines:
            handler_ids, keys = zip(*sorted(lines), strict=True)
            for handler_id, key, state, ended_at in await inbox.fetch(
                sql.NEWEST_IN_LINES, handler_ids, keys
            ):
                newest[handler_id, key] = state, ended_at
        columns: list[list[Any]] = [[] for _ in range(7)]
        for seq, job in others:
            line = job.line
            joined = shared.joined(job, newest.get(line[:2]) if line else None, now)
            if line is not None:
                newest[line[:2]] = joined[0], None
            key, orphaned = line.key if line else None, UNSORTED if job.unsorted else 0
            row = (seq, job.handler_id, *joined, key, job.unusable, orphaned)
            for column, value in zip(columns, row, strict=True):
                column.append(value)
        await inbox.execute(sql.INSERT_JOBS, *columns, now)

    async def _redeliver(
        self, inbox: asyncpg.Connection[Any], again: Sequence[NewEvent]
    ) -> dict[int, bytes]:
        rows = await inbox.fetch(
            sql.REDELIVER,
            [new.event.endpoint for new in again],
            [new.event.id for new in again],
            [hash_body(new.body) for new in again],
            [new.received_at for new in again],
        )
        return {row["place"] - 1: row["first_hash"] for row in rows}

    async def _quarantine(self, inbox: asyncpg.Connection[Any], held: NewQuarantined) -> None:
        await inbox.execute(
            sql.QUARANTINE,
            held.endpoint,
            held.body_hash,
            held.received_at,
            held.reason,
            held.raw_headers,
            held.body,
        )

    async def _claim(
        self, inbox: asyncpg.Connection[Any], batch: Batch, now: int
    ) -> list[LeasedJob]:
        """Lease due jobs, each handler in its turn an equal share of what may be claimed."""
        claimed: list[asyncpg.Record] = []
        until, left = now + self.lease, batch.claim
        for position, claimant in enumerate(batch.claim_for):
            id, most, tokens = claimant.handler_id, share(left, batch.claim_for[position:]), 0.0
            if claimant.is_limited:
                limited = await inbox.fetchrow(sql.LIMITED, id)
                most, tokens = shared.grant(claimant, most, limited, now)
            found = await inbox.fetch(
                sql.CLAIM, until, self.owner, id, int(batch.claim_orphans), now, most
            )
            if found and claimant.rate is not None:
                await inbox.execute(sql.SPEND, tokens - len(found), now, id)
            claimed += found
            left = batch.claim - len(claimed)
        return claimed_jobs(claimed)

    async def _renew(
        self, connection: asyncpg.Connection[Any], leases: Sequence[tuple[int, int]]
    ) -> None:
        ids, fences = zip(*leases, strict=True)
        async with connection.transaction():  # rule 3: it is prepared, and then run
            await connection.execute(sql.RENEW, ids, fences, self.now() + self.lease)

    async def _hear(self, on_due: Callable[[], None]) -> None:
        if self._pooled:
            return  # there is nobody to hear: see rule 3
        while True:
            with suppress(*self.failures):
                await self._listen(on_due)
            await asyncio.sleep(_LISTEN_AGAIN_S)

    async def _listen(self, on_due: Callable[[], None]) -> None:
        """Pass notifications on until the connection is lost."""
        connection = await self._connect()
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(sql.CHANNEL, lambda *_: on_due())
            on_due()  # for what nobody has heard until now
            while not lost.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), CLOCK_S)
                await connection.execute("SELECT 1", timeout=ANSWER_S)
        finally:
            connection.terminate()


def _is_plain(batch: Batch) -> bool:
    """Tell whether a batch is one statement."""
    return (
        not batch.claim
        and all(mark.is_plain for mark in batch.marks)
        and all(isinstance(d, NewEvent) and not d.others for d in batch.deliveries)
    )
