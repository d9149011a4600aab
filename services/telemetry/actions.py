"""What units were given in a canary stage, by assignment: how often each arm acted, and how that differs by group.

These need no outcome, so a unit counts as soon as its first decision can no longer be superseded by a retry.
Source: gates.md, semantics 8 and 9. Must never import: sqlalchemy, flows.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import orjson

from policies.gates.evidence import CountBlock, GapArmsBlock, GapBlock
from policies.utility.utility import UtilitySpec
from services.store import decisions as store
from services.store import evidence as queries
from services.store.database import Database
from services.store.evidence import DecidedUnit
from services.store.rollouts import RolloutRecord
from services.telemetry.poll import LIMIT, VARIANTS, Poll

RETRY_WAIT_S = 2.0
"""How much later than the first attempt the one that is delivered may be logged: the proxy gives one up after 1 s."""
_METRICS = frozenset({"action_rate", "call_rate_gap"})


class NoGroups(ValueError):
    """The groups cannot be told; the text says why."""


def add_actions(
    db: Database, poll: Poll, metrics: set[str], *, record: RolloutRecord, utility: UtilitySpec
) -> None:
    """Blocks of `action_rate` and `call_rate_gap`, those of them that are in `metrics`."""
    if not metrics & _METRICS:
        return
    shipped = store.read_mark(db, store.SHIPPED_THROUGH)
    window = queries.first_decisions(
        db,
        since=record.created_at,
        settled_at=poll.cursor.settled_at,
        after=poll.cursor.acted_through,
        through=(0.0 if shipped is None else shipped) - RETRY_WAIT_S,
        limit=LIMIT,
    )
    poll.cursor = replace(poll.cursor, acted_through=max(poll.cursor.acted_through, window.through))
    canary, stable = ([unit for unit in window.rows if unit.assigned == name] for name in VARIANTS)
    if "action_rate" in metrics:
        poll.blocks["action_rate"] = CountBlock(
            _acted(canary, utility), len(canary), _acted(stable, utility), len(stable)
        )
    if "call_rate_gap" in metrics:
        try:
            poll.blocks["call_rate_gap"] = GapArmsBlock(_groups(canary, utility), _groups(stable, utility))
        except NoGroups as error:
            poll.missing["call_rate_gap"] = str(error)


def count_groups(rows: Sequence[str], actions: Sequence[str], utility: UtilitySpec) -> GapBlock:
    """Action counts of the two groups of the utility spec's `action_rate_gap` constraint, in rows of JSON text.

    Raises NoGroups.
    """
    constraint = next((one for one in utility.constraints if one.kind == "action_rate_gap"), None)
    if constraint is None or constraint.group_field is None:
        raise NoGroups("utility.yaml has no constraint of kind action_rate_gap, so no groups")
    field = constraint.group_field
    values = [orjson.loads(row).get(field) for row in rows]
    is_number = constraint.group_up_to is not None
    kinds, what = ((int, float), "number") if is_number else ((str,), "text")
    if not all(isinstance(value, kinds) and not isinstance(value, bool) for value in values):
        raise NoGroups(f"some decided rows have no {what} in field '{field}', which tells the groups")
    in_a = constraint.in_group_a({field: np.array(values, dtype=np.float64 if is_number else object)})
    acted = np.array([action == constraint.action for action in actions], dtype=bool)
    return GapBlock(
        int((acted & in_a).sum()), int(in_a.sum()), int((acted & ~in_a).sum()), int((~in_a).sum())
    )


def _groups(units: Sequence[DecidedUnit], utility: UtilitySpec) -> GapBlock:
    return count_groups([unit.row for unit in units], [unit.action for unit in units], utility)


def _acted(units: Sequence[DecidedUnit], utility: UtilitySpec) -> int:
    return sum(unit.action != utility.default_action for unit in units)
