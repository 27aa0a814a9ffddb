"""PostgreSQL's statements of the hot path, run on the driver's connection.

Each takes whole columns as arrays, so that it is prepared once for batches of any size.
"""

from __future__ import annotations

from animica_hooks.store.tables import UNFINISHED

CHANNEL = "hooks_jobs"  # where DELIVER tells of jobs that nobody holds

# End attempts that succeeded, and store new events with their jobs: all that most batches are.
# Rows are numbered in the order of receipt, and inserted in that of their ids: of processes that
# store the same events none then waits for another in a circle.
#  $1-$2   marks: job ids and fences         $3  now
#  $4-$9   events: endpoint, id, type, received_at, headers, body
#  $10-$12 jobs: place of the event among these, from 1; handler, whether it is leased
#  $13     leased until      $14  by
DELIVER = """
WITH ended AS (
    UPDATE hooks_jobs AS j
    SET state = 'succeeded', due_at = NULL, attempts = attempts + 1, orphaned = 0, reason = NULL,
        finished_at = $3, leased_by = NULL
    FROM unnest($1::bigint[], $2::int[]) AS mark (id, fence)
    WHERE j.id = mark.id AND j.fence = mark.fence AND j.state = 'leased'
    RETURNING 1
), arrived AS MATERIALIZED (
    SELECT nextval('hooks_events_seq_seq') AS seq, a.*
    FROM unnest($4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[], $9::bytea[])
        WITH ORDINALITY AS a (endpoint, id, type, received_at, headers, body, place)
), stored AS (
    INSERT INTO hooks_events (seq, endpoint, id, type, received_at, headers, body)
    SELECT seq, endpoint, id, type, received_at, headers, body FROM arrived ORDER BY endpoint, id
    ON CONFLICT (endpoint, id) DO NOTHING
    RETURNING seq, endpoint, id
), made AS (
    INSERT INTO hooks_jobs (event_seq, handler_id, state, due_at, fence, leased_by, created_at,
        attempts, failed, orphaned)
    SELECT s.seq, wanted.handler_id,
        CASE WHEN wanted.leased THEN 'leased' ELSE 'available' END,
        CASE WHEN wanted.leased THEN $13::bigint ELSE $3 END,
        wanted.leased::int,
        CASE WHEN wanted.leased THEN $14 END,
        $3, 0, 0, 0
    FROM unnest($10::bigint[], $11::int[], $12::bool[])
        WITH ORDINALITY AS wanted (place, handler_id, leased, number)
    JOIN arrived AS a USING (place) JOIN stored AS s USING (seq)
    ORDER BY wanted.number
    RETURNING id, event_seq, handler_id, state
), told AS (
    SELECT pg_notify('hooks_jobs', '') FROM made WHERE state = 'available' LIMIT 1
)
SELECT s.seq, s.endpoint, s.id, j.id AS job_id, j.handler_id, j.state,
    (SELECT count(*) FROM ended)::int AS ended, (SELECT count(*) FROM told) AS told
FROM (SELECT 1) AS one
LEFT JOIN stored AS s ON true
LEFT JOIN made AS j ON j.event_seq = s.seq
ORDER BY j.id
"""

# Hold handlers, so that one process at a time adds to their lines, or spends what limits them.
HOLD_HANDLERS = (
    "SELECT 1 FROM hooks_handlers WHERE id = ANY ($1::int[]) ORDER BY id FOR NO KEY UPDATE"
)

# The newest job of each line (ix_hooks_jobs_line), held: it does not end meanwhile. Where it has
# ended, and an older one that was tried again has not, the older one (ix_hooks_jobs_standing).
NEWEST_IN_LINES = f"""
SELECT line.handler_id, line.key, j.state, j.finished_at
FROM unnest($1::int[], $2::text[]) AS line (handler_id, key)
CROSS JOIN LATERAL (
    SELECT id, state FROM hooks_jobs
    WHERE handler_id = line.handler_id AND ordering_key = line.key
    ORDER BY id DESC LIMIT 1
) AS newest
CROSS JOIN LATERAL (
    SELECT state, finished_at FROM hooks_jobs
    WHERE id = CASE WHEN newest.{UNFINISHED} THEN newest.id ELSE coalesce((
        SELECT max(id) FROM hooks_jobs
        WHERE handler_id = line.handler_id AND ordering_key = line.key AND {UNFINISHED}
    ), newest.id) END
    FOR NO KEY UPDATE
) AS j
"""

