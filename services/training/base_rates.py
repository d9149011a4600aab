"""Estimates how often each outcome comes now, from what a release makes of rows whose outcomes nobody has seen yet.

Under a pure shift of the base rates (each outcome's rows look as they did, only their shares have changed) the rates
that explain the release's own probabilities best are found by expectation maximisation: the likelihood of a mixture
with known parts is concave in its shares. Where the rows of an outcome themselves have changed, the estimate is wrong
and nothing here can tell: outcomes must, before users depend on it.
Source: Saerens, Latinne, Decaestecker, "Adjusting the Outputs of a Classifier to New a Priori Probabilities", Neural
Computation 14, 2002, section 2.2; the same as maximum likelihood: Peters, Coberly 1976.

numpy only: must never import torch.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.training.errors import TrainingError

Floats: TypeAlias = NDArray[np.float64]

LEAST_ROWS = 200
_PRIOR_ROWS = 0.1  # a pull towards the old rates, in rows: no outcome is ever given up
_STEPS = 20_000
_SMALL = 1e-9


@dataclass(frozen=True)
class BaseRates:
    """Shares of the outcomes (O,) and the standard error of each: that of chance alone, the shift taken for granted."""

    rates: tuple[float, ...]
    errors: tuple[float, ...]


def shifted_base_rates(probabilities: NDArray[np.floating[Any]], before: tuple[float, ...]) -> BaseRates:
    """The base rates under which `probabilities` (n, O), calibrated where the rates were `before` (O,), came about.

    Raises TrainingError for fewer than 200 rows, or rates that are not positive and sum to 1.
    """
    chances, old = np.asarray(probabilities, dtype=np.float64), np.asarray(before, dtype=np.float64)
    if chances.ndim != 2 or old.shape != chances.shape[1:]:
        raise TrainingError(f"probabilities (n, O) and rates (O,) must agree: {chances.shape}, {old.shape}")
    if len(chances) < LEAST_ROWS:
        raise TrainingError(f"base rates need at least {LEAST_ROWS} rows: {len(chances)}")
    if not ((old > 0).all() and abs(old.sum() - 1.0) <= 1e-6):
        raise TrainingError(f"base rates must be above 0 and sum to 1: {old.tolist()}")
    likelihoods = chances / old  # of each row under each outcome, but for a factor of the row
    rates = old
    for _ in range(_STEPS):
        belongs = likelihoods * rates
        belongs /= belongs.sum(axis=1, keepdims=True)
        new = (belongs.sum(axis=0) + _PRIOR_ROWS * old) / (len(chances) + _PRIOR_ROWS)
        moved = float(np.abs(new - rates).max())
        rates = new
        if moved < _SMALL:
            break
    return BaseRates(tuple(rates.tolist()), tuple(_errors(likelihoods, rates).tolist()))


def _errors(likelihoods: Floats, rates: Floats) -> Floats:
    """By the observed information of the shares but the first, which is one less the others."""
    slopes = (likelihoods[:, 1:] - likelihoods[:, :1]) / (likelihoods @ rates)[:, None]
    covariance = np.linalg.pinv(slopes.T @ slopes)
    own = np.clip(np.diag(covariance), 0.0, None)
    return np.asarray(np.sqrt(np.concatenate([[max(float(covariance.sum()), 0.0)], own])))
