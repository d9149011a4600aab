"""F1: the normal mixture, one- and two-sided, and what is built on it: group gaps and displayed intervals.

log E = ½·ln(4ρ/(v+ρ)) + s²/(2(v+ρ)) + ln Φ(s/√(v+ρ)); the asymptotic use takes s = (Δ̂−δ)/Var̂, v = 1/Var̂.
Everything is a function of sums, so an update costs O(1) and the stored form is exact.
Source: Howard, Ramdas, McAuliffe, Sekhon, Annals of Statistics 2021, Prop. 5; Waudby-Smith et al.,
"Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024.
Must never import: anything that draws random numbers or does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr

MIN_PER_ARM = 100
MIN_EVENTS = 10


def log_sum_exp(logs: ArrayLike) -> float:
    """ln Σ exp(logs), without overflow; −inf for nothing but zeros. Shape (n,), n ≥ 1."""
    values = np.asarray(logs, dtype=np.float64)
    top = float(values.max())
    return top if top == -math.inf else top + math.log(float(np.exp(values - top).sum()))


def rho_one_sided(v_opt: float, alpha: float) -> float:
    """The mixture's precision that is tightest at intrinsic time v_opt, one-sided."""
    return rho_two_sided(v_opt, 2 * alpha)


def rho_two_sided(v_opt: float, alpha: float) -> float:
    """The mixture's precision that is tightest at intrinsic time v_opt, two-sided."""
    doubled = 2 * math.log(1 / alpha)
    return v_opt / (doubled + math.log1p(doubled))


def log_e_one_sided(s: float, v: float, *, rho: float) -> float:
    """log E against H0 "drift ≤ 0" of the sum s at intrinsic time v."""
    total = v + rho
    return 0.5 * math.log(4 * rho / total) + s * s / (2 * total) + float(log_ndtr(s / math.sqrt(total)))


def log_e_two_sided(s: float, v: float, *, rho: float) -> float:
    """log E against H0 "drift = 0" of the sum s at intrinsic time v."""
    return 0.5 * math.log(rho / (v + rho)) + s * s / (2 * (v + rho))


def bound_two_sided(v: float, *, rho: float, alpha: float) -> float:
    """The |s| that has log_e_two_sided equal to ln(1/alpha)."""
    return math.sqrt((v + rho) * math.log((v + rho) / (rho * alpha * alpha)))


def interval_of_mean(
    estimate: float, variance: float, *, v_opt: float, alpha: float
) -> tuple[float, float] | None:
    """An asymptotic confidence sequence for a mean whose estimate has this variance; None without variance."""
    if not (variance > 0 and math.isfinite(variance) and math.isfinite(estimate)):
        return None
    half = bound_two_sided(1 / variance, rho=rho_two_sided(v_opt, alpha), alpha=alpha) * variance
    return estimate - half, estimate + half


@dataclass
class GapTest:
    """F1 on the difference of two groups' rates against ±bound.

    side "within": evidence that |gap| < bound (both one-sided tests must say so: the smaller E).
    side "beyond": evidence that |gap| > bound (the mean of the two).
    Silent (log E = 0) under 100 observations or 10 events per group.
    """

    bound: float
    side: str
    alpha: float
    a_events: int = 0
    a_n: int = 0
    b_events: int = 0
    b_n: int = 0

    def update(self, a_events: int, a_n: int, *, b_events: int, b_n: int) -> None:
        """Add one poll's counts."""
        self.a_events += a_events
        self.a_n += a_n
        self.b_events += b_events
        self.b_n += b_n

    @property
    def is_ready(self) -> bool:
        """Whether the normal approximation may be used at all."""
        groups = ((self.a_events, self.a_n), (self.b_events, self.b_n))
        return all(n >= MIN_PER_ARM and events >= MIN_EVENTS for events, n in groups)

    @property
    def gap(self) -> float | None:
        """Rate of group a minus rate of group b."""
        if not (self.a_n and self.b_n):
            return None
        return self.a_events / self.a_n - self.b_events / self.b_n

    @property
    def variance(self) -> float:
        """Estimated variance of the gap; one event and one other added per group, so that it is never 0."""
        variance = 0.0
        for events, n in ((self.a_events, self.a_n), (self.b_events, self.b_n)):
            rate = (events + 1) / (n + 2)
            variance += rate * (1 - rate) / (n + 2)
        return variance

    @property
    def v_opt(self) -> float:
        """Intrinsic time at which to be tightest: where the standard error is a sixth of the bound."""
        return 36 / self.bound**2

    @property
    def log_e(self) -> float:
        """The evidence so far."""
        gap = self.gap
        if gap is None or not self.is_ready:
            return 0.0
        variance, rho = self.variance, rho_one_sided(self.v_opt, self.alpha)
        v = 1 / variance
        if self.side == "within":
            return min(log_e_one_sided((self.bound - sign * gap) / variance, v, rho=rho) for sign in (1, -1))
        both = [log_e_one_sided((sign * gap - self.bound) / variance, v, rho=rho) for sign in (1, -1)]
        return log_sum_exp(both) - math.log(2)

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """Confidence sequence of the gap, two-sided."""
        gap = self.gap
        if gap is None or not self.is_ready:
            return None
        return interval_of_mean(gap, self.variance, v_opt=self.v_opt, alpha=alpha)

    def to_json(self) -> dict[str, object]:
        """The sums."""
        return {"a_events": self.a_events, "a_n": self.a_n, "b_events": self.b_events, "b_n": self.b_n}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take the sums that `to_json` wrote."""
        self.a_events, self.a_n = int(str(obj["a_events"])), int(str(obj["a_n"]))
        self.b_events, self.b_n = int(str(obj["b_events"])), int(str(obj["b_n"]))
