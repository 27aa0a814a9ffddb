"""The schema: migrations and tables say the same, versions are checked, many may start at once."""

import asyncio
import itertools
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import alembic.command
import pytest
from databases import (
    DATABASES,
    MARIADB,
    PGBOUNCER,
    engine_of,
    new_database,
    on_every_database,
    on_every_server,
)
from sqlalchemy import create_engine, inspect, text
from storekit import FULL, PATIENCE_S, Opens, new_event, until

from animica_hooks.errors import ConfigurationError, StoreUnavailable
from animica_hooks.store import schema, server
from animica_hooks.store.base import Store
from animica_hooks.store.connect import make_store
from animica_hooks.store.records import Batch
from animica_hooks.store.tables import described

LAST = 15  # statements of the migration after which a process can be killed
# Opens the database given in several processes in the same moment, and prints how each ended. Each
# dies in the middle of the migration when told after how many of its statements.
OPENER = """
import asyncio, os, signal, sys, traceback
import alembic.command
from sqlalchemy import Engine, event
from animica_hooks.store import mariadb, postgres, schema
from animica_hooks.store.connect import make_store

url, *die_after = sys.argv[1:]

async def main():
    store = make_store(url, owner="opener", lease_s=30, handlers=1)
    try:
        await store.open(migrate=True)
    finally:
        await store.close()

def child(die_after):
    seen = 0
    def count(connection, cursor, statement, *_):
        nonlocal seen
        seen += statement.lstrip().startswith(("CREATE", "INSERT"))
        if seen == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
    if die_after:
        event.listen(Engine, "after_cursor_execute", count)
    os.close(start)
    os.read(waiting, 1)
    try:
        asyncio.run(main())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

waiting, start = os.pipe()
pids = [os.fork() or child(int(count)) for count in die_after]
os.close(start)
print(*[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
"""


@pytest.fixture
def empty_database() -> Iterator[Callable[[str], str]]:
    """Makes databases of the test's own: these tests change the tables."""
    with ExitStack() as at_end:

        def empty_database(kind: str) -> str:
            url = at_end.enter_context(new_database(kind))
            engine = engine_of(kind, url)
            with engine.begin() as connection:
                schema.upgrade(connection)
            engine.dispose()
            return url

        yield empty_database


def make_tables(path: Path) -> None:
    """Make the tables from the metadata alone."""
    engine = create_engine(f"sqlite:///{path}")
    described("sqlite").create_all(engine)
    engine.dispose()


def structure(path: Path) -> dict[tuple[str, str], str]:
    """Return each table and index of ours as SQLite keeps it, but for the layout of its text."""
    with sqlite3.connect(path) as connection:
        found = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE name LIKE '%hooks%'"
        ).fetchall()
    connection.close()
    return {
        (kind, name): re.sub(r"\s+", " ", sql or "")
        for kind, name, sql in found
        if schema.VERSION_TABLE not in name
    }


async def test_migrations_and_tables_say_the_same(store: Store, tmp_path: Path) -> None:
    """A migrated database is, to the letter, the one that the tables describe."""
    make_tables(tmp_path / "described.db")

    assert structure(tmp_path / "described.db") == structure(tmp_path / "inbox.db")


@on_every_database
async def test_the_check_finds_no_difference(store: Store) -> None:
    """Operators' comparison of a migrated database with the code finds nothing."""
    async with store.read() as connection:
        assert [] == await connection.run_sync(schema.differences)


@on_every_database
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP INDEX ix_hooks_jobs_event", "the index hooks_jobs.ix_hooks_jobs_event is missing"),
        ("ALTER TABLE hooks_jobs DROP COLUMN reason", "the column hooks_jobs.reason is missing"),
        ("DROP TABLE hooks_quarantine", "the table hooks_quarantine is missing"),
        (
            "ALTER TABLE hooks_events ADD COLUMN surplus TEXT",
            "the column hooks_events.surplus is there, and not expected",
        ),
    ],
)
async def test_the_check_finds_a_difference(store: Store, change: str, said: str) -> None:
    """A missing index, column or table, or one too many, is told."""
    async with store.write("test") as connection:
        on = " ON hooks_jobs" if connection.dialect.name == "mysql" and "INDEX" in change else ""
        await connection.exec_driver_sql(change + on)
    async with store.read() as connection:
        assert said in await connection.run_sync(schema.differences)


@on_every_server
async def test_the_check_finds_a_column_that_differs(store: Store) -> None:
    """What it may hold is told, too."""
    async with store.write("test") as connection:
        alter = {
            "postgresql": "ALTER COLUMN reason TYPE TEXT",
            "mysql": "MODIFY COLUMN reason TEXT",
        }
        await connection.exec_driver_sql(f"ALTER TABLE hooks_jobs {alter[connection.dialect.name]}")
    async with store.read() as connection:
        differences = await connection.run_sync(schema.differences)
    assert ["the column hooks_jobs.reason differs in its type"] == differences


