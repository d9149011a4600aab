"""Calibration where it decides: do the rows close to their own threshold come out as predicted?

A model may be calibrated on average and wrong exactly where a small error turns the action. For two actions and two
outcomes: predicted against observed P(outcome 1), by distance from each row's threshold. For more: the predicted
advantage of the best action over the runner-up against the realised one, in the spec's unit. numpy only.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policies.operating.operating_point import threshold_of
from policies.utility.utility import expected_utility

NEAR_SHARE = 0.2
LEAST_NEAR_ROWS = 200
BINS = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NearThreshold:
    """Equally filled bins (b,) over the nearest rows, from below the threshold to above it.

    `margin` is the mean distance from the threshold, `error` the standard error of `observed`.
    """

    quantity: Literal["probability", "advantage"]
    margin: Floats
    predicted: Floats
    observed: Floats
    error: Floats
    rows: NDArray[np.int64]

    @property
    def gap(self) -> float:
        """Observed less predicted over all the near rows; positive: the model is too timid there."""
        return float(np.average(self.observed - self.predicted, weights=self.rows))

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe dict, for tables and plots."""
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in vars(self).items()}


def near_threshold(
    priced: Floats, probabilities: Floats, outcomes: NDArray[np.int64]
) -> NearThreshold | None:
    """Bins of the rows nearest to their threshold; None if no row has a threshold that a probability can reach.

    `priced` (n, A, O) are the payoffs under the operating point's prices.
    """
    if priced.shape[1:] == (2, 2):
        threshold = threshold_of(priced)
        reachable = (threshold > 0.0) & (threshold < 1.0)
        predicted = probabilities[reachable, 1]
        observed = (outcomes[reachable] == 1).astype(np.float64)
        return _binned("probability", predicted - threshold[reachable], predicted, observed)
    expected = expected_utility(priced, probabilities)
    order = np.argsort(-expected, axis=1, kind="stable")
    rows = np.arange(len(priced))
    predicted = expected[rows, order[:, 0]] - expected[rows, order[:, 1]]
    happened = priced[rows, :, outcomes]
    return _binned(
        "advantage", predicted, predicted, happened[rows, order[:, 0]] - happened[rows, order[:, 1]]
    )


def _binned(
    quantity: Literal["probability", "advantage"], margin: Floats, predicted: Floats, observed: Floats
) -> NearThreshold | None:
    count = min(len(margin), max(LEAST_NEAR_ROWS, round(NEAR_SHARE * len(margin))))
    if count < BINS:
        return None
    near = np.argpartition(np.abs(margin), count - 1)[:count]
    parts = np.array_split(near[np.argsort(margin[near], kind="stable")], BINS)
    return NearThreshold(
        quantity=quantity,
        margin=np.array([margin[p].mean() for p in parts]),
        predicted=np.array([predicted[p].mean() for p in parts]),
        observed=np.array([observed[p].mean() for p in parts]),
        error=np.array([observed[p].std() / np.sqrt(len(p)) for p in parts]),
        rows=np.array([len(p) for p in parts], dtype=np.int64),
    )
