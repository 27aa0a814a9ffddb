"""The schema: migrations and tables say the same, versions are checked, many may start at once."""

import asyncio
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from storekit import FULL, PATIENCE_S, Opens, new_event

from animica_hooks.errors import ConfigurationError
from animica_hooks.store import schema
from animica_hooks.store.base import Store
from animica_hooks.store.connect import make_store
from animica_hooks.store.records import Batch
from animica_hooks.store.tables import metadata

# Opens the database given when a line comes in; dies in the middle when told after how many
# statements of the migration.
OPENER = """
import asyncio, os, signal, sys
from sqlalchemy import Engine, event
from animica_hooks.store import schema
from animica_hooks.store.connect import make_store
import alembic.command
url, die_after = sys.argv[1], int(sys.argv[2])
seen = 0
if die_after:
    @event.listens_for(Engine, "after_cursor_execute")
    def count(connection, cursor, statement, *_):
        global seen
        seen += statement.lstrip().startswith(("CREATE", "INSERT"))
        if seen == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
async def main():
    store = make_store(url, owner="opener", lease_s=30, handlers=1)
    try:
        await store.open(migrate=True)
    finally:
        await store.close()
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


def make_tables(path: Path) -> None:
    """Make the tables from the metadata alone."""
    engine = create_engine(f"sqlite:///{path}")
    metadata.create_all(engine)
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


async def test_the_check_finds_no_difference(store: Store) -> None:
    """Operators' comparison of a migrated database with the code finds nothing."""
    async with store.read() as connection:
        assert [] == await connection.run_sync(schema.differences)


@pytest.mark.parametrize(
    "change",
    [
        "DROP INDEX ix_hooks_jobs_dead",
        "ALTER TABLE hooks_jobs DROP COLUMN reason",
        "DROP TABLE hooks_quarantine",
        "ALTER TABLE hooks_events ADD COLUMN surplus TEXT",
    ],
)
async def test_the_check_finds_a_difference(store: Store, change: str) -> None:
    """A missing index, column or table, or one too many, is told."""
    async with store.write("test") as connection:
        await connection.exec_driver_sql(change)
    async with store.read() as connection:
        assert 1 <= len(await connection.run_sync(schema.differences))


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


async def test_without_migrating_an_empty_database_is_refused(open_store: Opens) -> None:
    """Where it may not migrate, a database without tables is an error that names the command."""
    with pytest.raises(ConfigurationError, match=r"has no tables.*animica-hooks db upgrade"):
        await open_store(migrate=False)


async def test_without_migrating_a_current_database_is_opened(
    store: Store, open_store: Opens
) -> None:
    """Where nothing is to be done, nobody needs permission."""
    other = await open_store(migrate=False)

    assert ["new"] == (await other.commit(Batch(deliveries=[new_event()]))).receipts


async def test_without_migrating_an_older_database_is_refused(
    store: Store, open_store: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older schema is named, with the one needed and the command."""
    monkeypatch.setattr(schema, "HEAD", "9998")

    with pytest.raises(ConfigurationError, match=r"at schema 0001, and 9998 .*db upgrade"):
        await open_store(migrate=False)


@pytest.mark.parametrize("migrate", [False, True])
async def test_a_newer_database_is_refused(store: Store, open_store: Opens, migrate: bool) -> None:
    """An old program never touches what a newer one has made."""
    await set_version(store, "9999")

    with pytest.raises(ConfigurationError, match=r"9999.*install the newer"):
        await open_store(migrate=migrate)


async def test_opening_twice_migrates_once(store: Store, open_store: Opens) -> None:
    """A database that is current is left as it is, with all that is in it."""
    await store.commit(Batch(deliveries=[new_event()]))
    again = await open_store()

    assert ["duplicate"] == (await again.commit(Batch(deliveries=[new_event()]))).receipts
    async with again.read() as connection:
        assert schema.HEAD == await connection.run_sync(schema.current)


# Many at once


def openers(url: str, die_after: Sequence[int]) -> list[tuple[int, str]]:
    """Open a database in several processes in the same moment; return how each ended."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, url, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for count in die_after
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert "ready\n" == process.stdout.readline()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [(p.wait(2 * PATIENCE_S), p.communicate()[1]) for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_many_processes_start_on_a_new_database(tmp_path: Path) -> None:
    """Several processes that start at once on no file at all all come up, and migrate it once."""
    for attempt in range(20 if FULL else 2):
        path = tmp_path / f"inbox-{attempt}.db"

        ended = openers(f"sqlite:///{path}", [0] * (8 if FULL else 4))

        assert [] == [errors for code, errors in ended if code != 0]
        with sqlite3.connect(path) as connection:
            versions = connection.execute(f"SELECT * FROM {schema.VERSION_TABLE}").fetchall()
            assert [(schema.HEAD,)] == versions
            assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        connection.close()


@pytest.mark.parametrize("die_after", range(1, 16, 2) if FULL else [1, 9])
def test_a_migration_that_is_killed_leaves_nothing_half_done(
    tmp_path: Path, die_after: int
) -> None:
    """After kill -9 in the middle of the migration the next start finds a whole database."""
    path = tmp_path / "inbox.db"

    [(code, errors)] = openers(f"sqlite:///{path}", [die_after])
    assert -signal.SIGKILL == code, errors
    assert {} == structure(path)
    asyncio.run(open_and_close(f"sqlite:///{path}"))

    make_tables(tmp_path / "described.db")
    assert structure(tmp_path / "described.db") == structure(path)


async def open_and_close(url: str) -> None:
    store = make_store(url, owner="after", lease_s=30, handlers=1)
    await store.open(migrate=True)
    await store.close()