# Make jobs that are not to be leased at once, and tell of them.
INSERT_JOBS = """
WITH made AS (
    INSERT INTO hooks_jobs (event_seq, handler_id, state, due_at, ordering_key, reason, orphaned,
        created_at, finished_at, fence, attempts, failed)
    SELECT seq, handler_id, state, due_at, key, unusable, orphaned, $8::bigint,
        CASE WHEN unusable IS NOT NULL THEN $8 END, 0, 0, 0
    FROM unnest($1::bigint[], $2::int[], $3::text[], $4::bigint[], $5::text[], $6::text[],
        $7::int[])
        WITH ORDINALITY AS job (seq, handler_id, state, due_at, key, unusable, orphaned, number)
    ORDER BY number
)
SELECT pg_notify('hooks_jobs', '')
"""

# Make the next job of a line due (ix_hooks_jobs_standing). See ``inbox.call_next``.
CALL_NEXT = f"""
UPDATE hooks_jobs SET due_at = greatest(created_at, $1) WHERE id = (
    SELECT min(id) FROM hooks_jobs
    WHERE handler_id = $2 AND ordering_key = $3 AND {UNFINISHED} AND state = 'available'
        AND due_at IS NULL
)
"""

# Park what is behind a dead job.
PARK = """
UPDATE hooks_jobs SET state = 'parked'
WHERE handler_id = $1 AND ordering_key = $2 AND state = 'available' AND id > $3
"""

# What limits a handler that is held: its tokens, and its jobs that are leased.
LIMITED = """
SELECT tokens, tokens_at,
    (SELECT count(*) FROM hooks_jobs WHERE state = 'leased' AND handler_id = $1)::int AS leased
FROM hooks_handlers WHERE id = $1
"""
SPEND = "UPDATE hooks_handlers SET tokens = $1, tokens_at = $2 WHERE id = $3"

# Count deliveries of events that are stored already: endpoint, id, body hash, received at.
REDELIVER = """
WITH again AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[])
        WITH ORDINALITY AS a (endpoint, id, body_hash, received_at, place)
), found AS (
    SELECT a.place, e.seq, coalesce(e.body_hash, sha256(e.body)) AS first_hash, a.body_hash,
        a.received_at
    FROM again AS a JOIN hooks_events AS e ON e.endpoint = a.endpoint AND e.id = a.id
), counted AS (
    INSERT INTO hooks_redeliveries AS r (event_seq, body_hash, conflict, count, last_at)
    SELECT seq, body_hash, first_hash <> body_hash, count(*), max(received_at)
    FROM found GROUP BY seq, body_hash, first_hash ORDER BY seq, body_hash
    ON CONFLICT (event_seq, body_hash) DO UPDATE
    SET count = r.count + excluded.count, last_at = greatest(r.last_at, excluded.last_at)
)
SELECT place, first_hash FROM found
"""

QUARANTINE = """
INSERT INTO hooks_quarantine AS q
    (endpoint, body_hash, received_at, reason, headers, body, deliveries)
VALUES ($1, $2, $3, $4, $5, $6, 1)
ON CONFLICT (endpoint, body_hash) DO UPDATE SET deliveries = q.deliveries + 1
"""

