"""One gate over many simulated runs: the three processes of `policies.gates.gate_evidence`, a chunk of polls at a time.

Tests and limits come from `gate_evidence.rollback_test`, `advance_test` and the policy's alpha, so a simulated gate
cannot be another gate than the one that will judge. Source: gates.md semantics 2, 3. Must never import: anything
that does I/O; it draws no random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from policies.gates.gate_tests import (
    CountProcess,
    CountTest,
    Test,
    TwoSidedTest,
    advance_test,
    guarded,
    kind_of,
    rollback_test,
)
from policies.rollout.rollout_policy import Gate
from policies.sequential.dispersion import Dispersion
from policies.sequential.mixture import EffectTest
from policies.sequential.statistics import BettingTest, BoundTest, ShareTest, TwoByTwoTest
from policies.what_if.effects import EffectPath, TwoSidedPath
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
from policies.what_if.payoffs import BettingPath, PollLibrary

BoolArray = NDArray[np.bool_]
Path = GuardedPath | TwoSidedPath | EffectPath | BettingPath


@dataclass(frozen=True, eq=False)
class PayoffRuns:
    """Utility of a chunk of polls: which of the library's polls each run drew (rows, polls), −1 where none has
    matured, and the canary's matured units of each poll."""

    library: PollLibrary
    drawn: IntArray
    canary_n: FloatArray


PollRuns = CountRuns | PayoffRuns


@dataclass(frozen=True, eq=False)
class Looks:
    """What one gate says after each poll of a chunk, all (rows, polls); n: canary units so far in the stage."""

    gate: Gate
    fails: BoolArray
    passes: BoolArray
    n: FloatArray


def can_simulate(gate: Gate) -> bool:
    """Whether the gate's tests have their counterpart here; one that has none is taken to pass, and that is said."""
    return kind_of(gate) in ("proportion", "utility")


_PATHS: dict[type, Callable[..., CountPath]] = {
    BoundTest: BoundPath,
    ShareTest: SharePath,
    TwoByTwoTest: TwoByTwoPath,
}


def _path(test: Test, alpha: float, runs: int) -> Path:
    """The test as a gate runs it, counts behind the dispersion guard, for many runs."""
    if isinstance(test, BettingTest):
        return BettingPath(test, runs)
    if isinstance(test, EffectTest):
        return EffectPath(test, runs)
    if isinstance(test, TwoSidedTest):
        more, fewer = (_guarded_path(one, alpha, runs) for one in (test.more, test.fewer))
        return TwoSidedPath(more, fewer, test.needs_both)
    return _guarded_path(test, alpha, runs)


def _guarded_path(test: CountTest, alpha: float, runs: int) -> GuardedPath:
    process = guarded(test, alpha=alpha, dispersion=Dispersion())
    if not isinstance(process, CountProcess):
        raise TypeError(f"no simulation of a {type(process).__name__}")
    return GuardedPath(test, _PATHS[type(test)](test, runs), process.polls, runs)


class GateRuns:
    """All that one gate knows in every run. planned_stages: the live stages that run it."""

    def __init__(
        self,
        gate: Gate,
        *,
        alpha: float,
        alpha_advance: float,
        planned_stages: int,
        width: float,
        runs: int,
    ) -> None:
        self.gate, self.runs, self.planned_stages = gate, runs, planned_stages
        self._rollback = rollback_test(gate, alpha=alpha, width=width), alpha, runs
        self._advance = advance_test(gate, alpha=alpha_advance, width=width), alpha_advance, runs
        self.dispersion = DispersionPath(runs)
        self.rollback_limit, self.advance_limit = -math.log(alpha), -math.log(alpha_advance)
        self.carried = _path(*self._rollback)
        self.finished = np.zeros(runs)  # Σ E of the stages that are over
        self.left = 0
        self._stage_log_e = np.zeros(runs)
        self._has_failed = np.zeros(runs, dtype=bool)

    def enter_stage(self, gate: Gate) -> None:
        """Start the processes of a stage, which sees the gate as `gate`. In the first one the carried process and the
        stage's own are one and the same."""
        self.gate = gate
        self.stage_rollback = self.carried if self.left == 0 else _path(*self._rollback)
        self.advance = _path(*self._advance)
        self._n = np.zeros(self.runs)

    def leave_stage(self) -> None:
        """Freeze what the stage's own rollback process came to."""
        self.finished += np.exp(self._stage_log_e)
        self.left += 1
        self.dispersion.begin_stage()
        if isinstance(self.carried, EffectPath):
            self.carried.begin_stage()

    def look(self, rows: IntArray, polls: PollRuns) -> Looks:
        """Take a chunk in for the runs `rows`, and judge after each of its polls."""
        watched = self.dispersion.extend(rows, polls) if isinstance(polls, CountRuns) else None
        seen = self._against(polls)
        carried = _extend(self.carried, rows, seen, watched)
        stage = carried
        if self.stage_rollback is not self.carried:
            stage = _extend(self.stage_rollback, rows, seen, watched)
        advance = _extend(self.advance, rows, seen, watched)
        n = self._n[rows][:, None] + np.cumsum(polls.canary_n, axis=1)
        with np.errstate(over="ignore"):
            others = self.finished[rows][:, None] + (self.planned_stages - self.left - 1)
            e_rollback = 0.5 * np.exp(carried) + 0.5 * (np.exp(stage) + others) / self.planned_stages
        has_failed = (e_rollback >= math.exp(self.rollback_limit)) | self._has_failed[rows][:, None]
        fails: BoolArray = np.logical_or.accumulate(has_failed, axis=1)  # what was proven stays proven
        self._ahead = rows, stage, n, fails
        passes = ~fails & (n > 0) & (n >= self.gate.min_samples) & (advance >= self.advance_limit)
        return Looks(self.gate, fails, passes, n)

    def _against(self, polls: PollRuns) -> PollRuns:
        """The events that count against the release: where `min` bounds the good ones, the others."""
        if isinstance(polls, CountRuns) and self.gate.min is not None:
            return replace(polls, canary_events=polls.canary_n - polls.canary_events)
        return polls

    def settle(self, at: IntArray) -> None:
        """Of the last chunk, keep each run's polls up to and with `at` (rows,)."""
        rows, stage, n, fails = self._ahead
        pick = np.arange(len(at))
        self._stage_log_e[rows], self._n[rows] = stage[pick, at], n[pick, at]
        self._has_failed[rows] = fails[pick, at]
        for path in {id(one): one for one in (self.carried, self.stage_rollback, self.advance)}.values():
            path.settle(at)
        if not isinstance(self.carried, BettingPath):
            self.dispersion.settle(at)


def _extend(path: Path, rows: IntArray, polls: PollRuns, watched: Watched | None) -> FloatArray:
    if isinstance(path, BettingPath):
        if not isinstance(polls, PayoffRuns):
            raise TypeError("betting needs payoffs")
        return path.extend(rows, polls.library, polls.drawn)
    if not isinstance(polls, CountRuns) or watched is None:
        raise TypeError("this gate needs counts")
    return path.extend(rows, polls, watched)
