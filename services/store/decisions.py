"""What the logs bring: decisions, requests, gaps of the log, marks and the shipper's checkpoints.

All writes are idempotent: a decision by its decision_id, a request by its request_id, a gap by its gap_id (the
first one stays). The writers of logs take the caller's transaction, so that records, checkpoints and marks are
committed together. `seq` order is commit order because one shipper writes. Outcomes are in outcomes.py.
Must never import: policies, flows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, delete, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from services.store import tables
from services.store.database import Database

OUTCOMES_WATERMARK = "outcomes_watermark"
SHIPPED_THROUGH = "shipped_through"


@dataclass(frozen=True)
class DecisionRow:
    """One served answer. `at` epoch s. JSON texts: a list, a list and an object; `gated` an object, None while no
    action was switched off."""

    decision_id: str
    request_id: str
    attempt: int
    at: float
    unit: str | None
    assigned: str
    shadow: bool
    release: str
    action: str
    score: float | None
    took_ms: float
    expected_utility: str
    probabilities: str
    row: str
    gated: str | None = None


@dataclass(frozen=True)
class RequestRow:
    """One request as the user felt it, from the proxy's access log. `at` epoch s of its start."""

    request_id: str
    unit: str | None
    assigned: str
    at: float
    status: int
    duration_ms: float
    attempts: int
    flags: str


@dataclass(frozen=True)
class LogGap:
    """Decisions that were answered between `since` and `until` (epoch s) and could not be logged: how many."""

    gap_id: str
    release: str
    since: float
    until: float
    decisions: int

    @property
    def at(self) -> float:
        """Its place in the log, epoch s."""
        return self.until


@dataclass(frozen=True)
class Checkpoint:
    """How far one file is shipped: all bytes before `position`; `head` are its first bytes, hashed."""

    file_id: str
    path: str
    position: int
    head: str


def upsert_decisions(connection: Connection, rows: Sequence[DecisionRow]) -> int:
    """Write decisions that are not there yet; how many were new."""
    return _insert_new(connection, tables.decisions, rows)


def upsert_requests(connection: Connection, rows: Sequence[RequestRow]) -> int:
    """Write requests that are not there yet; how many were new."""
    return _insert_new(connection, tables.requests, rows)


def upsert_gaps(connection: Connection, gaps: Sequence[LogGap]) -> None:
    """Write gaps of the log that are not there yet."""
    if gaps:
        statement = dialect_insert(connection, tables.log_gaps).on_conflict_do_nothing()
        connection.execute(statement, [vars(gap) for gap in gaps])


def unlogged_decisions(db: Database) -> dict[str, int]:
    """How many answered decisions never reached a log, by release, as the gaps in the logs say."""
    table = tables.log_gaps
    query = select(table.c.release, func.sum(table.c.decisions)).group_by(table.c.release)
    with db.read() as connection:
        return {str(release): int(count) for release, count in connection.execute(query)}


def raise_mark(connection: Connection, name: str, value: float, *, at: float) -> None:
    """Move a mark forward; a lower value than the stored one changes nothing."""
    table = tables.marks
    where = table.c.name == name
    stored = connection.execute(select(table.c.value).where(where).with_for_update()).scalar_one_or_none()
    if stored is None:
        connection.execute(table.insert().values(name=name, value=value, updated_at=at))
    elif value > stored:
        connection.execute(update(table).where(where).values(value=value, updated_at=at))


def drop_mark(connection: Connection, name: str) -> None:
    """Forget a mark that was set by a clock that was wrong."""
    connection.execute(delete(tables.marks).where(tables.marks.c.name == name))


def read_mark(db: Database, name: str) -> float | None:
    """A mark's value (epoch s); None when it was never set."""
    with db.read() as connection:
        found = connection.execute(select(tables.marks.c.value).where(tables.marks.c.name == name))
        value = found.scalar_one_or_none()
    return None if value is None else float(value)


def set_watermark(db: Database, watermark: float, *, at: float) -> None:
    """All outcomes that happened at or before this instant (epoch s) have been delivered; it never goes
    back."""
    with db.write() as connection:
        raise_mark(connection, OUTCOMES_WATERMARK, watermark, at=at)


def watermark(db: Database) -> float | None:
    """The outcome feed's watermark; None before the first."""
    return read_mark(db, OUTCOMES_WATERMARK)


def checkpoints(db: Database) -> tuple[Checkpoint, ...]:
    """The checkpoint of every file ever shipped."""
    table = tables.checkpoints
    query = select(table.c.file_id, table.c.path, table.c.position, table.c.head)
    with db.read() as connection:
        return tuple(Checkpoint(**dict(row._mapping)) for row in connection.execute(query))


def save_checkpoints(connection: Connection, rows: Sequence[Checkpoint], *, at: float) -> None:
    """Save checkpoints in the caller's transaction, the one that holds the records up to them."""
    if not rows:
        return
    statement = dialect_insert(connection, tables.checkpoints)
    fresh = {name: statement.excluded[name] for name in ("path", "position", "head", "updated_at")}
    upsert = statement.on_conflict_do_update(index_elements=["file_id"], set_=fresh)
    connection.execute(upsert, [{**vars(row), "updated_at": at} for row in rows])


def forget_checkpoints(db: Database, file_ids: Sequence[str]) -> None:
    """Forget files that are gone."""
    if file_ids:
        with db.write() as connection:
            table = tables.checkpoints
            connection.execute(delete(table).where(table.c.file_id.in_(file_ids)))


def count_decisions(db: Database) -> int:
    """How many decisions were ever shipped (their highest number, which retention leaves in the store)."""
    with db.read() as connection:
        return int(connection.execute(text("SELECT COALESCE(MAX(seq), 0) FROM decisions")).scalar_one())


def _insert_new(
    connection: Connection, table: Table, rows: Sequence[DecisionRow] | Sequence[RequestRow]
) -> int:
    if not rows:
        return 0
    newest = text(f"SELECT COALESCE(MAX(seq), 0) FROM {table.name}")  # noqa: S608 — the table's own name
    before = int(connection.execute(newest).scalar_one())
    statement = dialect_insert(connection, table).on_conflict_do_nothing()
    connection.execute(statement, [vars(row) for row in rows])
    counted = text(f"SELECT COUNT(*) FROM {table.name} WHERE seq > :before")  # noqa: S608
    return int(connection.execute(counted, {"before": before}).scalar_one())


def dialect_insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say what to do on a conflict."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
