"""The dispersion guard over many simulated runs, as `policies.sequential.dispersion` and `gate_tests.CountProcess`
have it.

Source: policies/sequential/dispersion.py. Must never import: anything that does I/O; it draws no random numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from policies.sequential.dispersion import (
    FLAG_ALPHA,
    FLAG_V_OPT,
    MIN_EVENTS,
    MIN_POLLS,
    SUSPICIOUS,
    TEMPERING,
    PollScoreTest,
)
from policies.sequential.mixture import rho_one_sided
from policies.sequential.proportions import BoundTest, ShareTest, TwoByTwoTest
from policies.what_if.paths import CountPath, CountRuns, FloatArray, IntArray, RunSums, log_mean_exp

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Watched:
    """What stable's polls say after each poll of a chunk, (rows, polls)."""

    is_suspicious: BoolArray
    tempering: FloatArray


class DispersionPath:
    """`Dispersion` for many runs."""

    def __init__(self, runs: int) -> None:
        self.sums = RunSums(4, runs)
        self.excess, self.freedom, self.seen = (np.zeros(runs) for _ in range(3))
        self.flagged = np.zeros(runs, dtype=bool)
        self._ahead: tuple[IntArray, BoolArray] = np.arange(0), np.zeros((0, 0), dtype=bool)

    def begin_stage(self) -> None:
        """Close the stratum."""
        excess, freedom = _index(*self.sums.held)
        self.excess, self.freedom = self.excess + excess, self.freedom + freedom
        self.seen += self.sums.held[0]
        self.sums = RunSums(4, len(self.seen))

    def extend(self, rows: IntArray, counts: CountRuns) -> Watched:
        """Take a chunk in for the runs `rows`."""
        self.sums.begin(rows)
        e, n = counts.stable_events, counts.stable_n
        has_stable = n > 0
        squares = np.divide(e * e, n, out=np.zeros_like(e), where=has_stable)
        sums = [self.sums.add(one) for one in (has_stable.astype(np.float64), e, n, squares)]
        excess, freedom = _index(*sums)
        excess, freedom = excess + self.excess[rows][:, None], freedom + self.freedom[rows][:, None]
        seen = sums[0] + self.seen[rows][:, None]
        may = (seen >= MIN_POLLS) & (sums[1] >= MIN_EVENTS) & (freedom > 0)
        v = np.where(may, 2 * freedom, 1.0)
        flag = may & has_stable
        flag &= log_e_of(excess, v, rho=rho_one_sided(FLAG_V_OPT, FLAG_ALPHA)) >= -math.log(FLAG_ALPHA)
        flag = self.flagged[rows][:, None] | np.logical_or.accumulate(flag, axis=1)
        self._ahead = rows, flag
        tempering = np.ones_like(seen)
        for polls, factor in TEMPERING:
            tempering = np.where((seen > 0) & (seen < polls) & (tempering == 1), factor, tempering)
        return Watched(flag | (may & (excess > SUSPICIOUS * np.sqrt(v))), tempering)

    def settle(self, at: IntArray) -> None:
        """Of the chunk that was taken in last, keep each run's polls up to and with `at` (rows,)."""
        rows, flag = self._ahead
        self.flagged[rows] = flag[np.arange(len(at)), at]
        self.sums.settle(at)


def _index(
    polls: FloatArray, events: FloatArray, trials: FloatArray, squares: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """D − (B−1) and B−1 of a stratum, 0 where there is nothing to compare."""
    rate = np.divide(events, trials, out=np.zeros_like(events), where=trials > 0)
    speaks = (polls >= 2) & (rate > 0) & (rate < 1)
    spread = np.where(speaks, rate * (1 - rate), 1.0)
    excess = np.where(speaks, (squares - events * rate) / spread - (polls - 1), 0.0)
    return excess, np.where(speaks, polls - 1, 0.0)


class GuardedPath:
    """`CountProcess` for many runs: a path over counts, and F1 on its polls' scores."""

    def __init__(
        self, test: BoundTest | ShareTest | TwoByTwoTest, path: CountPath, score: PollScoreTest, runs: int
    ) -> None:
        self.test, self.path, self.score = test, path, score
        self.sums = RunSums(5, runs)

    def extend(self, rows: IntArray, counts: CountRuns, watched: Watched) -> FloatArray:
        """Log E of the runs `rows` after each poll of a chunk, (rows, polls), guarded."""
        log_e = self.path.extend(rows, counts)
        scores = self._score_log_e(rows, counts)
        if (watched.tempering > 1).any():
            tempered = log_mean_exp([part / watched.tempering for part in self.path.parts], self.path.weights)
            log_e = np.where(watched.is_suspicious, log_e, np.minimum(log_e, tempered))
        return np.where(watched.is_suspicious, np.minimum(log_e, scores), log_e)

    def _score_log_e(self, rows: IntArray, counts: CountRuns) -> FloatArray:
        """As `PollScoreTest`."""
        canary, n, stable, stable_n = (
            counts.canary_events,
            counts.canary_n,
            counts.stable_events,
            counts.stable_n,
        )
        if isinstance(self.test, BoundTest):
            speaks, mean = n > 0, n * self.test.bound
            score, binomial, expected = canary - mean, mean * (1 - self.test.bound), mean
        else:
            r0 = self.test.r0 if isinstance(self.test, ShareTest) else 1.0
            speaks, events = (n > 0) & (stable_n > 0), canary + stable
            q = np.divide(r0 * n, r0 * n + stable_n, out=np.full_like(n, 0.5), where=speaks)
            score, binomial, expected = (
                canary - q * events,
                events * q * (1 - q),
                np.minimum(q, 1 - q) * events,
            )
        self.sums.begin(rows)
        steps = (np.ones_like(score), score, score * score, binomial, expected)
        polls, total, squares, chance, expected = (
            self.sums.add(np.where(speaks, step, 0.0)) for step in steps
        )
        counted = np.maximum(polls, 2)
        v = np.maximum(chance, (squares - total**2 / counted) * counted / (counted - 1))
        ready = (polls >= self.score.MIN_POLLS) & (expected >= self.score.MIN_EXPECTED)
        rho = rho_one_sided(self.score.v_opt, self.score.alpha)
        return np.where(ready, log_e_of(self.score.sign * total, np.where(ready, v, 1.0), rho=rho), 0.0)

    def settle(self, at: IntArray) -> None:
        """Of the chunk that was taken in last, keep each run's polls up to and with `at` (rows,)."""
        self.path.settle(at)
        self.sums.settle(at)


def log_e_of(s: FloatArray, v: FloatArray, *, rho: float) -> FloatArray:
    """F1, one-sided, entry by entry. Source: `mixture.log_e_one_sided`."""
    total = v + rho
    log_e: FloatArray = 0.5 * np.log(4 * rho / total) + s * s / (2 * total) + log_ndtr(s / np.sqrt(total))
    return log_e
