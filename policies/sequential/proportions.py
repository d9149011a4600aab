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

from scipy.optimize import brentq
from scipy.special import betaln, xlog1py, xlogy

from policies.sequential.evidence_blocks import stored_counts
from policies.sequential.mixture import log_sum_exp

WORSE = (1.3, 1.5, 1.8, 2.2, 3.0, 5.0, 10.0)
BETTER = (0.8, 0.67, 0.5, 0.33, 0.2, 0.1)
# How much of the mixture stands on each ratio. Large ratios grow fast enough to make up for a small weight; six
# even ratios find a rate of 1.5 times after 360 s where this one takes 290 (gates.md's canary, F2 at α .05).
WORSE_WEIGHTS = (0.10, 0.29, 0.24, 0.22, 0.06, 0.05, 0.04)
BETTER_WEIGHTS = (0.20, 0.40, 0.20, 0.10, 0.06, 0.04)
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

    def __post_init__(self) -> None:
        """ln weight, and the log ratio of one event and of one other, of each alternative."""
        grid = _BELOW if self.side == "below" else _ABOVE
        odds = [(multiple * self.bound / (1 - self.bound), weight) for multiple, weight in grid]
        self._grid = [
            (
                math.log(weight),
                math.log(one / (1 + one) / self.bound) if one > 0 else -math.inf,
                -math.log1p(one) - math.log1p(-self.bound),
            )
            for one, weight in odds
        ]

    def update(self, events: int, n: int) -> None:
        """Add one poll's events among n trials."""
        self.events += events
        self.n += n

    @property
    def log_e(self) -> float:
        """The evidence so far; exact from the two counts."""
        return self.log_e_at(1.0)

    def log_e_at(self, factor: float) -> float:
        """The evidence if there were `factor` times as much of what was seen."""
        if self.n == 0:
            return 0.0
        events, misses = factor * self.events, factor * (self.n - self.events)
        return log_sum_exp(
            [
                log_weight + _times(events, with_event) + _times(misses, without)
                for log_weight, with_event, without in self._grid
            ]
        )

    def to_json(self) -> dict[str, object]:
        """The two counts."""
        return {"events": self.events, "n": self.n}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take the counts that `to_json` wrote."""
        self.events, self.n = stored_counts(obj, "events", "n")


@dataclass
class ShareTest:
    """F2. Evidence that the ratio of rates is among `ratios`, not r0; w is the canary's share of trials.

    One-sided H0 "ratio ≤ r0" with all ratios above r0, "ratio ≥ r0" with all below, "ratio = r0" with both.
    weights: of the ratios in the mixture, of sum 1; None: equal.
    """

    r0: float
    ratios: Sequence[float]
    weights: Sequence[float] | None = None
    logs: list[float] = field(init=False)

    def __post_init__(self) -> None:
        """Start at E = 1."""
        self.logs = [0.0] * len(self.ratios)

    def update(self, canary_events: int, stable_events: int, *, w: float) -> None:
        """Add one poll's events; a poll in which one arm had no trials says nothing."""
        if not 0 < w < 1 or not (canary_events or stable_events):
            return
        odds = w / (1 - w)
        at_r0, events = math.log1p(self.r0 * odds), canary_events + stable_events
        for i, r in enumerate(self.ratios):
            # ln[q(r)/q(r0)] and ln[(1−q(r))/(1−q(r0))] with q(r) = r·odds/(1 + r·odds)
            self.logs[i] += canary_events * math.log(r / self.r0) + events * (at_r0 - math.log1p(r * odds))

    @property
    def log_e(self) -> float:
        """The evidence so far: the weighted mean over the ratios."""
        return self.log_e_at(1.0)

    def log_e_at(self, factor: float) -> float:
        """The evidence if there were `factor` times as much of what was seen."""
        return _mixed(self.logs, self.weights, factor)

    def to_json(self) -> dict[str, object]:
        """One sum per ratio."""
        return {"logs": list(self.logs)}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        self.logs = _stored_logs(obj, len(self.ratios))


