"""How sure a mean is: percentile bootstrap over rows, many statistics on the same resamples at once.

Statistics that share rows (champion and challenger, a curve's points) share resamples, so a difference between them is
compared pair by pair, and two equal columns differ by exactly zero in every resample.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13. numpy only; the seed is an argument.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.evidence import Measured

RESAMPLES = 1000
LEVEL = 0.95
_CELLS_AT_ONCE = 4_000_000

Floats = NDArray[np.float64]


def resampled_means(values: NDArray[Any], *, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Column means of `values` (n, m) over `resamples` draws of n rows with replacement: (resamples, m).

    Raises ValueError without rows.
    """
    columns = np.asarray(values, dtype=np.float64)
    if columns.ndim != 2 or not len(columns):
        raise ValueError(f"values must have shape (n, m) with n > 0: {columns.shape}")
    rows = len(columns)
    generator = np.random.default_rng(seed)
    at_once = max(1, min(resamples, _CELLS_AT_ONCE // rows))
    means = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = generator.integers(0, rows, size=(count, rows))
        drawn += np.arange(count)[:, None] * rows
        times = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)
        means.append(times @ columns / rows)
    return np.concatenate(means)


def interval(resampled: NDArray[Any], *, level: float = LEVEL) -> tuple[float, float]:
    """The central `level` of resampled values (r,)."""
    tail = (1.0 - level) / 2.0
    lower, upper = np.quantile(resampled, (tail, 1.0 - tail))
    return float(lower), float(upper)


def measured_mean(values: NDArray[Any], *, seed: int, resamples: int = RESAMPLES) -> Measured:
    """The mean of (n,) `values` with its 95 % interval. Raises ValueError without rows."""
    column = np.asarray(values, dtype=np.float64)
    lower, upper = interval(resampled_means(column[:, None], seed=seed, resamples=resamples)[:, 0])
    return Measured(float(column.mean()), lower, upper, len(column))


@dataclass
class PairedMeans:
    """Collects columns (n,), then resamples the rows once for all of them."""

    columns: dict[str, Floats] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    resampled: dict[str, Floats] = field(default_factory=dict)

    def add(self, name: str, values: NDArray[Any]) -> None:
        self.columns[name] = np.asarray(values, dtype=np.float64)

    def run(self, *, seed: int, resamples: int) -> None:
        stacked = np.column_stack(list(self.columns.values()))
        means = resampled_means(stacked, seed=seed, resamples=resamples)
        self.means = dict(zip(self.columns, stacked.mean(axis=0).tolist(), strict=True))
        self.resampled = {name: means[:, j] for j, name in enumerate(self.columns)}

    def mean(self, name: str) -> Measured:
        return Measured(self.means[name], *interval(self.resampled[name]), len(self.columns[name]))

    def difference(self, name: str, other: str) -> Measured:
        """`name` less `other`, paired: on the very same rows."""
        pairs = self.columns[name] - self.columns[other]
        if not pairs.any():
            return Measured(0.0, 0.0, 0.0, len(pairs))  # not left to the rounding of a matrix product
        return Measured(
            float(pairs.mean()), *interval(self.resampled[name] - self.resampled[other]), len(pairs)
        )
