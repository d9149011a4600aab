"""What the logs and the outcome feed bring: decisions, requests, outcomes, marks and the shipper's
checkpoints.

All writes are idempotent: a decision by its decision_id, a request by its request_id (the first one stays),
an outcome by its decision_id (the latest event time wins). The writers of logs take the caller's
transaction, so that records, checkpoints and marks are committed together. `seq` order is commit order
because one shipper writes.
Must never import: policies, flows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Insert, Table, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from services.store import tables
from services.store.database import Database

OUTCOMES_WATERMARK = "outcomes_watermark"
SHIPPED_THROUGH = "shipped_through"
_CHUNK = 500


@dataclass(frozen=True)
class DecisionRow:
    """One served answer. `at` epoch s; the last three are JSON texts of a list, a list and an object."""

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
class Outcome:
    """The ground truth of one decision; `at` epoch s is when it happened."""

    decision_id: str
    outcome: str
    at: float


@dataclass(frozen=True)
class OutcomeReceipt:
    """Each outcome counts once as new, duplicate or conflict; `unknown` of them name no decision shipped
    yet."""

    new: int
    duplicates: int
    conflicts: int
    unknown: int


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


def record_outcomes(db: Database, outcomes: Sequence[Outcome], *, received_at: float) -> OutcomeReceipt:
    """Record outcomes, in their order, in one transaction.

    Said again: a duplicate. Said otherwise: a conflict, counted; the one with the later event time stays.
    """
    new = duplicates = conflicts = 0
    with db.write() as connection:
        ids = {outcome.decision_id for outcome in outcomes}
        held = _held(connection, ids)
        known = _known(connection, ids)
        state = dict(held)
        for item in outcomes:
            current = state.get(item.decision_id)
            if current is None:
                new += 1
                state[item.decision_id] = (item.outcome, item.at, 0)
                continue
            outcome, at, count = current
            if outcome == item.outcome:
                duplicates += 1
                state[item.decision_id] = (outcome, max(at, item.at), count)
                continue
            conflicts += 1
            later = (item.outcome, item.at) if item.at > at else (outcome, at)
            state[item.decision_id] = (*later, count + 1)
        changed = [
            {"decision_id": key, "outcome": outcome, "at": at, "received_at": received_at, "conflicts": count}
            for key, (outcome, at, count) in state.items()
            if held.get(key) != (outcome, at, count)
        ]
        if changed:
            connection.execute(_upsert_outcome(connection), changed)
    unknown = sum(1 for outcome in outcomes if outcome.decision_id not in known)
    return OutcomeReceipt(new, duplicates, conflicts, unknown)


def raise_mark(connection: Connection, name: str, value: float, *, at: float) -> None:
    """Move a mark forward; a lower value than the stored one changes nothing."""
    table = tables.marks
    where = table.c.name == name
    stored = connection.execute(select(table.c.value).where(where).with_for_update()).scalar_one_or_none()
    if stored is None:
        connection.execute(table.insert().values(name=name, value=value, updated_at=at))
    elif value > stored:
        connection.execute(update(table).where(where).values(value=value, updated_at=at))


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
    statement = _dialect_insert(connection, tables.checkpoints)
    fresh = {name: statement.excluded[name] for name in ("path", "position", "head", "updated_at")}
    upsert = statement.on_conflict_do_update(index_elements=["file_id"], set_=fresh)
    connection.execute(upsert, [{**vars(row), "updated_at": at} for row in rows])


def count_decisions(db: Database) -> int:
    """How many decisions are in the store (their highest number: none is ever deleted)."""
    with db.read() as connection:
        return int(connection.execute(text("SELECT COALESCE(MAX(seq), 0) FROM decisions")).scalar_one())


def _insert_new(
    connection: Connection, table: Table, rows: Sequence[DecisionRow] | Sequence[RequestRow]
) -> int:
    if not rows:
        return 0
    newest = text(f"SELECT COALESCE(MAX(seq), 0) FROM {table.name}")  # noqa: S608 — the table's own name
    before = int(connection.execute(newest).scalar_one())
    statement = _dialect_insert(connection, table).on_conflict_do_nothing()
    connection.execute(statement, [vars(row) for row in rows])
    counted = text(f"SELECT COUNT(*) FROM {table.name} WHERE seq > :before")  # noqa: S608
    return int(connection.execute(counted, {"before": before}).scalar_one())


def _dialect_insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def _upsert_outcome(connection: Connection) -> Insert:
    statement = _dialect_insert(connection, tables.outcomes)
    fresh = {name: statement.excluded[name] for name in ("outcome", "at", "received_at", "conflicts")}
    return statement.on_conflict_do_update(index_elements=["decision_id"], set_=fresh)


def _held(connection: Connection, ids: set[str]) -> dict[str, tuple[str, float, int]]:
    """Stored outcomes by decision id: what, when, how often contradicted."""
    table = tables.outcomes
    found: dict[str, tuple[str, float, int]] = {}
    for chunk in _chunks(ids):
        query = select(table.c.decision_id, table.c.outcome, table.c.at, table.c.conflicts)
        for row in connection.execute(query.where(table.c.decision_id.in_(chunk))):
            found[row.decision_id] = (row.outcome, row.at, row.conflicts)
    return found


def _known(connection: Connection, ids: set[str]) -> set[str]:
    """Those of the ids that name a decision in the store."""
    column = tables.decisions.c.decision_id
    return {
        str(found)
        for chunk in _chunks(ids)
        for found in connection.execute(select(column).where(column.in_(chunk))).scalars()
    }


def _chunks(ids: set[str]) -> Iterator[list[str]]:
    wanted = sorted(ids)
    for start in range(0, len(wanted), _CHUNK):
        yield wanted[start : start + _CHUNK]