@dataclass
class TwoByTwoTest:
    """F3. Evidence against H0 "canary's rate ≤ stable's"; stable's rate comes from earlier polls.

    With ratios below 1 the evidence is against H0 "canary's rate ≥ stable's".
    """

    ratios: Sequence[float] = WORSE
    weights: Sequence[float] | None = WORSE_WEIGHTS
    logs: list[float] = field(init=False)
    stable_events: int = 0
    stable_n: int = 0

    def __post_init__(self) -> None:
        """Start at E = 1."""
        self.logs = [0.0] * len(self.ratios)

    def update(self, canary_events: int, canary_n: int, *, stable_events: int, stable_n: int) -> None:
        """Add one poll; the first only teaches stable's rate, as does one where an arm had no trials."""
        if self.stable_n and canary_n and stable_n:
            s = (self.stable_events + 0.5) / (self.stable_n + 1)
            canary_misses, stable_misses = canary_n - canary_events, stable_n - stable_events
            for i, ratio in enumerate(self.ratios):
                c = min(s * ratio, (1 + s) / 2)
                null = (canary_n * c + stable_n * s) / (canary_n + stable_n)
                miss = math.log1p(-null)
                self.logs[i] += (
                    canary_events * math.log(c / null)
                    + canary_misses * (math.log1p(-c) - miss)
                    + stable_events * math.log(s / null)
                    + stable_misses * (math.log1p(-s) - miss)
                )
        self.stable_events += stable_events
        self.stable_n += stable_n

    @property
    def log_e(self) -> float:
        """The evidence so far: the weighted mean over the ratios."""
        return self.log_e_at(1.0)

    def log_e_at(self, factor: float) -> float:
        """The evidence if there were `factor` times as much of what was seen."""
        return _mixed(self.logs, self.weights, factor)

    def to_json(self) -> dict[str, object]:
        """One sum per ratio, and what stable has shown."""
        return {"logs": list(self.logs), "stable_events": self.stable_events, "stable_n": self.stable_n}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        self.logs = _stored_logs(obj, len(self.ratios))
        self.stable_events, self.stable_n = stored_counts(obj, "stable_events", "stable_n")


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


def interval_of_ratio(
    canary_events: int, canary_n: int, *, stable_events: int, stable_n: int, alpha: float
) -> tuple[float, float] | None:
    """A confidence sequence of the ratio of two rates: F2 inverted over R0, at one weight; None while it is open above.

    Given an event, it is the canary's with probability q = R·w/(R·w+1−w), so the sequence of q, from the Beta(½, ½)
    mixture, is turned into one of R. Source: Lindon & Malek, NeurIPS 2022, section 4.
    """
    events = canary_events + stable_events
    shares = interval_of_rate(canary_events, events, alpha=alpha) if canary_n and stable_n else None
    if shares is None or shares[1] > 1 - 1e-9:
        return None
    low, high = (q / (1 - q) * stable_n / canary_n for q in shares)
    return low, high


def _mixed(logs: Sequence[float], weights: Sequence[float] | None, factor: float) -> float:
    """ln Σ weight·exp(factor·log)."""
    if weights is None:
        return log_sum_exp([factor * log for log in logs]) - math.log(len(logs))
    return log_sum_exp([factor * log + math.log(weight) for log, weight in zip(logs, weights, strict=True)])


def _times(count: float, log: float) -> float:
    """count·log, with 0·−inf = 0."""
    return count * log if count else 0.0


def _stored_logs(obj: Mapping[str, object], size: int) -> list[float]:
    logs = obj["logs"]
    if not isinstance(logs, list) or len(logs) != size or not all(math.isfinite(float(log)) for log in logs):
        raise ValueError(f"'logs' must be a list of {size} finite numbers: {logs!r}")
    return [float(log) for log in logs]
