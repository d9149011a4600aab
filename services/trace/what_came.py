"""A decision and what came of it, from the store or, where retention has taken them out, from the archive.

Outcome and measured amounts may go to the archive later than their decision, each by its own time.
Must never import: sqlalchemy, Prefect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isnan

import numpy as np
import orjson

from policies.utility.utility import UtilityError, UtilitySpec
from services.home import Home
from services.store.database import Database
from services.store.decisions import DecisionRow
from services.store.evidence import DecidedUnit
from services.store.measurements import measured_values
from services.store.traced_decision import (
    StoredDecision,
    ToldOutcome,
    UnknownDecision,
    stored_decision,
    told_outcome,
)
from services.telemetry.realised import price_each
from services.trace.archived_decision import archived_amounts, archived_decision
from services.trace.traced import Realised


def find_decision(db: Database, home: Home, decision_id: str) -> StoredDecision:
    """From the store, or from the archive, with what the store has been told of it since. Raises UnknownDecision."""
    try:
        return stored_decision(db, decision_id)
    except UnknownDecision:
        archived = archived_decision(home.archive, decision_id)
        if archived is None:
            raise
        return replace(archived, outcome=told_outcome(db, decision_id) or archived.outcome)


def realise(db: Database, home: Home, found: StoredDecision, spec: UtilitySpec | None) -> Realised:
    """What the decision earned, by the spec it was made with, and why where that is not known."""
    row, told = found.row, found.outcome
    if spec is None:
        return Realised(told, None, "its utility spec cannot be read")
    unit = DecidedUnit(
        row.decision_id,
        row.at,
        row.assigned,
        row.release,
        row.action,
        row.row,
        None if told is None else told.outcome,
    )
    later = _amounts(db, home, row.decision_id, spec)
    try:
        earned = float(price_each([unit], spec, amounts={row.decision_id: later})[0])
    except UtilityError as error:
        return Realised(told, None, str(error))
    if isnan(earned):
        what = (
            "no outcome is known yet"
            if told is None
            else f"outcome '{told.outcome}' or the row does not tell it"
        )
        return Realised(told, None, f"{what}, and the payoff of '{row.action}' rests on it")
    return Realised(told, earned, "", _by_stakeholder(row, told, spec, later=later))


def _amounts(db: Database, home: Home, decision_id: str, spec: UtilitySpec) -> dict[str, float]:
    """What was measured of the fields hidden when deciding, in the store or in the archive."""
    if not spec.hidden:
        return {}
    stored = measured_values(db, [decision_id], names=spec.hidden).get(decision_id, {})
    archived = archived_amounts(home.archive, decision_id)
    return {name: value for name, value in {**archived, **stored}.items() if name in spec.hidden}


def _by_stakeholder(
    row: DecisionRow, told: ToldOutcome | None, spec: UtilitySpec, *, later: Mapping[str, float]
) -> dict[str, float]:
    """Each stakeholder's own payoff; where the outcome is not known, of those alone for whom it makes no difference.

    `later`: what was measured of fields hidden when deciding; nobody is told apart while one of them is missing.
    """
    logged = {**orjson.loads(row.row), **later}
    if not set(spec.hidden) <= set(later):
        return {}
    columns = {name: np.array([float(logged[name])]) for name in spec.fields} or {"": np.zeros(1)}
    action = spec.actions.index(row.action)
    at = spec.outcomes.index(told.outcome) if told is not None and told.outcome in spec.outcomes else None
    found = {}
    for name, payoffs in spec.stakeholder_payoffs(columns).items():
        own = payoffs[0, action]
        if at is not None or np.ptp(own) == 0:
            found[name] = float(own[at or 0])
    return found
