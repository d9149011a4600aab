"""Realised utility of decided units: row + action + outcome, priced by the one reference in policies.utility.utility.

A decision whose payoff needs an outcome that is not there (or is none of the spec's) is unresolved: never
zero.
Must never import: sqlalchemy, flows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import orjson
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec, outcome_free, realised_utility
from services.store.evidence import DecidedUnit
from services.telemetry.measured_payoffs import Amounts, price_measured


@dataclass(frozen=True)
class Realised:
    """Units in their order, each (n,): the arm, what it earned, whether it was acted on, and how complete that is.

    `needed`: the payoff needs an outcome, or row or action cannot be priced at all; `unresolved`: those of them
    without one.
    """

    is_canary: NDArray[np.bool_]
    earned: NDArray[np.float64]
    has_acted: NDArray[np.bool_]
    needed: NDArray[np.bool_]
    unresolved: NDArray[np.bool_]

    def arms(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values (n, …) of the resolved units: the canary's and stable's, each in time order."""
        return values[self.is_canary & ~self.unresolved], values[~self.is_canary & ~self.unresolved]

    def counts(self, mask: NDArray[np.bool_]) -> dict[str, int]:
        """How many units of each arm are in the mask (n,)."""
        canary = int((mask & self.is_canary).sum())
        return {"canary": canary, "stable": int(mask.sum()) - canary}


def realise(
    units: Sequence[DecidedUnit], utility: UtilitySpec, *, amounts: Amounts | None = None
) -> Realised:
    """Price the units; `amounts`: what was measured of fields hidden when deciding.

    Raises UtilityError where a payoff leaves its declared range.
    """
    earned, needed, unresolved = _price(units, utility, amounts)
    is_canary = np.array([unit.assigned == "canary" for unit in units], dtype=bool)
    has_acted = np.array([unit.action != utility.default_action for unit in units], dtype=bool)
    return Realised(is_canary, earned, has_acted, needed, unresolved)


def price_each(
    units: Sequence[DecidedUnit], utility: UtilitySpec, *, amounts: Amounts | None = None
) -> NDArray[np.float64]:
    """What each unit earned, (n,), NaN where it is unresolved. Raises UtilityError as `realise` does."""
    earned, _, unresolved = _price(units, utility, amounts)
    return np.where(unresolved, np.nan, earned)


def _price(
    units: Sequence[DecidedUnit], utility: UtilitySpec, amounts: Amounts | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """What each unit earned, whether it needs an outcome, and whether it is unresolved; each (n,)."""
    if utility.hidden:
        return price_measured(units, utility, amounts or {})
    actions = {name: index for index, name in enumerate(utility.actions)}
    outcomes = {name: index for index, name in enumerate(utility.outcomes)}
    rows = [orjson.loads(unit.row) for unit in units]
    values = [[_number(row.get(name)) for name in utility.fields] for row in rows]
    can_be_priced = np.array(
        [unit.action in actions and None not in value for unit, value in zip(units, values, strict=True)],
        bool,
    )
    kept = np.flatnonzero(can_be_priced)
    chosen = [units[row] for row in kept.tolist()]
    if not kept.size:
        return np.zeros(len(units)), ~can_be_priced, ~can_be_priced

    columns = {
        name: np.array([values[row][at] for row in kept], dtype=np.float64)
        for at, name in enumerate(utility.fields)
    }
    # A spec of constants reads no field, and still needs to know how many rows there are.
    columns = columns or {"": np.zeros(kept.size)}
    payoffs = utility.payoffs(columns)
    taken = np.array([actions[unit.action] for unit in chosen], dtype=np.intp)
    came = np.array([outcomes.get(unit.outcome or "", -1) for unit in chosen], dtype=np.intp)
    is_free = outcome_free(payoffs)[np.arange(kept.size), taken]
    is_resolved = is_free | (came >= 0)
    earned = np.zeros(len(units))
    earned[kept[is_resolved]] = realised_utility(payoffs[is_resolved], taken[is_resolved], came[is_resolved])
    needed = ~can_be_priced
    needed[kept[~is_free]] = True
    unresolved = ~can_be_priced
    unresolved[kept[~is_resolved]] = True
    return earned, needed, unresolved


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)
