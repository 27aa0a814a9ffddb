"""What is SQLite's own: durability settings, checkpoints, query plans, foreign locks, bad files."""

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from storekit import (
    NOON,
    PATIENCE_S,
    Opens,
    all_rows,
    claim,
    commit_leased,
    completed,
    handler,
    new_event,
)

from animica_hooks.core.fair import Claimant
from animica_hooks.core.outcome import SECOND
from animica_hooks.errors import ConfigurationError, StoreUnavailable
from animica_hooks.store import checkpoints, inbox, sqlite_sql
from animica_hooks.store import sqlite as sqlite_module
from animica_hooks.store.connect import make_store
from animica_hooks.store.records import Batch, Committed
from animica_hooks.store.sqlite import SqliteStore
from animica_hooks.store.tables import events, jobs

FULL_SYNC = 2
PRAGMAS = ("journal_mode", "synchronous", "mmap_size", "wal_autocheckpoint")


@pytest.fixture
def other(store: SqliteStore) -> Iterator[sqlite3.Connection]:
    """Another program at the same file, which takes no turns."""
    with closing(sqlite3.connect(store.path, timeout=0, isolation_level=None)) as connection:
        yield connection


# Durability


@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_acknowledged_into_a_deleted_file(
    store: SqliteStore, replaced: bool
) -> None:
    """SQLite would go on writing to a file without a name, which ends with the process."""
    aside = store.path.with_name("aside")
    store.path.rename(aside)
    if replaced:
        store.path.write_bytes(aside.read_bytes())
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="deleted or replaced"):
            await store.commit(Batch(deliveries=[new_event("evt_lost")]))
    assert replaced == store.path.exists()

    aside.replace(store.path)
    assert ["new"] == (await store.commit(Batch(deliveries=[new_event("evt_1")]))).receipts


async def test_a_file_that_can_not_be_reached_is_unavailable(store: SqliteStore) -> None:
    """What the system says of its folder is no bug of ours, nor a batch to be taken apart for."""
    folder = store.path.parent
    aside = folder.rename(folder.with_name("aside"))
    folder.touch()
    with pytest.raises(StoreUnavailable, match="deleted or replaced"):
        await store.commit(Batch(deliveries=[new_event("evt_1")]))

    folder.unlink()
    aside.rename(folder)
    assert ["new"] == (await store.commit(Batch(deliveries=[new_event("evt_1")]))).receipts


def in_force(connection: sqlite3.Connection) -> list[Any]:
    return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS]


async def test_the_inbox_commits_to_disk(store: SqliteStore) -> None:
    """The inbox's connection syncs its write-ahead log at each commit, and does not checkpoint."""
    assert store._inbox is not None
    assert ["wal", FULL_SYNC, 0, 0] == in_force(store._inbox)

    store._drop_inbox()  # the next one, after a failure, is no less durable
    await store.commit(Batch())
    assert store._inbox is not None
    assert ["wal", FULL_SYNC, 0, 0] == in_force(store._inbox)


async def test_all_others_commit_to_disk_too(store: SqliteStore) -> None:
    """Handlers' and operators' connections sync as well, and leave checkpoints to the one."""
    async with store.read() as connection, store.write("test") as writing:
        found = [
            [(await one.exec_driver_sql(f"PRAGMA {n}")).scalar() for n in PRAGMAS]
            for one in (connection, writing)
        ]
    async with store.session("handler") as (session, _):
        found.append([await session.scalar(text(f"PRAGMA {n}")) for n in PRAGMAS])
    with store.sync_session("handler") as (sync_session, _):
        found.append([sync_session.scalar(text(f"PRAGMA {n}")) for n in PRAGMAS])

    assert [["wal", FULL_SYNC, 0, 0]] * 4 == found


# Checkpoints


def log_size(store: SqliteStore) -> int:
    return store.path.with_name(store.path.name + "-wal").stat().st_size


async def test_no_writer_checkpoints(store: SqliteStore) -> None:
    """However much inbox and handlers write, by itself none of their commits touches the file."""
    [job] = await commit_leased(store, new_event())
    async with store.write("test") as connection:
        await connection.exec_driver_sql("CREATE TABLE blobs (content BLOB)")
    before = store.path.read_bytes()
    async with store.session("handler") as (session, unit):
        await session.execute(text("INSERT INTO blobs VALUES (zeroblob(8000000))"))
        await session.run_sync(unit.complete, completed(job), NOON)
    await store.commit(Batch(deliveries=[new_event("evt_2", body=b"x" * 8_000_000)]))

    assert log_size(store) > 16_000_000
    assert before == store.path.read_bytes()


