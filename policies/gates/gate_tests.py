"""Which tests a gate runs: chosen by its metric's kind, `compareTo`, the form of its margins and its sides.

proportion, bound: F6. proportion, champion: ratio F2 (F3 to roll back at tolerance 1), absolute F1 on the difference.
Both ratio forms and F6 stand behind the dispersion guard. action_rate against the champion has two sides: either may
roll back (the mean of two E's: each side at α/2), both must pass. utility: F4. ratio: F1 by the delta method.
gap: F1 on the gap, or on the difference of the two arms' gaps.
Source: gates.md, "Which test for which gate" and semantics 2, 3, 6. Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policies.gates.evidence import CountBlock, FloatArray, GapArmsBlock, GapBlock
from policies.rollout.metrics import METRICS, MetricKind
from policies.rollout.rollout_policy import Gate
from policies.sequential.betting import BettingTest
from policies.sequential.contrasts import RateContrast, RatioContrast
from policies.sequential.dispersion import Dispersion, PollScoreTest
from policies.sequential.evidence_blocks import stored_mapping
from policies.sequential.mixture import EffectTest, Side, log_sum_exp
from policies.sequential.proportions import (
    BETTER,
    BETTER_WEIGHTS,
    WORSE,
    WORSE_WEIGHTS,
    BoundTest,
    ShareTest,
    TwoByTwoTest,
)

PLANNED_DIFFERENCES = 200
_FAR = 1e6
_V_GAP, _V_DIFFERENCE = 36.0, 9.0
"""Intrinsic time at which F1 is tightest: a standard error of a sixth of a gap's bound, a third of a margin."""


class GateError(ValueError):
    """Gates asked for what cannot be: a block of the wrong kind, a stage out of order, a foreign stored form."""


CountTest = BoundTest | ShareTest | TwoByTwoTest


@dataclass(frozen=True)
class TwoSidedTest:
    """A shift of a rate either way. needs_both: both sides must be shown; else either may be, at half of α each."""

    more: CountTest
    fewer: CountTest
    needs_both: bool


Test = CountTest | TwoSidedTest | EffectTest | BettingTest


@dataclass
class CountProcess:
    """F6, F2 or F3 behind the dispersion guard."""

    test: CountTest
    polls: PollScoreTest
    dispersion: Dispersion

    def update(self, block: CountBlock) -> None:
        """Add one poll. The dispersion is the gate's and is fed there."""
        events, n, both = block.canary_events, block.canary_n, block.canary_n + block.stable_n
        w = n / both if both else 0.0
        if isinstance(self.test, BoundTest):
            self.test.update(events, n)
            self.polls.add_bound(events, n, bound=self.test.bound)
            return
        if isinstance(self.test, ShareTest):
            self.test.update(events, block.stable_events, w=w)
            r0 = self.test.r0
        else:
            self.test.update(events, n, stable_events=block.stable_events, stable_n=block.stable_n)
            r0 = 1.0
        self.polls.add_share(events, block.stable_events, r0=r0, w=w)

    def begin_stage(self) -> None:
        """A likelihood ratio, and a score that knows its weight, are the same in every stage."""

    @property
    def log_e(self) -> float:
        """The evidence so far, guarded."""
        log_e = self.test.log_e
        if self.dispersion.is_suspicious:
            return min(log_e, self.polls.log_e)
        if self.dispersion.tempering > 1:
            return min(log_e, self.test.log_e_at(1 / self.dispersion.tempering))
        return log_e

    def log_e_at(self, factor: float) -> float:
        """The evidence if there were `factor` times as much of what was seen."""
        log_e = self.test.log_e_at(factor)
        return min(log_e, self.polls.log_e_at(factor)) if self.dispersion.is_suspicious else log_e

    def to_json(self) -> dict[str, object]:
        """Both tests' sums."""
        return {"test": self.test.to_json(), "polls": self.polls.to_json()}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        self.test.restore(stored_mapping(obj["test"]))
        self.polls.restore(stored_mapping(obj["polls"]))


