"""What is MariaDB's own: its settings, its locks, its DDL without transactions, its plans."""

import asyncio
import logging
import random
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from databases import MARIADB, engine_of
from mariadbkit import OwnMariadb, install, installed
from sqlalchemy import Connection, Engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection
from storekit import (
    FULL,
    NOON,
    Opens,
    all_rows,
    claim,
    commit_leased,
    completed,
    new_event,
    retried,
)
from test_schema import open_and_close, openers

from animica_hooks.cli import cli
from animica_hooks.core.order import Line
from animica_hooks.core.outcome import SECOND
from animica_hooks.errors import ConfigurationError, StoreUnavailable
from animica_hooks.store import inbox, schema
from animica_hooks.store import mariadb as module
from animica_hooks.store import mariadb_sql as sql
from animica_hooks.store import server as server_module
from animica_hooks.store.base import Store
from animica_hooks.store.connect import make_store
from animica_hooks.store.mariadb import MariadbStore
from animica_hooks.store.records import Batch
from animica_hooks.store.server import address_of
from animica_hooks.store.tables import events, jobs, metadata

on_mariadb = pytest.mark.parametrize("database_kind", [MARIADB], indirect=True)
with_own_server = pytest.mark.skipif(not installed(), reason="no MariaDB server is installed")

INSERT = text(
    "INSERT INTO hooks_events (endpoint, id, type, received_at, headers, body)"
    " VALUES ('animica', :id, 'order.paid', 0, '', :body)"
)


def insert(connection: Connection, *ids: str) -> None:
    """Store events as another process would, without a commit."""
    connection.execute(INSERT, [{"id": id, "body": b'{"id": "%s"}' % id.encode()} for id in ids])


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Another process's way into the database."""
    engine = engine_of(MARIADB, database_url)
    yield engine
    engine.dispose()


async def until_it_waits(engine: Engine) -> None:
    """Return when a transaction in this database waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM information_schema.innodb_trx"
        " JOIN information_schema.processlist ON id = trx_mysql_thread_id"
        " WHERE db = DATABASE() AND trx_state = 'LOCK WAIT'"
    )
    with engine.connect() as connection:
        while not connection.scalar(waiting):
            await asyncio.sleep(0.15)  # asked again sooner, it answers as before


@pytest.fixture(scope="session")
def files_of_a_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("mariadb") / "data"
    install(data)
    return data


@pytest.fixture
def server(files_of_a_server: Path, tmp_path: Path) -> Iterator[OwnMariadb]:
    data = tmp_path / "data"
    shutil.copytree(files_of_a_server, data)
    server = OwnMariadb(data)
    yield server
    server.kill()


async def opened(server: OwnMariadb) -> Store:
    store = make_store(server.url, owner="one", lease_s=30, handlers=2)
    try:
        await store.open(migrate=True)
    except BaseException:
        await store.close()
        raise
    return store


# Others who store the same


@on_mariadb
@pytest.mark.parametrize("commits", [True, False])
async def test_who_stores_the_same_event_is_waited_for(
    store: Store, engine: Engine, commits: bool
) -> None:
    """An event that another is storing is a duplicate once that is committed, else it is new."""
    with engine.connect() as other:
        insert(other, "evt_1")
        batch = Batch(deliveries=[new_event("evt_0"), new_event("evt_1")], room=10)
        mine = asyncio.create_task(store.commit(batch))
        await until_it_waits(engine)
        if commits:
            other.commit()
        else:
            other.rollback()
        committed = await mine

    assert ["new", "duplicate" if commits else "new"] == committed.receipts
    assert ["evt_0"] + ["evt_1"] * (not commits) == [job.event.id for job in committed.leased]
    assert {"evt_0", "evt_1"} == {row.id for row in await all_rows(store, events)}
    assert (await store.commit(batch)).receipts == ["duplicate", "duplicate"]


@on_mariadb
async def test_a_batch_that_was_a_deadlocks_victim_is_tried_again(
    store: MariadbStore, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that wait for each other one is ended by the database: its senders never know."""
    tried_again: list[int | None] = []
    decide = store._may_try_again

    def spy(error: BaseException) -> bool:
        tried_again.append(module._code(error))
        return decide(error)

    monkeypatch.setattr(store, "_may_try_again", spy)
    with engine.connect() as other:
        insert(other, "evt_b", *(f"evt_{n}" for n in range(50)))  # it has more to lose
        batch = Batch(deliveries=[new_event("evt_a"), new_event("evt_b"), new_event("evt_c")])
        mine = asyncio.create_task(store.commit(batch))
        await until_it_waits(engine)
        insert(other, "evt_a")
        await until_it_waits(engine)
        other.commit()
        committed = await mine

    assert [1213] == tried_again
    assert ["duplicate", "duplicate", "new"] == committed.receipts


