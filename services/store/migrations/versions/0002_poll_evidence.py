"""The evidence of every poll, so that a rollout's verdicts can be worked out again."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "poll_evidence",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("rollout_id", sa.Text, sa.ForeignKey("rollouts.id"), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("entered_at", sa.Float, nullable=False),
        sa.Column("extended", sa.Boolean, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("poll_evidence_by_rollout", "poll_evidence", ["rollout_id", "seq"])
