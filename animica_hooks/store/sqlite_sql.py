"""SQLite's statements of the hot path, run on the driver's connection.

Everything else is SQLAlchemy Core; here, where each event pays, building or executing Core would
cost a quarter of the rate. Parameters are positional, in the order in which they stand.
"""

from __future__ import annotations

from functools import cache

from sqlalchemy.dialects import sqlite

from animica_hooks.store import inbox


@cache
def insert_events(rows: int) -> str:
    """Store events whose id is new at their endpoint; give back only those."""
    return (
        "INSERT INTO hooks_events (endpoint, id, type, received_at, body_hash, headers, body)"
        f" VALUES {_values(rows, '(?,?,?,?,?,?,?)')}"
        " ON CONFLICT DO NOTHING RETURNING seq, endpoint, id"
    )


@cache
def insert_jobs(rows: int) -> str:
    """Make jobs, some of them (fence 1) leased already."""
    return (
        "INSERT INTO hooks_jobs (event_seq, handler_id, state, due_at, fence, created_at,"
        " leased_by, attempts, failed, orphaned)"
        f" VALUES {_values(rows, '(?,?,?,?,?,?,?,0,0,0)')}"
        " RETURNING id, event_seq, handler_id, fence"
    )


@cache
def load_events(rows: int) -> str:
    """Read the events of claimed jobs, by primary key."""
    return (
        "SELECT seq, endpoint, id, type, received_at, headers, body FROM hooks_events"
        f" WHERE seq IN ({_values(rows, '?')})"
    )


# Which event an id that was seen before belongs to (uq_hooks_events_endpoint_id).
FIND_EVENT = "SELECT seq, body_hash FROM hooks_events WHERE endpoint = ? AND id = ?"

# Count a delivery of an event that is stored already.
REDELIVER = """
INSERT INTO hooks_redeliveries (event_seq, body_hash, conflict, count, last_at)
VALUES (?, ?, ?, 1, ?)
ON CONFLICT DO UPDATE SET count = count + 1, last_at = excluded.last_at
"""

# Keep an authentic delivery that is not an event; the same one again is counted.
QUARANTINE = """
INSERT INTO hooks_quarantine
    (endpoint, body_hash, received_at, reason, headers, body, deliveries)
VALUES (?, ?, ?, ?, ?, ?, 1)
ON CONFLICT DO UPDATE SET deliveries = deliveries + 1
"""

# Prolong a lease (primary key).
RENEW = "UPDATE hooks_jobs SET due_at = ? WHERE id = ? AND fence = ? AND state = 'leased'"

# Lease the jobs of one handler that are due, oldest first (ix_hooks_jobs_available).
CLAIM = """
UPDATE hooks_jobs SET state = 'leased', due_at = ?, leased_by = ?, fence = fence + 1
WHERE id IN (
    SELECT id FROM hooks_jobs
    WHERE state = 'available' AND handler_id = ? AND orphaned = ? AND due_at <= ?
    ORDER BY due_at LIMIT ?
)
RETURNING id, event_seq, handler_id, fence, created_at, attempts, failed, orphaned,
    replayed_from, keyed_by
"""

INSERT_FAILURE = """
INSERT INTO hooks_failures (job_id, attempt, at, error, message, traceback)
VALUES (?, ?, ?, ?, ?, ?)
"""

# Keep only the newest failures of a job (ix_hooks_failures_job).
TRIM_FAILURES = "DELETE FROM hooks_failures WHERE job_id = ? AND attempt <= ?"


_mark = inbox.MARK.compile(dialect=sqlite.dialect(paramstyle="qmark"))
MARK = str(_mark)
MARK_ORDER = tuple(_mark.positiontup or ())


def _values(rows: int, row: str) -> str:
    return ",".join([row] * rows)
