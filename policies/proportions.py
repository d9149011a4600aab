"""F2, F3 and F6: e-processes for rates of events, all as mixtures of likelihood ratios, in log E.

F2 share test: of all events, how many fall to the canary, when a known share of the trials does (Lindon &
   Malek, NeurIPS 2022). One-sided against the rate ratio R0; or two-sided around 1 (sample ratio).
F3 two-by-two: the canary's rate against stable's of the same poll, so that what both arms share cancels
   (Turner, Ly, Grünwald, JSPI 2024). Tests rate ratio ≤ 1.
F6 one sample against an absolute bound, both sides: a Bernoulli likelihood-ratio mixture.
Each value of the mixture keeps one sum, so an update costs O(1). Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaln, xlog1py, xlogy

from policies.mixture import log_sum_exp

FloatArray = NDArray[np.float64]

WORSE = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
BETTER = (0.8, 0.67, 0.5, 0.33, 0.2, 0.1)
EITHER = (0.05, 0.2, 0.5, 0.67, 0.8, 0.9, 1.11, 1.25, 1.5, 2.0, 5.0, 20.0)
# Odds of the alternative as a multiple of the bound's odds, with weights. Below: most on "no event at all",
# so that zero events pass 1 / 2 / 5 % after about 300 / 150 / 60 observations.
_BELOW = ((0.0, 0.60), (0.03, 0.20), (0.1, 0.08), (0.25, 0.06), (0.5, 0.06))
_ABOVE = tuple((multiple, 1 / 8) for multiple in (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0))


@dataclass
class BoundTest:
    """F6. side "below": evidence against H0 "p ≥ bound"; side "above": against H0 "p ≤ bound"."""

    bound: float
    side: str
    events: int = 0
    n: int = 0

    def update(self, events: int, n: int) -> None:
        """Add one poll's events among n trials."""
        self.events += events
        self.n += n

    @property
    def log_e(self) -> float:
        """The evidence so far; exact from the two counts."""
        if self.n == 0:
            return 0.0
        grid = np.array(_BELOW if self.side == "below" else _ABOVE)
        odds = grid[:, 0] * self.bound / (1 - self.bound)
        p = odds / (1 + odds)
        misses = self.n - self.events
        under_null = xlogy(self.events, self.bound) + xlog1py(misses, -self.bound)
        ratios = xlogy(self.events, p) + xlog1py(misses, -p) - under_null
        return log_sum_exp(ratios + np.log(grid[:, 1]))

    def growth_per_trial(self) -> float:
        """Expected growth of log E per trial if the observed rate (one half event added) is the truth."""
        rate = (self.events + 0.5) / (self.n + 1)
        if self.events == 0 and self.side == "below":
            return -math.log1p(-self.bound)
        if (rate < self.bound) != (self.side == "below"):
            return 0.0
        return float(
            xlogy(rate, rate / self.bound) + xlog1py(1 - rate, -rate) - xlog1py(1 - rate, -self.bound)
        )

    def to_json(self) -> dict[str, object]:
        """The two counts."""
        return {"events": self.events, "n": self.n}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take the counts that `to_json` wrote."""
        self.events, self.n = int(str(obj["events"])), int(str(obj["n"]))


@dataclass
class ShareTest:
    """F2. Evidence that the ratio of rates is among `ratios`, not r0; w is the canary's share of trials.

    One-sided H0 "ratio ≤ r0" with all ratios above r0, "ratio ≥ r0" with all below, "ratio = r0" with both.
    """

    r0: float
    ratios: Sequence[float]
    logs: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Start at E = 1."""
        self.logs = np.zeros(len(self.ratios))

    def update(self, canary_events: int, stable_events: int, *, w: float) -> None:
        """Add one poll's events; a poll in which one arm had no trials says nothing."""
        if not 0 < w < 1:
            return
        r = np.asarray(self.ratios)
        odds = w / (1 - w)
        # ln[q(r)/q(r0)] and ln[(1−q(r))/(1−q(r0))] with q(r) = r·odds/(1 + r·odds)
        both = np.log1p(self.r0 * odds) - np.log1p(r * odds)
        self.logs += canary_events * (np.log(r / self.r0) + both) + stable_events * both

    @property
    def log_e(self) -> float:
        """The evidence so far: the mean over the ratios."""
        return log_sum_exp(self.logs) - math.log(len(self.logs))

    def to_json(self) -> dict[str, object]:
        """One sum per ratio."""
        return {"logs": self.logs.tolist()}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        self.logs = _stored_logs(obj, len(self.ratios))


@dataclass
class TwoByTwoTest:
    """F3. Evidence against H0 "canary's rate ≤ stable's"; stable's rate comes from earlier polls."""

    ratios: Sequence[float] = WORSE
    logs: FloatArray = field(init=False)
    stable_events: int = 0
    stable_n: int = 0

    def __post_init__(self) -> None:
        """Start at E = 1."""
        self.logs = np.zeros(len(self.ratios))

    def update(self, canary_events: int, canary_n: int, *, stable_events: int, stable_n: int) -> None:
        """Add one poll; the first only teaches stable's rate, as does one where an arm had no trials."""
        if self.stable_n and canary_n and stable_n:
            theta_s = (self.stable_events + 0.5) / (self.stable_n + 1)
            theta_c = np.minimum(theta_s * np.asarray(self.ratios), (1 + theta_s) / 2)
            theta_0 = (canary_n * theta_c + stable_n * theta_s) / (canary_n + stable_n)
            self.logs += (
                canary_events * np.log(theta_c / theta_0)
                + (canary_n - canary_events) * (np.log1p(-theta_c) - np.log1p(-theta_0))
                + stable_events * np.log(theta_s / theta_0)
                + (stable_n - stable_events) * (np.log1p(-theta_s) - np.log1p(-theta_0))
            )
        self.stable_events += stable_events
        self.stable_n += stable_n

    @property
    def log_e(self) -> float:
        """The evidence so far: the mean over the ratios."""
        return log_sum_exp(self.logs) - math.log(len(self.logs))

    def to_json(self) -> dict[str, object]:
        """One sum per ratio, and what stable has shown."""
        return {"logs": self.logs.tolist(), "stable_events": self.stable_events, "stable_n": self.stable_n}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        self.logs = _stored_logs(obj, len(self.ratios))
        self.stable_events, self.stable_n = int(str(obj["stable_events"])), int(str(obj["stable_n"]))


def interval_of_rate(events: int, n: int, *, alpha: float) -> tuple[float, float] | None:
    """An exact confidence sequence of a rate: the Beta(½, ½) mixture, inverted. Source: Robbins 1970."""
    if n == 0:
        return None
    misses = n - events
    marginal = float(betaln(events + 0.5, misses + 0.5) - betaln(0.5, 0.5))
    limit = -math.log(alpha)

    def beyond(p: float) -> float:
        return marginal - float(xlogy(events, p) + xlog1py(misses, -p)) - limit

    rate, tiny = events / n, 1e-12
    low = 0.0 if events == 0 or beyond(tiny) <= 0 else float(brentq(beyond, tiny, rate))
    high = 1.0 if misses == 0 or beyond(1 - tiny) <= 0 else float(brentq(beyond, max(rate, tiny), 1 - tiny))
    return low, high


def _stored_logs(obj: Mapping[str, object], size: int) -> FloatArray:
    logs = obj["logs"]
    if not isinstance(logs, list) or len(logs) != size:
        raise ValueError(f"'logs' must be a list of {size} numbers: {logs!r}")
    return np.array(logs, dtype=np.float64)
