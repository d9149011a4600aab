"""How sure a mean is: percentile bootstrap, many statistics on the same resamples at once.

Statistics that share rows (champion and challenger, a curve's points) share resamples, so a difference between them is
compared pair by pair, and two equal columns differ by exactly zero in every resample. Up to EXACT_ROWS rows each row is
drawn by itself; above, blocks of neighbouring rows are drawn, so that ten million rows cost what two thousand cost, and
rows that stand in time order keep what neighbours share.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13; blocks: Künsch, "The jackknife and the
bootstrap for general stationary observations", Annals of Statistics 17, 1989. numpy only; the seed is an argument.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.gates.evidence import Measured

RESAMPLES = 1000
LEVEL = 0.95
EXACT_ROWS = 50_000
BLOCKS = 2000
_CELLS_AT_ONCE = 4_000_000

Floats = NDArray[np.float64]


def block_starts(rows: int) -> NDArray[np.int64]:
    """Where each block of neighbouring rows starts, (B,): every row its own up to EXACT_ROWS, else BLOCKS of them."""
    blocks = rows if rows <= EXACT_ROWS else BLOCKS
    return np.arange(blocks, dtype=np.int64) * rows // blocks


def resampled_means(
    values: NDArray[Any],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    sizes: NDArray[np.int64] | None = None,
) -> Floats:
    """Column means of `values` (n, m) over `resamples` draws of n rows with replacement: (resamples, m).

    With `sizes` (n,), each of `values` is a sum over so many rows. Raises ValueError without rows.
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
        drawn_rows = rows if sizes is None else (times @ sizes)[:, None]
        means.append(times @ columns / drawn_rows)
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
    """Collects columns (n,), and sums per block (B,) of what has no column; then resamples once for all of them.

    The first column says how many rows there are, and with that `starts` (B,), where each block starts.
    """

    columns: dict[str, Floats] = field(default_factory=dict)
    sums: dict[str, Floats] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    resampled: dict[str, Floats] = field(default_factory=dict)
    n: int = 0
    starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def add(self, name: str, values: NDArray[Any]) -> None:
        """A column of one value per row."""
        self.columns[name] = np.asarray(values, dtype=np.float64)
        if not self.n:
            self.n, self.starts = len(values), block_starts(len(values))
        self.sums[name] = np.add.reduceat(self.columns[name], self.starts)

    def add_sums(self, name: str, sums: Floats) -> None:
        """Sums per block, of a rule of a family."""
        self.sums[name] = sums

    def run(self, *, seed: int, resamples: int) -> None:
        """Resample everything that was added."""
        stacked = np.column_stack(list(self.sums.values()))
        sizes = np.diff(np.append(self.starts, self.n))
        each = None if len(self.starts) == self.n else sizes
        means = resampled_means(stacked, seed=seed, resamples=resamples, sizes=each)
        self.means = dict(zip(self.sums, (stacked.sum(axis=0) / self.n).tolist(), strict=True))
        self.means |= {name: float(values.mean()) for name, values in self.columns.items()}
        self.resampled = {name: means[:, j] for j, name in enumerate(self.sums)}

    def mean(self, name: str) -> Measured:
        """Of one column or sum, with its interval."""
        return Measured(self.means[name], *interval(self.resampled[name]), self.n)

    def difference(self, name: str, other: str) -> Measured:
        """`name` less `other`, paired: on the very same rows."""
        sums = self.sums[name] - self.sums[other]
        if not sums.any():
            return Measured(0.0, 0.0, 0.0, self.n)  # not left to the rounding of a matrix product
        apart = interval(self.resampled[name] - self.resampled[other])
        return Measured(float(sums.sum() / self.n), *apart, self.n)
