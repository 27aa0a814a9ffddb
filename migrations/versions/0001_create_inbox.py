"""Create the inbox: events, jobs, failures, quarantine, replays."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "hooks_events",
        sa.Column("seq", _ID, primary_key=True),
        sa.Column("endpoint", sa.String(100), nullable=False),
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("body_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("headers", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.UniqueConstraint("endpoint", "id", name="uq_hooks_events_endpoint_id"),
    )
    op.create_table(
        "hooks_redeliveries",
        sa.Column("event_seq", sa.BigInteger, primary_key=True),
        sa.Column("body_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("conflict", sa.Boolean, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "hooks_handlers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("endpoint", sa.String(100), nullable=False),
        sa.Column("patterns", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
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
    op.create_index("ix_hooks_jobs_event", "hooks_jobs", ["event_seq"])
    _partial_index("ix_hooks_jobs_available", "available", ["handler_id", "orphaned", "due_at"])
    _partial_index("ix_hooks_jobs_leased", "leased", ["due_at"])
    _partial_index("ix_hooks_jobs_dead", "dead", ["id"])
    op.create_table(
        "hooks_failures",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("job_id", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("error", sa.String(200), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("traceback", sa.Text, nullable=False),
    )
    op.create_index("ix_hooks_failures_job", "hooks_failures", ["job_id"])
    op.create_table(
        "hooks_quarantine",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("endpoint", sa.String(100), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("deliveries", sa.Integer, nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("headers", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("endpoint", "body_hash", name="uq_hooks_quarantine_endpoint_body"),
    )
    op.create_table(
        "hooks_replays",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("filters", sa.Text, nullable=False),
        sa.Column("planned", sa.Integer, nullable=False),
        sa.Column("created", sa.Integer, nullable=False),
        sa.Column("skipped", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
    )


def _partial_index(name: str, state: str, columns: list[str]) -> None:
    where = sa.text(f"state = '{state}'")
    op.create_index(name, "hooks_jobs", columns, sqlite_where=where, postgresql_where=where)