@dataclass
class TwoSidedProcess:
    """A shift either way. needs_both: the smaller E (both must be shown), else the mean (each side at half of α)."""

    more: CountProcess
    fewer: CountProcess
    needs_both: bool

    def update(self, block: CountBlock) -> None:
        """Add one poll."""
        self.more.update(block)
        self.fewer.update(block)

    def begin_stage(self) -> None:
        """As each side's."""

    @property
    def log_e(self) -> float:
        """The evidence so far."""
        return self._joined(self.more.log_e, self.fewer.log_e)

    def log_e_at(self, factor: float) -> float:
        """The evidence if there were `factor` times as much of what was seen."""
        return self._joined(self.more.log_e_at(factor), self.fewer.log_e_at(factor))

    def _joined(self, more: float, fewer: float) -> float:
        return min(more, fewer) if self.needs_both else log_sum_exp([more, fewer]) - math.log(2)

    def to_json(self) -> dict[str, object]:
        """Both sides."""
        return {"more": self.more.to_json(), "fewer": self.fewer.to_json()}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        self.more.restore(stored_mapping(obj["more"]))
        self.fewer.restore(stored_mapping(obj["fewer"]))


Process = CountProcess | TwoSidedProcess | EffectTest | BettingTest
Fed = CountBlock | RatioContrast | GapBlock | GapArmsBlock | FloatArray


def kind_of(gate: Gate) -> MetricKind:
    """The kind of the gate's metric."""
    return METRICS[gate.metric].kind


def is_two_sided(gate: Gate) -> bool:
    """Whether a shift of the rate either way is one, as of the action rate against the champion's."""
    return gate.compare_to == "champion" and METRICS[gate.metric].worse == "either"


def rollback_test(gate: Gate, *, alpha: float, width: float) -> Test:
    """The test whose rejection rolls back. width: high − low of the payoffs, 0 among them where they are masked."""
    tolerance, kind = gate.tolerance or 0.0, kind_of(gate)
    if gate.compare_to == "bound":
        return _against_bound(gate, alpha, is_beyond=True)
    if kind == "utility":
        return BettingTest(
            -tolerance, "below", width, planned=-margin_of(gate), planned_n=PLANNED_DIFFERENCES
        )
    if kind == "proportion" and gate.scale == "ratio":
        more = _more_than(tolerance)
        return TwoSidedTest(more, _fewer_than(1 / tolerance), False) if is_two_sided(gate) else more
    v_opt = _V_DIFFERENCE / (margin_of(gate) - tolerance) ** 2
    if kind == "ratio":
        return EffectTest(RatioContrast(), -tolerance, "below", alpha, v_opt)
    if kind == "gap":
        return EffectTest(RateContrast((1, -1, -1, 1)), tolerance, "beyond", alpha, v_opt)
    side: Side = "beyond" if is_two_sided(gate) else "above"
    return EffectTest(RateContrast((1, -1)), tolerance, side, alpha, v_opt)


def advance_test(gate: Gate, *, alpha: float, width: float) -> Test:
    """The test whose rejection lets the gate pass."""
    kind = kind_of(gate)
    if gate.compare_to == "bound":
        return _against_bound(gate, alpha, is_beyond=False)
    margin = margin_of(gate)
    if kind == "utility":
        return BettingTest(-margin, "above", width, planned=0.0, planned_n=PLANNED_DIFFERENCES)
    if kind == "proportion" and gate.scale == "ratio":
        fewer = _fewer_than(margin)
        return TwoSidedTest(_more_than(1 / margin), fewer, True) if is_two_sided(gate) else fewer
    v_opt = _V_DIFFERENCE / margin**2
    if kind == "ratio":
        return EffectTest(RatioContrast(), -margin, "above", alpha, v_opt)
    if kind == "gap":
        return EffectTest(RateContrast((1, -1, -1, 1)), margin, "within", alpha, v_opt)
    side: Side = "within" if is_two_sided(gate) else "below"
    return EffectTest(RateContrast((1, -1)), margin, side, alpha, v_opt)


def _more_than(r0: float) -> CountTest:
    """Evidence that the ratio of the rates is above r0."""
    if r0 == 1:
        return TwoByTwoTest()
    return ShareTest(r0, tuple(r0 * ratio for ratio in WORSE), WORSE_WEIGHTS)


