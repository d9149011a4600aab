"""F4: betting on the mean of bounded, heavy-tailed differences; and how units of two arms become differences.

K = Π(1 ± λ_i·(X_i − m)) is an e-process whatever the distribution, if λ_i uses the past only and keeps every
factor positive. λ is aGRAPA's |μ̂−m|/(σ̂²+(μ̂−m)²), clipped to half of what is possible. μ̂ and σ̂² are shrunk
towards a planned alternative; that too is known beforehand, so validity is untouched, and few units do not
make wild bets.
Source: Waudby-Smith & Ramdas, JRSS B 2024, sections 4 and B.3. Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from policies.sequential.evidence_blocks import stored_count, stored_number

FloatArray = NDArray[np.float64]


class PayoffOutOfRange(ValueError):
    """A payoff that is not finite or lies outside the range that the utility spec promised."""


@dataclass
class BettingTest:
    """Evidence about the mean of differences in [−width, width].

    side "above": against H0 "mean ≤ null"; side "below": against H0 "mean ≥ null".
    planned: the mean difference to which bets are shrunk, with the weight of `planned_n` differences.
    """

    null: float
    side: str
    width: float
    planned: float
    planned_n: int = 200
    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    log_e: float = 0.0

    def update(self, differences: FloatArray) -> None:
        """Add differences (n,) in time order, in the metric's unit. Cost O(n), vectorised."""
        if len(differences) == 0:
            return
        sign = 1.0 if self.side == "above" else -1.0
        # Work with y = ±(x − null), so that H0 is "mean of y ≤ 0"; y ≥ −(width ± null).
        y = differences - self.null if sign > 0 else self.null - differences
        deepest = self.width + sign * self.null
        totals, squares = _running(self.total, y), _running(self.squares, y * y)
        planned = sign * (self.planned - self.null)
        # μ̂ over the second moment about 0, σ̂² + (μ̂−m)², started wide: a twentieth of the width, squared. Both have
        # the number of differences below the line, and the planned ones count as `planned_n` of them.
        mean = totals[:-1] + self.planned_n * planned
        second = squares[:-1] + self.planned_n * (planned**2 + (self.width / 20) ** 2)
        stake = np.minimum(np.maximum(mean / second, 0.0), 0.5 / deepest)
        self.log_e = float(_running(self.log_e, np.log1p(stake * y))[-1])
        self.n += len(y)
        self.total, self.squares = float(totals[-1]), float(squares[-1])

    def growth_per_difference(self) -> float:
        """Expected growth of log E per further difference if what was seen is the truth; never < 0."""
        if self.n == 0 or self.squares == 0:
            return 0.0
        mean, second = self.total / self.n, self.squares / self.n
        return 0.5 * mean * mean / second if mean > 0 else 0.0

    def log_e_at(self, factor: float) -> float:
        """About the evidence if there were `factor` times as much of what was seen."""
        return self.log_e + (factor - 1) * self.n * self.growth_per_difference()

    def begin_stage(self) -> None:
        """A difference is one at every weight: nothing to close."""

    def to_json(self) -> dict[str, object]:
        """The sums and log E; floats survive JSON exactly."""
        return {"n": self.n, "total": self.total, "squares": self.squares, "log_e": self.log_e}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        self.n = stored_count(obj, "n")
        self.total, self.squares = stored_number(obj, "total"), stored_number(obj, "squares", at_least=0.0)
        self.log_e = stored_number(obj, "log_e")


@dataclass
class Pairing:
    """Turns units of two arms into differences: one canary unit against the mean of k fresh stable units.

    k = (1−w)/w rounded; above a weight of 50 % k canary units against one stable unit. Left-over units wait, at
    most `MAX_GROUPS` groups of them; the oldest go first, whatever their payoff.
    """

    weight_pct: float
    canary: list[float] = field(default_factory=list)
    stable: list[float] = field(default_factory=list)

    MAX_GROUPS = 20

    @property
    def group_sizes(self) -> tuple[int, int]:
        """(canary units, stable units) in one difference."""
        w = self.weight_pct / 100
        if w <= 0.5:
            return 1, max(1, round((1 - w) / w))
        return max(1, round(w / (1 - w))), 1

    def pair(self, canary: FloatArray, stable: FloatArray) -> FloatArray:
        """Differences canary − stable (n,), in time order, from what waits and what is new."""
        k_canary, k_stable = self.group_sizes
        c = np.concatenate((self.canary, canary))
        s = np.concatenate((self.stable, stable))
        pairs = min(len(c) // k_canary, len(s) // k_stable)
        used_c, used_s = pairs * k_canary, pairs * k_stable
        self.canary = c[used_c:][-self.MAX_GROUPS * k_canary :].tolist()
        self.stable = s[used_s:][-self.MAX_GROUPS * k_stable :].tolist()
        differences: FloatArray = _means(c[:used_c], k_canary) - _means(s[:used_s], k_stable)
        return differences

    def to_json(self) -> dict[str, object]:
        """What waits."""
        return {"weight_pct": self.weight_pct, "canary": self.canary, "stable": self.stable}

    @classmethod
    def from_json(cls, obj: Mapping[str, object]) -> Pairing:
        """Read back what `to_json` wrote."""
        canary, stable = obj["canary"], obj["stable"]
        if not isinstance(canary, list) or not isinstance(stable, list):
            raise ValueError("'canary' and 'stable' must be lists")
        if not all(math.isfinite(float(x)) for x in (*canary, *stable)):
            raise ValueError("'canary' and 'stable' must be lists of finite payoffs")
        return cls(stored_number(obj, "weight_pct"), [float(x) for x in canary], [float(x) for x in stable])


def _means(units: FloatArray, size: int) -> FloatArray:
    """Means of groups of `size` units, in order."""
    return units if size == 1 else np.add.reduce(units.reshape(-1, size), axis=1) / size


def _running(start: float, steps: FloatArray) -> FloatArray:
    """start and the sums after each step, (n + 1,): added one by one, so the same in whatever chunks they come."""
    sums = np.empty(len(steps) + 1)
    sums[0], sums[1:] = start, steps
    return np.add.accumulate(sums, out=sums)


def check_payoffs(payoffs: FloatArray, low: float, high: float) -> None:
    """Raise PayoffOutOfRange unless every payoff is finite and within [low, high] (1e-9 of slack)."""
    if len(payoffs) == 0:
        return
    least, most = float(payoffs.min()), float(payoffs.max())  # NaN if there is one
    if not (math.isfinite(least) and math.isfinite(most)):
        raise PayoffOutOfRange("a payoff is not finite")
    if least < low - 1e-9 or most > high + 1e-9:
        worst = least if least < low - 1e-9 else most
        raise PayoffOutOfRange(f"payoffs must be in [{low:g}, {high:g}]: {worst:g}")
