"""Which actions were switched off when a row was decided, and which one would have been taken: NULL for none."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("decisions", sa.Column("gated", sa.Text))