def _fewer_than(r0: float) -> CountTest:
    """Evidence that the ratio of the rates is below r0."""
    if r0 == 1:
        return TwoByTwoTest(BETTER, BETTER_WEIGHTS)
    return ShareTest(r0, tuple(r0 * ratio for ratio in BETTER), BETTER_WEIGHTS)


def _against_bound(gate: Gate, alpha: float, *, is_beyond: bool) -> Test:
    bound = _bound(gate)
    if kind_of(gate) == "gap":
        side: Side = "beyond" if is_beyond else "within"
        return EffectTest(RateContrast((1, -1)), bound, side, alpha, _V_GAP / bound**2)
    return BoundTest(bound, "above" if is_beyond else "below")


def guarded(test: Test, *, alpha: float, dispersion: Dispersion) -> Process:
    """The test as a gate runs it: counts behind the dispersion guard, the others as they are."""
    if isinstance(test, TwoSidedTest):
        more, fewer = (_behind_guard(one, alpha, dispersion) for one in (test.more, test.fewer))
        return TwoSidedProcess(more, fewer, test.needs_both)
    if isinstance(test, (EffectTest, BettingTest)):
        return test
    return _behind_guard(test, alpha, dispersion)


def _behind_guard(test: CountTest, alpha: float, dispersion: Dispersion) -> CountProcess:
    if isinstance(test, BoundTest):
        sign = 1 if test.side == "above" else -1
    else:
        r0 = test.r0 if isinstance(test, ShareTest) else 1.0
        sign = 1 if test.ratios[0] > r0 else -1
    return CountProcess(test, PollScoreTest(sign, alpha), dispersion)


def feed(process: Process, seen: Fed) -> None:
    """Give one poll to a process that can take it. Raises GateError where it cannot."""
    if isinstance(process, (CountProcess, TwoSidedProcess)):
        if isinstance(seen, CountBlock):
            return process.update(seen)
    elif isinstance(process, BettingTest):
        if isinstance(seen, np.ndarray):
            return process.update(seen)
    elif isinstance(process.sums, RatioContrast):
        if isinstance(seen, RatioContrast):
            return process.sums.update(seen.canary, seen.stable)
    elif isinstance(process.sums, RateContrast):
        return process.sums.update(*_samples(seen, len(process.sums.signs)))
    raise GateError(f"{type(process).__name__} cannot take a {type(seen).__name__}")


def _samples(seen: Fed, size: int) -> tuple[int, ...]:
    """Events and trials of each sample of a contrast of rates."""
    if isinstance(seen, CountBlock) and size == 2:
        return seen.canary_events, seen.canary_n, seen.stable_events, seen.stable_n
    if isinstance(seen, GapArmsBlock) and size == 4:
        return *_groups(seen.canary), *_groups(seen.stable)
    if isinstance(seen, GapArmsBlock):
        return _groups(seen.canary)
    if isinstance(seen, GapBlock) and size == 2:
        return _groups(seen)
    raise GateError(f"a contrast of {size} rates cannot be taken from a {type(seen).__name__}")


def _groups(gap: GapBlock) -> tuple[int, int, int, int]:
    return gap.group_a_events, gap.group_a_n, gap.group_b_events, gap.group_b_n


def _bound(gate: Gate) -> float:
    """The bound on the events that count against the release (`min` bounds the others)."""
    if gate.max is not None:
        return gate.max
    if gate.min is not None:
        return 1 - gate.min
    raise GateError(f"gate {gate.name!r} has no bound")


def margin_of(gate: Gate) -> float:
    """niMargin. Raises GateError where there is none."""
    if gate.ni_margin is None:
        raise GateError(f"gate {gate.name!r} has no niMargin")
    return gate.ni_margin


def growth_factor(process: Process, limit: float) -> float | None:
    """How many times as much of what was seen brings log E to the limit, if things stay as they look; None: never."""
    high = 1.0
    while process.log_e_at(high) < limit:
        high *= 2
        if high > _FAR:
            return None
    low = max(high / 2, 1.0)
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if process.log_e_at(middle) >= limit else (middle, high)
    return high
