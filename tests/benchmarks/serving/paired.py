"""Two kinds of load, burst by burst, in pairs: what a shared machine does to one it does to the other of its pair.

A second of load differs from the next by more than what is to be told apart here; two bursts some tenths of a
second apart do not. The interval is that of the median from order statistics, 95 % (Conover, "Practical Nonparametric
Statistics", 3.2); it assumes nothing of the distribution.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.stats import binom

Burst = Callable[[], float]  # a rate


@dataclass(frozen=True)
class Ratio:
    """The median over the pairs of one rate to the other, and its interval."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}], {self.pairs} pairs"


def measure(first: Burst, second: Burst, *, pairs: int, order: random.Random) -> Ratio:
    """`first`'s rate to `second`'s, over `pairs` pairs (6 at least), in random order within each."""
    found = []
    for _ in range(pairs):
        if order.random() < 0.5:
            rate = first()
            found.append(rate / second())
        else:
            rate = second()
            found.append(first() / rate)
    return of_median(found)


def of_median(ratios: Sequence[float]) -> Ratio:
    """The median of the ratios with its interval. Raises ValueError for fewer than 6: they have none of 95 %."""
    count = len(ratios)
    below = int(binom.ppf(0.025, count, 0.5)) - 1
    if below < 0:
        raise ValueError(f"'pairs' must be >= 6: {count}")
    ordered = sorted(ratios)
    return Ratio(statistics.median(ordered), ordered[below], ordered[count - 1 - below], count)