@on_mariadb
async def test_the_same_events_in_any_order_are_stored_once(
    store: Store, open_store: Opens
) -> None:
    """Processes that get the same events in different orders store each of them once."""
    stores = [store, *[await open_store(owner=name) for name in ("two", "three", "four")]]
    order = random.Random(1)
    for turn in range(20 if FULL else 5):
        ids = [f"evt_{turn}_{n}" for n in range(60)]
        batches = [
            Batch(deliveries=[new_event(id) for id in order.sample(ids, len(ids))]) for _ in stores
        ]
        committed = await asyncio.gather(
            *[store.commit(batch) for store, batch in zip(stores, batches, strict=True)]
        )
        receipts = Counter(receipt for one in committed for receipt in one.receipts)
        assert {"new": 60, "duplicate": 180} == receipts

    assert len(await all_rows(store, events)) == len(await all_rows(store, jobs))


@on_mariadb
async def test_claims_do_not_wait_for_each_other(
    store: Store, engine: Engine, open_store: Opens
) -> None:
    """Jobs that another process is just claiming are left to it, and so are those of its events."""
    await store.commit(Batch(deliveries=[new_event(f"evt_{n}", handlers=(1, 2)) for n in range(4)]))
    with engine.connect() as other:
        cursor = other.connection.cursor()
        cursor.execute(sql.DUE, (1, 0, NOON, 2))

        mine = await claim(store, handlers=(1, 2))

    assert [("evt_0", 2), ("evt_1", 2), ("evt_2", 1), ("evt_2", 2), ("evt_3", 1), ("evt_3", 2)] == [
        (job.event.id, job.handler_id) for job in mine
    ]


@on_mariadb
async def test_a_handler_that_ends_keeps_nobody_else_waiting(store: Store, engine: Engine) -> None:
    """Who calls the next of its line locks that one, and no other: they end at the same time."""
    rows = [{"id": id, "line": line} for id, line in enumerate(["other"] * 50 + ["one"] * 51, 1)]
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO hooks_jobs (id, event_seq, handler_id, state, attempts, failed, fence,"
                " orphaned, created_at, ordering_key)"
                " VALUES (:id, :id, 1, 'available', 0, 0, 0, 0, 0, :line)"
            ),
            rows,
        )
    with engine.connect() as other:
        async with store.write("test") as connection:
            await connection.execute(inbox.call_next(Line(1, "one", "park"), NOON))
            other.execute(text("SET SESSION innodb_lock_wait_timeout = 1"))
            for id in {*range(1, 102)} - {51}:
                other.execute(text("UPDATE hooks_jobs SET due_at = 1 WHERE id = :id"), {"id": id})
        other.rollback()
        found = other.scalars(text("SELECT id FROM hooks_jobs WHERE due_at IS NOT NULL"))
        assert [51] == found.all()


# Sizes, text, connections