@on_every_database
async def test_the_check_leaves_handlers_tables_alone(store: Store) -> None:
    """Tables of the user's own in the same database are no difference."""
    async with store.write("test") as connection:
        await connection.exec_driver_sql("CREATE TABLE orders (id INTEGER)")
    async with store.read() as connection:
        assert [] == await connection.run_sync(schema.differences)


def test_the_newest_migration_is_the_one_required() -> None:
    """Whoever adds a migration raises the version that the code asks for."""
    versions = (schema._folder() / "versions").glob("[0-9]*.py")
    assert schema.HEAD == max(path.name.split("_")[0] for path in versions)


# Versions


async def set_version(store: Store, version: str) -> None:
    async with store.write("test") as connection:
        await connection.exec_driver_sql(
            f"UPDATE {schema.VERSION_TABLE} SET version_num = '{version}'"
        )


@on_every_database
async def test_without_migrating_an_empty_database_is_refused(open_store: Opens) -> None:
    """Where it may not migrate, a database without tables is an error that names the command."""
    with pytest.raises(ConfigurationError, match=r"has no tables.*animica-hooks db upgrade"):
        await open_store(migrate=False)


@on_every_database
async def test_without_migrating_a_current_database_is_opened(
    store: Store, open_store: Opens
) -> None:
    """Where nothing is to be done, nobody needs permission."""
    other = await open_store(migrate=False)

    assert ["new"] == (await other.commit(Batch(deliveries=[new_event()]))).receipts


