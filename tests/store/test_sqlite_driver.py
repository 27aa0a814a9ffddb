"""SQLite for coroutines: one switch of threads for a statement, and nothing else different."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from animica_hooks.store import sqlite_driver
from animica_hooks.store.sqlite_driver import FIRST_ROWS, Connection

COUNT = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :last)"
    " SELECT i FROM n"
)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path / 'test.db'}",
        connect_args={
            "async_creator_fn": sqlite_driver.connect,
            "check_same_thread": False,
            "isolation_level": None,
        },
    )
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE words (word TEXT)"))
    yield engine
    await engine.dispose()


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Connection]:
    connection = sqlite_driver.connect(str(tmp_path / "raw.db"), check_same_thread=False)
    await connection
    yield connection
    await connection.close()


async def test_a_statement_is_one_switch(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it returns rows or not; ending what was not begun is none."""
    switches: list[object] = []
    execute = aiosqlite.Connection._execute

    async def count(connection: Any, fn: Any, *args: Any, **kwargs: Any) -> Any:
        switches.append(fn)
        return await execute(connection, fn, *args, **kwargs)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(aiosqlite.Connection, "_execute", count)
    async with AsyncSession(engine) as session:
        await session.execute(text("INSERT INTO words VALUES ('a'), ('b')"))
        found = (await session.execute(text("SELECT word FROM words"))).all()
        await session.commit()

    assert [("a",), ("b",)] == found
    assert 2 == len(switches)


@pytest.mark.parametrize("rows", [0, 1, FIRST_ROWS - 1, FIRST_ROWS, FIRST_ROWS + 1, 2500])
async def test_all_rows_come(engine: AsyncEngine, rows: int) -> None:
    """At once, in parts and one by one, in order, also those that do not come with the first."""
    expected = list(range(1, rows + 1))
    query, last = COUNT if rows else text("SELECT 1 WHERE :last"), {"last": rows}
    async with engine.connect() as connection:
        at_once = (await connection.execute(query, last)).scalars().all()
        streamed = await connection.stream(query, last)
        parts = [i async for part in streamed.scalars().partitions(300) for i in part]
        streamed = await connection.stream(query, last)
        singly = []
        while (row := await streamed.fetchone()) is not None:
            singly.append(row[0])
        rest = await connection.stream(query, last)
        begun = [row[0] for row in await rest.fetchmany(400)]
        begun += [row[0] for row in await rest.fetchall()]

    assert expected == at_once == parts == singly == begun


async def test_a_transaction_is_ended(connection: Connection) -> None:
    """What was begun is committed, or undone."""
    await connection.execute("CREATE TABLE words (word TEXT)")
    for word, end in (("kept", connection.commit), ("undone", connection.rollback)):
        await connection.execute("INSERT INTO words VALUES (?)", (word,))
        assert connection.in_transaction
        await end()
        assert not connection.in_transaction

    async with connection.execute("SELECT word FROM words") as cursor:
        assert [("kept",)] == await cursor.fetchall()


async def test_a_transaction_begins_with_its_first_statement(connection: Connection) -> None:
    """Nothing is begun until something is asked for, and nothing at all after a rollback."""
    await connection.execute("CREATE TABLE words (word TEXT)")
    connection.begin_with_next()
    assert not connection.in_transaction
    await connection.execute("INSERT INTO words VALUES ('undone')")
    assert connection.in_transaction
    await connection.rollback()

    connection.begin_with_next()
    await connection.rollback()
    await connection.execute("SELECT 1")
    assert not connection.in_transaction


