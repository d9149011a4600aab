"""The tables of a Trimtab store, in one place; what the migrations must add up to.

Rules for who adds a table: times are epoch seconds (float, UTC); JSON is text, written with NaN refused;
every table that is read incrementally has `seq`, given in the order in which rows are written. Portable to
PostgreSQL. The schema itself is made by `migrations/`; a test compares the two.
Must never import: anything of policies, flows or another room.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

metadata = MetaData()

# An integer that SQLite makes its row id and PostgreSQL a bigserial.
_SEQ = BigInteger().with_variant(Integer, "sqlite")

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("service", Text, nullable=False),
    Column("champion", Text),
    Column("candidate", Text, nullable=False),
    Column("policy_text", Text, nullable=False),
    Column("utility_text", Text, nullable=False),
    Column("salt", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("gates", Text, nullable=False),
    Column("cursors", Text, nullable=False),
    Column("weight_pct", Float, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("ended_at", Float),
    CheckConstraint("weight_pct >= 0 AND weight_pct <= 100", name="rollouts_weight_pct"),
)
# One rollout at a time per service: the database refuses the second, whatever the programs believe.
Index(
    "rollouts_one_active",
    rollouts.c.service,
    unique=True,
    sqlite_where=text("ended_at IS NULL"),
    postgresql_where=text("ended_at IS NULL"),
)
Index("rollouts_by_creation", rollouts.c.service, rollouts.c.created_at)

grants = Table(
    "grants",
    metadata,
    Column("rollout_id", Text, ForeignKey("rollouts.id"), primary_key=True),
    Column("service", Text, nullable=False),
    Column("weight_pct", Float, nullable=False),
    Column("valid_until", Float, nullable=False),
    Column("revoked", Boolean, nullable=False),
    Column("revoked_by", Text),
    Column("reason", Text),
    Column("updated_at", Float, nullable=False),
    CheckConstraint("weight_pct >= 0 AND weight_pct <= 100", name="grants_weight_pct"),
)
Index("grants_by_service", grants.c.service, grants.c.updated_at)

orders = Table(
    "orders",
    metadata,
    Column("id", _SEQ, primary_key=True, autoincrement=True),
    Column("rollout_id", Text, ForeignKey("rollouts.id"), nullable=False),
    Column("verb", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("taken_at", Float),
    sqlite_autoincrement=True,
)
Index("orders_by_rollout", orders.c.rollout_id, orders.c.id)

ledger = Table(
    "ledger",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("kind", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("rollout_id", Text),
    Column("body", Text, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
)
Index("ledger_by_rollout", ledger.c.rollout_id, ledger.c.seq)

decisions = Table(
    "decisions",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("decision_id", Text, nullable=False, unique=True),
    Column("request_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("unit", Text),
    Column("assigned", Text, nullable=False),
    Column("shadow", Boolean, nullable=False),
    Column("release", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("score", Float),
    Column("expected_utility", Text, nullable=False),
    Column("probabilities", Text, nullable=False),
    Column("row", Text, nullable=False),
    Column("took_ms", Float, nullable=False),
    Column("gated", Text),
)
# Time first: with `shadow` first SQLite would take this index where only `decisions_by_unit` is fast.
Index("decisions_by_time", decisions.c.at, decisions.c.shadow)
Index("decisions_by_unit", decisions.c.unit, decisions.c.at)
Index("decisions_by_request", decisions.c.request_id, decisions.c.shadow, decisions.c.attempt)

requests = Table(
    "requests",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("request_id", Text, nullable=False, unique=True),
    Column("unit", Text),
    Column("assigned", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("status", Integer, nullable=False),
    Column("duration_ms", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("flags", Text, nullable=False),
)
Index("requests_by_unit", requests.c.unit, requests.c.at)

outcomes = Table(
    "outcomes",
    metadata,
    Column("decision_id", Text, primary_key=True),
    Column("outcome", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("conflicts", Integer, nullable=False),
)

# What else was said of a decision's outcome: each other outcome once, with its latest event time.
outcome_conflicts = Table(
    "outcome_conflicts",
    metadata,
    Column("decision_id", Text, primary_key=True),
    Column("outcome", Text, primary_key=True),
    Column("at", Float, nullable=False),
    Column("received_at", Float, nullable=False),
)

# Decisions that stable answered while its log could not be written: how many, and when.
log_gaps = Table(
    "log_gaps",
    metadata,
    Column("gap_id", Text, primary_key=True),
    Column("release", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("until", Float, nullable=False),
    Column("decisions", BigInteger, nullable=False),
)

# Amounts measured of what became of a decision, each by its name; the latest event time stands.
measurements = Table(
    "measurements",
    metadata,
    Column("decision_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Float, nullable=False),
    Column("at", Float, nullable=False),
    Column("received_at", Float, nullable=False),
)
Index("measurements_by_time", measurements.c.at)

# Every poll that was judged: with it a rollout's verdicts can be worked out again, exactly.
poll_evidence = Table(
    "poll_evidence",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("rollout_id", Text, ForeignKey("rollouts.id"), nullable=False),
    Column("at", Float, nullable=False),
    Column("stage", Text, nullable=False),
    Column("entered_at", Float, nullable=False),
    Column("extended", Boolean, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("decision", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text),
    sqlite_autoincrement=True,
)
Index("poll_evidence_by_rollout", poll_evidence.c.rollout_id, poll_evidence.c.seq)

# Times that only grow: the outcome feed's watermark, and up to when the logs are shipped.
marks = Table(
    "marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

# How far each log file is shipped. A file is its device and inode; `head` tells a reused inode.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("file_id", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("head", Text, nullable=False),
    Column("updated_at", Float, nullable=False),
)
