"""The ``session`` of handlers: one transaction with the mark, no lock before the first write."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import asyncmy
import asyncpg
import psycopg
import pymysql
import pytest
from databases import engine_of, on_every_database, on_every_server
from sqlalchemy import (
    Connection,
    String,
    Table,
    delete,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from storekit import NOON, PATIENCE_S, claim, commit_leased, completed, job_row, new_event, released

from animica_hooks.errors import HandlerError, LeaseLost
from animica_hooks.store import sqlite_driver
from animica_hooks.store.base import Store
from animica_hooks.store.records import Batch, LeasedJob
from animica_hooks.store.server import ServerStore
from animica_hooks.store.session import Unit, writes
from animica_hooks.store.sqlite import SqliteStore


class Base(DeclarativeBase):
    """The user's own models."""


class Order(Base):
    """A row of the user's own."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(String(200), unique=True)


orders = cast("Table", Order.__table__)


# What drivers raise of a connection that is closed.
_CLOSED = (psycopg.OperationalError, pymysql.InterfaceError, sqlite3.ProgrammingError)


class Unexpected(Exception):
    """Raised by a handler."""


# What another program waits for a lock: SQLite not at all, servers for a second.
IMPATIENT = {
    "sqlite": "PRAGMA busy_timeout = 0",
    "postgresql": "SET lock_timeout = '1s'",
    "mysql": "SET innodb_lock_wait_timeout = 1",
}


@pytest.fixture
def database(store: Store, inbox_url: str, database_kind: str) -> Iterator[Connection]:
    """The database as another program sees it: it takes no turns, and does not wait for long."""
    engine = engine_of(database_kind, inbox_url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(IMPATIENT[connection.dialect.name])
        Base.metadata.create_all(connection)
        connection.execute(insert(orders).values(what="old"))
        yield connection
    engine.dispose()


@pytest.fixture
async def job(store: Store) -> LeasedJob:
    [job] = await commit_leased(store, new_event())
    return job


async def finish(session: AsyncSession, unit: Unit, job: LeasedJob) -> bool:
    """End a handler as the runner does: commit its writes with the mark."""
    return await session.run_sync(unit.complete, completed(job), NOON)


def stored(database: Connection) -> list[str]:
    return list(database.scalars(select(orders.c.what).order_by(orders.c.id)))


def can_write(database: Connection) -> bool:
    """Tell whether nobody holds a lock, or has written what is not committed."""
    try:
        database.execute(insert(orders).values(what="new"))
    except IntegrityError:  # it is there, and is nobody's any more
        return True
    except DBAPIError:
        return False
    database.execute(delete(orders).where(orders.c.what == "new"))
    return True


# What commits, and with what


@on_every_database
async def test_effect_and_mark_commit_together(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """Nothing is seen before the end, and then both the write and the mark."""
    async with store.session("handler") as (session, unit):
        await session.execute(insert(orders).values(what="new"))
        assert ["old"] == stored(database)
        assert "leased" == (await job_row(store, job.id)).state

        assert await finish(session, unit, job) is True

        assert ["old", "new"] == stored(database)
        assert "succeeded" == (await job_row(store, job.id)).state


@on_every_database
async def test_effect_and_mark_commit_together_in_a_thread(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """A plain function's session promises the same."""

    def handle() -> bool:
        with store.sync_session("handler") as (session, unit):
            session.execute(insert(orders).values(what="new"))
            return unit.complete(session, completed(job), NOON)

    assert await asyncio.to_thread(handle) is True
    assert ["old", "new"] == stored(database)
    assert "succeeded" == (await job_row(store, job.id)).state


