"""Prices decided units whose payoffs read a field that nobody knew when deciding: with what was measured of it since.

A field under `hiddenWhenDeciding` comes with the outcome, as a measured amount of the same name. Only the payoff of the
action taken and the outcome that came is priced, so that an amount is asked for where that payoff reads it: an order
has one, a refusal has none. What lacks its outcome or its amount is unresolved, never zero.
Must never import: sqlalchemy, flows.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np
import orjson
from numpy.typing import NDArray

from policies.language.expression import ExpressionError
from policies.utility.utility import UtilityError, UtilitySpec
from services.store.evidence import DecidedUnit

Amounts = Mapping[str, Mapping[str, float]]
"""Measured values by name, by decision id."""

_ROUNDING = 1e-9


def price_measured(
    units: Sequence[DecidedUnit], utility: UtilitySpec, amounts: Amounts
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """What each unit earned, whether that needs an outcome or an amount, and whether it is unresolved; each (n,).

    Raises UtilityError where a payoff leaves its declared range.
    """
    actions = {name: index for index, name in enumerate(utility.actions)}
    outcomes = {name: index for index, name in enumerate(utility.outcomes)}
    earned = np.zeros(len(units))
    needed, unresolved = np.ones(len(units), dtype=bool), np.ones(len(units), dtype=bool)
    cells: dict[tuple[int, int], list[tuple[int, Mapping[str, object]]]] = defaultdict(list)
    for at, unit in enumerate(units):
        if unit.action not in actions:
            continue
        action = actions[unit.action]
        is_free = _is_outcome_free(utility, action)
        outcome = 0 if is_free else outcomes.get(unit.outcome or "", -1)
        if outcome < 0:
            continue
        row = {**orjson.loads(unit.row), **{name: None for name in utility.hidden}}
        row.update(amounts.get(unit.decision_id, {}))
        fields = _fields(utility, action, outcome)
        needed[at] = not is_free or bool(fields & set(utility.hidden))
        if all(_is_number(row.get(name)) for name in fields):
            unresolved[at] = False
            cells[action, outcome].append((at, row))
    for (action, outcome), found in cells.items():
        which = [at for at, _ in found]
        earned[which] = _payoffs(utility, action, outcome, [row for _, row in found])
    return earned, needed, unresolved


def _is_outcome_free(utility: UtilitySpec, action: int) -> bool:
    """Whether every stakeholder's payoff of the action is written alike for all outcomes."""
    return all(len({cell.text for cell in one.payoffs[action]}) == 1 for one in utility.stakeholders)


def _fields(utility: UtilitySpec, action: int, outcome: int) -> frozenset[str]:
    priced = (one for one in utility.stakeholders if one.weight)
    return frozenset().union(*(one.payoffs[action][outcome].fields for one in priced))


def _payoffs(
    utility: UtilitySpec, action: int, outcome: int, rows: Sequence[Mapping[str, object]]
) -> NDArray[np.float64]:
    """The weighted payoff (n,) of one action under one outcome."""
    columns = {
        name: np.array([row[name] for row in rows], dtype=np.float64)
        for name in _fields(utility, action, outcome)
    } or {"": np.zeros(len(rows))}
    total = np.zeros(len(rows))
    for one in utility.stakeholders:
        if one.weight:
            try:
                total += one.weight * one.payoffs[action][outcome].evaluate(columns)
            except ExpressionError as error:
                raise UtilityError(f"payoff of '{one.name}': {error}") from error
    low, high = utility.range
    if total.min() < low - _ROUNDING or total.max() > high + _ROUNDING:
        raise UtilityError(
            f"payoff {utility.actions[action]} x {utility.outcomes[outcome]} must be in [{low:g}, {high:g}] "
            f"{utility.unit}: {total.min():g} to {total.max():g}"
        )
    return total


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
