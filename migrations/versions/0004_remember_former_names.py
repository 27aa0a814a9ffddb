"""What handlers were called before. Only adds, so that older processes go on."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    present = {found["name"] for found in sa.inspect(op.get_bind()).get_columns("hooks_handlers")}
    if "former_names" not in present:  # else a migration that was killed has added it (MariaDB)
        op.add_column("hooks_handlers", sa.Column("former_names", sa.Text))
