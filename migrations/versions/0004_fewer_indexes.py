"""MariaDB keeps one index by state: there all rows are in each, and every change pays for each."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name == "mysql":
        for state in ("leased", "dead"):
            op.drop_index(f"ix_hooks_jobs_{state}", "hooks_jobs", if_exists=True)