@on_every_database
async def test_without_migrating_an_older_database_is_refused(
    store: Store, open_store: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older schema is named, with the one needed and the command."""
    monkeypatch.setattr(schema, "HEAD", "9998")

    with pytest.raises(ConfigurationError, match=r"at schema \d+, and 9998 .*db upgrade"):
        await open_store(migrate=False)


@on_every_database
@pytest.mark.parametrize("migrate", [False, True])
@pytest.mark.parametrize("version", ["9999", "0101", "00991", "00x1"])
async def test_a_newer_database_is_refused(
    store: Store, open_store: Opens, migrate: bool, version: str
) -> None:
    """An old program never touches what a newer one has made that does more than add."""
    await set_version(store, version)

    with pytest.raises(ConfigurationError, match=rf"{version}.*install the newer"):
        await open_store(migrate=migrate)


@on_every_database
@pytest.mark.parametrize("migrate", [False, True])
async def test_a_newer_database_that_only_adds_is_used(
    store: Store, open_store: Opens, migrate: bool
) -> None:
    """Within an era a release can be taken back: the older code starts, and leaves the version."""
    await set_version(store, "0099")
    async with store.write("test") as connection:
        await connection.exec_driver_sql("ALTER TABLE hooks_jobs ADD COLUMN surplus TEXT")
        await connection.exec_driver_sql("CREATE INDEX surplus ON hooks_jobs (failed)")

    older = await open_store(migrate=migrate)

    assert ["new"] == (await older.commit(Batch(deliveries=[new_event()]))).receipts
    async with older.read() as connection:
        assert "0099" == await connection.run_sync(schema.current)
        assert [] == await connection.run_sync(schema.differences)
    async with store.write("test") as connection:
        await connection.exec_driver_sql("ALTER TABLE hooks_jobs DROP COLUMN reason")
    async with older.read() as connection:
        assert ["the column hooks_jobs.reason is missing"] == await connection.run_sync(
            schema.differences
        )


@on_every_database
async def test_opening_twice_migrates_once(store: Store, open_store: Opens) -> None:
    """A database that is current is left as it is, with all that is in it."""
    await store.commit(Batch(deliveries=[new_event()]))
    again = await open_store()

    assert ["duplicate"] == (await again.commit(Batch(deliveries=[new_event()]))).receipts
    async with again.read() as connection:
        assert schema.HEAD == await connection.run_sync(schema.current)


# Many at once


@on_every_server
async def test_an_upgrade_gives_way_to_those_who_use_the_tables(
    database_kind: str, new_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a transaction that goes on and on without keeping anybody else waiting."""
    url = new_url()
    engine = engine_of(database_kind, url)
    with engine.begin() as connection:
        alembic.command.upgrade(schema._config(connection), "0001")
    upgrading = make_store(url, owner="one", lease_s=30, handlers=1)
    migrate, tries = upgrading._migrate, 0  # type: ignore[attr-defined]

    async def counted() -> None:
        nonlocal tries
        tries += 1
        await migrate()

    monkeypatch.setattr(upgrading, "_migrate", counted)
    look = text("SELECT count(*) FROM hooks_jobs")
    with engine.connect() as slow:
        assert 0 == slow.scalar(look)
        opening = asyncio.create_task(upgrading.open(migrate=True))
        await until(lambda: tries > 1)
        with engine.connect() as other:
            assert 0 == await asyncio.wait_for(asyncio.to_thread(other.scalar, look), PATIENCE_S)
        assert not opening.done()

        slow.rollback()
        await asyncio.wait_for(opening, PATIENCE_S)

    await upgrading.close()
    with engine.connect() as connection:
        assert schema.HEAD == schema.current(connection)
    engine.dispose()


@on_every_server
async def test_an_upgrade_that_nobody_makes_way_for_fails(
    database_kind: str, new_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while it says what it waited for."""
    url = new_url()
    engine = engine_of(database_kind, url)
    with engine.begin() as connection:
        alembic.command.upgrade(schema._config(connection), "0001")
    monkeypatch.setattr(server, "UPGRADE_S", 0.0)
    with engine.connect() as slow:
        slow.execute(text("SELECT count(*) FROM hooks_jobs"))
        with pytest.raises(StoreUnavailable, match="can not be upgraded just now"):
            await open_and_close(url)
    engine.dispose()


def openers(url: str, die_after: Sequence[int]) -> list[tuple[int, str]]:
    """Open a database in several processes in the same moment; return how each ended."""
    opening = subprocess.Popen(
        [sys.executable, "-c", OPENER, url, *map(str, die_after)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        codes, errors = opening.communicate(timeout=3 * PATIENCE_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(opening.pid, signal.SIGKILL)
        opening.communicate()
    assert 0 == opening.returncode, errors
    return [(code, errors) for code in map(int, codes.split())]


on_every_way = pytest.mark.parametrize("database_kind", [*DATABASES, PGBOUNCER], indirect=True)
ROUNDS = 20 if FULL else 1


@on_every_way
@pytest.mark.parametrize("killed", [0, 4])
def test_many_processes_start_on_a_new_database(
    database_kind: str, new_url: Callable[[], str], killed: int
) -> None:
    """Those that start at once on nothing at all come up, and one migrates it, whoever is killed.

    Each of the killed dies in the middle of the migration, if it is its turn to migrate.
    """
    for number in range(ROUNDS):
        url = new_url()

        ended = openers(url, [1 + number % LAST] * killed + [0] * (8 - killed))

        assert [] == [errors for code, errors in ended[killed:] if code != 0]
        assert {code for code, _ in ended[:killed]} <= {0, -signal.SIGKILL}
        engine = engine_of(database_kind, url)
        with engine.connect() as connection:
            versions = connection.execute(text(f"SELECT * FROM {schema.VERSION_TABLE}")).all()
            assert [(schema.HEAD,)] == [tuple(row) for row in versions]
            assert [] == schema.differences(connection)
            if database_kind == "sqlite":
                assert "ok" == connection.scalar(text("PRAGMA integrity_check"))
        engine.dispose()


@pytest.fixture
def new_url(database_kind: str, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Returns the URL of a new database without tables each time, and drops the one before."""
    with ExitStack() as at_end:
        numbers = itertools.count()

        def new_url() -> str:
            if database_kind == "sqlite":
                return f"sqlite:///{tmp_path / f'inbox-{next(numbers)}.db'}"
            at_end.close()  # a pooler keeps connections to each
            return at_end.enter_context(new_database(database_kind))

        yield new_url


@on_every_way
@pytest.mark.parametrize("die_after", range(1, LAST + 1, 2) if FULL else [1, 9])
def test_a_migration_that_is_killed_leaves_nothing_half_done(
    database_kind: str, new_url: Callable[[], str], die_after: int
) -> None:
    """After kill -9 in the middle of the migration the next start finds a whole database."""
    url = new_url()

    [(code, errors)] = openers(url, [die_after])
    assert -signal.SIGKILL == code, errors
    if database_kind != MARIADB:  # whose DDL is not part of a transaction
        assert [] == tables(database_kind, url)
    asyncio.run(open_and_close(url))

    engine = engine_of(database_kind, url)
    with engine.connect() as connection:
        assert schema.HEAD == schema.current(connection)
        assert [] == schema.differences(connection)
    engine.dispose()


def tables(kind: str, url: str) -> list[str]:
    engine = engine_of(kind, url)
    with engine.connect() as connection:
        found = inspect(connection).get_table_names()
    engine.dispose()
    return found


async def open_and_close(url: str) -> None:
    store = make_store(url, owner="after", lease_s=30, handlers=1)
    try:
        await store.open(migrate=True)
    finally:
        await store.close()


@on_every_database
def test_the_command_line_makes_and_checks_the_tables(
    database_kind: str, new_url: Callable[[], str]
) -> None:
    """Operators upgrade a database, ask for its version and compare it, on each kind alike."""
    url = new_url()

    assert f"from schema (none) to {schema.HEAD}" in command(url, "upgrade")
    assert f"{schema.HEAD}\n" == command(url, "current")
    assert f"the tables are those of schema {schema.HEAD}\n" == command(url, "check")
    assert f"at schema {schema.HEAD} already" in command(url, "upgrade")


def command(url: str, name: str) -> str:
    arguments = [sys.executable, "-m", "animica_hooks", "db", name, "--database-url", url]
    ended = subprocess.run(
        arguments, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )
    assert 0 == ended.returncode, ended.stderr
    return ended.stdout
