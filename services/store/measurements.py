"""Amounts measured of what became of decisions: recorded idempotently, the latest event time stands.

Must never import: policies, flows.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from services.store import tables
from services.store.database import Database
from services.store.decisions import dialect_insert

_IDS_AT_ONCE = 500


@dataclass(frozen=True)
class Measurement:
    """One amount of one decision; `at` epoch s is when it was so."""

    decision_id: str
    name: str
    value: float
    at: float


@dataclass(frozen=True)
class MeasuredDecision:
    """A decision with one of its amounts. `at` epoch s of the decision; `row` is JSON text."""

    decision_id: str
    at: float
    release: str
    row: str
    name: str
    value: float


def record_measurements(db: Database, measured: Sequence[Measurement], *, received_at: float) -> None:
    """Record amounts in one transaction; an older statement than the one that stands changes nothing."""
    if not measured:
        return
    newest = {(one.decision_id, one.name): one for one in sorted(measured, key=lambda one: one.at)}
    rows = [{**vars(one), "received_at": received_at} for one in newest.values()]
    with db.write() as connection:
        statement = dialect_insert(connection, tables.measurements)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["decision_id", "name"],
                set_={name: statement.excluded[name] for name in ("value", "at", "received_at")},
                where=statement.excluded.at > tables.measurements.c.at,
            ),
            rows,
        )


def measured_decisions(db: Database, *, since: float, limit: int) -> tuple[MeasuredDecision, ...]:
    """The amounts of decisions taken since then (epoch s), mirrored ones left out; the newest `limit` in time order."""
    d, m = tables.decisions, tables.measurements
    query = (
        select(d.c.decision_id, d.c.at, d.c.release, d.c.row, m.c.name, m.c.value)
        .join(m, m.c.decision_id == d.c.decision_id)
        .where(d.c.at >= since, d.c.shadow.is_(False))
        .order_by(d.c.at.desc(), d.c.seq.desc(), m.c.name)
        .limit(limit)
    )
    with db.read() as connection:
        found = [MeasuredDecision(*row) for row in connection.execute(query)]
    return tuple(reversed(found))


def measured_values(
    db: Database, decisions: Sequence[str], *, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The amounts of these names, by name, by decision id; decisions without any are not among them."""
    m, found = tables.measurements, defaultdict[str, dict[str, float]](dict)
    if not names:
        return {}
    with db.read() as connection:
        for start in range(0, len(decisions) if names else 0, _IDS_AT_ONCE):
            ids = decisions[start : start + _IDS_AT_ONCE]
            query = select(m.c.decision_id, m.c.name, m.c.value).where(
                m.c.decision_id.in_(ids), m.c.name.in_(names)
            )
            for decision, name, value in connection.execute(query):
                found[decision][name] = value
    return dict(found)
