"""The rules a release could have decided by instead, on the same rows: what the alignment gap compares with.

Always one action; the plain Bayes rule of each row; Bayes with one action made dearer or cheaper; and, for two actions
and two outcomes, one constant threshold for everybody. The last two are families over one number, so they are also the
utility curves. Thresholds and shifts stand at quantiles of the rows' own scores. numpy only.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policies.operating_point import OperatingPoint
from policies.utility import UtilitySpec, expected_utility

CURVE_POINTS = 81

Floats = NDArray[np.float64]
Actions = NDArray[np.intp]


@dataclass(frozen=True)
class Rule:
    """One way to decide: `kind`, the number it turns on (NaN if none), and its actions (n,)."""

    name: str
    kind: Literal["in_force", "always", "bayes", "shifted", "threshold"]
    setting: float
    actions: Actions


def rules(
    payoffs: Floats, probabilities: Floats, *, utility: UtilitySpec, in_force: Actions
) -> tuple[Rule, ...]:
    """Every rule on payoffs (n, A, O) and probabilities (n, O); the one in force comes first."""
    plain = OperatingPoint((0.0,) * len(utility.actions), utility.default_index)
    nan = float("nan")
    found = [
        Rule("in force", "in_force", nan, in_force),
        Rule("best action of each row", "bayes", 0.0, plain.choose(payoffs, probabilities)),
    ]
    found += [
        Rule(f"always {name}", "always", nan, np.full(len(payoffs), index, dtype=np.intp))
        for index, name in enumerate(utility.actions)
    ]
    if payoffs.shape[1:] == (2, 2):
        found += _thresholds(probabilities[:, 1], utility)
    found += _shifts(payoffs, probabilities, utility)
    return tuple(found)


def _thresholds(score: Floats, utility: UtilitySpec) -> list[Rule]:
    quantiles = np.quantile(score, np.linspace(0.0, 1.0, CURVE_POINTS))
    grid = np.unique(np.append(np.ceil(quantiles * 1e6) / 1e6, 0.0))  # rounded up: the last one calls nobody
    action, outcome = utility.actions[1], utility.outcomes[1]
    return [
        Rule(f"{action} iff P({outcome}) > {t:.6f}", "threshold", float(t), (score > t).astype(np.intp))
        for t in grid
    ]


def _shifts(payoffs: Floats, probabilities: Floats, utility: UtilitySpec) -> list[Rule]:
    """Bayes with a shift on one action other than the default; the shift is in the spec's unit."""
    expected = expected_utility(payoffs, probabilities)
    found = []
    for index, name in enumerate(utility.actions):
        if index == utility.default_index:
            continue
        deficit = np.delete(expected, index, axis=1).max(axis=1) - expected[:, index]
        quantiles = np.quantile(deficit, np.linspace(0.0, 1.0, CURVE_POINTS // 2))
        grid = np.unique(np.append(np.floor(quantiles * 1e4) / 1e4, np.ceil(deficit.max() * 1e4 + 1) / 1e4))
        for shift in grid:
            point = OperatingPoint(
                tuple(float(shift) if i == index else 0.0 for i in range(len(utility.actions))),
                utility.default_index,
            )
            actions = point.choose(payoffs, probabilities)
            found.append(
                Rule(f"{name} shifted by {shift:+.4f} {utility.unit}", "shifted", float(shift), actions)
            )
    return found
