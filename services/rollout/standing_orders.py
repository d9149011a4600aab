"""An abort or a kill that stands open comes before any step that gives users to the candidate or cuts the way back.

Such an order may have come while nobody conducted: it is not put off until the next poll.
Must never import Prefect.
"""

from __future__ import annotations

from policies.rollout.rollout import Action, Event, Step
from services.store.database import Database
from services.store.orders import Order, open_orders

_NO_WAY_BACK = (Action.REPOINT_STABLE, Action.DROP_OLD)


class StopOrdered(Exception):
    """This order must be carried out first."""

    def __init__(self, given: Order) -> None:
        super().__init__(f"{given.verb} by {given.by}: {given.reason}")
        self.given = given


def let_orders_stop(db: Database, rollout_id: str, following: Step) -> None:
    """Look for such an order before this step. Raises StopOrdered."""
    gives_weight = following.action is Action.SET_WEIGHT and (following.weight_pct or 0.0) > 0
    if not gives_weight and following.action not in _NO_WAY_BACK:
        return
    for given in open_orders(db, rollout_id):
        if given.verb in (Event.ABORT, Event.KILL):
            raise StopOrdered(given)