@on_every_database
async def test_a_handler_that_fails_leaves_nothing(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """What was written is rolled back, the job keeps its lease, and the turn is free."""

    async def handle() -> None:
        async with store.session("handler") as (session, _):
            await session.execute(insert(orders).values(what="new"))
            raise Unexpected

    with pytest.raises(Unexpected):
        await handle()

    assert ["old"] == stored(database)
    assert "leased" == (await job_row(store, job.id)).state
    assert store.slow_writer() is None


@on_every_database
async def test_a_plain_handler_that_fails_leaves_nothing(
    store: Store, database: Connection
) -> None:
    """The same in a thread."""

    def handle() -> None:
        with store.sync_session("handler") as (session, _):
            session.add(Order(what="new"))
            session.flush()
            raise Unexpected

    with pytest.raises(Unexpected):
        await asyncio.to_thread(handle)
    assert ["old"] == stored(database)
    assert store.slow_writer() is None


@on_every_database
async def test_without_the_lease_nothing_commits(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """A handler whose job another worker has by now leaves no effect."""
    await store.commit(Batch(marks=[released(job, NOON)]))
    [again] = await claim(store)

    async def handle() -> None:
        async with store.session("handler") as (session, unit):
            await session.execute(insert(orders).values(what="late"))
            await finish(session, unit, job)

    with pytest.raises(LeaseLost):
        await handle()

    assert ["old"] == stored(database)
    assert again.fence == (await job_row(store, job.id)).fence
    assert "leased" == (await job_row(store, job.id)).state


@on_every_database
async def test_a_job_that_has_ended_can_not_be_committed_again(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """Of two runs under one lease only one has its effect."""
    for what, lost in (("first", False), ("second", True)):
        try:
            async with store.session("handler") as (session, unit):
                await session.execute(insert(orders).values(what=what))
                await finish(session, unit, job)
        except LeaseLost:
            assert lost

    assert ["old", "first"] == stored(database)


async def test_a_handler_that_wrote_nothing_commits_nothing(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """After reading only there is nothing to commit the mark with: it goes the usual way."""
    async with store.session("handler") as (session, unit):
        await session.scalars(select(orders.c.what))
        assert await finish(session, unit, job) is False

    assert "leased" == (await job_row(store, job.id)).state


@on_every_database
async def test_a_mark_that_was_not_committed_is_no_others(
    store: Store, database: Connection
) -> None:
    """What a commit was to carry is forgotten with what is rolled back, and marks nothing later."""
    first, second = await commit_leased(store, new_event("evt_1"), new_event("evt_2"))

    class NotCommitted(Exception):
        pass

    def break_off(_: object) -> None:
        raise NotCommitted

    async with store.session("handler") as (session, unit):
        await session.execute(insert(orders).values(what="undone"))
        event.listen((await session.connection()).sync_connection, "commit", break_off)
        with pytest.raises(NotCommitted):
            await finish(session, unit, first)
    async with store.session("handler") as (session, unit):
        await session.execute(insert(orders).values(what="new"))
        await finish(session, unit, second)

    assert ["old", "new"] == stored(database)
    states = [(await job_row(store, job.id)).state for job in (first, second)]
    assert ["leased", "succeeded"] == states


@on_every_database
async def test_a_session_is_few_trips(
    store: Store, database: Connection, job: LeasedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write, and the commit with the mark: each is one trip. asyncpg needs one more, to begin."""
    [other] = await commit_leased(store, new_event("evt_2"))
    trips: list[object] = []

    def count(owner: Any, name: str) -> None:
        make = getattr(owner, name)

        async def counted(*args: Any, **kwargs: Any) -> Any:
            trips.append(args[1:])
            return await make(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    for one in (job, other):
        async with store.session("handler") as (session, unit):
            await session.execute(insert(orders).values(what=f"{one.id}"))
            await finish(session, unit, one)
        if one is job:  # which has prepared what is the connection's
            match database.dialect.name:
                case "sqlite":
                    count(sqlite_driver.Connection, "_execute")
                case "postgresql":
                    count(asyncpg.Connection, "execute")
                    count(asyncpg.prepared_stmt.PreparedStatement, "fetch")
                case _:
                    count(asyncmy.connection.Connection, "_execute_command")
    assert {"sqlite": 2, "postgresql": 3, "mysql": 2}[database.dialect.name] == len(trips)


async def test_others_may_write_though_the_loop_is_blocked(
    store: SqliteStore, database: Connection, job: LeasedJob
) -> None:
    """The turn ends with the commit, in the thread, and not when the loop hears of it."""
    taken = threading.Event()

    def write() -> None:
        store.turns.take_blocking("another")
        taken.set()
        store.turns.give()

    async with store.session("handler") as (session, unit):
        await session.execute(insert(orders).values(what="new"))
        writing = asyncio.get_running_loop().run_in_executor(None, write)
        finishing = asyncio.create_task(finish(session, unit, job))
        await asyncio.sleep(0)
        assert taken.wait(PATIENCE_S)  # in the loop, on purpose
        assert await finishing is True
    await writing


@on_every_database
async def test_pending_objects_are_written_at_the_end(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """What was only added to the session counts as written when the handler returns."""
    async with store.session("handler") as (session, unit):
        session.add(Order(what="added"))
        assert await finish(session, unit, job) is True

    assert ["old", "added"] == stored(database)


# Locks


async def test_reading_takes_no_lock(store: Store, database: Connection, job: LeasedJob) -> None:
    """Before its first write a handler keeps nobody from writing: programs, inbox or handlers."""
    async with store.session("handler") as (session, unit):
        assert ["old"] == list(await session.scalars(select(orders.c.what)))
        assert can_write(database)
        assert store.slow_writer() is None
        async with asyncio.timeout(PATIENCE_S):
            assert ["new"] == (await store.commit(Batch(deliveries=[new_event("evt_2")]))).receipts
        database.execute(insert(orders).values(what="meanwhile"))

        # Nor does it see an old state, which its first write could not build upon.
        assert ["old", "meanwhile"] == list(await session.scalars(select(orders.c.what)))
        await session.execute(insert(orders).values(what="new"))
        assert not can_write(database)
        assert "handler" == (store.slow_writer() or [""])[0]
        await finish(session, unit, job)

    assert can_write(database)
    assert ["old", "meanwhile", "new"] == stored(database)


async def test_reading_takes_no_lock_in_a_thread(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """The same for a plain function."""
    read, go_on = threading.Event(), threading.Event()

    def handle() -> list[str]:
        with store.sync_session("handler") as (session, unit):
            session.scalars(select(Order.what)).all()
            read.set()
            assert go_on.wait(PATIENCE_S)
            seen = list(session.scalars(select(Order.what)))
            session.add(Order(what="new"))
            unit.complete(session, completed(job), NOON)
            return seen

    with ThreadPoolExecutor(1) as pool:
        handling = pool.submit(handle)
        assert await asyncio.to_thread(read.wait, PATIENCE_S)
        database.execute(insert(orders).values(what="meanwhile"))
        go_on.set()
        assert ["old", "meanwhile"] == handling.result(PATIENCE_S)

    assert ["old", "meanwhile", "new"] == stored(database)


@on_every_database
async def test_handlers_write_one_after_another(store: Store, database: Connection) -> None:
    """Two handlers that have both read can both write: the second waits for its turn."""
    jobs = await commit_leased(store, *[new_event(f"evt_{n}") for n in range(6)])
    all_have_read = asyncio.Barrier(4)

    async def handle(job: LeasedJob) -> None:
        async with store.session(f"handler {job.id}") as (session, unit):
            count = len((await session.scalars(select(orders.c.id))).all())
            await all_have_read.wait()
            await session.execute(insert(orders).values(what=f"{job.id}"))
            # Read-modify-write of what others write: in its turn it sees what they committed.
            await session.execute(
                update(orders).where(orders.c.id == 1).values(what=orders.c.what + f"+{job.id}")
            )
            await finish(session, unit, job)
            assert 1 == count

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*map(handle, jobs[:4]))

    rows = stored(database)
    assert 5 == len(rows)
    assert {"old", *(str(job.id) for job in jobs[:4])} == set(rows[0].split("+"))


async def test_a_handler_waits_for_the_inbox_and_the_inbox_for_it(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """While a handler is in its transaction the inbox queues behind it, and is served after it."""
    async with store.session("handler") as (session, unit):
        await session.execute(insert(orders).values(what="new"))
        delivering = asyncio.ensure_future(store.commit(Batch(deliveries=[new_event("evt_2")])))
        done, _ = await asyncio.wait([delivering], timeout=0.1)
        assert set() == done
        await finish(session, unit, job)

    async with asyncio.timeout(PATIENCE_S):
        assert ["new"] == (await delivering).receipts


@on_every_database
async def test_a_cancelled_handler_frees_the_slot(store: Store, database: Connection) -> None:
    """A handler that is stopped in its transaction, or in the queue, keeps nobody waiting."""
    wrote = asyncio.Event()

    async def handle() -> None:
        async with store.session("handler") as (session, _):
            await session.execute(insert(orders).values(what="new"))
            wrote.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(handle())
    await asyncio.wait_for(wrote.wait(), PATIENCE_S)
    queueing = asyncio.create_task(handle())
    await asyncio.wait([queueing], timeout=0.05)
    for task in (queueing, writing):
        task.cancel()
    await asyncio.gather(queueing, writing, return_exceptions=True)

    async with asyncio.timeout(PATIENCE_S):
        assert ["new"] == (await store.commit(Batch(deliveries=[new_event("evt_2")]))).receipts
    assert ["old"] == stored(database)
    assert can_write(database)


@on_every_database
async def test_a_handler_cancelled_in_a_statement_frees_the_slot(
    store: Store, database: Connection
) -> None:
    """Wherever in its statements a handler is cancelled, nothing stays, and others can write."""

    async def handle(n: int) -> None:
        async with store.session(f"handler {n}") as (session, _):
            for part in range(20):
                await session.execute(insert(orders).values(what=f"{n}.{part}"))

    for n in range(20):
        task = asyncio.create_task(handle(n))
        for _ in range(n * 3):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async with asyncio.timeout(PATIENCE_S):
        assert ["new"] == (await store.commit(Batch(deliveries=[new_event("evt_2")]))).receipts
    assert ["old"] == stored(database)


# Commits and rollbacks by the handler itself


@on_every_database
async def test_commit_in_a_handler_does_not_commit(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """``session.commit()`` only flushes: what came before and after it commits with the mark."""
    async with store.session("handler") as (session, unit):
        session.add(Order(what="before"))
        await session.commit()
        assert ["old"] == stored(database)
        session.add(Order(what="after"))
        await session.commit()
        await finish(session, unit, job)

    assert ["old", "before", "after"] == stored(database)


@on_every_database
async def test_a_handler_that_fails_after_its_commit_leaves_nothing(
    store: Store, database: Connection
) -> None:
    """Neither does the commit of a handler that fails afterwards stay."""

    async def handle() -> None:
        async with store.session("handler") as (session, _):
            session.add(Order(what="before"))
            await session.commit()
            raise Unexpected

    with pytest.raises(Unexpected):
        await handle()

    assert ["old"] == stored(database)


@on_every_database
async def test_begin_blocks_work_in_a_handler(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """``async with session.begin()``, as SQLAlchemy teaches it, does not commit early."""
    async with store.session("handler") as (session, unit):
        async with session.begin():
            session.add(Order(what="one"))
        assert ["old"] == stored(database)
        async with session.begin():
            session.add(Order(what="two"))
        await finish(session, unit, job)

    assert ["old", "one", "two"] == stored(database)


@on_every_database
async def test_commit_in_a_plain_handler_does_not_commit(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """The same in a thread."""

    def handle() -> list[str]:
        with store.sync_session("handler") as (session, unit):
            session.add(Order(what="before"))
            session.commit()
            seen = stored(database)
            with session.begin_nested():
                session.add(Order(what="after"))
            session.commit()
            unit.complete(session, completed(job), NOON)
            return seen

    assert ["old"] == await asyncio.to_thread(handle)
    assert ["old", "before", "after"] == stored(database)


@on_every_database
async def test_a_handler_may_roll_back_and_go_on(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """After its own rollback a handler can write anew; only that commits, with the mark."""
    async with store.session("handler") as (session, unit):
        session.add(Order(what="wrong"))
        await session.flush()
        await session.rollback()
        session.add(Order(what="right"))
        assert await finish(session, unit, job) is True

    assert ["old", "right"] == stored(database)
    assert "succeeded" == (await job_row(store, job.id)).state


@on_every_database
async def test_a_handler_may_go_on_after_a_failed_statement(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """A broken constraint, rolled back, does not spoil the rest."""
    async with store.session("handler") as (session, unit):
        with pytest.raises(IntegrityError):
            await session.execute(insert(orders).values(what="old"))
        await session.rollback()
        await session.execute(insert(orders).values(what="new"))
        assert await finish(session, unit, job) is True

    assert ["old", "new"] == stored(database)


@on_every_database
async def test_a_handler_that_rolled_back_everything_has_written_nothing(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """After a rollback at the end there is nothing to commit the mark with, and no lock is left."""
    async with store.session("handler") as (session, unit):
        await session.execute(insert(orders).values(what="wrong"))
        await session.rollback()
        assert can_write(database)
        assert await finish(session, unit, job) is False

    assert ["old"] == stored(database)


@on_every_database
async def test_commit_after_a_rollback_is_an_error_that_says_so(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """Where SQLAlchemy would commit for real, the handler is told that it can not."""

    async def handle() -> None:
        async with store.session("handler") as (session, _):
            session.add(Order(what="wrong"))
            await session.flush()
            await session.rollback()
            session.add(Order(what="early"))
            await session.commit()

    with pytest.raises(HandlerError, match="commits by itself"):
        await handle()

    assert ["old"] == stored(database)
    assert store.slow_writer() is None
    assert can_write(database)


@on_every_database
async def test_commit_after_a_rollback_is_an_error_in_a_thread(
    store: Store, database: Connection
) -> None:
    """The same for a plain function."""

    def handle() -> None:
        with store.sync_session("handler") as (session, _):
            session.add(Order(what="wrong"))
            session.flush()
            session.rollback()
            session.add(Order(what="early"))
            session.commit()

    with pytest.raises(HandlerError, match="commits by itself"):
        await asyncio.to_thread(handle)
    assert ["old"] == stored(database)
    assert can_write(database)


@on_every_database
async def test_savepoints_work(store: Store, database: Connection, job: LeasedJob) -> None:
    """A nested transaction can be undone by itself, though it is the first thing a handler does."""
    async with store.session("handler") as (session, unit):

        async def handle() -> None:
            async with session.begin_nested():
                session.add(Order(what="undone"))
                await session.flush()
                session.add(Order(what="old"))

        with pytest.raises(IntegrityError):
            await handle()
        async with session.begin_nested():
            session.add(Order(what="kept"))
        assert ["old"] == stored(database)
        await finish(session, unit, job)

    assert ["old", "kept"] == stored(database)


async def test_what_is_read_in_a_savepoint_can_be_built_upon(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """A handler that begins with a nested transaction holds the write slot from there."""
    async with store.session("handler") as (session, unit):
        async with session.begin_nested():
            assert ["old"] == list(await session.scalars(select(orders.c.what)))
            assert not can_write(database)
            session.add(Order(what="new"))
        await finish(session, unit, job)

    assert ["old", "new"] == stored(database)


# MariaDB checks everything with its statement.
where_a_commit_can_fail = pytest.mark.parametrize(
    "database_kind", ["sqlite", "postgresql"], indirect=True
)


@pytest.fixture
def lines(database: Connection) -> None:
    """A table whose rows must have an order, which is checked when they are committed."""
    database.exec_driver_sql(
        "CREATE TABLE lines (order_id INTEGER REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED)"
    )


# What has SQLite check references; elsewhere they are checked anyway.
CHECK_REFERENCES = {"sqlite": "PRAGMA foreign_keys = ON", "postgresql": "SELECT 1"}


@where_a_commit_can_fail
async def test_a_commit_that_fails_leaves_no_lock(
    store: Store, database: Connection, lines: None, job: LeasedJob
) -> None:
    """Where the database refuses the commit itself, nothing stays, and others can write."""

    async def handle() -> None:
        async with store.session("handler") as (session, unit):
            await session.execute(text(CHECK_REFERENCES[database.dialect.name]))
            session.add(Order(what="new"))
            await session.execute(text("INSERT INTO lines VALUES (99)"))
            await finish(session, unit, job)

    with pytest.raises(IntegrityError):
        await handle()

    assert ["old"] == stored(database)
    assert "leased" == (await job_row(store, job.id)).state
    assert can_write(database)


@where_a_commit_can_fail
async def test_a_commit_that_fails_leaves_no_lock_in_a_thread(
    store: Store, database: Connection, lines: None, job: LeasedJob
) -> None:
    """The same for a plain function."""

    def handle() -> None:
        with store.sync_session("handler") as (session, unit):
            session.execute(text(CHECK_REFERENCES[database.dialect.name]))
            session.execute(text("INSERT INTO lines VALUES (99)"))
            unit.complete(session, completed(job), NOON)

    with pytest.raises(IntegrityError):
        await asyncio.to_thread(handle)
    assert can_write(database)


# All ways to write

WRITES: dict[str, Any] = {
    "core": insert(orders).values(what="new"),
    "core with returning": insert(orders).values(what="new").returning(orders.c.id),
    "text": text("INSERT INTO orders (what) VALUES ('new')"),
    "lower case after a comment": text("/* x */ -- y\n insert into orders (what) values ('new')"),
    "or ignore": text("INSERT OR IGNORE INTO orders (what) VALUES ('old'), ('new')"),
    "with": text("WITH n AS (SELECT 'new' AS what) INSERT INTO orders (what) SELECT what FROM n"),
    "replace": text("REPLACE INTO orders (id, what) VALUES (2, 'new')"),
    "orm": insert(Order).values(what="new"),
}


@pytest.mark.parametrize("statement", WRITES.values(), ids=WRITES.keys())
async def test_every_way_to_write_commits_with_the_mark(
    store: Store, database: Connection, job: LeasedJob, statement: Any
) -> None:
    """Core, ORM and text, whatever they begin with, are part of the handler's transaction."""
    async with store.session("handler") as (session, unit):
        await session.execute(statement)
        assert ["old"] == stored(database)
        assert await finish(session, unit, job) is True

    assert ["old", "new"] == stored(database)


@on_every_database
async def test_many_rows_at_once_are_one_transaction(
    store: Store, database: Connection, job: LeasedJob
) -> None:
    """Bulk inserts, updates, deletes and a table of the handler's own are undone together."""
    commits_tables = database.dialect.name == "mysql"  # MariaDB knows no other way to make them

    async def handle() -> None:
        async with store.session("handler") as (session, _):
            await session.execute(insert(orders), [{"what": f"{n}"} for n in range(2000)])
            session.add_all([Order(what=f"o{n}") for n in range(50)])
            await session.flush()
            await session.execute(update(orders).values(what=orders.c.what + "!"))
            await session.execute(text("DELETE FROM orders WHERE id > 1000"))
            if not commits_tables:
                await session.execute(text("CREATE TABLE mine (x INTEGER)"))
            raise Unexpected

    with pytest.raises(Unexpected):
        await handle()

    assert ["old"] == stored(database)
    assert not inspect(database).has_table("mine")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1", False),
        ("  \n\tselect * from orders", False),
        ("(SELECT 1)", False),
        ("-- INSERT\nSELECT 1", False),
        ("/* UPDATE */ SELECT 1", False),
        ("/* a */ /* b */ -- c\n-- d\n SELECT 1", False),
        ("VALUES (1)", False),
        ("EXPLAIN QUERY PLAN DELETE FROM orders", False),
        ("PRAGMA table_info(orders)", False),
        ("WITH a AS (SELECT 1) SELECT * FROM a", False),
        ("INSERT INTO orders VALUES (1)", True),
        ("insert into orders values (1)", True),
        ("/* SELECT */ UPDATE orders SET id = 1", True),
        ("-- SELECT\nDELETE FROM orders", True),
        ("REPLACE INTO orders VALUES (1)", True),
        ("WITH a AS (SELECT 1) INSERT INTO orders SELECT * FROM a", True),
        ("with a as (select 1)\nupdate orders set id = 2", True),
        ("WITH a AS (SELECT 1)DELETE FROM orders", True),
        ("CREATE TABLE t (x)", True),
        ("DROP TABLE t", True),
        ("ALTER TABLE t ADD y", True),
        ("VACUUM", True),
        ("SAVEPOINT one", True),
        ("BEGIN", True),
        ("", True),
        (";", True),
        ("-- a comment only", True),
        ("/* not closed SELECT", True),
    ],
)
def test_what_may_write_is_known(statement: str, expected: bool) -> None:
    """Only what surely reads is taken for reading."""
    assert expected is writes(statement)


# Dry runs


@on_every_database
async def test_a_recorded_session_lists_its_writes(store: Store, database: Connection) -> None:
    """A dry run is told what was written to which table, by rows, and not what was read."""
    async with store.session("handler", record=True) as (session, unit):
        await session.scalars(select(orders.c.what))
        await session.execute(insert(orders), [{"what": "a"}, {"what": "b"}])
        session.add(Order(what="c"))
        await session.flush()
        await session.execute(update(orders).values(what=orders.c.what + "!"))
        await session.execute(text("DELETE FROM orders WHERE what = 'nobody'"))

    assert ["INSERT orders", "INSERT orders", "UPDATE orders", "DELETE orders"] == [
        what for what, _ in unit.recorded
    ]
    assert [2, 1, 4, 0] == [rows for _, rows in unit.recorded]
    assert ["old"] == stored(database)


@on_every_database
async def test_more_handlers_than_connections_all_get_theirs(
    store: Store, database: Connection
) -> None:
    """Sessions beyond the pool's size wait for one that ends, and the inbox does not wait."""
    jobs = await commit_leased(store, *[new_event(f"evt_{n}") for n in range(12)])

    async def handle(job: LeasedJob) -> None:
        async with store.session("handler") as (session, unit):
            await session.scalars(select(orders.c.what))
            session.add(Order(what=f"{job.id}"))
            await finish(session, unit, job)

    async with asyncio.timeout(PATIENCE_S):
        handling = asyncio.gather(*map(handle, jobs))
        delivered = await store.commit(Batch(deliveries=[new_event("evt_new")]))
        await handling

    assert ["new"] == delivered.receipts
    assert 13 == len(stored(database))


async def test_what_is_being_given_back_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is cancelled while its connection goes back leaves no statement to a closed loop."""
    give_back = AsyncConnection.close
    giving, given = asyncio.Event(), asyncio.Event()

    async def give_back_slowly(connection: AsyncConnection) -> None:
        giving.set()
        await asyncio.sleep(0.1)
        await give_back(connection)
        given.set()

    monkeypatch.setattr(AsyncConnection, "close", give_back_slowly)

    async def read() -> None:
        async with store.read() as connection:
            await connection.execute(select(1))

    reading = asyncio.create_task(read())
    await giving.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not given.is_set()
    await store.close()
    assert given.is_set()


@on_every_server
async def test_plain_handlers_that_begin_at_once_share_connections(
    store: ServerStore[Any], database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two of them need for the first time is made once: nobody would close the other."""
    made: list[object] = []
    make = store._make_sync_engine

    def make_slowly(size: int) -> Any:
        made.append(size)
        time.sleep(0.05)
        return make(size)

    monkeypatch.setattr(store, "_make_sync_engine", make_slowly)

    def read() -> None:
        with store.sync_session("handler") as (session, _):
            session.scalars(select(orders.c.what))

    await asyncio.gather(*[asyncio.to_thread(read) for _ in range(4)])
    assert 1 == len(made)


@on_every_database
async def test_what_a_plain_handler_brings_back_after_the_end_is_closed(store: Store) -> None:
    """A thread that a shutdown has left behind leaves no connection open behind it."""
    begun, go_on = threading.Event(), threading.Event()

    def linger() -> Any:
        with store.sync_session("handler") as (session, _):
            connection = session.connection().connection.driver_connection
            begun.set()
            go_on.wait(PATIENCE_S)
        return connection

    with ThreadPoolExecutor() as threads:
        left_behind = threads.submit(linger)
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        await store.close()
        go_on.set()
        connection = await asyncio.wrap_future(left_behind)

    with pytest.raises(_CLOSED):
        connection.cursor().execute("SELECT 1")