# End an attempt, however it ended. See ``inbox.MARK``.
MARK = """
UPDATE hooks_jobs
SET state = $3, due_at = $4, attempts = attempts + $5, failed = failed + $6, orphaned = $7,
    reason = $8, finished_at = $9, leased_by = NULL
WHERE id = $1 AND fence = $2 AND state = 'leased'
RETURNING 1
"""
MARK_ORDER = (
    "job_id",
    "held_fence",
    "new_state",
    "new_due_at",
    "attempts_more",
    "failed_more",
    "new_orphaned",
    "new_reason",
    "new_finished_at",
)

# The same for an attempt that succeeded, to be sent in one trip with a COMMIT. Where another worker
# has the job it fails, so that the COMMIT is not run, and the error names LEASE_LOST.
LEASE_LOST = "animica_hooks.lease_lost"
PREPARE_COMPLETE = f"""
PREPARE hooks_complete (bigint, int, bigint) AS
WITH ended AS (
    UPDATE hooks_jobs
    SET state = 'succeeded', due_at = NULL, attempts = attempts + 1, orphaned = 0, reason = NULL,
        finished_at = $3, leased_by = NULL
    WHERE id = $1 AND fence = $2 AND state = 'leased'
    RETURNING 1
)
SELECT CASE count(*) WHEN 1 THEN NULL ELSE current_setting('{LEASE_LOST}') END FROM ended
"""
COMPLETE = "EXECUTE hooks_complete ({id}, {fence}, {now})"

FAIL = """
INSERT INTO hooks_failures (job_id, attempt, at, error, message, traceback)
VALUES ($1, $2, $3, $4, $5, $6)
"""

# Keep only the newest failures of a job.
TRIM_FAILURES = "DELETE FROM hooks_failures WHERE job_id = $1 AND attempt <= $2"

RENEW = """
UPDATE hooks_jobs AS j SET due_at = $3
FROM unnest($1::bigint[], $2::int[]) AS held (id, fence)
WHERE j.id = held.id AND j.fence = held.fence AND j.state = 'leased'
"""

# Lease the jobs of one handler that are due, oldest first (ix_hooks_jobs_available), with their
# events. While some wait for their line to be found, which may be before others, nobody begins.
# The share is taken first: an UPDATE whose condition has a LIMIT may go through it twice.
CLAIM = """
WITH due AS MATERIALIZED (
    SELECT id FROM hooks_jobs
    WHERE state = 'available' AND handler_id = $3 AND orphaned = $4 AND due_at <= $5
        AND NOT EXISTS (
            SELECT 1 FROM hooks_jobs WHERE state = 'available' AND handler_id = $3 AND orphaned = 2
        )
    ORDER BY due_at LIMIT $6
    FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE hooks_jobs AS j SET state = 'leased', due_at = $1, leased_by = $2, fence = fence + 1
    FROM due WHERE j.id = due.id
    RETURNING j.*
)
SELECT j.id, j.fence, j.handler_id, j.created_at, j.attempts, j.failed, j.orphaned,
    j.replayed_from, j.keyed_by, j.ordering_key, e.id AS event_id, e.type, e.body, e.endpoint,
    e.received_at, e.headers
FROM leased AS j JOIN hooks_events AS e ON e.seq = j.event_seq
"""

# Let the server notice within half a minute that a client has gone without a word, and undo what
# it had begun.
KEEP_ALIVE = (
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
)

# End a transaction of this package's own that goes on longer than anybody waits for it, so that it
# keeps nobody else waiting.
IDLE_LIMIT = "SET {scope} idle_in_transaction_session_timeout = {ms}"
LIMITS = "SET {scope} statement_timeout = {ms}; " + IDLE_LIMIT

# Of a migration: rule 4 of the servers. Less than deadlock_timeout, after which the server would
# as soon break off those whom it has met.
GIVE_WAY = "SET LOCAL lock_timeout = 500"

CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

SETTINGS = """
SELECT current_setting('server_version_num')::int AS version,
    current_setting('server_version') AS version_text,
    current_setting('server_encoding') AS encoding,
    current_setting('transaction_isolation') AS isolation,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('fsync') AS fsync,
    pg_is_in_recovery() AS in_recovery,
    pg_backend_pid() AS backend
"""
