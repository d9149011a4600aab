"""Rows of the ledger: one appender at a time, in a gapless sequence. What a row means is services/ledger's.

Must never import: services.ledger (which imports this), policies, flows.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Row, insert, select, text

from services.store import tables
from services.store.database import LEDGER_LOCK, Database


@dataclass(frozen=True)
class LedgerRow:
    """One row as stored. `body` is JSON text; the hashes are 64 hex digits."""

    seq: int
    at: float
    kind: str
    service: str
    rollout_id: str | None
    body: str
    prev_hash: str
    hash: str


def append_row(db: Database, make: Callable[[LedgerRow | None], LedgerRow]) -> LedgerRow:
    """Append what `make` builds from the last row (None: the ledger is empty); nobody can append in
    between."""
    with db.write(durable=True) as connection:
        if not db.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LEDGER_LOCK})
        row = make(_last(connection))
        connection.execute(insert(tables.ledger).values(**vars(row)))
    return row


def rows_after(
    db: Database, seq: int, *, limit: int, rollout_id: str | None = None, kind: str | None = None
) -> tuple[LedgerRow, ...]:
    """At most `limit` rows with a higher number, in order."""
    table = tables.ledger
    query = select(table).where(table.c.seq > seq)
    if rollout_id is not None:
        query = query.where(table.c.rollout_id == rollout_id)
    if kind is not None:
        query = query.where(table.c.kind == kind)
    with db.read() as connection:
        found = connection.execute(query.order_by(table.c.seq).limit(limit))
        return tuple(_row(row) for row in found)


def latest(db: Database, *, rollout_id: str, kind: str) -> LedgerRow | None:
    """The last row of a kind in a rollout."""
    table = tables.ledger
    query = select(table).where(table.c.rollout_id == rollout_id, table.c.kind == kind)
    with db.read() as connection:
        row = connection.execute(query.order_by(table.c.seq.desc()).limit(1)).one_or_none()
    return None if row is None else _row(row)


def _last(connection: Connection) -> LedgerRow | None:
    query = select(tables.ledger).order_by(tables.ledger.c.seq.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else _row(row)


def _row(row: Row[tuple[object, ...]]) -> LedgerRow:
    return LedgerRow(**dict(row._mapping))
