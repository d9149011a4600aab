"""The dispersion guard: F2, F3 and F6 take events as independent; where they come in bursts, a poll is the observation.

Stable is watched. While its polls vary as chance has it, the count test alone speaks. Three things hold it back:
 1 once stable has shown bursts, for the rest of the rollout: the count test and F1 on polls must both say so (the
   smaller log E). The smaller of two e-values is one under either's null, so the guard can only lower errors;
 2 the same for as long as stable looks half a standard error too bursty, shown or not;
 3 in stable's first polls nobody can know: evidence is tempered as if the variance were 3 times the binomial in the
   first poll and 1.5 times up to the sixth. E^(1/φ) of an e-value is one too (Jensen).
The rule: D = Σ(e−n·p̂)²/(n·p̂·(1−p̂)) over B polls has mean B−1 and, given the events, variance of at most 2(B−1); F1 on
D−(B−1) at level .10 from 3 polls and 10 events on. Measured over 180 polls of 0.5 to 100 events: a stable without
bursts is flagged in 8 to 11 %, doubled variance is found in 100 %, after 13 to 16 polls at the median.
Measured on gates.md's canary, α .05, false rollbacks of F2 alone → guarded, by variance over binomial: 1 3.0 → 2.5 %;
1.6 12 → 3.6; 2 18 → 3.5; 3 29 → 4.4; 5 44 → 5.6 (above α: bursts in the first two polls). Detection of a rate of
1.5 / 2 / 5 %: 320 / 100 / 20 s against 290 / 90 / 20 s unguarded (`make bench-gates`).
Source: Fisher 1950 (index of dispersion); gates.md semantics 6. Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from policies.sequential.evidence_blocks import stored_count, stored_counts, stored_number
from policies.sequential.mixture import log_e_one_sided, rho_one_sided

FLAG_ALPHA = 0.10
FLAG_V_OPT = 40.0
MIN_POLLS = 3
MIN_EVENTS = 10
SUSPICIOUS = 0.5
TEMPERING = ((2, 3.0), (6, 1.5))
"""(stable's polls fewer than this, what log E is divided by); the first that fits."""


@dataclass
class Dispersion:
    """How stable's events vary from poll to poll. Stages are strata: a rate that changes between them is no burst."""

    polls: int = 0
    events: int = 0
    trials: int = 0
    squares: float = 0.0
    """Σ e²/n of the stage."""
    excess: float = 0.0
    """Σ of D − (B−1) over earlier stages."""
    freedom: int = 0
    """Σ of B−1 over earlier stages."""
    seen: int = 0
    """Polls over all stages."""
    is_bursty: bool = False

    def begin_stage(self) -> None:
        """Close the stratum."""
        self.excess, self.freedom = self._totals()
        self.polls, self.events, self.trials, self.squares = 0, 0, 0, 0.0

    def update(self, events: int, trials: int) -> None:
        """Add stable's counts of one poll; without trials they say nothing."""
        if trials == 0:
            return
        self.polls += 1
        self.seen += 1
        self.events += events
        self.trials += trials
        self.squares += events * events / trials
        if not self.is_bursty and self._may_judge:
            excess, freedom = self._totals()
            rho = rho_one_sided(FLAG_V_OPT, FLAG_ALPHA)
            self.is_bursty = log_e_one_sided(excess, 2.0 * freedom, rho=rho) >= -math.log(FLAG_ALPHA)

    @property
    def _may_judge(self) -> bool:
        return self.seen >= MIN_POLLS and self.events >= MIN_EVENTS and self._totals()[1] > 0

    def _totals(self) -> tuple[float, int]:
        """D − (B−1) and B−1 over all strata."""
        rate = self.events / self.trials if self.trials else 0.0
        if self.polls < 2 or not 0 < rate < 1:
            return self.excess, self.freedom
        d = (self.squares - self.events * rate) / (rate * (1 - rate))
        return self.excess + d - (self.polls - 1), self.freedom + self.polls - 1

    @property
    def index(self) -> float | None:
        """Variance over the binomial one, 1 without bursts; None before there is any."""
        excess, freedom = self._totals()
        return None if freedom == 0 else 1 + excess / freedom

    @property
    def is_suspicious(self) -> bool:
        """Whether both tests must speak now."""
        if self.is_bursty:
            return True
        excess, freedom = self._totals()
        return self._may_judge and excess > SUSPICIOUS * math.sqrt(2.0 * freedom)

    @property
    def tempering(self) -> float:
        """What log E is divided by while stable's dispersion cannot be known; 1 where there is no stable to watch."""
        if self.seen == 0:
            return 1.0
        return next((factor for polls, factor in TEMPERING if self.seen < polls), 1.0)

    def to_json(self) -> dict[str, object]:
        """The sums and the flag."""
        return vars(self).copy()

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        self.events, self.trials = stored_counts(obj, "events", "trials")
        self.polls, self.seen = stored_counts(obj, "polls", "seen")
        self.freedom = stored_count(obj, "freedom")
        self.squares, self.excess = stored_number(obj, "squares", at_least=0.0), stored_number(obj, "excess")
        self.is_bursty = bool(obj["is_bursty"])


@dataclass
class PollScoreTest:
    """F1 on one score per poll, whose mean is 0 at the null; its variance is the larger of the binomial and the seen.

    sign 1: evidence that scores are above 0; −1: below. v_opt: the variance at which it is tightest. Silent before
    ten polls, or while the null expects fewer than ten events in either part.
    """

    sign: int
    alpha: float
    v_opt: float = 20.0
    polls: int = 0
    total: float = 0.0
    squares: float = 0.0
    binomial: float = 0.0
    expected: float = 0.0

    MIN_POLLS = 10
    MIN_EXPECTED = 10.0

    def add_share(self, canary_events: int, stable_events: int, *, r0: float, w: float) -> None:
        """Of the events, the canary's beyond those that a rate ratio of r0 gives it at a share w of the trials."""
        if not 0 < w < 1:
            return
        q, events = r0 * w / (r0 * w + 1 - w), canary_events + stable_events
        self._add(canary_events - q * events, events * q * (1 - q), min(q, 1 - q) * events)

    def add_bound(self, events: int, n: int, *, bound: float) -> None:
        """The canary's events beyond the bound's."""
        if n:
            self._add(events - n * bound, n * bound * (1 - bound), n * bound)

    def _add(self, score: float, binomial: float, expected: float) -> None:
        self.polls += 1
        self.total += score
        self.squares += score * score
        self.binomial += binomial
        self.expected += expected

    @property
    def log_e(self) -> float:
        """The evidence so far."""
        return self.log_e_at(1.0)

    def log_e_at(self, factor: float) -> float:
        """The evidence if there were `factor` times as much of what was seen."""
        if factor * self.polls < self.MIN_POLLS or factor * self.expected < self.MIN_EXPECTED:
            return 0.0
        polls = max(self.polls, 2)
        seen = (self.squares - self.total**2 / polls) * polls / (polls - 1)
        v = factor * max(self.binomial, seen)
        return log_e_one_sided(self.sign * factor * self.total, v, rho=rho_one_sided(self.v_opt, self.alpha))

    def to_json(self) -> dict[str, object]:
        """The sums."""
        names = ("polls", "total", "squares", "binomial", "expected")
        return {name: getattr(self, name) for name in names}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        self.polls, self.total = stored_count(obj, "polls"), stored_number(obj, "total")
        for name in ("squares", "binomial", "expected"):
            setattr(self, name, stored_number(obj, name, at_least=0.0))
