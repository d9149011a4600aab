"""What was said otherwise of a decision's outcome, and the decisions that were answered but could not be logged."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "outcome_conflicts",
        sa.Column("decision_id", sa.Text, primary_key=True),
        sa.Column("outcome", sa.Text, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
    )
    op.create_table(
        "log_gaps",
        sa.Column("gap_id", sa.Text, primary_key=True),
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
        sa.Column("decisions", sa.BigInteger, nullable=False),
    )
