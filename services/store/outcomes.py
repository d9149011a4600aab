"""Outcomes of decisions: recorded idempotently, late or contradictory, and found by unit and time where no id is known.

The latest event time wins; what else was said of a decision is kept in `outcome_conflicts`, each other outcome
once, so the same statements in any order, any number of times, leave the same record (of two outcomes at one
instant the first received stays). Must never import: policies, flows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Connection, and_, delete, exists, select

from services.store import tables
from services.store.database import Database
from services.store.decisions import SHIPPED_THROUGH, dialect_insert, read_mark, watermark

_CHUNK = 500


@dataclass(frozen=True)
class Outcome:
    """The ground truth of one decision; `at` epoch s is when it happened."""

    decision_id: str
    outcome: str
    at: float


@dataclass(frozen=True)
class UnitOutcome:
    """The ground truth about a unit at `at` (epoch s): of every decision about it in the `within_s` before."""

    unit: str
    outcome: str
    at: float
    within_s: float


@dataclass(frozen=True)
class UnitMatches:
    """Outcomes of the decisions that were found; `unmatched` (indices): statements about no decision;
    `too_early` (indices): those that the shipper has not passed yet, to be said again later."""

    outcomes: tuple[Outcome, ...]
    unmatched: tuple[int, ...]
    too_early: tuple[int, ...]


@dataclass(frozen=True)
class OutcomeReceipt:
    """Each outcome counts once as new, duplicate or conflict; `unknown` of them name no decision shipped yet.

    `late`: news of what happened at or before the watermark, which had promised that all of it was delivered.
    """

    new: int
    duplicates: int
    conflicts: int
    unknown: int
    late: int = 0


@dataclass(frozen=True)
class _Heard:
    """What was said of one decision: the outcome that stands, and every other one with its latest time."""

    outcome: str
    at: float
    others: Mapping[str, float]


def record_outcomes(db: Database, outcomes: Sequence[Outcome], *, received_at: float) -> OutcomeReceipt:
    """Record outcomes in one transaction. Said again: a duplicate. Said otherwise: a conflict, kept and counted."""
    counts = {"new": 0, "duplicate": 0, "conflict": 0}
    late = 0
    promised = watermark(db)
    with db.write() as connection:
        ids = {outcome.decision_id for outcome in outcomes}
        held = _held(connection, ids)
        known = _known(connection, ids)
        heard = dict(held)
        for item in outcomes:
            heard[item.decision_id], kind = _hear(heard.get(item.decision_id), item)
            counts[kind] += 1
            late += kind != "duplicate" and promised is not None and item.at <= promised
        changed = {key: one for key, one in heard.items() if held.get(key) != one}
        if changed:
            _save(connection, changed, received_at=received_at)
    unknown = sum(1 for outcome in outcomes if outcome.decision_id not in known)
    return OutcomeReceipt(counts["new"], counts["duplicate"], counts["conflict"], unknown, late)


def match_units(db: Database, statements: Sequence[UnitOutcome]) -> UnitMatches:
    """The delivered decisions about each unit in (at - within_s, at], each with the outcome.

    Every one of them, because the outcome is a fact about the unit: evidence counts a unit's first decision of a
    rollout, whichever that is. A statement newer than what is shipped is not matched, or it could go to an older
    decision while the right one is still in a log.
    """
    shipped = read_mark(db, SHIPPED_THROUGH)
    d, retried = tables.decisions.alias("d"), tables.decisions.alias("retried")
    is_retried = and_(
        retried.c.request_id == d.c.request_id, retried.c.shadow.is_(False), retried.c.attempt > d.c.attempt
    )
    found: list[Outcome] = []
    unmatched, too_early = [], []
    with db.read() as connection:
        for index, one in enumerate(statements):
            if shipped is None or one.at > shipped:
                too_early.append(index)
                continue
            query = select(d.c.decision_id).where(
                d.c.unit == one.unit,
                d.c.at > one.at - one.within_s,
                d.c.at <= one.at,
                d.c.shadow.is_(False),
                ~exists().where(is_retried),
            )
            ids = list(connection.execute(query.order_by(d.c.at, d.c.seq)).scalars())
            found += [Outcome(decision_id, one.outcome, one.at) for decision_id in ids]
            if not ids:
                unmatched.append(index)
    return UnitMatches(tuple(found), tuple(unmatched), tuple(too_early))


def _hear(held: _Heard | None, item: Outcome) -> tuple[_Heard, Literal["new", "duplicate", "conflict"]]:
    if held is None:
        return _Heard(item.outcome, item.at, {}), "new"
    if item.outcome == held.outcome:
        return replace(held, at=max(held.at, item.at)), "duplicate"
    if item.at <= held.others.get(item.outcome, -1.0):
        return held, "duplicate"
    others = {**held.others, item.outcome: item.at}
    if item.at <= held.at:
        return replace(held, others=others), "conflict"
    del others[item.outcome]
    return _Heard(item.outcome, item.at, {**others, held.outcome: held.at}), "conflict"


def _save(connection: Connection, heard: Mapping[str, _Heard], *, received_at: float) -> None:
    standing = [
        {
            "decision_id": key,
            "outcome": one.outcome,
            "at": one.at,
            "received_at": received_at,
            "conflicts": len(one.others),
        }
        for key, one in heard.items()
    ]
    statement = dialect_insert(connection, tables.outcomes)
    fresh = {name: statement.excluded[name] for name in ("outcome", "at", "received_at", "conflicts")}
    connection.execute(statement.on_conflict_do_update(index_elements=["decision_id"], set_=fresh), standing)
    others = [
        {"decision_id": key, "outcome": outcome, "at": at, "received_at": received_at}
        for key, one in heard.items()
        for outcome, at in one.others.items()
    ]
    table = tables.outcome_conflicts
    contested = {key for key, one in heard.items() if one.others}
    for chunk in _chunks(contested):  # what stands now may have been one of the others before
        connection.execute(delete(table).where(table.c.decision_id.in_(chunk)))
    if others:
        connection.execute(table.insert(), others)


def _held(connection: Connection, ids: set[str]) -> dict[str, _Heard]:
    """What was said of these decisions so far."""
    table, others = tables.outcomes, tables.outcome_conflicts
    found: dict[str, _Heard] = {}
    for chunk in _chunks(ids):
        contested: dict[str, dict[str, float]] = {}
        for row in connection.execute(select(others).where(others.c.decision_id.in_(chunk))):
            contested.setdefault(row.decision_id, {})[row.outcome] = row.at
        query = select(table.c.decision_id, table.c.outcome, table.c.at)
        for row in connection.execute(query.where(table.c.decision_id.in_(chunk))):
            found[row.decision_id] = _Heard(row.outcome, row.at, contested.get(row.decision_id, {}))
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