@on_mariadb
async def test_a_batch_may_be_larger_than_a_statement(store: Store, engine: Engine) -> None:
    """What does not fit into one statement is stored by several, in one transaction."""
    with engine.connect() as connection:
        packet = connection.scalar(text("SELECT @@max_allowed_packet"))
    body = b"'" * 1024 * 1024  # each of its bytes has to be escaped
    ids = [f"evt_{n}" for n in range(packet // len(body))]

    committed = await store.commit(
        Batch(deliveries=[new_event(id, body=body) for id in ids], room=1000)
    )

    assert ids == [job.event.id for job in committed.leased]
    assert ids == [row.id for row in await all_rows(store, events)]


@on_mariadb
async def test_a_cancelled_commit_leaves_the_next_a_working_connection(
    store: Store, engine: Engine
) -> None:
    """A commit that is cancelled as it waits is undone, and the next has another connection."""
    with engine.connect() as other:
        insert(other, "evt_1")
        mine = asyncio.create_task(store.commit(Batch(deliveries=[new_event("evt_1")])))
        await until_it_waits(engine)
        mine.cancel()
        with pytest.raises(asyncio.CancelledError):
            await mine

        assert ["new"] == (await store.commit(Batch(deliveries=[new_event("evt_2")]))).receipts


@on_mariadb
async def test_a_lock_that_is_held_for_long_fails_the_commit(
    store: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a lock for too long is told so, by its number and without a value."""
    monkeypatch.setattr(sql, "LOCK_WAIT", "SET SESSION innodb_lock_wait_timeout = 0")
    await store._drop_inbox()  # type: ignore[attr-defined]  # the next one has the setting
    with engine.connect() as other:
        insert(other, "evt_secret")

        with pytest.raises(StoreUnavailable, match="OperationalError 1205") as raised:
            await store.commit(Batch(deliveries=[new_event("evt_secret")]))

    assert "evt_secret" not in str(raised.value)


ISOLATION = "SELECT @@tx_isolation"


@on_mariadb
async def test_every_connection_is_read_committed(store: MariadbStore) -> None:
    """The inbox, operators and handlers of both kinds isolate alike, whatever the default is."""
    found = []
    async with store.session("handler") as (session, _):
        found.append(await session.scalar(text(ISOLATION)))
    with store.sync_session("handler") as (sync_session, _):
        found.append(sync_session.scalar(text(ISOLATION)))
    async with store.read() as connection:
        found.append(await connection.scalar(text(ISOLATION)))
    [row] = await module._select(await store._connected(), ISOLATION)

    assert ["READ-COMMITTED"] * 4 == [*found, *row.values()]


@on_mariadb
async def test_what_a_handler_writes_commits_with_its_mark(store: Store, engine: Engine) -> None:
    """Sessions of both kinds commit with the mark; without a return nothing is left."""
    first, second, third = await commit_leased(store, *[new_event(f"evt_{n}") for n in range(3)])
    write = text(
        "INSERT INTO hooks_failures (job_id, attempt, at, error, message, traceback)"
        " VALUES (:id, 7, 0, '', '', '')"
    )
    async with store.session("handler") as (session, unit):
        await session.execute(write, {"id": first.id})
        assert await session.run_sync(unit.complete, completed(first), NOON)
    with store.sync_session("handler") as (sync_session, unit):
        sync_session.execute(write, {"id": second.id})
        assert unit.complete(sync_session, completed(second), NOON)
    async with store.session("handler") as (session, _):
        await session.execute(write, {"id": third.id})

    with engine.connect() as connection:
        written = connection.scalars(text("SELECT job_id FROM hooks_failures ORDER BY 1")).all()
    assert [first.id, second.id] == written
    assert ["succeeded", "succeeded", "leased"] == [
        row.state for row in await all_rows(store, jobs)
    ]


@on_mariadb
async def test_a_handler_that_is_cancelled_in_a_statement_leaves_nothing(
    store: Store, engine: Engine
) -> None:
    """What a timed out handler has written is undone, and the next one has a connection."""

    async def handle() -> None:
        async with store.session("slow") as (session, _):
            await session.execute(INSERT, {"id": "evt_lost", "body": b""})
            await session.execute(text("SELECT SLEEP(30)"))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await handle()

    async with store.session("next") as (session, _):
        assert 1 == await session.scalar(text("SELECT 1"))
    assert [] == await all_rows(store, events)


# Plans


def plan(engine: Engine, statement: str, values: Sequence[Any]) -> list[tuple[str | None, str]]:
    """Return the index and the remarks for each step of a statement."""
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN {statement}", tuple(values))
        columns = [column[0] for column in cursor.description]
        steps = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    return [(step["key"], step["Extra"] or "") for step in steps]


async def rows_read(connection: AsyncConnection) -> int:
    """Return how many rows this connection's statements have read so far."""
    status = await connection.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'"))
    return sum(int(count) for _, count in status)


@pytest.fixture
async def backlog(store: Store, engine: Engine) -> None:
    """Many finished jobs, some that wait, and some that are leased."""
    count = 1000
    for start in range(0, count, 200):
        held = await commit_leased(store, *[new_event(f"evt_{start + n}") for n in range(200)])
        await store.commit(
            Batch(
                marks=[
                    completed(job) if n % 10 else retried(job, NOON + n)
                    for n, job in enumerate(held)
                    if n % 25
                ]
            )
        )
    with engine.connect() as connection:
        connection.execute(text("ANALYZE TABLE hooks_jobs, hooks_events"))


@on_mariadb
@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (sql.DUE, (1, 0, NOON + 10**9, 10), "ix_hooks_jobs_available"),
        (sql.LEASE, (NOON, "one", (1, 2, 3)), "PRIMARY"),
        (sql.COMPLETE, (NOON, 1, (1, 2, 3)), "PRIMARY"),
        (sql.RENEW, (NOON, 1, (1, 2, 3)), "PRIMARY"),
        (sql.LOAD_EVENTS, ((1, 2, 3),), "PRIMARY"),
        (sql.LOOK, ("animica", ("evt_1", "evt_2")), "uq_hooks_events_endpoint_id"),
        (sql.FIND_EVENTS, ("animica", ("evt_1", "evt_2")), "uq_hooks_events_endpoint_id"),
        (sql.TRIM_FAILURES, (1, 5), "ix_hooks_failures_job"),
    ],
)
async def test_the_inbox_reads_by_index(
    backlog: None, engine: Engine, statement: str, values: Sequence[Any], index: str
) -> None:
    """The hot statements go by their index and sort nothing, however much has been finished."""
    [(key, extra)] = plan(engine, statement, values)

    assert index == key
    assert "filesort" not in extra


@on_mariadb
async def test_the_worker_looks_by_index(backlog: None, store: Store, engine: Engine) -> None:
    """When jobs are due and which leases have run out is found by index."""
    asked: list[tuple[str, Sequence[Any]]] = []
    async with store.read() as connection:
        event.listen(
            connection.sync_connection,
            "before_cursor_execute",
            lambda connection, cursor, statement, values, *_: asked.append((statement, values)),
        )
        await inbox.due(connection, [1, 2])
        await inbox.expired_leases(connection, [1], NOON + 10**9)

    due, expired = (plan(engine, statement, values) for statement, values in asked)
    assert ["ix_hooks_jobs_available"] * 3 == [key for key, _ in due[1:]]
    assert ["ix_hooks_jobs_available"] == [key for key, _ in expired]


@on_mariadb
async def test_leases_are_found_by_reading_no_others(backlog: None, store: Store) -> None:
    """Of those that have run out few are sorted; of what is due or finished nothing is read."""
    async with store.read() as connection:
        before = await rows_read(connection)
        found = await inbox.expired_leases(connection, [1], NOON + 10**9)
        read = await rows_read(connection) - before

    assert 40 == len(found)
    assert read <= 2 * len(found) + 10, f"{read} rows"  # each is read once more when it is sorted


# The schema


@on_mariadb
async def test_migrations_and_tables_say_the_same(store: Store, engine: Engine) -> None:
    """A migrated database is the one that the tables describe, and compares text by its bytes."""
    async with store.read() as connection:
        assert [] == await connection.run_sync(schema.differences)
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT table_name, table_collation, engine FROM information_schema.tables"
                " WHERE table_schema = DATABASE()"
            )
        ).all()
    assert {(table.name, "utf8mb4_nopad_bin", "InnoDB") for table in metadata.sorted_tables} == {
        tuple(row) for row in found if row[0] != schema.VERSION_TABLE
    }


