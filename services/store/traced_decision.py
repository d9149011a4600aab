"""One decision with all that the store holds beside it: its request, the request's other decisions, its outcome.

Must never import: policies, flows.
"""

from dataclasses import dataclass

from sqlalchemy import select

from services.store import tables
from services.store.database import Database, StoreError
from services.store.decisions import DecisionRow, RequestRow


class UnknownDecision(StoreError):
    """No decision in the store has this id."""


@dataclass(frozen=True)
class ToldOutcome:
    """What came of a decision. at: when it happened, received_at: when it was told, epoch s; conflicts: how often it
    was told otherwise."""

    outcome: str
    at: float
    received_at: float
    conflicts: int


@dataclass(frozen=True)
class StoredDecision:
    """A decision and what belongs to it. request: None where the access log has none; others: the other decisions of
    its request, attempts and shadows, in the order of time."""

    row: DecisionRow
    request: RequestRow | None
    others: tuple[DecisionRow, ...]
    outcome: ToldOutcome | None


def stored_decision(db: Database, decision_id: str) -> StoredDecision:
    """Read it. Raises UnknownDecision."""
    d, r = tables.decisions, tables.requests
    with db.read() as connection:
        found = connection.execute(select(d).where(d.c.decision_id == decision_id)).mappings().one_or_none()
        if found is None:
            raise UnknownDecision(f"'decision_id' must be one in the store: {decision_id!r}")
        row = _decision(dict(found))
        same = d.c.request_id == row.request_id
        beside = connection.execute(select(d).where(same, d.c.decision_id != decision_id).order_by(d.c.seq))
        others = tuple(_decision(dict(one)) for one in beside.mappings())
        request = (
            connection.execute(select(r).where(r.c.request_id == row.request_id)).mappings().one_or_none()
        )
    return StoredDecision(
        row,
        None if request is None else RequestRow(**{k: v for k, v in request.items() if k != "seq"}),
        others,
        told_outcome(db, decision_id),
    )


def told_outcome(db: Database, decision_id: str) -> ToldOutcome | None:
    """What came of the decision, which need not be in the store any more; None where nothing was told."""
    o = tables.outcomes
    query = select(o.c.outcome, o.c.at, o.c.received_at, o.c.conflicts).where(o.c.decision_id == decision_id)
    with db.read() as connection:
        found = connection.execute(query).one_or_none()
    return None if found is None else ToldOutcome(*found)


def stage_at(db: Database, rollout_id: str, at: float) -> str | None:
    """The stage in which a rollout was at an instant (epoch s): that of the first poll since; None after the last."""
    table = tables.poll_evidence
    query = (
        select(table.c.stage)
        .where(table.c.rollout_id == rollout_id, table.c.at >= at)
        .order_by(table.c.seq)
        .limit(1)
    )
    with db.read() as connection:
        found = connection.execute(query).scalar_one_or_none()
    return None if found is None else str(found)


def _decision(found: dict[str, object]) -> DecisionRow:
    found.pop("seq")
    return DecisionRow(**found)  # type: ignore[arg-type]
