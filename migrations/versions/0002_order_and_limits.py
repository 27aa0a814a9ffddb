"""Order within a key; pauses and rates of handlers. Only adds, so that older processes go on."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _add("hooks_handlers", sa.Column("paused_at", sa.BigInteger))
    _add("hooks_handlers", sa.Column("tokens", sa.Float))
    _add("hooks_handlers", sa.Column("tokens_at", sa.BigInteger))
    _add("hooks_jobs", sa.Column("ordering_key", sa.String(200)))
    has_key = sa.text("ordering_key IS NOT NULL")
    op.create_index(
        "ix_hooks_jobs_line",
        "hooks_jobs",
        ["handler_id", "ordering_key", "id"],
        if_not_exists=True,
        sqlite_where=has_key,
        postgresql_where=has_key,
    )
    unfinished = sa.text("ordering_key IS NOT NULL AND state IN ('available', 'leased', 'parked')")
    op.create_index(
        "ix_hooks_jobs_standing",
        "hooks_jobs",
        ["handler_id", "ordering_key", "state", "id"],
        if_not_exists=True,
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )


def _add(table: str, column: "sa.Column[object]") -> None:
    """Add a column, unless a migration that was killed has added it (MariaDB)."""
    present = {found["name"] for found in sa.inspect(op.get_bind()).get_columns(table)}
    if column.name not in present:
        op.add_column(table, column)
