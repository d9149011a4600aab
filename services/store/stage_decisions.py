"""The decisions of one stage, for its report: every variant, shadow too, with the outcome where it is known.

Descriptive, not evidence: repeats are included and nothing is matured. Must never import: policies, flows.
"""

from dataclasses import dataclass

from sqlalchemy import select

from services.store import tables
from services.store.database import Database


@dataclass(frozen=True)
class StageDecision:
    """One decided row. `row` is JSON text; `outcome` None: none recorded."""

    decision_id: str
    request_id: str
    at: float
    assigned: str
    shadow: bool
    release: str
    action: str
    score: float | None
    took_ms: float
    row: str
    outcome: str | None
    gated: str | None = None


def decisions_between(db: Database, *, start: float, stop: float, limit: int) -> tuple[StageDecision, ...]:
    """Decisions taken in [start, stop), in time order, the newest `limit` of them."""
    d, o = tables.decisions.alias("d"), tables.outcomes.alias("o")
    query = (
        select(
            d.c.decision_id,
            d.c.request_id,
            d.c.at,
            d.c.assigned,
            d.c.shadow,
            d.c.release,
            d.c.action,
            d.c.score,
            d.c.took_ms,
            d.c.row,
            o.c.outcome,
            d.c.gated,
        )
        .select_from(d.outerjoin(o, o.c.decision_id == d.c.decision_id))
        .where(d.c.at >= start, d.c.at < stop)
        .order_by(d.c.at.desc(), d.c.seq.desc())
        .limit(limit)
    )
    with db.read() as connection:
        return tuple(StageDecision(*row) for row in reversed(connection.execute(query).all()))
