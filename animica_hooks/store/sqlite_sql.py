"""SQLite's statements of the hot path, run on the driver's connection.

Everything else is SQLAlchemy Core; here, where each event pays, building or executing Core would
cost a quarter of the rate. Parameters are positional, in the order in which they stand.
"""

from __future__ import annotations

from functools import cache

from sqlalchemy.dialects import sqlite

from animica_hooks.store import inbox

# The numbers of the newest rows; new ones count on from there, under the write lock.
LAST_EVENT = "SELECT coalesce(max(seq), 0) FROM hooks_events"
LAST_JOB = "SELECT coalesce(max(id), 0) FROM hooks_jobs"


@cache
def insert_events(rows: int) -> str:
    """Store events, but those whose id was seen before at their endpoint."""
    return (
        "INSERT INTO hooks_events (seq, endpoint, id, type, received_at, body_hash, headers, body)"
        f" VALUES {','.join(['(?,?,?,?,?,?,?,?)'] * rows)} ON CONFLICT (endpoint, id) DO NOTHING"
    )


@cache
def insert_jobs(rows: int) -> str:
    """Make jobs, available (fence 0) or leased already (fence 1)."""
    return (
        "INSERT INTO hooks_jobs (id, event_seq, handler_id, state, due_at, fence, created_at,"
        " leased_by, attempts, failed, orphaned)"
        f" VALUES {','.join(['(?,?,?,?,?,?,?,?,0,0,0)'] * rows)}"
    )


@cache
def complete(rows: int) -> str:
    """End attempts that succeeded under leases of one fence: what MARK does, for many at once."""
    return (
        "UPDATE hooks_jobs SET state = 'succeeded', due_at = NULL, attempts = attempts + 1,"
        " orphaned = 0, reason = NULL, finished_at = ?, leased_by = NULL"
        f" WHERE fence = ? AND state = 'leased' AND id IN ({','.join('?' * rows)})"
    )


# Which of the events just inserted were new (primary key).
EVENTS_AFTER = "SELECT seq FROM hooks_events WHERE seq > ?"

# Read the event of a claimed job (primary key).
LOAD_EVENT = """
SELECT endpoint, id, type, received_at, headers, body FROM hooks_events WHERE seq = ?
"""

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


# End an attempt, however it ended.
_mark = inbox.MARK.compile(dialect=sqlite.dialect(paramstyle="qmark"))
MARK = str(_mark)
MARK_ORDER = tuple(_mark.positiontup or ())
