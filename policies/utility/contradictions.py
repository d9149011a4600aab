"""Constraints that cannot be kept together whoever the customers are: found when the file is read, and named.

Whatever a rule does, its decisions are shares x[action, outcome] >= 0 that sum to 1. Rates, capacities, precisions and
means of constant payoffs bound linear functions of x, so a linear programme tells whether any decisions over any
population keep them all; constraints are then dropped one by one until only those that contradict each other are left
(an irreducible infeasible set: Chinneck, "Feasibility and Infeasibility in Optimization", 2008, ch. 6). Group gaps,
latency and payoffs that depend on the row are left out: they never make a set impossible by themselves. What is
impossible for the customers there are, only the rows can tell (policies/operating/point_search.py).
scipy is imported only where no trivial policy keeps every bound: a serving process should not pay for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from policies.language.yaml_source import Document, Issue
from policies.utility.constraint_file import (
    ActionRateConstraintFile,
    CapacityConstraintFile,
    ConstraintFile,
    PrecisionConstraintFile,
    RateAmongConstraintFile,
    StakeholderConstraintFile,
    UtilityConstraintFile,
)
from policies.utility.utility_mistakes import constant_payoff

if TYPE_CHECKING:
    from policies.utility.utility_file import UtilityFile

LEAST_PREVALENCE = 1e-3
"""An outcome that never comes keeps every bound on rates among it, so each must come at least this often."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class _Bound:
    """`coefficients` (A * O,) times the shares must be <= `limit`; `at` is the constraint's place in the file."""

    at: int
    coefficients: NDArray[np.float64]
    limit: float


def contradictions(file: UtilityFile, document: Document) -> tuple[Issue, ...]:
    """An issue at each constraint of a set that cannot be kept together, which names the others."""
    bounds = [bound for at in range(len(file.constraints)) if (bound := _bound(file, at)) is not None]
    if _a_trivial_policy_keeps(bounds, file) or _is_possible(bounds, file):
        return ()
    kept = list(bounds)
    for bound in bounds:
        without = [one for one in kept if one is not bound]
        if not _is_possible(without, file):
            kept = without
    return tuple(
        document.issue(("constraints", bound.at), _sentence(bound, kept, file, document)) for bound in kept
    )


def _sentence(bound: _Bound, kept: Sequence[_Bound], file: UtilityFile, document: Document) -> str:
    name = file.constraints[bound.at].name
    others = [
        f"'{file.constraints[one.at].name}' (line {document.position(('constraints', one.at))[0]})"
        for one in kept
        if one is not bound
    ]
    if not others:
        return f"'{name}' cannot be kept by any decisions over any customers"
    return f"'{name}' cannot be kept together with {' and '.join(others)}, whoever the customers are"


def _bound(file: UtilityFile, at: int) -> _Bound | None:
    """The constraint as a linear bound on the shares, or None where it is none."""
    one = file.constraints[at]
    shape = (len(file.actions), len(file.outcomes))
    if isinstance(one, UtilityConstraintFile | StakeholderConstraintFile):
        payoffs = _constant_payoffs(file, one)
        return None if payoffs is None else _Bound(at, -payoffs.ravel(), -one.at_least)
    linear = (
        ActionRateConstraintFile | CapacityConstraintFile | RateAmongConstraintFile | PrecisionConstraintFile
    )
    if not isinstance(one, linear):
        return None
    action = file.actions.index(one.action)
    part, whole = np.zeros(shape), np.ones(shape)
    part[action] = 1.0
    if isinstance(one, RateAmongConstraintFile):
        whole = np.zeros(shape)
        whole[:, file.outcomes.index(one.among)] = 1.0
        part = part * whole
    elif isinstance(one, PrecisionConstraintFile):
        whole = part
        part = np.zeros(shape)
        part[action, file.outcomes.index(one.outcome)] = 1.0
    at_most = getattr(one, "at_most", None)
    if at_most is not None:
        share = at_most / one.decisions if isinstance(one, CapacityConstraintFile) else at_most
        return _Bound(at, (part - share * whole).ravel(), 0.0)
    return _Bound(at, (getattr(one, "at_least", 0.0) * whole - part).ravel(), 0.0)


def _constant_payoffs(file: UtilityFile, one: ConstraintFile) -> NDArray[np.float64] | None:
    """Payoffs (A, O) of the stakeholder, or weighted over all; None where one depends on the row."""
    if isinstance(one, StakeholderConstraintFile):
        chosen = [(1.0, s) for s in file.stakeholders if s.name == one.stakeholder]
    else:
        chosen = [(s.weight, s) for s in file.stakeholders if s.weight]
    total = np.zeros((len(file.actions), len(file.outcomes)))
    for weight, stakeholder in chosen:
        cells = [
            [constant_payoff(stakeholder.payoffs[a][o], file) for o in file.outcomes] for a in file.actions
        ]
        if any(isinstance(cell, str) for row in cells for cell in row):
            return None
        total += weight * np.array(cells, dtype=np.float64)
    return total


def _a_trivial_policy_keeps(bounds: Sequence[_Bound], file: UtilityFile) -> bool:
    """Whether always taking one action, with all outcomes equally frequent, keeps every bound."""
    for action in range(len(file.actions)):
        shares = np.zeros((len(file.actions), len(file.outcomes)))
        shares[action] = 1 / len(file.outcomes)
        if all(bound.coefficients @ shares.ravel() <= bound.limit + _ROUNDING for bound in bounds):
            return True
    return False


def _is_possible(bounds: Sequence[_Bound], file: UtilityFile) -> bool:
    if not bounds:
        return True
    from scipy.optimize import linprog

    actions, outcomes = len(file.actions), len(file.outcomes)
    prevalence = -np.tile(np.eye(outcomes), (1, actions))  # each outcome's share, summed over the actions
    found = linprog(
        np.zeros(actions * outcomes),
        A_ub=np.vstack([prevalence, *(bound.coefficients for bound in bounds)]),
        b_ub=np.concatenate([np.full(outcomes, -LEAST_PREVALENCE), [bound.limit for bound in bounds]]),
        A_eq=np.ones((1, actions * outcomes)),
        b_eq=[1.0],
        method="highs",
    )
    return int(found.status) != 2  # 2: infeasible; anything else is no proof
