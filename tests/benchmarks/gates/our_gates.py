"""Our gates over the benchmark's counts: the rollback tests of policies/, alone and behind the dispersion guard."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from policies.sequential.dispersion import PollScoreTest
from policies.sequential.proportions import WORSE, WORSE_WEIGHTS, BoundTest, ShareTest, TwoByTwoTest
from policies.what_if.guard import DispersionPath, GuardedPath, Watched
from policies.what_if.paths import (
    BoundPath,
    CountPath,
    CountRuns,
    FloatArray,
    IntArray,
    SharePath,
    TwoByTwoPath,
)

Alarms = NDArray[np.bool_]
CountTest = BoundTest | ShareTest | TwoByTwoTest
ALPHA = 0.05


def share() -> ShareTest:
    """F2 against a ratio of 1, with the mixture that gates have."""
    return ShareTest(1.0, WORSE, WORSE_WEIGHTS)


def share_evenly() -> ShareTest:
    """F2 with gates.md's mixture: six ratios of one weight."""
    return ShareTest(1.0, (1.25, 1.5, 2.0, 3.0, 5.0, 10.0), (1 / 6,) * 6)


def _path(test: CountTest, runs: int) -> CountPath:
    if isinstance(test, BoundTest):
        return BoundPath(test, runs)
    return SharePath(test, runs) if isinstance(test, ShareTest) else TwoByTwoPath(test, runs)


def alone(make: Callable[[], CountTest]) -> Callable[[CountRuns], Alarms]:
    """The test without the guard."""

    def alarms(counts: CountRuns) -> Alarms:
        rows = np.arange(len(counts.canary_n))
        return _path(make(), len(rows)).extend(rows, counts) >= -math.log(ALPHA)

    return alarms


def guarded(make: Callable[[], CountTest]) -> Callable[[CountRuns], Alarms]:
    """The test as a gate runs it."""

    def alarms(counts: CountRuns) -> Alarms:
        rows, test = np.arange(len(counts.canary_n)), make()
        watched = DispersionPath(len(rows)).extend(rows, counts)
        path = GuardedPath(test, _path(test, len(rows)), PollScoreTest(1, ALPHA), len(rows))
        return path.extend(rows, counts, watched) >= -math.log(ALPHA)

    return alarms


class _Silent:
    """A path that holds nothing back, so that of the guard only F1 speaks."""

    def __init__(self) -> None:
        self.parts: list[FloatArray] = []
        self.weights: FloatArray | None = None

    def extend(self, rows: IntArray, counts: CountRuns) -> FloatArray:
        return np.full(counts.canary_n.shape, math.inf)

    def settle(self, at: IntArray) -> None:
        pass


def per_poll(counts: CountRuns) -> Alarms:
    """F1 on one score a poll, alone."""
    rows = np.arange(len(counts.canary_n))
    always = Watched(np.ones(counts.canary_n.shape, dtype=bool), np.ones(counts.canary_n.shape))
    path = GuardedPath(share(), _Silent(), PollScoreTest(1, ALPHA), len(rows))
    return path.extend(rows, counts, always) >= -math.log(ALPHA)
