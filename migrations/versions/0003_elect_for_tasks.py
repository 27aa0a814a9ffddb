"""Who does what one process at a time does for all. Only adds, so that older processes go on."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "hooks_tasks",
        sa.Column("name", sa.String(50), primary_key=True),
        sa.Column("held_by", sa.String(100), nullable=False),
        sa.Column("held_until", sa.BigInteger, nullable=False),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin",
    )
