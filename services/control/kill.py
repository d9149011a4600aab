"""The kill switch: revokes the grant first, then orders the rollout killed, then records it. Needs only the
store.

`POST /kill` and `trimtab kill` (with the control service dead) both come here. Killing twice is killing once.
Must never import: sqlalchemy, starlette, prefect.
"""

import logging
from dataclasses import dataclass

from services.ledger.ledger import append
from services.store import orders, rollouts
from services.store.database import Database
from services.store.grants import revoke_grant
from services.telemetry.events import log_event

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Killed:
    """One rollout that was killed; `revoked_by` names who was first."""

    rollout_id: str
    service: str
    revoked_by: str
    order_id: int | None


def kill(db: Database, *, by: str, reason: str, at: float, service: str | None = None) -> tuple[Killed, ...]:
    """Kill the active rollout of a service, or all active ones; empty when nothing is active."""
    killed: list[Killed] = []
    for record in rollouts.all_active(db):
        if service is not None and record.service != service:
            continue
        grant = revoke_grant(db, service=record.service, rollout_id=record.id, by=by, reason=reason, at=at)
        is_ordered = any(order.verb == "kill" for order in orders.of_rollout(db, record.id))
        order_id = None
        if not is_ordered:
            order_id = orders.give(db, rollout_id=record.id, verb="kill", by=by, reason=reason, at=at).id
        body = {"by": by, "reason": reason, "revoked_by": grant.revoked_by, "order_id": order_id}
        append(db, "kill", body, service=record.service, rollout_id=record.id, at=at)
        log_event(LOGGER, "kill", level=logging.WARNING, rollout=record.id, by=by, reason=reason)
        killed.append(Killed(record.id, record.service, grant.revoked_by or by, order_id))
    return tuple(killed)
