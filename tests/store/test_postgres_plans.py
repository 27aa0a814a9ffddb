"""The plans of PostgreSQL's hot statements, on tables in which most jobs are finished."""

import re
from typing import Any

import pytest
from sqlalchemy import Engine, event
from storekit import NOON, Opens

from animica_hooks.core.outcome import SECOND
from animica_hooks.store import inbox, queries
from animica_hooks.store import postgres_sql as sql
from animica_hooks.store.postgres import PostgresStore

pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)

FILL = f"""
INSERT INTO hooks_events (seq, endpoint, id, type, received_at, headers, body)
SELECT n, 'animica', md5(n::text), 'order.paid', {NOON}, '', 'x' FROM generate_series(1, 20000) n;
INSERT INTO hooks_jobs (event_seq, handler_id, state, due_at, ordering_key, created_at, attempts,
    failed, fence, orphaned)
SELECT n, 1 + n % 3, CASE WHEN n < 19000 THEN 'succeeded' ELSE 'available' END,
    CASE WHEN n >= 19000 THEN {NOON} + n END, CASE WHEN n % 2 = 0 THEN (n % 500)::text END,
    {NOON}, 0, 0, 0, 0
FROM generate_series(1, 20000) n;
INSERT INTO hooks_failures (job_id, attempt, at, error, message, traceback)
SELECT n, 1, {NOON}, '', '', '' FROM generate_series(1, 20000) n;
ANALYZE;
"""

BY_EVENT = "hooks_events_pkey"
BY_JOB = "hooks_jobs_pkey|ix_hooks_jobs_leased"  # what is leased is little
BY_EVENT_ID = "uq_hooks_events_endpoint_id"
BY_LINE = "ix_hooks_jobs_line"
PLANS = {
    "DELIVER": (BY_JOB, f"Conflict Arbiter Indexes: {BY_EVENT_ID}"),
    "CLAIM": ("ix_hooks_jobs_available", BY_JOB, BY_EVENT),
    "MARK": (BY_JOB,),
    "RENEW": (BY_JOB,),
    "REDELIVER": (BY_EVENT_ID,),
    "NEWEST_IN_LINES": (BY_LINE,),
    "CALL_NEXT": ("ix_hooks_jobs_standing", BY_JOB),
    "PARK": (f"{BY_LINE}|ix_hooks_jobs_standing",),
    "LIMITED": ("ix_hooks_jobs_leased",),
    "TRIM_FAILURES": ("ix_hooks_failures_job",),
}


@pytest.fixture
async def filled(open_store: Opens) -> PostgresStore:
    store = await open_store()
    assert isinstance(store, PostgresStore)
    assert store._inbox is not None
    await store._inbox.execute(FILL)
    return store


async def plan(store: PostgresStore, name: str) -> str:
    """Return the plan that serves all parameters: those of one call are not known to it."""
    statement = getattr(sql, name)
    count = max(int(number) for number in re.findall(r"\$(\d+)", statement))
    connection: Any = store._inbox
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE planned AS {statement}")
    nulls = ", ".join(["NULL"] * count)
    rows = await connection.fetch(f"EXPLAIN EXECUTE planned ({nulls})")
    await connection.execute("DEALLOCATE planned")
    return "\n".join(row[0] for row in rows)


async def test_hot_statements_use_their_indexes(filled: PostgresStore) -> None:
    """None that each event pays for reads a table from one end to the other."""
    for name, indexes in PLANS.items():
        found = await plan(filled, name)
        assert not re.search("Seq Scan on hooks_(events|jobs|failures)", found), (name, found)
        for index in indexes:
            assert re.search(index, found), (name, found)


async def test_the_worker_looks_and_counts_are_made_by_index(filled: PostgresStore) -> None:
    """What the worker asks for, and the numbers, are found without reading the finished jobs."""
    found: dict[str, str] = {}

    def look(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and statement not in found:
            found[statement] = ""
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).all()
            found[statement] = "\n".join(row[0] for row in rows)

    event.listen(Engine, "before_cursor_execute", look)
    try:
        async with filled.read() as connection:
            await inbox.expired_leases(connection, [1], NOON + 60 * SECOND)
            await inbox.due(connection, [1, 2])
        await queries.count_states(filled)
    finally:
        event.remove(Engine, "before_cursor_execute", look)

    expired, due, *_, counts = found.values()
    assert "ix_hooks_jobs_leased" in expired
    assert 3 == due.count("ix_hooks_jobs_available")
    assert "Seq Scan on hooks_jobs" not in expired + due + counts
    assert "ix_hooks_jobs_standing" in counts