def differences(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT * FROM {schema.VERSION_TABLE}")).all()
        assert [(schema.HEAD,)] == [tuple(row) for row in rows]
        return schema.differences(connection)


@on_mariadb
@pytest.mark.parametrize("die_after", range(1, 16) if FULL else [1, 2, 9])
def test_a_migration_that_is_killed_is_taken_up_again(
    database_url: str, engine: Engine, die_after: int
) -> None:
    """DDL can not be undone: after kill -9 in the middle the next start does what is missing."""
    [(code, errors)] = openers(database_url, [die_after])
    assert -signal.SIGKILL == code, errors

    asyncio.run(open_and_close(database_url))

    assert [] == differences(engine)


# What is refused


@on_mariadb
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "secret"}, "refuses the user or the password of database_url: change"),
        ({"username": "nobody"}, "refuses the user or the password of database_url: change"),
        ({"database": "missing"}, "missing does not exist: create the database, or name"),
        ({"host": "nowhere.invalid"}, "nowhere.invalid.* is at a host that is not known"),
    ],
)
async def test_a_wrong_user_password_or_database_is_named(
    database_url: str, change: dict[str, str], says: str
) -> None:
    """What the server refuses about the URL is an error of configuration, without the password."""
    url = make_url(database_url).set(**change).render_as_string(hide_password=False)
    store = make_store(url, owner="one", lease_s=30, handlers=1)

    for use in (store.open(migrate=True), store.version()):
        with pytest.raises(ConfigurationError, match=says) as raised:
            await use
        assert "secret" not in str(raised.value)
    await store.close()


