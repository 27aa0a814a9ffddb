"""The tables. Migrations make them; a test holds that both say the same.

Times are integer microseconds since the epoch (SQLite and MariaDB drop time zones). Bodies are
bytes, as signed. There are no foreign keys: rows are only added, and pruned in order, by this
package, and the checks would be paid for with every event.

Every name begins with ``hooks_``, because handlers' own tables live in the same database.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)

from animica_hooks.core.job import State

metadata = MetaData()

_Id = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is SQLite's rowid
_Digest = LargeBinary(32)
_Micros = BigInteger

events = Table(
    "hooks_events",
    metadata,
    Column("seq", _Id, primary_key=True),  # order of receipt
    Column("endpoint", String(100), nullable=False),
    Column("id", String(255), nullable=False),
    Column("type", Text, nullable=False),
    Column("received_at", _Micros, nullable=False),
    Column("body_hash", _Digest, nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Column("body", LargeBinary),
    UniqueConstraint("endpoint", "id", name="uq_hooks_events_endpoint_id"),
)

# Deliveries of an event after its first, by body: a hash that is not the event's is a conflict.
redeliveries = Table(
    "hooks_redeliveries",
    metadata,
    Column("event_seq", BigInteger, primary_key=True),
    Column("body_hash", _Digest, primary_key=True),
    Column("conflict", Boolean, nullable=False),
    Column("count", Integer, nullable=False),
    Column("last_at", _Micros, nullable=False),
)

handlers = Table(
    "hooks_handlers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("endpoint", String(100), nullable=False),
    Column("patterns", Text, nullable=False),  # a JSON list
    Column("seen_at", _Micros, nullable=False),
)

jobs = Table(
    "hooks_jobs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("event_seq", BigInteger, nullable=False),
    Column("handler_id", Integer, nullable=False),
    Column("state", String(9), nullable=False),
    Column("due_at", _Micros),  # available: not before; leased: until; else null
    Column("attempts", Integer, nullable=False),  # ended and counted
    Column("failed", Integer, nullable=False),  # of these, failed
    Column("fence", Integer, nullable=False),  # how often claimed; proves a lease
    Column("orphaned", SmallInteger, nullable=False),  # 1: its process died; it runs alone
    Column("created_at", _Micros, nullable=False),
    Column("finished_at", _Micros),
    Column("leased_by", String(100)),
    Column("reason", String(500)),
    Column("replay_id", BigInteger),  # the replay that made it
    Column("replayed_from", BigInteger),  # the job it repeats
    Column("keyed_by", BigInteger),  # the replay its idempotency key is made of
    Index("ix_hooks_jobs_event", "event_seq"),
)


def in_state(state: State) -> ColumnElement[bool]:
    """Match jobs in a state, by a literal: a bound value could not use a partial index."""
    return jobs.c.state == literal_column(f"'{state}'")


def _partial(name: str, state: State, *columns: str) -> Index:
    """An index on the few rows in ``state``, so that finished rows cost claims nothing."""
    where = text(f"state = '{state}'")
    return Index(
        name, *(jobs.c[column] for column in columns), sqlite_where=where, postgresql_where=where
    )


_partial("ix_hooks_jobs_available", State.AVAILABLE, "handler_id", "orphaned", "due_at")
_partial("ix_hooks_jobs_leased", State.LEASED, "due_at")
_partial("ix_hooks_jobs_dead", State.DEAD, "id")

failures = Table(
    "hooks_failures",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("job_id", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", _Micros, nullable=False),
    Column("error", String(200), nullable=False),
    Column("message", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Index("ix_hooks_failures_job", "job_id"),
)

quarantine = Table(
    "hooks_quarantine",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("endpoint", String(100), nullable=False),
    Column("body_hash", _Digest, nullable=False),
    Column("received_at", _Micros, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("reason", String(500), nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("endpoint", "body_hash", name="uq_hooks_quarantine_endpoint_body"),
)

replays = Table(
    "hooks_replays",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("created_at", _Micros, nullable=False),
    Column("filters", Text, nullable=False),  # a JSON object
    Column("planned", Integer, nullable=False),
    Column("created", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("finished_at", _Micros),
)
