"""Create the inbox: events, jobs, failures, quarantine, replays."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_DIGEST = sa.LargeBinary(32).with_variant(mysql.BINARY(32), "mysql")
_BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")
_LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")


def upgrade() -> None:
    _create_table(
        "hooks_events",
        sa.Column("seq", _ID, primary_key=True),
        sa.Column("endpoint", sa.String(100), nullable=False),
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("headers", _BYTES, nullable=False),
        sa.Column("body", _BYTES),
        sa.Column("body_hash", _DIGEST),
        sa.UniqueConstraint("endpoint", "id", name="uq_hooks_events_endpoint_id"),
    )
    _create_table(
        "hooks_redeliveries",
        sa.Column("event_seq", sa.BigInteger, primary_key=True),
        sa.Column("body_hash", _DIGEST, primary_key=True),
        sa.Column("conflict", sa.Boolean, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
    )
    _create_table(
        "hooks_handlers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("endpoint", sa.String(100), nullable=False),
        sa.Column("patterns", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    _create_table(
        "hooks_jobs",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("event_seq", sa.BigInteger, nullable=False),
        sa.Column("handler_id", sa.Integer, nullable=False),
        sa.Column("state", sa.String(9), nullable=False),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("orphaned", sa.SmallInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("leased_by", sa.String(100)),
        sa.Column("reason", sa.String(500)),
        sa.Column("replay_id", sa.BigInteger),
        sa.Column("replayed_from", sa.BigInteger),
        sa.Column("keyed_by", sa.BigInteger),
    )
    _create_index("ix_hooks_jobs_event", "hooks_jobs", ["event_seq"])
    _index_in("available", "ix_hooks_jobs_available", ["handler_id", "orphaned", "due_at"])
    _index_in("leased", "ix_hooks_jobs_leased", ["due_at"])
    _index_in("dead", "ix_hooks_jobs_dead", ["id"])
    _create_table(
        "hooks_failures",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("job_id", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("error", sa.String(200), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("traceback", sa.Text, nullable=False),
    )
    _create_index("ix_hooks_failures_job", "hooks_failures", ["job_id"])
    _create_table(
        "hooks_quarantine",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("endpoint", sa.String(100), nullable=False),
        sa.Column("body_hash", _DIGEST, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("deliveries", sa.Integer, nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("headers", _BYTES, nullable=False),
        sa.Column("body", _BYTES, nullable=False),
        sa.UniqueConstraint("endpoint", "body_hash", name="uq_hooks_quarantine_endpoint_body"),
    )
    _create_table(
        "hooks_replays",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("filters", _LONG_TEXT, nullable=False),
        sa.Column("planned", sa.Integer, nullable=False),
        sa.Column("created", sa.Integer, nullable=False),
        sa.Column("skipped", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
    )


# Where DDL has no transactions (MariaDB) a migration that was killed is begun anew: what is there
# already is left as it is.


def _create_table(name: str, *columns: Any) -> None:
    op.create_table(
        name,
        *columns,
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )


def _create_index(name: str, table: str, columns: list[str], **options: Any) -> None:
    op.create_index(name, table, columns, if_not_exists=True, **options)


def _index_in(state: str, name: str, columns: list[str]) -> None:
    if op.get_context().dialect.name == "mysql":  # has no partial indexes: one serves all states
        if state == "available":
            _create_index(name, "hooks_jobs", ["state", *columns])
        return
    where = sa.text(f"state = '{state}'")
    _create_index(name, "hooks_jobs", columns, sqlite_where=where, postgresql_where=where)
