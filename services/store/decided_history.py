"""What the log holds of decisions that were evidence: who was decided about, how the request went, what came of it.

Must never import: policies, flows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from services.store import tables
from services.store.database import Database

_CHUNK = 500


@dataclass(frozen=True)
class DecidedRequest:
    """Beside a decision: its unit; the request as the user felt it, None where the access log has none; the outcome's
    time, None where none is recorded. duration_ms; at: epoch s."""

    decision_id: str
    unit: str
    status: int | None
    duration_ms: float | None
    attempts: int | None
    outcome_at: float | None


def requests_of(db: Database, decision_ids: Sequence[str]) -> dict[str, DecidedRequest]:
    """By decision id, for those that exist."""
    d, r, o = tables.decisions, tables.requests, tables.outcomes
    query = select(d.c.decision_id, d.c.unit, r.c.status, r.c.duration_ms, r.c.attempts, o.c.at).select_from(
        d.outerjoin(r, r.c.request_id == d.c.request_id).outerjoin(o, o.c.decision_id == d.c.decision_id)
    )
    found: dict[str, DecidedRequest] = {}
    with db.read() as connection:
        for start in range(0, len(decision_ids), _CHUNK):
            chunk = decision_ids[start : start + _CHUNK]
            for row in connection.execute(query.where(d.c.decision_id.in_(chunk))):
                found[row[0]] = DecidedRequest(*row)
    return found
