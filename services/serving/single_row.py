"""Decides one row as the Scorer does, to the last bit, in plain numbers: for a single row, arrays are what costs.

Most requests hold one row, and nearly all of numpy's time for one row is the calling. So what is not the network is
done here on Python's floats, which round as numpy's do; what would round otherwise (exp, log) stays numpy's. The
Scorer is the reference: `agrees` compares every number with it, and a release of which one differs does without.
Only the usual rule is here: two outcomes, no prices of stakeholders or groups, no abstention, no predicted fields.
Must never import bentoml or torch.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.serving.scorer import Decisions, Scorer
from services.training.forward import forward

Row = Mapping[str, Any]
_FAULTS = (
    ArithmeticError,
    KeyError,
    TypeError,
    ValueError,
)  # of a row: the Scorer says what is wrong with it


class SingleRow:
    """The rule of one release for one row at a time; make it with `of`."""

    def __init__(self, scorer: Scorer) -> None:
        utility, point = scorer.utility, scorer.operating_point
        actions, outcomes = range(len(utility.actions)), range(len(utility.outcomes))
        self._scorer = scorer
        self._low, self._high = utility.range
        self._default = point.default_action
        self._payoffs = [[_payoff(scorer, a, o) for o in outcomes] for a in actions]
        self._shift = point.shift
        self._prices = point.prices or [[0.0, 0.0] for _ in actions]
        self._is_priced = point.is_priced

    @classmethod
    def of(cls, scorer: Scorer) -> "SingleRow | None":
        """The rule of a release; None where it is not of the usual kind."""
        point = scorer.operating_point
        unusual = (
            point.stakeholder_prices or point.group_prices or point.abstention or scorer.predicted_fields
        )
        if unusual or len(scorer.utility.outcomes) != 2:
            return None
        return cls(scorer)

    def decide(self, row: Row) -> Decisions | None:
        """The decision on a row that keeps the contract, arrays with n = 1; None where the Scorer has to be asked."""
        scorer = self._scorer
        try:
            encoded = scorer.preprocessing.encode_row(row)
            payoffs = [(if0(row), if1(row)) for if0, if1 in self._payoffs]
        except _FAULTS:
            return None
        p0, p1 = self._probabilities(forward(scorer.architecture, scorer.weights, encoded))
        low, high = self._low, self._high
        if not (p0 >= 0 and p1 >= 0 and abs(p0 + p1 - 1) <= 1e-5):
            return None
        if not all(low <= if0 <= high and low <= if1 <= high for if0, if1 in payoffs):
            return None
        expected = best = [p0 * if0 + p1 * if1 for if0, if1 in payoffs]
        if self._is_priced:
            payoffs = [
                (if0 + shift + price0, if1 + shift + price1)
                for (if0, if1), shift, (price0, price1) in zip(
                    payoffs, self._shift, self._prices, strict=True
                )
            ]
            best = [p0 * if0 + p1 * if1 for if0, if1 in payoffs]
        action = max(range(len(best)), key=lambda a: (best[a], a == self._default, -a))
        first, second = sorted(best, reverse=True)[:2]
        threshold = _threshold(*payoffs) if len(payoffs) == 2 else None
        return Decisions(
            actions=np.array([action], dtype=np.intp),
            probabilities=np.array([[p0, p1]]),
            expected_utility=np.array([expected]),
            scores=np.array([p1]),
            thresholds=None if threshold is None else np.array([threshold]),
            lead=np.array([first - second]),
            predicted={},
        )

    def _probabilities(self, logits: NDArray[np.float32]) -> tuple[float, float]:
        """As the calibration's `apply`, for logits (1, 2)."""
        slope, (bias0, bias1) = self._scorer.calibration.slope, self._scorer.calibration.bias
        logit0, logit1 = logits[0].tolist()
        apart = (slope * logit1 + bias1) - (slope * logit0 + bias0)
        less = float(np.exp(-abs(apart)))  # the greater of the two powers is 1
        power0, power1 = (1.0, less) if apart <= 0 else (less, 1.0)
        return power0 / (power0 + power1), power1 / (power0 + power1)

    def agrees(self, row: Row, columns: Mapping[str, NDArray[Any]]) -> bool:
        """Whether every number is the Scorer's for a row that is also given as columns (1,). Raises: ScorerError."""
        mine, reference = self.decide(row), self._scorer.decide(columns)
        return mine is None or all(
            _is_same(getattr(mine, one.name), getattr(reference, one.name)) for one in fields(Decisions)
        )


def _payoff(scorer: Scorer, action: int, outcome: int) -> Callable[[Row], float]:
    """The weighted payoff as a function of the row; a number that is the same for every row is worked out now."""
    cells = [(s.weight, s.payoffs[action][outcome]) for s in scorer.utility.stakeholders if s.weight]

    def payoff(row: Row) -> float:
        total = 0.0
        for weight, cell in cells:
            total += weight * cell.of_row(row)
        return total

    if any(cell.fields for _, cell in cells):
        return payoff
    fixed = payoff({})
    return lambda row: fixed


def _threshold(first: tuple[float, float], second: tuple[float, float]) -> float | None:
    """As policies.operating.operating_point.threshold_of; None where action 1 gains less under outcome 1."""
    if0, if1 = second[0] - first[0], second[1] - first[1]
    if if0 > 0 and if1 <= 0:
        return None
    if max(if0, if1) <= 0:
        return math.inf
    return -if0 / (if1 - if0) if if0 <= 0 else -math.inf


def _is_same(mine: object, reference: object) -> bool:
    if mine is None or reference is None or isinstance(mine, Mapping):
        return mine == reference
    return np.array_equal(np.asarray(mine), np.asarray(reference))
