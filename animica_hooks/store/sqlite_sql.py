"""SQLite's statements of the hot path, run on the driver's connection.

Everything else is SQLAlchemy Core; here, where each event pays, building or executing Core would
cost a quarter of the rate. Parameters are positional.

Statements of many rows take rows of NULL for none: for so few sizes each is prepared once. They say
OR ROLLBACK: what cannot happen, a constraint that fails, then undoes the transaction. By default
SQLite would be ready to undo the one statement, and copy each page that it is about to change.
"""

from __future__ import annotations

from functools import cache

from sqlalchemy.dialects import sqlite

from animica_hooks.store import inbox, tables

# The numbers of the newest rows; new ones count on from there, under the write lock.
LAST_EVENT = "SELECT coalesce(max(seq), 0) FROM hooks_events"
LAST_JOB = "SELECT coalesce(max(id), 0) FROM hooks_jobs"


@cache
def insert_events(rows: int) -> str:
    """Store events, but those whose id was seen before at their endpoint."""
    return (
        "INSERT OR ROLLBACK INTO hooks_events (seq, endpoint, id, type, received_at, headers, body)"
        f" SELECT * FROM (VALUES {','.join(['(?,?,?,?,?,?,?)'] * rows)}) WHERE column1 IS NOT NULL"
        " ON CONFLICT (endpoint, id) DO NOTHING"
    )


@cache
def insert_jobs(rows: int) -> str:
    """Make jobs.

    Named parameters (``?1``) could be used again; Python 3.12 to 3.12.3 warns of each.
    """
    return (
        "INSERT OR ROLLBACK INTO hooks_jobs (id, event_seq, handler_id, state, due_at, fence,"
        " leased_by, created_at, attempts, failed, orphaned) SELECT *, 0, 0, 0"
        f" FROM (VALUES {','.join(['(?,?,?,?,?,?,?,?)'] * rows)}) WHERE column1 IS NOT NULL"
    )


# Make one job that is not to be leased at once.
INSERT_JOB = """
INSERT INTO hooks_jobs (id, event_seq, handler_id, state, due_at, created_at, ordering_key, reason,
    finished_at, orphaned, fence, attempts, failed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0)
"""

# The newest job of a line (ix_hooks_jobs_line); where that has ended, and an older one that was
# tried again has not, the older one (ix_hooks_jobs_standing).
NEWEST_IN_LINE = f"""
SELECT state, finished_at FROM hooks_jobs WHERE id = (
    SELECT CASE WHEN newest.{tables.UNFINISHED} THEN newest.id ELSE coalesce((
        SELECT max(id) FROM hooks_jobs
        WHERE handler_id = ?1 AND ordering_key = ?2 AND {tables.UNFINISHED}
    ), newest.id) END
    FROM (
        SELECT id, state FROM hooks_jobs WHERE handler_id = ?1 AND ordering_key = ?2
        ORDER BY id DESC LIMIT 1
    ) AS newest
)
"""

# Make the next job of a line due (ix_hooks_jobs_standing). See ``inbox.call_next``.
CALL_NEXT = f"""
UPDATE hooks_jobs SET due_at = max(created_at, ?1) WHERE id = (
    SELECT min(id) FROM hooks_jobs
    WHERE handler_id = ?2 AND ordering_key = ?3 AND {tables.UNFINISHED} AND state = 'available'
        AND due_at IS NULL
)
"""

# Park what is behind a dead job.
PARK = """
UPDATE hooks_jobs SET state = 'parked'
WHERE handler_id = ? AND ordering_key = ? AND state = 'available' AND id > ?
"""

# What limits a handler: jobs that are leased, and its tokens.
LIMITED = """
SELECT tokens, tokens_at,
    (SELECT count(*) FROM hooks_jobs INDEXED BY ix_hooks_jobs_leased
        WHERE state = 'leased' AND handler_id = hooks_handlers.id)
FROM hooks_handlers WHERE id = ?
"""
SPEND = "UPDATE hooks_handlers SET tokens = ?, tokens_at = ? WHERE id = ?"


@cache
def complete(rows: int) -> str:
    """End attempts that succeeded under leases of one fence: what MARK does, for many at once."""
    return (
        "UPDATE OR ROLLBACK hooks_jobs SET state = 'succeeded', due_at = NULL,"
        " attempts = attempts + 1, orphaned = 0, reason = NULL, finished_at = ?, leased_by = NULL"
        f" WHERE fence = ? AND state = 'leased' AND id IN ({','.join('?' * rows)})"
    )


# Which of the events just inserted were new (primary key).
EVENTS_AFTER = "SELECT seq FROM hooks_events WHERE seq > ?"

# Read the event of a claimed job (primary key).
LOAD_EVENT = """
SELECT endpoint, id, type, received_at, headers, body FROM hooks_events WHERE seq = ?
"""

# Which event an id that was seen before belongs to (uq_hooks_events_endpoint_id).
FIND_EVENT = "SELECT seq, body, body_hash FROM hooks_events WHERE endpoint = ? AND id = ?"

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

# Lease the jobs of one handler that are due, oldest first (ix_hooks_jobs_available). While some
# wait for their line to be found, which may be before others, nobody begins.
CLAIM = """
UPDATE hooks_jobs SET state = 'leased', due_at = ?1, leased_by = ?2, fence = fence + 1
WHERE id IN (
    SELECT id FROM hooks_jobs
    WHERE state = 'available' AND handler_id = ?3 AND orphaned = ?4 AND due_at <= ?5
        AND NOT EXISTS (
            SELECT 1 FROM hooks_jobs WHERE state = 'available' AND handler_id = ?3 AND orphaned = 2
        )
    ORDER BY due_at LIMIT ?6
)
RETURNING id, event_seq, handler_id, fence, created_at, attempts, failed, orphaned,
    replayed_from, keyed_by, ordering_key
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
