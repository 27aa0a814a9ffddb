"""The tables. Migrations make them; a test holds that both say the same.

Times are integer microseconds since the epoch (SQLite and MariaDB drop time zones). Bodies are
bytes, as signed. There are no foreign keys: rows are only added, and pruned in order, by this
package, and the checks would be paid for with every event.

Every name begins with ``hooks_``, because handlers' own tables live in the same database.

MariaDB: text compares by its bytes, for two ids that differ in case or a trailing space are two
events, and blobs are of a size that bodies fit in.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
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
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import SchemaItem

from animica_hooks.core.job import State

metadata = MetaData()

_Id = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is SQLite's rowid
_Digest = LargeBinary(32).with_variant(mysql.BINARY(32), "mysql")
_Bytes = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")
_LongText = Text().with_variant(mysql.MEDIUMTEXT(), "mysql")
_Micros = BigInteger


def _table(name: str, *parts: SchemaItem) -> Table:
    return Table(
        name,
        metadata,
        *parts,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )


events = _table(
    "hooks_events",
    Column("seq", _Id, primary_key=True),  # order of receipt
    Column("endpoint", String(100), nullable=False),
    Column("id", String(255), nullable=False),
    Column("type", Text, nullable=False),
    Column("received_at", _Micros, nullable=False),
    Column("headers", _Bytes, nullable=False),
    Column("body", _Bytes),  # null once it is pruned or erased, and then the headers are empty
    Column("body_hash", _Digest),  # SHA-256, once the body itself is gone
    UniqueConstraint("endpoint", "id", name="uq_hooks_events_endpoint_id"),
)

# Deliveries of an event after its first, by body: a hash that is not the event's is a conflict.
redeliveries = _table(
    "hooks_redeliveries",
    Column("event_seq", BigInteger, primary_key=True),
    Column("body_hash", _Digest, primary_key=True),
    Column("conflict", Boolean, nullable=False),
    Column("count", Integer, nullable=False),
    Column("last_at", _Micros, nullable=False),
)

handlers = _table(
    "hooks_handlers",
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("endpoint", String(100), nullable=False),
    Column("patterns", Text, nullable=False),  # a JSON list
    Column("seen_at", _Micros, nullable=False),
    Column("paused_at", _Micros),
    Column("tokens", Float),  # of a handler with a rate: jobs that might begin at ``tokens_at``
    Column("tokens_at", _Micros),
    Column("former_names", Text),  # a JSON list: what it is, or was, called by other processes
)

jobs = _table(
    "hooks_jobs",
    Column("id", _Id, primary_key=True),
    Column("event_seq", BigInteger, nullable=False),
    Column("handler_id", Integer, nullable=False),
    Column("state", String(9), nullable=False),
    Column("due_at", _Micros),  # available: not before; leased: until; else null
    Column("attempts", Integer, nullable=False),  # ended and counted
    Column("failed", Integer, nullable=False),  # of these, failed
    Column("fence", Integer, nullable=False),  # how often claimed; proves a lease
    # 1: its process died; it runs alone. 2: its line is yet to be found; nobody claims it.
    Column("orphaned", SmallInteger, nullable=False),
    Column("created_at", _Micros, nullable=False),
    Column("finished_at", _Micros),
    Column("leased_by", String(100)),
    Column("reason", String(500)),
    Column("replay_id", BigInteger),  # the replay that made it
    Column("replayed_from", BigInteger),  # the job it repeats
    Column("keyed_by", BigInteger),  # the replay its idempotency key is made of
    Column("ordering_key", String(200)),  # of its line; not first in it: available, due_at null
    Index("ix_hooks_jobs_event", "event_seq"),
)


UNSORTED = 2  # as ``orphaned``

# Jobs that are still in their line. Databases use a partial index only for a condition that says
# literally the same.
UNFINISHED = "state IN ('available', 'leased', 'parked')"


def unfinished(table: str = "hooks_jobs") -> ColumnElement[bool]:
    """Match jobs that are still in their line, so that ix_hooks_jobs_standing serves."""
    return literal_column(f"{table}.{UNFINISHED}")


def in_state(state: State) -> ColumnElement[bool]:
    """Match jobs in a state, by a literal: a bound value could not use a partial index."""
    return jobs.c.state == literal_column(f"'{state}'")


failures = _table(
    "hooks_failures",
    Column("id", _Id, primary_key=True),
    Column("job_id", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", _Micros, nullable=False),
    Column("error", String(200), nullable=False),
    Column("message", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Index("ix_hooks_failures_job", "job_id"),
)

quarantine = _table(
    "hooks_quarantine",
    Column("id", _Id, primary_key=True),
    Column("endpoint", String(100), nullable=False),
    Column("body_hash", _Digest, nullable=False),
    Column("received_at", _Micros, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("reason", String(500), nullable=False),
    Column("headers", _Bytes, nullable=False),
    Column("body", _Bytes, nullable=False),
    UniqueConstraint("endpoint", "body_hash", name="uq_hooks_quarantine_endpoint_body"),
)

replays = _table(
    "hooks_replays",
    Column("id", _Id, primary_key=True),
    Column("created_at", _Micros, nullable=False),
    Column("filters", _LongText, nullable=False),  # a JSON object
    Column("planned", Integer, nullable=False),
    Column("created", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("finished_at", _Micros),
)

# What one process at a time does for all: who, and until when nobody else may begin it.
tasks = _table(
    "hooks_tasks",
    Column("name", String(50), primary_key=True),
    Column("held_by", String(100), nullable=False),
    Column("held_until", _Micros, nullable=False),
)

# Of the few rows in a state, so that finished rows cost claims nothing.
_STATE_INDEXES = (
    ("ix_hooks_jobs_available", State.AVAILABLE, ("handler_id", "orphaned", "due_at")),
    ("ix_hooks_jobs_leased", State.LEASED, ("due_at",)),
    ("ix_hooks_jobs_dead", State.DEAD, ("id",)),
)


def described(dialect: str) -> MetaData:
    """Return the tables with all their indexes, as a database of this dialect has them.

    MariaDB has no partial indexes: there all rows are in them, and the state comes first. One has
    to do, for with each change of state a job moves in all of them.
    """
    result = MetaData()
    for table in metadata.sorted_tables:
        table.to_metadata(result)
    columns = result.tables["hooks_jobs"].c
    for name, state, names in _STATE_INDEXES:
        indexed = [columns[name] for name in names]
        where = text(f"state = '{state}'")
        if dialect != "mysql":
            Index(name, *indexed, sqlite_where=where, postgresql_where=where)
        elif state is State.AVAILABLE:
            Index(name, columns.state, *indexed)
    in_line = (columns.handler_id, columns.ordering_key, columns.id)
    has_key = text("ordering_key IS NOT NULL")
    Index("ix_hooks_jobs_line", *in_line, sqlite_where=has_key, postgresql_where=has_key)
    standing = (columns.handler_id, columns.ordering_key, columns.state, columns.id)
    unfinished = text(f"ordering_key IS NOT NULL AND {UNFINISHED}")
    Index("ix_hooks_jobs_standing", *standing, sqlite_where=unfinished, postgresql_where=unfinished)
    return result
