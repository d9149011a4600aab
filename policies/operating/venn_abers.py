"""Fits the interval of probabilities that calibration rows allow at each predicted probability (Venn-Abers).

At a score s, isotonic regression of the outcomes on the scores is fitted twice: with s added as a row on which the
outcome did not happen, and as one on which it did. The two fitted values at s are lower and upper: one of them is what
perfect calibration would say, without any assumption but exchangeable rows, so their distance is what the rows leave
open. The rows must not have trained the model whose scores they are.
Source: Vovk, Petej, Fedorova, "Large-scale probabilistic predictors with and without guarantees of validity", NeurIPS
2015 (the inductive form). Own implementation: a release holds plain numbers, served without scipy or pickle.
Must never import: anything but numpy, scipy and policies; no clock, no I/O.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from policies.operating.abstention import OutcomeBand

POINTS = 64
MOST_ROWS = 20_000
"""More rows make the fit slower and the interval hardly narrower: they are thinned evenly over their order."""


def fit_bands(probabilities: NDArray[np.float64], outcomes: NDArray[np.int64]) -> tuple[OutcomeBand, ...]:
    """One band per outcome, or the second's alone of two, from probabilities (n, O) and known outcomes (n,).

    Raises ValueError without rows.
    """
    chosen = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    return tuple(fit_band(probabilities[:, o], outcomes == o) for o in chosen)


def fit_band(scores: NDArray[np.float64], happened: NDArray[np.bool_]) -> OutcomeBand:
    """The band of one outcome from scores (n,) in [0, 1] and whether it happened (n,). Raises ValueError."""
    if not len(scores):
        raise ValueError("a Venn-Abers band needs one row at least")
    if len(scores) > MOST_ROWS:
        thinned = np.linspace(0, len(scores) - 1, MOST_ROWS).astype(np.intp)
        scores, happened = scores[thinned], happened[thinned]
    unique, place = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    rows: NDArray[np.float64] = np.bincount(place).astype(np.float64)
    events: NDArray[np.float64] = np.bincount(place, weights=happened).astype(np.float64)
    inner = np.quantile(unique, np.linspace(0, 1, POINTS), method="nearest")
    at = np.unique(np.concatenate([[0.0], inner, [1.0]]))
    lower = [_fitted(unique, rows, events, float(point), happens=0.0) for point in at]
    upper = [_fitted(unique, rows, events, float(point), happens=1.0) for point in at]
    return OutcomeBand(tuple(at.tolist()), tuple(lower), tuple(upper))


def _fitted(
    unique: NDArray[np.float64],
    rows: NDArray[np.float64],
    events: NDArray[np.float64],
    point: float,
    *,
    happens: float,
) -> float:
    """Isotonic regression at `point` after it was added as one more row."""
    place = int(np.searchsorted(unique, point))
    if place < len(unique) and unique[place] == point:
        rows, events = rows.copy(), events.copy()
        rows[place] += 1.0
        events[place] += happens
    else:
        rows, events = np.insert(rows, place, 1.0), np.insert(events, place, happens)
    return float(isotonic_regression(events / rows, weights=rows).x[place])
