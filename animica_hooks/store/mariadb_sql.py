"""MariaDB's statements of the hot path, run on the driver's connection.

The driver keeps each prepared at the server, which takes a quarter of the time of escaped text: so
they come in few sizes.
"""

from __future__ import annotations

from functools import cache

from sqlalchemy.dialects import mysql

from animica_hooks.store import inbox
from animica_hooks.store.tables import UNFINISHED

# Of every connection. Strict: else it would cut what is too long. The drivers escape by backslash.
MODE = """
SET SESSION
    sql_mode = CONCAT(REPLACE(@@sql_mode, 'NO_BACKSLASH_ESCAPES', ''), ',STRICT_TRANS_TABLES')
"""
ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"


@cache
def listing(statement: str, count: int) -> str:
    """Return a statement that names ``IN %s`` with places for so many."""
    return statement.replace("IN %s", f"IN ({','.join(['%s'] * count)})")


EVENTS_KEY = "uq_hooks_events_endpoint_id"

# Find which of a batch's events are stored (uq_hooks_events_endpoint_id). It waits for those who
# are about to store one of them, and holds nothing meanwhile that they could wait for.
LOOK = f"""
SELECT id FROM hooks_events FORCE INDEX ({EVENTS_KEY}) WHERE endpoint = %s AND id IN %s
LOCK IN SHARE MODE
"""


@cache
def insert_events(rows: int) -> str:
    """Store events. One that is stored already is error 1062: IGNORE would hide other errors."""
    return (
        "INSERT INTO hooks_events (endpoint, id, type, received_at, headers, body)"
        f" VALUES {','.join(['(%s,%s,%s,%s,%s,%s)'] * rows)} RETURNING seq"
    )


@cache
def insert_jobs(rows: int) -> str:
    """Make jobs: event, handler, state, due_at, fence, leased_by, created_at."""
    return (
        "INSERT INTO hooks_jobs (event_seq, handler_id, state, due_at, fence, leased_by,"
        " created_at, attempts, failed, orphaned)"
        f" VALUES {','.join(['(%s,%s,%s,%s,%s,%s,%s,0,0,0)'] * rows)} RETURNING id"
    )


@cache
def insert_others(rows: int) -> str:
    """Make jobs that are not to be leased at once."""
    return (
        "INSERT INTO hooks_jobs (event_seq, handler_id, state, due_at, created_at, ordering_key,"
        " reason, finished_at, orphaned, fence, attempts, failed)"
        f" VALUES {','.join(['(%s,%s,%s,%s,%s,%s,%s,%s,%s,0,0,0)'] * rows)}"
    )


# Hold handlers, so that one process at a time adds to their lines, or spends what limits them.
HOLD_HANDLERS = "SELECT id FROM hooks_handlers WHERE id IN %s ORDER BY id FOR UPDATE"

# The newest job of a line (ix_hooks_jobs_line), held: it does not end meanwhile.
NEWEST_IN_LINE = """
SELECT state, finished_at FROM hooks_jobs FORCE INDEX (ix_hooks_jobs_line)
WHERE handler_id = %s AND ordering_key = %s ORDER BY id DESC LIMIT 1
FOR UPDATE
"""

# Park what is behind a dead job (ix_hooks_jobs_line).
PARK = """
UPDATE hooks_jobs FORCE INDEX (ix_hooks_jobs_line) SET state = 'parked'
WHERE handler_id = %s AND ordering_key = %s AND state = 'available' AND id > %s
"""

# The oldest job of a line that has not ended, where the newest has (ix_hooks_jobs_standing), held.
UNFINISHED_IN_LINE = f"""
SELECT state, finished_at FROM hooks_jobs FORCE INDEX (ix_hooks_jobs_standing)
WHERE handler_id = %s AND ordering_key = %s AND {UNFINISHED} ORDER BY id LIMIT 1
FOR UPDATE
"""

# Find the next job of a line (ix_hooks_jobs_standing), and make it due. See ``inbox.call_next``.
NEXT_IN_LINE = """
SELECT id FROM hooks_jobs FORCE INDEX (ix_hooks_jobs_standing)
WHERE handler_id = %s AND ordering_key = %s AND state = 'available' AND due_at IS NULL
ORDER BY id LIMIT 1
FOR UPDATE
"""
CALL = "UPDATE hooks_jobs SET due_at = GREATEST(created_at, %s) WHERE id = %s"

# What limits a handler that is held: its tokens, and its jobs that are leased.
LIMITED = """
SELECT tokens, tokens_at,
    (SELECT count(*) FROM hooks_jobs FORCE INDEX (ix_hooks_jobs_available)
        WHERE state = 'leased' AND handler_id = hooks_handlers.id) AS leased
FROM hooks_handlers WHERE id = %s
"""
SPEND = "UPDATE hooks_handlers SET tokens = %s, tokens_at = %s WHERE id = %s"

# Which events ids that were seen before belong to (uq_hooks_events_endpoint_id).
FIND_EVENTS = f"""
SELECT id, seq, COALESCE(body_hash, UNHEX(SHA2(body, 256))) AS first_hash
FROM hooks_events FORCE INDEX ({EVENTS_KEY}) WHERE endpoint = %s AND id IN %s
"""


