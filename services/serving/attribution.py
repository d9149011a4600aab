"""How much each feature of a row adds to a log-odds, against a baseline row that every release has.

The baseline has every number at the mean of the fitting rows and every category unknown: the zeros of the encoding,
which training keeps meaningful by dropping categories. Contributions add up to the row's log-odds less the baseline's
(completeness). A network alone gets integrated gradients, exactly: on the straight line between the two rows a ReLU
network is linear between kinks, the kinks are found layer by layer, and in each piece the gradient is integrated by
Gauss's rule (for two outcomes it is constant there). With a boosted peer there is no gradient: Shapley values over a
fixed sample of orders, each also taken backwards; they add up for any sample, and a row always gets the same numbers.
Source: Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017; Strumbelj, Kononenko, "Explaining
prediction models and individual predictions with feature contributions", KAIS 2014; pairs of orders: Mitchell, Cooper,
Frank, Holmes, "Sampling Permutations for Shapley Value Estimation", JMLR 2022.

numpy only: must never import torch (captum, the reference of the gradients, needs it; a test compares the two).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.training.calibration import Calibration
from services.training.forward import Architecture, Weights, forward
from services.training.preprocessing import Encoded, Preprocessing

Floats = NDArray[np.float64]
Layers = Sequence[tuple[Floats, Floats]]
Method = Literal["integrated_gradients", "sampled_shapley"]

_ORDER_PAIRS = 2  # an order and its reverse: one pair is exact where no three features interact
_ORDER_SEED = 0
_GAUSS_POINTS = 8  # a piece, with more than two outcomes; with two its gradient is constant


@dataclass(frozen=True)
class Attribution:
    """`contributions` (F,) to the log-odds, in the order of the preprocessing's `feature_names`; `at_row` and
    `at_baseline` are the log-odds that they lead to and start from, in nats."""

    method: Method
    contributions: Floats
    at_row: float
    at_baseline: float


@dataclass(frozen=True)
class Model:
    """The learned part of a release: what turns a row into calibrated log-odds."""

    preprocessing: Preprocessing
    architecture: Architecture
    weights: Weights
    calibration: Calibration

    @property
    def method(self) -> Method:
        """How this model's log-odds are attributed: trees have no gradient."""
        return "integrated_gradients" if self.architecture.trees is None else "sampled_shapley"

    def log_odds(self, encoded: Encoded, outcome: int) -> Floats:
        """Calibrated log-odds (n,) of `outcome` against all others."""
        logits = forward(self.architecture, self.weights, encoded).astype(np.float64)
        return _log_odds(self.calibration.slope * logits + np.asarray(self.calibration.bias), outcome)[0]

    def attribute(self, encoded: Encoded, outcome: int) -> Attribution:
        """What each feature of one row adds to the log-odds of `outcome`; `encoded` holds that row alone."""
        baseline = Encoded(np.zeros_like(encoded.numeric), np.zeros_like(encoded.categories))
        attribute = self._gradients if self.method == "integrated_gradients" else self._shapley
        return Attribution(
            method=self.method,
            contributions=attribute(encoded, baseline, outcome),
            at_row=float(self.log_odds(encoded, outcome)[0]),
            at_baseline=float(self.log_odds(baseline, outcome)[0]),
        )

    def _gradients(self, encoded: Encoded, baseline: Encoded, outcome: int) -> Floats:
        layers = [
            (
                self.weights[f"layer.{i}.weight"].astype(np.float64),
                self.weights[f"layer.{i}.bias"].astype(np.float64),
            )
            for i in range(len(self.architecture.widths) - 1)
        ]
        start, end = self._units(baseline), self._units(encoded)
        kinks = _kinks(layers, start, end - start)
        half = np.diff(kinks) / 2
        points = 1 if self.architecture.outcomes == 2 else _GAUSS_POINTS
        nodes, weights = np.polynomial.legendre.leggauss(points)
        at = (kinks[:-1] + half)[:, None] + half[:, None] * nodes
        share = (half[:, None] * weights).ravel()
        gradient = self._gradient(layers, start + at.reshape(-1, 1) * (end - start), outcome)
        owners = self._numeric_owners() + [
            len(self.preprocessing.numeric) + j
            for j, width in enumerate(self.architecture.embeddings)
            for _ in range(width)
        ]
        along = (end - start) * (share @ gradient)
        totals: Floats = np.zeros(len(self.preprocessing.feature_names))
        np.add.at(totals, owners, along)
        return totals

    def _gradient(self, layers: Layers, units: Floats, outcome: int) -> Floats:
        """The gradient (n, W) of the log-odds by the first layer's input `units` (n, W)."""
        is_on = []
        for weight, bias in layers[:-1]:
            units = np.maximum(units @ weight.T + bias, 0.0)
            is_on.append(units > 0.0)
        logits = units @ layers[-1][0].T + layers[-1][1]
        scaled = self.calibration.slope * logits + np.asarray(self.calibration.bias)
        gradient = self.calibration.slope * _log_odds(scaled, outcome)[1] @ layers[-1][0]
        for (weight, _), mask in zip(reversed(layers[:-1]), reversed(is_on), strict=True):
            gradient = (gradient * mask) @ weight
        return gradient

    def _shapley(self, encoded: Encoded, baseline: Encoded, outcome: int) -> Floats:
        count = len(self.preprocessing.feature_names)
        random = np.random.default_rng(_ORDER_SEED)
        orders = np.array([random.permutation(count) for _ in range(_ORDER_PAIRS)])
        orders = np.concatenate([orders, orders[:, ::-1]])
        place = np.argsort(orders, axis=1)
        known = (place[:, None, :] < np.arange(count + 1)[:, None]).reshape(-1, count)
        numbers = known[:, self._numeric_owners()]
        mixed = Encoded(
            np.where(numbers, encoded.numeric, baseline.numeric),
            np.where(known[:, len(self.preprocessing.numeric) :], encoded.categories, baseline.categories),
        )
        gains = np.diff(self.log_odds(mixed, outcome).reshape(len(orders), count + 1), axis=1)
        return np.asarray(np.take_along_axis(gains, place, axis=1).mean(axis=0))

    def _units(self, encoded: Encoded) -> Floats:
        embedded = [
            self.weights[f"embedding.{j}"][encoded.categories[0, j]]
            for j in range(encoded.categories.shape[1])
        ]
        return np.concatenate([encoded.numeric[0], *embedded]).astype(np.float64)

    def _numeric_owners(self) -> list[int]:
        """The feature that each numeric input belongs to: a number, and its indicator of missing where it has one."""
        return [i for i, one in enumerate(self.preprocessing.numeric) for _ in range(1 + one.indicator)]


def _log_odds(scaled: Floats, outcome: int) -> tuple[Floats, Floats]:
    """Log-odds (n,) of an outcome from calibrated logits (n, O), and their gradient (n, O)."""
    others = np.delete(scaled, outcome, axis=1)
    top = others.max(axis=1, keepdims=True)
    powers = np.exp(others - top)
    total = powers.sum(axis=1, keepdims=True)
    gradient = np.insert(-powers / total, outcome, 1.0, axis=1)
    return scaled[:, outcome] - (top + np.log(total))[:, 0], gradient


def _kinks(layers: Layers, start: Floats, way: Floats) -> Floats:
    """Where in [0, 1], ends included, a unit goes on or off on the line `start + t way`; linear in between."""
    at: NDArray[Any] = np.array([0.0, 1.0])
    for depth in range(len(layers) - 1):
        units = start + at[:, None] * way
        for i in range(depth + 1):
            before = units @ layers[i][0].T + layers[i][1]
            units = np.maximum(before, 0.0)
        piece, unit = np.nonzero(before[:-1] * before[1:] < 0.0)
        low, high = before[piece, unit], before[piece + 1, unit]
        at = np.unique(np.concatenate([at, at[piece] + low / (low - high) * np.diff(at)[piece]]))
    return at