@on_mariadb
@pytest.mark.parametrize("name", ["current", "check", "upgrade"])
def test_commands_tell_a_wrong_password_from_an_outage(database_url: str, name: str) -> None:
    """It is wrong configuration, exit code 2, as it is for those that receive."""
    url = make_url(database_url).set(password="secret").render_as_string(hide_password=False)

    ended = CliRunner().invoke(cli, ["db", name, "--database-url", url])

    assert 2 == ended.exit_code
    assert "refuses the user or the password of database_url" in ended.stderr
    down = CliRunner().invoke(cli, ["db", name, "--database-url", "mariadb://u@127.0.0.1:1/x"])
    assert 1 == down.exit_code


async def test_a_server_that_is_not_mariadb(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL waits to be spoken to, as does the client: it is said what should be there."""
    monkeypatch.setattr(module, "CONNECT_S", 0.2)
    monkeypatch.setattr(server_module, "CONNECT_S", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        store = make_store(f"mariadb://u@127.0.0.1:{port}/x", owner="one", lease_s=30, handlers=1)
        with pytest.raises(StoreUnavailable, match=f"see that MariaDB runs at 127.0.0.1:{port}"):
            await store.open(migrate=True)
        await store.close()


@pytest.mark.parametrize("option", ["ssl_ca", "ssl_cert", "ssl_key"])
def test_a_file_of_the_url_that_is_not_there_is_named(option: str) -> None:
    """It is seen before a server is asked."""
    url = f"mariadb://u:secret@127.0.0.1/x?{option}=/nowhere.pem"
    with pytest.raises(ConfigurationError, match=f"{option}=/nowhere.pem, which is") as raised:
        make_store(url, owner="one", lease_s=30, handlers=1)
    assert "secret" not in str(raised.value)


async def test_a_server_that_is_not_there_is_an_outage() -> None:
    """Where nobody listens the store is unavailable: that may pass."""
    for url, where in {
        "mariadb://u:secret@127.0.0.1:1/x": "127.0.0.1:1",
        "mariadb://u:secret@localhost:1/x": "localhost:1",
        "mariadb://u:secret@/x?unix_socket=/nowhere/s": "/nowhere/s",
    }.items():
        store = make_store(url, owner="one", lease_s=30, handlers=1)
        with pytest.raises(StoreUnavailable, match=f"nothing listens at {where}. Start") as raised:
            await store.open(migrate=True)
        assert "secret" not in str(raised.value)


async def test_none_of_several_addresses_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where localhost is both of IPv4 and of IPv6."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 1))
        for host in ("127.0.0.1", "127.0.0.2")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    store = make_store("mariadb://u:secret@twofold:1/x", owner="one", lease_s=30, handlers=1)

    with pytest.raises(StoreUnavailable, match="nothing listens at twofold:1"):
        await store.open(migrate=True)
    assert "[::1]:1" == address_of("::1", 1)


@with_own_server
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--version=8.0.36"], r"is MySQL 8\.0\.36, and only MariaDB"),
        (["--version=10.5.9-MariaDB"], r"10\.5\.9-MariaDB is too old: 10\.6"),
        (["--version=5.5.5-10.4.2-MariaDB-log"], r"too old: 10\.6"),
        (["--read-only"], "is read-only: name the primary"),
        (["--max-allowed-packet=1M"], "at most 1,048,576 bytes.*raise max_allowed_packet"),
    ],
)
async def test_a_server_that_can_not_keep_the_promises_is_refused(
    server: OwnMariadb, options: Sequence[str], problem: str
) -> None:
    """What a server lacks is said at the start, with what to change."""
    server.kill()
    server.start(*options)

    with pytest.raises(ConfigurationError, match=problem):
        await opened(server)


@with_own_server
@pytest.mark.parametrize(
    ("options", "warned"),
    [
        (["--innodb-flush-log-at-trx-commit=2"], ["innodb_flush_log_at_trx_commit = 2"]),
        (["--log-bin"], ["sync_binlog = 0"]),
        (["--log-bin", "--sync-binlog=1"], []),
        ([], []),
    ],
)
async def test_a_server_that_may_lose_events_is_warned_of(
    server: OwnMariadb, caplog: pytest.LogCaptureFixture, options: list[str], warned: list[str]
) -> None:
    """Settings that break promise 1 are named, once; others are not."""
    server.kill()
    server.start(*options)
    with caplog.at_level(logging.WARNING):
        await (await opened(server)).close()

    assert len(warned) == len(caplog.messages)
    for setting, message in zip(warned, caplog.messages, strict=True):
        assert setting in message
        assert "promise 1" in message


@with_own_server
async def test_settings_of_the_server_change_nothing(server: OwnMariadb) -> None:
    """Other defaults of quoting, isolation, time zone and charset leave events as they are."""
    server.kill()
    server.start(
        "--sql-mode=NO_BACKSLASH_ESCAPES,ANSI_QUOTES",
        "--default-time-zone=+05:45",
        "--transaction-isolation=SERIALIZABLE",
        "--character-set-server=latin1",
    )
    store = await opened(server)
    try:
        # Nothing stands in for the clock here.
        assert abs(store.now() - time.time_ns() // 1000) < 5 * SECOND
        odd = new_event("\\' -- \"", type="möglich 🎉 \\'", body=b"\\' OR \"\x00\xff\\")
        await store.commit(Batch(deliveries=[odd]))
        [job] = await claim(store)
        assert odd.event == job.event
        async with store.session("handler") as (session, _):
            mode = await session.scalar(text("SELECT @@sql_mode"))
        assert {"ANSI_QUOTES", "STRICT_TRANS_TABLES"} == set(mode.split(","))
    finally:
        await store.close()


@with_own_server
async def test_a_database_that_comes_back_is_used_at_once(server: OwnMariadb) -> None:
    """While the server is down commits fail at once; what was acknowledged is there afterwards."""
    store = await opened(server)
    try:
        await store.commit(Batch(deliveries=[new_event("evt_1")]))
        server.kill()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.commit(Batch(deliveries=[new_event("evt_2")]))
        server.start()

        again = Batch(deliveries=[new_event("evt_1"), new_event("evt_2")])
        assert ["duplicate", "new"] == (await store.commit(again)).receipts
        assert ["evt_1", "evt_2"] == [row.id for row in await all_rows(store, events)]
    finally:
        await store.close()
