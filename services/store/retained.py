"""What retention takes out of the store: old rows of decisions, requests, outcomes, by day and in small transactions.

Rule 1: rollouts, ledger, grants, orders, poll_evidence, marks are no business of this file: what replays a rollout's
verdicts stays. Rule 2: the row with the highest `seq` stays, or SQLite would give its number again, and a cursor that
has passed it would pass over new rows. Rule 3: an outcome and a measured amount stay as long as their decision, what
contradicts an outcome as long as the outcome. Must never import: policies, flows.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Float,
    Integer,
    Table,
    and_,
    delete,
    exists,
    func,
    select,
    tuple_,
)

from services.store import tables
from services.store.database import Database

DELETED_AT_ONCE = 1_000
"""Rows a transaction deletes: writers wait for some 20 ms, not for the whole day."""


@dataclass(frozen=True)
class RetainedTable:
    """A table by name, the columns that tell its rows apart, the one with their time, and all with their kinds."""

    name: str
    keys: tuple[str, ...]
    at: str
    columns: Mapping[str, type]


def _retained(table: Table, *keys: str, at: str = "at") -> RetainedTable:
    kinds: dict[str, type] = {}
    for column in table.columns:
        kind = column.type
        if isinstance(kind, Boolean):
            kinds[column.name] = bool
        elif isinstance(kind, Integer | BigInteger):
            kinds[column.name] = int
        else:
            kinds[column.name] = float if isinstance(kind, Float) else str
    return RetainedTable(table.name, keys, at, kinds)


# In the order in which they may go.
RETAINED = (
    _retained(tables.decisions, "decision_id"),
    _retained(tables.outcomes, "decision_id", "outcome", "at"),
    _retained(tables.outcome_conflicts, "decision_id", "outcome", "at"),
    _retained(tables.measurements, "decision_id", "name", "at"),
    _retained(tables.requests, "request_id"),
    _retained(tables.log_gaps, "gap_id", at="until"),
)


def oldest(db: Database, table: RetainedTable, *, since: float, before: float) -> float | None:
    """The earliest time (epoch s) in [since, before) of a row that may go; None without any."""
    at = _table(table).c[table.at]
    with db.read() as connection:
        found = connection.execute(select(func.min(at)).where(at >= since, at < before, _may_go(table)))
        value = found.scalar_one_or_none()
    return None if value is None else float(value)


def rows_between(
    db: Database, table: RetainedTable, *, start: float, stop: float, limit: int
) -> list[dict[str, object]]:
    """Rows of [start, stop) that may go, in time order, at most `limit`."""
    found = _table(table)
    at = found.c[table.at]
    query = select(found).where(at >= start, at < stop, _may_go(table)).order_by(at).limit(limit)
    with db.read() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def count_between(db: Database, table: RetainedTable, *, before: float) -> int:
    """How many rows before this time may go."""
    found = _table(table)
    query = select(func.count()).select_from(found).where(found.c[table.at] < before, _may_go(table))
    with db.read() as connection:
        return int(connection.execute(query).scalar_one())


def delete_rows(db: Database, table: RetainedTable, rows: Sequence[Mapping[str, object]]) -> int:
    """Delete exactly these rows, some at a time; how many there were."""
    found = _table(table)
    columns = [found.c[name] for name in table.keys]
    deleted = 0
    for start in range(0, len(rows), DELETED_AT_ONCE):
        keys = [tuple(row[name] for name in table.keys) for row in rows[start : start + DELETED_AT_ONCE]]
        is_one = columns[0].in_([key[0] for key in keys]) if len(columns) == 1 else tuple_(*columns).in_(keys)
        began = time.monotonic()
        with db.write() as connection:
            deleted += connection.execute(delete(found).where(is_one)).rowcount
        time.sleep(time.monotonic() - began)  # as long as it held the store, so that others are not starved
    return deleted


def _table(table: RetainedTable) -> Table:
    return tables.metadata.tables[table.name]


def _may_go(table: RetainedTable) -> ColumnElement[bool]:
    found = _table(table)
    if table.name in ("outcomes", "measurements"):
        return ~exists().where(tables.decisions.c.decision_id == found.c.decision_id)
    if table.name == "outcome_conflicts":
        return ~exists().where(tables.outcomes.c.decision_id == found.c.decision_id)
    if "seq" in table.columns:
        return found.c.seq < select(func.max(found.c.seq)).scalar_subquery()
    return and_(True)