@cache
def redeliver(rows: int) -> str:
    """Count deliveries of events that are stored already."""
    return (
        "INSERT INTO hooks_redeliveries (event_seq, body_hash, conflict, count, last_at)"
        f" VALUES {','.join(['(%s,%s,%s,%s,%s)'] * rows)} ON DUPLICATE KEY UPDATE"
        " count = count + VALUES(count), last_at = GREATEST(last_at, VALUES(last_at))"
    )


# Keep an authentic delivery that is not an event; the same one again is counted.
QUARANTINE = """
INSERT INTO hooks_quarantine
    (endpoint, body_hash, received_at, reason, headers, body, deliveries)
VALUES (%s, %s, %s, %s, %s, %s, 1)
ON DUPLICATE KEY UPDATE deliveries = deliveries + 1
"""

# End attempts that succeeded under leases of one fence: what MARK does, for many at once.
# By primary key: on the way through an index of states it would wait for others' jobs.
COMPLETE = """
UPDATE hooks_jobs FORCE INDEX (PRIMARY)
SET state = 'succeeded', due_at = NULL, attempts = attempts + 1, orphaned = 0, reason = NULL,
    finished_at = %s, leased_by = NULL
WHERE fence = %s AND state = 'leased' AND id IN %s
"""

# The same for one, and the COMMIT of what came before, in one trip. It fails where another worker
# has the job.
LEASE_LOST = "animica_hooks.lease_lost"
COMPLETE_AND_COMMIT = f"""
BEGIN NOT ATOMIC
    UPDATE hooks_jobs FORCE INDEX (PRIMARY)
    SET state = 'succeeded', due_at = NULL, attempts = attempts + 1, orphaned = 0, reason = NULL,
        finished_at = {{now}}, leased_by = NULL
    WHERE id = {{id}} AND fence = {{fence}} AND state = 'leased';
    IF ROW_COUNT() = 1 THEN COMMIT;
    ELSE SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{LEASE_LOST}'; END IF;
END
"""

# Prolong leases of one fence (primary key).
RENEW = """
UPDATE hooks_jobs FORCE INDEX (PRIMARY) SET due_at = %s
WHERE fence = %s AND state = 'leased' AND id IN %s
"""

# End an attempt, however it ended.
_mark = inbox.MARK.compile(dialect=mysql.dialect(paramstyle="format"))
MARK = str(_mark)
MARK_ORDER = tuple(_mark.positiontup or ())

INSERT_FAILURE = """
INSERT INTO hooks_failures (job_id, attempt, at, error, message, traceback)
VALUES (%s, %s, %s, %s, %s, %s)
"""

# Keep only the newest failures of a job (ix_hooks_failures_job).
TRIM_FAILURES = "DELETE FROM hooks_failures WHERE job_id = %s AND attempt <= %s"

# Find jobs of one handler that are due, oldest first (ix_hooks_jobs_available), and that nobody
# else is about to claim. Without their events: those would be locked, too.
DUE = """
SELECT id, event_seq, handler_id, fence + 1 AS fence, created_at, attempts, failed, orphaned,
    replayed_from, keyed_by, ordering_key
FROM hooks_jobs FORCE INDEX (ix_hooks_jobs_available)
WHERE state = 'available' AND handler_id = %s AND orphaned = %s AND due_at <= %s
ORDER BY due_at LIMIT %s
FOR UPDATE SKIP LOCKED
"""

# Whether jobs of a handler wait for their line to be found, which may be before others: nobody
# begins meanwhile (ix_hooks_jobs_available).
UNSORTED = """
SELECT 1 FROM hooks_jobs FORCE INDEX (ix_hooks_jobs_available)
WHERE state = 'available' AND handler_id = %s AND orphaned = 2 LIMIT 1
"""

# Lease jobs that DUE has found (primary key).
LEASE = """
UPDATE hooks_jobs FORCE INDEX (PRIMARY)
SET state = 'leased', due_at = %s, leased_by = %s, fence = fence + 1
WHERE id IN %s
"""

# Read the events of claimed jobs (primary key).
LOAD_EVENTS = """
SELECT seq, id AS event_id, type, body, endpoint, received_at, headers
FROM hooks_events WHERE seq IN %s
"""

# The time, whatever the server's time zone.
CLOCK = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) AS now"

# Not to wait for a lock for longer than somebody waits for the answer; in seconds.
LOCK_WAIT = "SET SESSION innodb_lock_wait_timeout = 2"

VERSION = "SELECT VERSION() AS version"

SETTINGS = """
SELECT @@read_only OR @@innodb_read_only AS read_only,
    @@innodb_flush_log_at_trx_commit AS flush,
    @@log_bin AS log_bin, @@sync_binlog AS sync_binlog,
    @@max_allowed_packet AS packet
"""

# One process migrates a database at a time.
LOCK_MIGRATION = "SELECT GET_LOCK(CONCAT('animica_hooks ', MD5(DATABASE())), 3600)"

# Of a migration: rule 4 of the servers. In seconds; by default it is a day.
GIVE_WAY = "SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1"
