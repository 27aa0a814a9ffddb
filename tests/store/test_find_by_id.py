"""Events are found by their ids alone, through the index that begins with their endpoints."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from databases import MARIADB, engine_of, on_every_database
from sqlalchemy import Engine, event, insert, text
from storekit import NOON, new_event

from animica_hooks.store.base import Store
from animica_hooks.store.erase import erase
from animica_hooks.store.queries import find_events, find_jobs, find_seqs
from animica_hooks.store.records import Batch
from animica_hooks.store.replay import ReplayFilters, plan
from animica_hooks.store.tables import handlers

pytestmark = on_every_database

COUNT = 20_000
ID = "evt_10000"
NUMBERS = {
    "sqlite": f"WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {COUNT})"
    " SELECT n FROM s",
    "postgresql": f"SELECT n FROM generate_series(1, {COUNT}) n",
    MARIADB: f"SELECT seq AS n FROM seq_1_to_{COUNT}",
}
ANALYZE = {
    "sqlite": "SELECT 1",  # the usual case: nobody has told it of the sizes
    "postgresql": "ANALYZE hooks_events, hooks_jobs",
    MARIADB: "ANALYZE TABLE hooks_events, hooks_jobs",
}


@pytest.fixture
def filled(store: Store, database_kind: str, inbox_url: str) -> Store:
    """A store with some thousand finished events at three endpoints."""
    numbers = NUMBERS[database_kind]
    join = "CONCAT({}, {})" if database_kind == MARIADB else "{} || {}"
    id, endpoint = join.format("'evt_'", "n"), join.format("'endpoint_'", "n % 3")
    body = "'x'" if database_kind == "postgresql" else "X'78'"
    engine = engine_of(database_kind, inbox_url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO hooks_events (seq, endpoint, id, type, received_at, headers, body)"
                f" SELECT n, {endpoint}, {id}, 'order.paid', {NOON}, '', {body}"
                f" FROM ({numbers}) numbers"
            )
        )
        connection.execute(
            text(
                "INSERT INTO hooks_jobs (event_seq, handler_id, state, created_at, attempts,"
                f" failed, fence, orphaned) SELECT n, 1, 'succeeded', {NOON}, 1, 0, 1, 0"
                f" FROM ({numbers}) numbers"
            )
        )
        connection.execute(
            insert(handlers).values(id=1, name="h", endpoint="*", patterns='["*"]', seen_at=NOON)
        )
    with engine.connect() as connection:
        connection.execute(text(ANALYZE[database_kind])).close()
        connection.commit()
    engine.dispose()
    return store


def read_whole(kind: str, rows: list[Any]) -> str | None:
    """Return the line of a plan that reads a large table, or an index, from end to end."""
    for row in rows:
        if kind == MARIADB:
            # Its estimates of a range are of the few rows that are in it.
            whole = row.type in ("ALL", "index") or int(str(row.rows or 0).split()[0]) > COUNT / 20
            bad = whole and row.table in ("hooks_events", "hooks_jobs", "jobs", "events")
        elif kind == "sqlite":
            bad = re.match("SCAN (hooks_events|hooks_jobs)", row.detail) is not None
        else:
            removed = re.search(r"Rows Removed by Filter: (\d+)", row[0])
            bad = (removed is not None and int(removed[1]) > COUNT / 20) or re.search(
                "Seq Scan on hooks_(events|jobs)", row[0]
            ) is not None
        if bad:
            return str(row)
    return None


@contextmanager
def planned(kind: str) -> Iterator[Callable[[], dict[str, str | None]]]:
    """Have each SELECT explained just before it runs; yield what of each reads a whole table."""
    explain = {"sqlite": "EXPLAIN QUERY PLAN", MARIADB: "EXPLAIN"}.get(kind, "EXPLAIN ANALYZE")
    found: dict[str, str | None] = {}

    def look(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "hooks_" in statement:
            rows = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
            found[statement] = found.get(statement) or read_whole(kind, rows)

    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield lambda: found
    finally:
        event.remove(Engine, "before_cursor_execute", look)


async def test_no_look_by_id_reads_a_table_from_end_to_end(
    filled: Store, database_kind: str
) -> None:
    """Events, their jobs, replays and erasing by id alone cost the same however many there are."""
    with planned(database_kind) as plans:
        [shown] = [each async for each in find_events(filled, ids=[ID])]
        [job] = [each async for each in find_jobs(filled, event_id=ID)]
        await plan(filled, ReplayFilters(ids=[ID, "evt_20"]), None)
        erased = await erase(filled, ID, None)

    assert (ID, ID, 1) == (shown.id, job.event_id, erased.events)
    assert len(plans()) >= 8
    assert {} == {statement: whole for statement, whole in plans().items() if whole}


async def test_the_watch_sees_a_plan_that_reads_all(filled: Store, database_kind: str) -> None:
    """A condition on the id alone, which no index serves, is seen."""
    with planned(database_kind) as plans:
        async with filled.read() as connection:
            await connection.execute(text(f"SELECT seq FROM hooks_events WHERE id = '{ID}'"))

    assert None not in plans().values()
    assert 1 == len(plans())


async def test_an_id_is_found_at_each_of_its_endpoints(store: Store) -> None:
    """The same id at several endpoints is several events; others are not found with them."""
    endpoints = ["animica", "github", "b", "ä", "zz"]
    for endpoint in endpoints:
        deliveries = [new_event(id, endpoint=endpoint) for id in ("evt_1", "evt_2")]
        await store.commit(Batch(deliveries=deliveries))

    found = [each async for each in find_events(store, ids=["evt_1", "evt_3"])]
    assert set(endpoints) == {each.endpoint for each in found}
    assert {"evt_1"} == {each.id for each in found}
    async with store.read() as connection:
        [seq] = await find_seqs(connection, ["evt_1"], "github")
        assert [] == await find_seqs(connection, [])
    assert {seq} == {each.seq for each in found if each.endpoint == "github"}
    assert 1 == (await erase(store, "evt_2", "ä")).events
    assert 5 == (await erase(store, "evt_2", None)).events
    assert 0 == (await erase(store, "evt_3", None)).events