async def test_the_log_does_not_grow_for_ever(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While commits follow each other without a pause the log is started afresh all the same."""
    monkeypatch.setattr(checkpoints, "INTERVAL_S", 0.005)
    monkeypatch.setattr(checkpoints, "LONG_LOG_PAGES", 250)
    monkeypatch.setattr(checkpoints, "CATCH_UP_S", 0.0)
    store.start_maintenance(lambda: None)
    sizes = [0]

    for n in range(600):
        await store.commit(Batch(deliveries=[new_event(f"evt_{n}", body=b"x" * 50_000)]))
        sizes.append(log_size(store))

    # A log that is started afresh keeps the size it had, and grows no more.
    assert sizes[-1] < 600 * 50_000 / 2


async def test_commits_wait_for_the_log_only_now_and_then(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast it grows long."""
    monkeypatch.setattr(checkpoints, "INTERVAL_S", 0.005)
    monkeypatch.setattr(checkpoints, "LONG_LOG_PAGES", 10)
    taken: list[str] = []
    take = store.turns.take

    async def count(holder: str) -> None:
        taken.append(holder)
        await take(holder)

    monkeypatch.setattr(store.turns, "take", count)
    store.start_maintenance(lambda: None)
    for n in range(300):
        await store.commit(Batch(deliveries=[new_event(f"evt_{n}", body=b"x" * 50_000)]))

    assert 1 == taken.count("checkpoint")


async def test_another_process_goes_on_with_the_checkpoints(
    store: SqliteStore, open_store: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several processes one checkpoints, whoever commits; when it ends another one does."""
    monkeypatch.setattr(checkpoints, "INTERVAL_S", 0.02)
    second = await open_store(owner="two")
    third = await open_store(owner="three")
    for each in (store, second, third):
        assert isinstance(each, SqliteStore)
        each.start_maintenance(lambda: None)

    async def grows_beyond(size: int, id: str) -> None:
        await third.commit(Batch(deliveries=[new_event(id, body=b"x" * 3_000_000)]))
        async with asyncio.timeout(PATIENCE_S):
            while store.path.stat().st_size < size:
                # A commit during a checkpoint may be left to the next, which needs another commit.
                await third.commit(Batch(deliveries=[new_event(id)]))
                await asyncio.sleep(0.05)

    await grows_beyond(3_000_000, "evt_1")
    await store.close()
    await grows_beyond(6_000_000, "evt_2")


# Query plans


@pytest.fixture
async def filled(store: SqliteStore) -> SqliteStore:
    """Some rows in every state, so that no table is so small that a scan would do."""
    async with store.write("registration") as connection:
        await inbox.register_handlers(connection, [handler("a"), handler("b")], NOON)
    leased = await commit_leased(
        store, *[new_event(f"evt_{n}", handlers=(1, 2)) for n in range(200)]
    )
    await store.commit(Batch(marks=[completed(job) for job in leased[:300]]))
    await store.commit(Batch(deliveries=[new_event(f"evt_new_{n}") for n in range(200)]))
    return store


def plan(connection: sqlite3.Connection, statement: str) -> str:
    numbered = [int(number) for number in re.findall(r"\?([0-9]+)", statement)]
    values = (None,) * max([statement.count("?") if not numbered else 0, *numbered])
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    return "; ".join(row[3] for row in rows)


PRIMARY = "USING INTEGER PRIMARY KEY"
BY_ID = "USING INDEX sqlite_autoindex_hooks_events_1 (endpoint=? AND id=?)"
BY_AVAILABLE = "USING INDEX ix_hooks_jobs_available (handler_id=? AND orphaned=? AND due_at<?)"
LEASED = "SCAN hooks_jobs USING INDEX ix_hooks_jobs_leased"
BY_LINE = "USING INDEX ix_hooks_jobs_line"
PLANS = {
    "LAST_EVENT": "SEARCH hooks_events",
    "LAST_JOB": "SEARCH hooks_jobs",
    "insert_events": "",
    "insert_jobs": "",
    "complete": f"{PRIMARY} (rowid=?)",
    "EVENTS_AFTER": f"{PRIMARY} (rowid>?)",
    "LOAD_EVENT": f"{PRIMARY} (rowid=?)",
    "FIND_EVENT": BY_ID,
    "REDELIVER": "",
    "QUARANTINE": "",
    "RENEW": f"{PRIMARY} (rowid=?)",
    "CLAIM": BY_AVAILABLE,
    "INSERT_FAILURE": "",
    "TRIM_FAILURES": "USING INDEX ix_hooks_failures_job (job_id=?)",
    "MARK": f"{PRIMARY} (rowid=?)",
    "INSERT_JOB": "",
    "NEWEST_IN_LINE": f"{BY_LINE} (handler_id=? AND ordering_key=?)",
    "CALL_NEXT": "INDEX ix_hooks_jobs_standing (handler_id=? AND ordering_key=? AND state=?)",
    "PARK": f"{BY_LINE} (handler_id=? AND ordering_key=? AND id>?)",
    "LIMITED": LEASED,
    "SPEND": PRIMARY,
}


def hot_statements() -> dict[str, str]:
    """Return all of them; those that are made for a number of rows, for a few."""
    found: dict[str, str] = {}
    for name, value in vars(sqlite_sql).items():
        if isinstance(value, str) and name.isupper():
            found[name] = value
        elif hasattr(value, "cache_info"):
            found[name] = value(8)
    return found


def test_every_hot_statement_has_its_plan() -> None:
    """A statement that is added to the hot path says here which index it uses."""
    assert set(PLANS) == set(hot_statements())


@pytest.mark.parametrize("name", PLANS)
async def test_hot_statements_use_their_indexes(filled: SqliteStore, name: str) -> None:
    """No statement that each event pays for scans a table or sorts."""
    assert filled._inbox is not None
    found = plan(filled._inbox, hot_statements()[name])

    assert PLANS[name] in found
    # What is leased is little, and all of it has to be counted.
    assert "SCAN hooks_" not in found.replace(LEASED, "")
    assert "TEMP B-TREE" not in found


async def test_the_worker_looks_by_index(filled: SqliteStore) -> None:
    """What the worker asks for at each look is found without reading the finished jobs."""
    asked: list[str] = []
    event.listen(
        filled._engine.sync_engine,
        "before_cursor_execute",
        lambda *arguments: asked.append(arguments[2]),
    )
    async with filled.read() as connection:
        await inbox.expired_leases(connection, [1], NOON + 60 * SECOND)
        await inbox.due(connection, [1, 2])

    assert filled._inbox is not None
    expired, due = (plan(filled._inbox, statement) for statement in asked)
    assert "ix_hooks_jobs_leased (due_at<?)" in expired
    assert 3 == due.count("ix_hooks_jobs_available (handler_id=? AND orphaned=?)")
    assert "SCAN hooks_jobs" not in expired + due
    assert "TEMP B-TREE" not in expired + due


# Programs that do not take turns


async def test_a_short_foreign_lock_is_waited_for(
    store: SqliteStore, other: sqlite3.Connection
) -> None:
    """Another program that writes for a moment delays a commit, and fails none."""
    other.execute("BEGIN IMMEDIATE")
    delivering = asyncio.ensure_future(store.commit(Batch(deliveries=[new_event()])))
    done, _ = await asyncio.wait([delivering], timeout=0.05)
    assert set() == done
    other.execute("ROLLBACK")

    async with asyncio.timeout(PATIENCE_S):
        assert ["new"] == (await delivering).receipts


async def test_a_long_foreign_lock_is_unavailable(
    store: SqliteStore, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not let go makes commits fail in time, and they succeed when it has gone."""
    monkeypatch.setattr(sqlite_module, "FOREIGN_LOCK_S", 0.1)
    store._drop_inbox()  # the next connection has the shorter patience
    other.execute("BEGIN IMMEDIATE")

    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="SQLITE_BUSY"):
            await store.commit(Batch(deliveries=[new_event()]))

    other.execute("ROLLBACK")
    assert ["new"] == (await store.commit(Batch(deliveries=[new_event()]))).receipts


async def test_a_full_database_is_unavailable_and_recovers(store: SqliteStore) -> None:
    """Where no page can be added a commit fails whole; once there is room again, all goes on."""
    [job] = await commit_leased(store, new_event())
    large = new_event("evt_large", body=b"x" * 500_000)
    assert store._inbox is not None
    pages = store._inbox.execute("PRAGMA page_count").fetchone()[0]
    store._inbox.execute(f"PRAGMA max_page_count = {pages + 10}")

    with pytest.raises(StoreUnavailable, match="SQLITE_FULL"):
        await store.commit(Batch(deliveries=[new_event("evt_2"), large], marks=[completed(job)]))

    assert ["evt_1"] == [row.id for row in await all_rows(store, events)]
    batch = Batch(deliveries=[new_event("evt_2"), large], marks=[completed(job)])
    again = await store.commit(batch)
    assert (["new", "new"], 0) == (again.receipts, again.fenced)


async def test_nothing_is_acknowledged_whose_transaction_is_gone(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To commit where nothing was begun, or somebody has undone it, is no commit."""
    execute = store._batches.execute

    def undo(connection: sqlite3.Connection, batch: Batch, now: int) -> Committed:
        committed = execute(connection, batch, now)
        connection.execute("ROLLBACK")
        return committed

    monkeypatch.setattr(store._batches, "execute", undo)
    with pytest.raises(StoreUnavailable, match="ended by somebody else"):
        await store.commit(Batch(deliveries=[new_event()]))


@pytest.mark.parametrize("number", [1, 2, 3, 64, 65, 255, 256, 257, 600])
async def test_any_number_is_stored_and_completed_at_once(store: SqliteStore, number: int) -> None:
    """Statements are for some numbers of rows only: those that are too many change nothing."""
    batch = Batch(deliveries=[new_event(f"evt_{n}") for n in range(number)], room=number)
    stored = await store.commit(batch)
    ended = await store.commit(Batch(marks=[completed(job) for job in stored.leased]))

    assert (["new"] * number, 0) == (stored.receipts, ended.fenced)
    rows = await all_rows(store, events), await all_rows(store, jobs)
    assert [number, number] == [len(each) for each in rows]
    assert {"succeeded"} == {job.state for job in rows[1]}


async def test_a_broken_commit_gives_the_turn_back(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a commit dies of, the next one finds the turn free and nothing half done."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(store._batches, "_claim", broken)
        with pytest.raises(ZeroDivisionError):
            await store.commit(Batch(deliveries=[new_event()], claim=1, claim_for=[Claimant(1)]))

    assert store.slow_writer() is None
    assert [] == await all_rows(store, events)
    assert ["new"] == (await store.commit(Batch(deliveries=[new_event()]))).receipts
    assert 1 == len(await claim(store))


# Connections that come to nothing


def descriptors(path: Path) -> int:
    """Count how often this process has a file open."""
    found = Path("/proc/self/fd").iterdir()
    return sum(entry.exists() and entry.readlink() == path for entry in found)


# Files that will not do


def make(path: Path) -> Any:
    return make_store(f"sqlite:///{path}", owner="one", lease_s=30, handlers=1)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Something else under the name is an error that says so, and is left as it is."""
    path = tmp_path / "inbox.db"
    path.write_bytes(b"something else entirely" * 100)
    store = make(path)

    with pytest.raises(ConfigurationError, match="can not be used as an SQLite database"):
        await store.open(migrate=True)
    await store.close()
    assert b"something else entirely" * 100 == path.read_bytes()


async def test_a_connection_that_can_not_be_set_up_is_closed(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails between opening the file and its settings leaves the file closed at once."""
    store._drop_inbox()
    before = descriptors(store.path)
    monkeypatch.setattr(sqlite_module, "_PRAGMAS", (*sqlite_module._PRAGMAS, "PRAGMA nonsense("))
    with pytest.raises(StoreUnavailable) as raised:
        await store.commit(Batch())
    assert raised.value.__traceback__ is not None  # which keeps alive what was not closed
    assert before == descriptors(store.path)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nonsense", "not a URL"),
        ("", "not a URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///file:x?mode=memory", "names no file"),
        ("sqlite:////tmp/inbox.db?timeout=5", "host or options"),
        ("sqlite://host/inbox.db", "host or options"),
        ("sqlite+aiosqlite:///inbox.db", "sqlite\\+aiosqlite"),
        ("oracle://u:secret@host/x", "oracle"),
        ("mariadb://u:secret@host", "names no database: write mariadb://"),
        ("mysql://u:secret@host/x?charset=latin1", "option charset.*ssl_ca"),
        ("mysql+pymysql://u:secret@host/x", "without a driver"),
        ("sqlite:////tmp", "is a directory"),
        ("sqlite:////no/such/folder/inbox.db", "does not exist"),
    ],
)
def test_a_wrong_url_says_what_to_change(url: str, problem: str) -> None:
    """A database URL that can not work is a configuration error, without its password."""
    with pytest.raises(ConfigurationError, match=problem) as raised:
        make_store(url, owner="one", lease_s=30, handlers=1)

    assert "secret" not in str(raised.value)


async def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library without what the inbox needs is named with what is needed."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    store = make(tmp_path / "inbox.db")

    with pytest.raises(ConfigurationError, match=r"3\.35"):
        await store.open(migrate=True)
    await store.close()
