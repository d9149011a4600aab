"""The gates' e-processes for many simulated runs at once: one row per run, one column per poll.

Each path mirrors one test of `policies.sequential.statistics` and takes its parameters from such a test, so that
there is one place where they stand; the same counts give the same log E (tests hold the two together). `extend`
looks ahead over a chunk of polls, `settle` then says up to which poll each run really got, and the path goes on
from there. Source: gates.md F2, F3, F6. Must never import: anything that does I/O; it draws no random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlog1py, xlogy

from policies.sequential.proportions import _ABOVE, _BELOW, BoundTest, ShareTest, TwoByTwoTest

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class CountRuns:
    """Counts of a chunk of polls, all (runs, polls): events and trials of both arms."""

    canary_events: FloatArray
    canary_n: FloatArray
    stable_events: FloatArray
    stable_n: FloatArray


class CountPath(Protocol):
    """What a path over counts can do. parts: the mixture's log ratios of the last chunk; weights: None for equal."""

    parts: list[FloatArray]
    weights: FloatArray | None

    def extend(self, rows: IntArray, counts: CountRuns) -> FloatArray:
        """Log E of the runs `rows` after each poll of a chunk, (rows, polls)."""

    def settle(self, at: IntArray) -> None:
        """Of the chunk that was taken in last, keep each run's polls up to and with `at` (rows,)."""


class RunSums:
    """Running sums, several per run, that can be cut at another poll for each run."""

    def __init__(self, sums: int, runs: int) -> None:
        self.held = np.zeros((sums, runs))
        self._rows: IntArray = np.arange(0)
        self._ahead: list[FloatArray] = []

    def begin(self, rows: IntArray) -> None:
        """A new chunk for these runs."""
        self._rows, self._ahead = rows, []

    def add(self, step: FloatArray) -> FloatArray:
        """The next sum's steps (rows, polls); returns the sum after each poll."""
        running: FloatArray = self.held[len(self._ahead)][self._rows][:, None] + np.cumsum(step, axis=1)
        self._ahead.append(running)
        return running

    def settle(self, at: IntArray) -> None:
        """Keep each run's sums as they were after poll `at`."""
        pick = np.arange(len(at))
        for row, running in enumerate(self._ahead):
            self.held[row][self._rows] = running[pick, at]
        self._ahead = []


class BoundPath:
    """F6 for many runs. Source: `BoundTest`."""

    def __init__(self, test: BoundTest, runs: int) -> None:
        self.bound, self.side = test.bound, test.side
        self.grid = np.array(_BELOW if self.side == "below" else _ABOVE)
        self.weights: FloatArray | None = self.grid[:, 1]
        self.parts: list[FloatArray] = []
        self.sums = RunSums(2, runs)
        self.settle = self.sums.settle

    def extend(self, rows: IntArray, counts: CountRuns) -> FloatArray:
        """As `CountPath`; only the canary's half counts."""
        self.sums.begin(rows)
        events, n = self.sums.add(counts.canary_events), self.sums.add(counts.canary_n)
        odds = self.grid[:, 0] * self.bound / (1 - self.bound)
        misses = n - events
        under_null = xlogy(events, self.bound) + xlog1py(misses, -self.bound)
        self.parts = [xlogy(events, p) + xlog1py(misses, -p) - under_null for p in odds / (1 + odds)]
        return log_mean_exp(self.parts, self.weights)


class SharePath:
    """F2 for many runs; the canary's share of trials is the poll's own. Source: `ShareTest`."""

    def __init__(self, test: ShareTest, runs: int) -> None:
        self.r0, self.ratios = test.r0, np.asarray(test.ratios)
        self.weights = None if test.weights is None else np.asarray(test.weights)
        self.parts: list[FloatArray] = []
        self.sums = RunSums(len(self.ratios), runs)
        self.settle = self.sums.settle

    def extend(self, rows: IntArray, counts: CountRuns) -> FloatArray:
        """As `CountPath`; a poll in which one arm had no trials says nothing."""
        speaks = (counts.canary_n > 0) & (counts.stable_n > 0)
        odds = np.divide(counts.canary_n, counts.stable_n, out=np.ones_like(counts.canary_n), where=speaks)
        canary, stable = (np.where(speaks, one, 0.0) for one in (counts.canary_events, counts.stable_events))
        return self._add(rows, canary, stable, odds)

    def extend_at(self, rows: IntArray, canary: FloatArray, stable: FloatArray, *, w: float) -> FloatArray:
        """Events (rows, polls) where the canary's share of trials is known: the sample ratio at its weight."""
        return self._add(rows, canary, stable, np.full(1, w / (1 - w)))

    def _add(self, rows: IntArray, canary: FloatArray, stable: FloatArray, odds: FloatArray) -> FloatArray:
        self.sums.begin(rows)
        at_null, both = np.log1p(self.r0 * odds), canary + stable
        self.parts = [
            self.sums.add(canary * np.log(r / self.r0) + both * (at_null - np.log1p(r * odds)))
            for r in self.ratios
        ]
        return log_mean_exp(self.parts, self.weights)


class TwoByTwoPath:
    """F3 for many runs. Source: `TwoByTwoTest`."""

    def __init__(self, test: TwoByTwoTest, runs: int) -> None:
        self.ratios = np.asarray(test.ratios)
        self.weights = None if test.weights is None else np.asarray(test.weights)
        self.parts: list[FloatArray] = []
        self.sums = RunSums(2 + len(self.ratios), runs)
        self.settle = self.sums.settle

    def extend(self, rows: IntArray, counts: CountRuns) -> FloatArray:
        """As `CountPath`; stable's rate comes from earlier polls."""
        self.sums.begin(rows)
        nc, ns, ec, es = counts.canary_n, counts.stable_n, counts.canary_events, counts.stable_events
        events, n = self.sums.add(es), self.sums.add(ns)
        speaks = (n - ns > 0) & (nc > 0) & (ns > 0)
        theta_s = (events - es + 0.5) / (n - ns + 1)
        share_c = np.divide(nc, nc + ns, out=np.full_like(nc, 0.5), where=nc + ns > 0)
        with_s, without_s = np.log(theta_s), np.log1p(-theta_s)
        self.parts = []
        for ratio in self.ratios:
            theta_c = np.minimum(theta_s * ratio, (1 + theta_s) / 2)
            theta_0 = theta_s + share_c * (theta_c - theta_s)
            with_0, without_0 = np.log(theta_0), np.log1p(-theta_0)
            step = ec * (np.log(theta_c) - with_0) + (nc - ec) * (np.log1p(-theta_c) - without_0)
            step += es * (with_s - with_0) + (ns - es) * (without_s - without_0)
            self.parts.append(self.sums.add(np.where(speaks, step, 0.0)))
        return log_mean_exp(self.parts, self.weights)


def log_mean_exp(parts: list[FloatArray], weights: FloatArray | None = None) -> FloatArray:
    """ln Σ weight·exp(part), entry by entry, without overflow; equal weights where none are given."""
    shares = np.full(len(parts), 1 / len(parts)) if weights is None else weights
    top = np.maximum.reduce(parts)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.zeros_like(top)
    for part, share in zip(parts, shares, strict=True):
        total += share * np.exp(part - top)
    with np.errstate(divide="ignore"):
        logs: FloatArray = top + np.log(total)
    return logs
