"""F1 on a difference of rates, and tests with two sides, over many simulated runs.

Source: `mixture.EffectTest` with a `contrasts.RateContrast` of two arms, `gate_tests.TwoSidedProcess`. Must never
import: anything that does I/O; it draws no random numbers.
"""

from __future__ import annotations

import math

import numpy as np

from policies.sequential.contrasts import MIN_EVENTS, MIN_PER_ARM
from policies.sequential.mixture import EffectTest, rho_one_sided
from policies.what_if.guard import GuardedPath, Watched, log_e_of
from policies.what_if.paths import CountRuns, FloatArray, IntArray, RunSums, log_mean_exp

_SIZE = 4  # canary's events and trials, stable's events and trials
_PAIRS = [(i, j) for i in range(_SIZE) for j in range(i, _SIZE)]


class EffectPath:
    """`EffectTest` on canary's rate minus stable's, for many runs."""

    def __init__(self, test: EffectTest, runs: int) -> None:
        self.test = test
        self.sums = RunSums(_SIZE + len(_PAIRS) + 1, runs)
        self.score, self.information = np.zeros(runs), np.zeros(runs)

    def begin_stage(self) -> None:
        """Close the stratum."""
        score, information = self._moments(list(self.sums.held))
        self.score, self.information = self.score + score, self.information + information
        self.sums = RunSums(len(self.sums.held), len(self.score))

    def extend(self, rows: IntArray, counts: CountRuns, _: Watched) -> FloatArray:
        """Log E of the runs `rows` after each poll of a chunk, (rows, polls); F1 needs no guard."""
        x = (counts.canary_events, counts.canary_n, counts.stable_events, counts.stable_n)
        self.sums.begin(rows)
        steps = [*x, *(x[i] * x[j] for i, j in _PAIRS), (x[1] + x[3] > 0).astype(np.float64)]
        score, v = self._moments([self.sums.add(step) for step in steps])
        score, v = score + self.score[rows][:, None], v + self.information[rows][:, None]
        test, margin, some = self.test, self.test.null * v, v > 0
        rho, v = rho_one_sided(test.v_opt, test.alpha), np.where(some, v, 1.0)
        if test.side == "beyond":
            log_e = log_mean_exp([log_e_of(sign * score - margin, v, rho=rho) for sign in (1, -1)])
        else:
            s = {"above": score - margin, "below": margin - score, "within": margin - np.abs(score)}
            log_e = log_e_of(s[test.side], v, rho=rho)
        return np.where(some, log_e, 0.0)

    def _moments(self, sums: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Δ̂/Var̂ and 1/Var̂ of the stratum, 0 where it is not ready."""
        events, trials, blocks = sums[0:_SIZE:2], sums[1:_SIZE:2], sums[-1]
        ready = (trials[0] >= MIN_PER_ARM) & (trials[1] >= MIN_PER_ARM)
        n = [np.where(ready, one, 1.0) for one in trials]
        shrunk = [(e + 1) / (m + 2) for e, m in zip(events, n, strict=True)]
        expected = events[0]
        if self.test.side == "below" and self.test.null > 0:
            shrunk[0] = np.maximum(shrunk[0], np.minimum(shrunk[1] + self.test.null, 0.5))
            expected = np.maximum(events[0], n[0] * shrunk[0])
        ready &= (expected >= MIN_EVENTS) & (events[1] >= MIN_EVENTS)
        variance = sum(p * (1 - p) / (m + 2) for p, m in zip(shrunk, n, strict=True))
        g = (1 / n[0], -events[0] / n[0] ** 2, -1 / n[1], events[1] / n[1] ** 2)
        seen = np.zeros_like(blocks)
        for (i, j), product in zip(_PAIRS, sums[_SIZE:-1], strict=True):
            seen += (1 if i == j else 2) * g[i] * g[j] * product
        several = blocks > 1
        seen *= np.where(several, blocks / np.where(several, blocks - 1, 1.0), 0.0)
        variance = np.where(ready, np.maximum(variance, seen), 1.0)
        estimate = events[0] / n[0] - events[1] / n[1]
        return np.where(ready, estimate / variance, 0.0), np.where(ready, 1 / variance, 0.0)

    def settle(self, at: IntArray) -> None:
        """Of the chunk that was taken in last, keep each run's polls up to and with `at` (rows,)."""
        self.sums.settle(at)


class TwoSidedPath:
    """`TwoSidedProcess` for many runs. needs_both: the smaller E, else the mean."""

    def __init__(self, more: GuardedPath, fewer: GuardedPath, needs_both: bool) -> None:
        self.more, self.fewer, self.needs_both = more, fewer, needs_both

    def extend(self, rows: IntArray, counts: CountRuns, watched: Watched) -> FloatArray:
        """Log E of the runs `rows` after each poll of a chunk, (rows, polls)."""
        more, fewer = (side.extend(rows, counts, watched) for side in (self.more, self.fewer))
        if self.needs_both:
            return np.minimum(more, fewer)
        either: FloatArray = np.logaddexp(more, fewer) - math.log(2)
        return either

    def settle(self, at: IntArray) -> None:
        """Of the chunk that was taken in last, keep each run's polls up to and with `at` (rows,)."""
        self.more.settle(at)
        self.fewer.settle(at)
