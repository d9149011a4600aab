"""Where the evidence does not tell the best action: how much is at stake over the probabilities that it allows.

A band turns a calibrated probability of an outcome into an interval [lower, upper] that the calibration rows allow
(Venn-Abers: policies/operating/venn_abers.py fits it). Over all distributions inside the intervals, `stake` is the
most that another action could earn above the chosen one: at 0 or less, no doubt about the probabilities changes
the action. Abstain where the stake is above `least_stake`, which is set on validation rows so that the spec's
share is kept. Source: Vovk, Petej, "Venn-Abers predictors", UAI 2014 (the interval). Must never import: anything
but numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OutcomeBand:
    """At each of the rising probabilities `at`, 0 and 1 among them, the the interval that is allowed."""

    at: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def interval(self, probability: Floats) -> tuple[Floats, Floats]:
        """Lower and upper (n,) for probabilities (n,); between two points lower from below, upper from above."""
        at = np.asarray(self.at)
        below = np.searchsorted(at, probability, side="right") - 1
        above = np.searchsorted(at, probability, side="left")
        last = len(at) - 1
        lower = np.asarray(self.lower)[np.clip(below, 0, last)]
        upper = np.asarray(self.upper)[np.clip(above, 0, last)]
        return np.minimum(lower, probability), np.maximum(upper, probability)


@dataclass(frozen=True)
class AbstentionBand:
    """`action` (an index) is taken where the stake is above `least_stake`, in the spec's unit.

    `outcomes` holds one band per outcome, or, for two outcomes, the second's alone.
    """

    action: int
    least_stake: float
    outcomes: tuple[OutcomeBand, ...]

    def box(self, probabilities: NDArray[Any]) -> tuple[Floats, Floats]:
        """Lower and upper bounds (n, O) of the probabilities (n, O)."""
        p = np.asarray(probabilities, dtype=np.float64)
        if len(self.outcomes) == 1:
            low, high = self.outcomes[0].interval(p[:, 1])
            return np.column_stack([1 - high, low]), np.column_stack([1 - low, high])
        pairs = [band.interval(p[:, o]) for o, band in enumerate(self.outcomes)]
        return np.column_stack([low for low, _ in pairs]), np.column_stack([high for _, high in pairs])

    def stake(
        self,
        priced: Floats,
        probabilities: NDArray[Any],
        actions: NDArray[np.intp],
        *,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Floats:
        """The most (n,) that another action than the chosen one, the abstention's aside, could earn above it.

        allowed (A,): the actions that may be taken; None is all.
        """
        lower, upper = self.box(probabilities)
        chosen = priced[np.arange(len(priced)), actions]
        most = np.full(len(priced), -np.inf)
        for action in range(priced.shape[1]):
            if action != self.action and (allowed is None or allowed[action]):
                gain = greatest_mean(priced[:, action] - chosen, lower, upper)
                most = np.where(actions == action, most, np.maximum(most, gain))
        return most

    def to_json(self) -> dict[str, Any]:
        """A plain dict, JSON-safe."""
        bands = [{name: list(values) for name, values in vars(band).items()} for band in self.outcomes]
        return {"action": self.action, "least_stake": self.least_stake, "outcomes": bands}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AbstentionBand:
        """The inverse of to_json; raises KeyError or TypeError for anything else."""
        bands = tuple(
            OutcomeBand(tuple(band["at"]), tuple(band["lower"]), tuple(band["upper"]))
            for band in value["outcomes"]
        )
        return cls(int(value["action"]), float(value["least_stake"]), bands)


def greatest_mean(gains: Floats, lower: Floats, upper: Floats) -> Floats:
    """The greatest mean (n,) of `gains` (n, O) over the distributions within `lower` and `upper` (n, O).

    A fractional knapsack: every outcome gets its lower bound, and what is left of 1 goes to the best outcomes first.
    """
    order = np.argsort(-gains, axis=1, kind="stable")
    best = np.take_along_axis(gains, order, axis=1)
    room = np.take_along_axis(upper - lower, order, axis=1)
    left = np.maximum(1 - lower.sum(axis=1), 0)[:, None]
    before = np.cumsum(room, axis=1) - room
    added = np.clip(left - before, 0, room)
    return np.asarray((gains * lower).sum(axis=1) + (best * added).sum(axis=1))