async def test_a_commit_does_more(connection: Connection) -> None:
    """Once: something before it, which can prevent it, and something after it."""
    await connection.execute("CREATE TABLE words (word TEXT)")
    done: list[str] = []

    def fail(_: object) -> None:
        raise LookupError

    def add(within: sqlite3.Connection) -> None:
        assert within.in_transaction
        within.execute("INSERT INTO words VALUES ('added')")

    connection.begin_with_next()
    await connection.execute("INSERT INTO words VALUES ('first')")
    connection.commit_with(fail, lambda: done.append("prevented"))
    with pytest.raises(LookupError):
        await connection.commit()
    assert connection.in_transaction
    connection.commit_with(add, lambda: done.append("committed"))
    await connection.commit()
    await connection.commit()

    assert ["committed"] == done
    async with connection.execute("SELECT word FROM words") as cursor:
        assert [("first",), ("added",)] == await cursor.fetchall()


async def test_a_rollback_forgets_what_a_commit_was_to_do(connection: Connection) -> None:
    """The next commit on the connection is another's."""
    done: list[str] = []
    connection.commit_with(None, lambda: done.append("of the one before"))
    await connection.rollback()
    await connection.commit()

    assert [] == done


async def test_a_cursor_is_used_as_aiosqlite_has_it(connection: Connection) -> None:
    """Programs that ask for the driver's connection find what its documentation says."""
    cursor = await connection.cursor()
    await cursor.execute("CREATE TABLE words (word TEXT)")
    await cursor.executemany("INSERT INTO words VALUES (?)", [("a",), ("b",), ("c",)])
    assert (3, None) == (cursor.rowcount, cursor.description)
    await cursor.close()
    async with connection.cursor() as reading:
        await reading.execute("SELECT word FROM words WHERE word > ?", ("0",))
        assert "word" == reading.description[0][0]
        first = await reading.fetchone()
        assert [("a",), [("b",)], ("c",)] == [
            first,
            await reading.fetchmany(),
            *[row async for row in reading],
        ]
        assert (None, []) == (await reading.fetchone(), await reading.fetchall())


async def test_an_error_is_the_statements_own(connection: Connection) -> None:
    """It leaves the cursor and the connection usable."""
    async with connection.cursor() as cursor:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await cursor.execute("SELECT 1 FROM nowhere")
        await cursor.execute("SELECT 2")
        assert [(2,)] == await cursor.fetchall()


async def test_a_cursor_can_be_closed_while_its_statement_runs(connection: Connection) -> None:
    """Whoever is cancelled closes it; the thread, which knows nothing of that, comes first."""
    cursor = await connection.cursor()
    long = f"SELECT sum(i) FROM ({COUNT.text.replace(':last', '500000')})"
    running = asyncio.create_task(cursor.execute(long))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await cursor.close()

    async with connection.cursor() as other:
        await other.execute("SELECT 1")
        assert [(1,)] == await other.fetchall()


async def test_a_transaction_that_is_just_begun_is_ended(connection: Connection) -> None:
    """Whoever is cancelled while it waits for a BEGIN leaves no lock, though none is there yet."""
    await connection.execute("CREATE TABLE words (word TEXT)")
    go_on = threading.Event()
    holding = asyncio.create_task(connection._execute(go_on.wait, 10))
    await asyncio.sleep(0)
    cursor = await connection.cursor()
    beginning = asyncio.create_task(cursor.execute("BEGIN IMMEDIATE"))
    await asyncio.sleep(0)
    beginning.cancel()
    ending = asyncio.create_task(connection.rollback())
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(holding, ending)
    await connection._execute(bool)  # what was asked for before has ended

    assert not connection.in_transaction


def test_an_answer_to_a_loop_that_has_closed_is_dropped(tmp_path: Path) -> None:
    """The thread goes on, closes the connection, and says nothing on its way."""
    go_on = threading.Event()
    made: list[Connection] = []

    async def leave_at_once() -> None:
        connection = await sqlite_driver.connect(str(tmp_path / "raw.db"), check_same_thread=False)
        made.append(connection)
        asking = asyncio.ensure_future(connection._execute(go_on.wait, 10))
        await asyncio.sleep(0)
        connection.stop()
        asking.cancel()

    asyncio.run(leave_at_once())
    go_on.set()
    [connection] = made
    connection._thread.join(10)

    assert not connection._thread.is_alive()
    assert connection._connection is None
