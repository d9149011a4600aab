"""Effects for F1 from O(1) sums: differences of rates, of group gaps, and of ratio metrics between the arms.

The variance is the larger of two: what single trials would give (binomial), and what the polls' own contributions
show (Σ of squares of g·x over the polls' counts x, with g the gradient: the delta method). The second is larger
where events come in bursts, and then one poll counts as one observation.
Source: Deng, Knoblich, Lu, KDD 2018 (delta method for ratio metrics); gates.md, "Which test for which gate".
Must never import: anything that draws random numbers or does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from policies.sequential.evidence_blocks import stored_count

FloatArray = NDArray[np.float64]

MIN_PER_ARM = 100
MIN_EVENTS = 10


@dataclass
class RateContrast:
    """Σ sign·rate over samples of counts: signs (1, −1) for a difference, (1, −1, −1, 1) for one of two gaps.

    Ready from 100 trials and 10 events in every sample. For evidence of "less than `at_least`" the first rate is
    taken at least that far above the second, in the events it must have had and in the variance: a canary without
    any error shows much, and its observed variance of zero would show too much.
    """

    signs: tuple[int, ...]
    totals: FloatArray = field(init=False)
    products: FloatArray = field(init=False)
    blocks: int = 0

    def __post_init__(self) -> None:
        """Nothing seen yet."""
        self.clear()

    def clear(self) -> None:
        """Start a new stratum."""
        size = 2 * len(self.signs)
        self.totals, self.products, self.blocks = np.zeros(size), np.zeros((size, size)), 0

    def update(self, *counts: int) -> None:
        """Add one poll: events and trials of each sample in turn."""
        x = np.array(counts, dtype=np.float64)
        self.totals += x
        self.products += x[:, None] * x
        self.blocks += 1

    def effect(self, *, at_least: float = 0.0) -> tuple[float, float] | None:
        """The contrast and its variance; None while a sample is too small."""
        totals = self.totals.tolist()
        events, trials = totals[::2], totals[1::2]
        if min(trials) < MIN_PER_ARM:
            return None
        gradient, estimate, variance = [], 0.0, 0.0
        shrunk = [(e + 1) / (n + 2) for e, n in zip(events, trials, strict=True)]
        if at_least > 0:
            shrunk[0] = max(shrunk[0], min(shrunk[1] + at_least, 0.5))
        for i, (sign, e, n) in enumerate(zip(self.signs, events, trials, strict=True)):
            expected = max(e, n * shrunk[0]) if i == 0 and at_least > 0 else e
            if expected < MIN_EVENTS:
                return None
            estimate += sign * e / n
            variance += shrunk[i] * (1 - shrunk[i]) / (n + 2)
            gradient += [sign / n, -sign * e / (n * n)]
        if self.blocks > 1:
            g = np.array(gradient)
            variance = max(variance, float(g @ self.products @ g) * self.blocks / (self.blocks - 1))
        return estimate, variance

    def to_json(self) -> dict[str, object]:
        """The sums."""
        return {
            "totals": self.totals.tolist(),
            "products": self.products.ravel().tolist(),
            "blocks": self.blocks,
        }

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take the sums that `to_json` wrote."""
        size = 2 * len(self.signs)
        self.totals = _stored(obj["totals"], size)
        self.products = _stored(obj["products"], size * size).reshape(size, size)
        self.blocks = stored_count(obj, "blocks")
        if not all(0 <= e <= n for e, n in zip(self.totals[::2], self.totals[1::2], strict=True)):
            raise ValueError(f"'totals' must have 0 <= events <= trials: {self.totals.tolist()}")


@dataclass
class RatioArm:
    """One arm of a ratio metric: n units, those with a denominator, and the sums of y, x, y², xy, x²."""

    n: int = 0
    denominators: int = 0
    moments: list[float] = field(default_factory=lambda: [0.0] * 5)

    @classmethod
    def of(cls, pairs: FloatArray) -> RatioArm:
        """The sums of units' (numerator y, denominator x), shape (n, 2)."""
        y, x = np.add.reduce(pairs).tolist()
        (yy, xy), (_, xx) = (pairs.T @ pairs).tolist()
        return cls(len(pairs), int(np.count_nonzero(pairs[:, 1])), [y, x, yy, xy, xx])

    def add(self, other: RatioArm) -> None:
        """Add what another has seen."""
        self.n += other.n
        self.denominators += other.denominators
        self.moments = [one + more for one, more in zip(self.moments, other.moments, strict=True)]

    def ratio(self) -> tuple[float, float] | None:
        """Σy/Σx and the variance of (y − R·x)/x̄ of one unit; None without a denominator."""
        y, x, yy, xy, xx = self.moments
        if self.n == 0 or x <= 0:
            return None
        ratio, mean_x = y / x, x / self.n
        spread = (yy - 2 * ratio * xy + ratio * ratio * xx) / self.n
        return ratio, max(spread, 0.0) / mean_x**2

    def to_json(self) -> list[float]:
        """The sums."""
        return [self.n, self.denominators, *self.moments]

    def restore(self, obj: object) -> None:
        """Take the sums that `to_json` wrote."""
        sums = _stored(obj, 7).tolist()
        self.n, self.denominators, self.moments = int(sums[0]), int(sums[1]), sums[2:]
        if not 0 <= self.denominators <= self.n:
            raise ValueError(f"units with a denominator must be in [0, {self.n}]: {self.denominators}")


@dataclass
class RatioContrast:
    """Canary's Σy/Σx minus stable's. Ready from 100 units and `MIN_DENOMINATORS` with a denominator in each arm.

    A unit of the canary is taken to vary at least as a unit of stable: a small arm that has not met a large payoff
    yet looks calmer than it is, and worse.
    """

    canary: RatioArm = field(default_factory=RatioArm)
    stable: RatioArm = field(default_factory=RatioArm)

    MIN_DENOMINATORS = 30

    def clear(self) -> None:
        """Start a new stratum."""
        self.canary, self.stable = RatioArm(), RatioArm()

    def update(self, canary: RatioArm, stable: RatioArm) -> None:
        """Add one poll's matured units of both arms."""
        self.canary.add(canary)
        self.stable.add(stable)

    def effect(self, *, at_least: float = 0.0) -> tuple[float, float] | None:
        """The difference of the ratios and its variance; None while an arm is too small."""
        arms = (self.canary, self.stable)
        if min(arm.n for arm in arms) < MIN_PER_ARM:
            return None
        if min(arm.denominators for arm in arms) < self.MIN_DENOMINATORS:
            return None
        canary, stable = self.canary.ratio(), self.stable.ratio()
        if canary is None or stable is None:
            return None
        variance = max(canary[1], stable[1]) / self.canary.n + stable[1] / self.stable.n
        return None if variance == 0 else (canary[0] - stable[0], variance)

    def to_json(self) -> dict[str, object]:
        """The sums."""
        return {"canary": self.canary.to_json(), "stable": self.stable.to_json()}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take the sums that `to_json` wrote."""
        self.canary.restore(obj["canary"])
        self.stable.restore(obj["stable"])


def _stored(obj: object, size: int) -> FloatArray:
    if not isinstance(obj, list) or len(obj) != size or not all(math.isfinite(float(one)) for one in obj):
        raise ValueError(f"must be a list of {size} numbers: {obj!r}")
    return np.array(obj, dtype=np.float64)
