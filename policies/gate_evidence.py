"""One live gate's evidence over a whole rollout: its e-processes, what each stage has shown, what is missing.

Metric kind and `compareTo` choose the tests. Every gate runs three processes: rollback carried over all stages,
rollback restarted at each stage, advance restarted at each stage. All are stored; a restart changes nothing.
Source: gates.md, "Which test for which gate" and semantics 2, 3, 8. Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from policies.evidence import Block, CountBlock, FloatArray, GapBlock, UtilityBlock
from policies.metrics import METRICS, MetricKind
from policies.rollout_policy import Gate
from policies.statistics import (
    BETTER,
    WORSE,
    BettingTest,
    BoundTest,
    GapTest,
    Pairing,
    PayoffOutOfRange,
    ShareTest,
    TwoByTwoTest,
    check_payoffs,
    interval_of_mean,
    interval_of_rate,
    rollback_log_e,
)

Test = BoundTest | ShareTest | TwoByTwoTest | GapTest | BettingTest
PLANNED_DIFFERENCES = 200
INTERVAL_ALPHA = 0.05


class GateError(ValueError):
    """Gates asked for what cannot be: a block of the wrong kind, a stage out of order, a foreign stored form."""


def kind_of(gate: Gate) -> MetricKind:
    """The kind of the gate's metric."""
    return METRICS[gate.metric].kind


def advance_test(gate: Gate, *, alpha: float, width: float) -> Test:
    """The test whose rejection lets the gate pass. width: high − low of the utility spec's range."""
    kind = kind_of(gate)
    if gate.compare_to == "bound":
        if kind == "gap":
            return GapTest(_bound(gate), "within", alpha)
        return BoundTest(_bound(gate), "below")
    if kind == "utility":
        return BettingTest(-_margin(gate), "above", width, planned=0.0, planned_n=PLANNED_DIFFERENCES)
    return ShareTest(_margin(gate), tuple(ratio * _margin(gate) for ratio in BETTER))


def rollback_test(gate: Gate, *, alpha: float, width: float) -> Test:
    """The test whose rejection rolls back."""
    kind = kind_of(gate)
    if gate.compare_to == "bound":
        if kind == "gap":
            return GapTest(_bound(gate), "beyond", alpha)
        return BoundTest(_bound(gate), "above")
    tolerance = gate.tolerance or 0.0
    if kind == "utility":
        return BettingTest(-tolerance, "below", width, planned=-_margin(gate), planned_n=PLANNED_DIFFERENCES)
    if tolerance == 1:
        return TwoByTwoTest()
    return ShareTest(tolerance, tuple(ratio * tolerance for ratio in WORSE))


def _bound(gate: Gate) -> float:
    """The bound on the events that count against the release (`min` bounds the others)."""
    if gate.max is not None:
        return gate.max
    if gate.min is not None:
        return 1 - gate.min
    raise GateError(f"gate {gate.name!r} has no bound")


def _margin(gate: Gate) -> float:
    if gate.ni_margin is None:
        raise GateError(f"gate {gate.name!r} has no niMargin")
    return gate.ni_margin


@dataclass
class Tally:
    """What the current stage has shown: canary and stable trials and events (units for utility)."""

    canary_n: int = 0
    canary_events: int = 0
    stable_n: int = 0
    stable_events: int = 0

    def add(self, canary_n: int, canary_events: int, *, stable_n: int, stable_events: int) -> None:
        """Add one poll."""
        self.canary_n += canary_n
        self.canary_events += canary_events
        self.stable_n += stable_n
        self.stable_events += stable_events


@dataclass
class GateEvidence:
    """All that one gate knows. planned_stages: live stages that run it, frozen at the start."""

    gate: Gate
    alpha: float
    alpha_advance: float
    planned_stages: int
    payoff_range: tuple[float, float]

    def __post_init__(self) -> None:
        """Nothing seen yet."""
        self.carried = self._rollback_test()
        self.finished: list[float] = []
        self.stage_rollback: Test | None = None
        self.advance: Test | None = None
        self.pairing: Pairing | None = None
        self.tally = Tally()
        self.error: str | None = None

    @property
    def width(self) -> float:
        """Differences of payoffs lie in [−width, width]."""
        return self.payoff_range[1] - self.payoff_range[0]

    def _rollback_test(self) -> Test:
        return rollback_test(self.gate, alpha=self.alpha, width=self.width)

    def leave_stage(self) -> None:
        """Freeze what the stage's own rollback process came to."""
        if self.stage_rollback is not None:
            self.finished.append(self.stage_rollback.log_e)
            self.stage_rollback = self.advance = self.pairing = None

    def enter_stage(self, weight_pct: float | None) -> None:
        """Start the stage's own processes afresh; the carried one goes on."""
        self.stage_rollback = self._rollback_test()
        self.advance = advance_test(self.gate, alpha=self.alpha_advance, width=self.width)
        self.pairing = Pairing(weight_pct) if kind_of(self.gate) == "utility" and weight_pct else None
        self.tally, self.error = Tally(), None

    def observe(self, block: Block) -> None:
        """Add one poll's block to all three processes. Raises GateError for a block of the wrong kind.

        Payoffs that are not finite or out of range make the gate `error` for the rest of the stage: what was
        lost cannot be known to be harmless.
        """
        if self.stage_rollback is None or self.advance is None:
            raise GateError(f"gate {self.gate.name!r} is not in a stage")
        tests = (self.carried, self.stage_rollback, self.advance)
        if isinstance(block, UtilityBlock) and self.pairing is not None:
            try:
                check_payoffs(block.canary, *self.payoff_range)
                check_payoffs(block.stable, *self.payoff_range)
            except PayoffOutOfRange as error:
                self.error = str(error)
                return
            self._observe_differences(tests, self.pairing.pair(block.canary, block.stable))
            self.tally.add(len(block.canary), 0, stable_n=len(block.stable), stable_events=0)
        elif isinstance(block, GapBlock) and kind_of(self.gate) == "gap":
            for test in tests:
                if isinstance(test, GapTest):
                    test.update(
                        block.group_a_events,
                        block.group_a_n,
                        b_events=block.group_b_events,
                        b_n=block.group_b_n,
                    )
            events = block.group_a_events + block.group_b_events
            self.tally.add(block.group_a_n + block.group_b_n, events, stable_n=0, stable_events=0)
        elif isinstance(block, CountBlock) and kind_of(self.gate) == "proportion":
            self._observe_counts(tests, block)
        else:
            raise GateError(
                f"gate {self.gate.name!r} on {self.gate.metric!r} cannot take a {type(block).__name__}"
            )

    def _observe_differences(self, tests: tuple[Test, ...], differences: FloatArray) -> None:
        for test in tests:
            if isinstance(test, BettingTest):
                test.update(differences)

    def _observe_counts(self, tests: tuple[Test, ...], block: CountBlock) -> None:
        canary_events = block.canary_events
        if self.gate.min is not None:  # the events that count against the release are the others
            canary_events = block.canary_n - block.canary_events
        both = block.canary_n + block.stable_n
        for test in tests:
            if isinstance(test, BoundTest):
                test.update(canary_events, block.canary_n)
            elif isinstance(test, ShareTest):
                test.update(
                    block.canary_events, block.stable_events, w=block.canary_n / both if both else 0.0
                )
            elif isinstance(test, TwoByTwoTest):
                test.update(
                    block.canary_events,
                    block.canary_n,
                    stable_events=block.stable_events,
                    stable_n=block.stable_n,
                )
        self.tally.add(
            block.canary_n,
            block.canary_events,
            stable_n=block.stable_n,
            stable_events=block.stable_events,
        )

    @property
    def rollback_log_e(self) -> float:
        """½ carried + ½ mean over the planned stages, in logs."""
        current = [] if self.stage_rollback is None else [self.stage_rollback.log_e]
        return rollback_log_e(
            self.carried.log_e, [*self.finished, *current], planned_stages=self.planned_stages
        )

    @property
    def rollback_limit(self) -> float:
        """ln(1/α) of this gate's part of alpha_rollback."""
        return -math.log(self.alpha)

    @property
    def advance_log_e(self) -> float:
        """The stage's evidence for passing."""
        return 0.0 if self.advance is None else self.advance.log_e

    @property
    def advance_limit(self) -> float:
        """ln(1/α) of alpha_advance."""
        return -math.log(self.alpha_advance)

    def observed(self) -> tuple[float | None, tuple[float, float] | None]:
        """The estimate in the metric's unit, and its confidence sequence (95 %), where there are any.

        Rates and gaps against a bound: the rate, the absolute gap. Against the champion: the mean difference of
        payoffs, or the ratio of rates.
        """
        tally, test = self.tally, self.advance
        if isinstance(test, GapTest):
            if test.gap is None:
                return None, None
            ends = test.interval(INTERVAL_ALPHA)
            if ends is not None:
                ends = (max(0.0, ends[0], -ends[1]), max(abs(ends[0]), abs(ends[1])))
            return abs(test.gap), ends
        if isinstance(test, BettingTest):
            if test.n == 0:
                return None, None
            mean = test.total / test.n
            variance = max(test.squares / test.n - mean**2, 0.0) / test.n
            v_opt = 9 / _margin(self.gate) ** 2
            observed = mean + test.null
            ends = interval_of_mean(observed, variance, v_opt=v_opt, alpha=INTERVAL_ALPHA)
            return observed, ends if test.n >= 30 else None
        if tally.canary_n == 0:
            return None, None
        rate = tally.canary_events / tally.canary_n
        if self.gate.compare_to == "bound":
            return rate, interval_of_rate(tally.canary_events, tally.canary_n, alpha=INTERVAL_ALPHA)
        if tally.stable_events == 0:
            return None, None
        return rate / (tally.stable_events / tally.stable_n), None

    @property
    def is_silent(self) -> bool:
        """Whether the test of a gap says nothing yet, because a group has too few units or actions."""
        return kind_of(self.gate) == "gap" and self.advance_log_e == 0.0 and self.rollback_log_e <= 0.0

    def more_wanted(self) -> int | None:
        """About how many more canary units or requests until it passes, if things stay as they look; or None."""
        missing = self.advance_limit - self.advance_log_e
        short = self.gate.min_samples - self.tally.canary_n
        if missing <= 0:
            return max(short, 0)
        growth = 0.0
        if isinstance(self.advance, BoundTest):
            growth = self.advance.growth_per_trial()
        elif isinstance(self.advance, BettingTest) and self.pairing is not None:
            growth = self.advance.growth_per_difference() / self.pairing.group_sizes[0]
        elif self.tally.canary_n and self.advance_log_e > 0:
            growth = self.advance_log_e / self.tally.canary_n
        if growth <= 0:
            return None
        return max(math.ceil(missing / growth), short)

    def to_json(self) -> dict[str, object]:
        """Everything that was seen, JSON-safe and exact."""
        return {
            "carried": self.carried.to_json(),
            "finished": list(self.finished),
            "stage_rollback": None if self.stage_rollback is None else self.stage_rollback.to_json(),
            "advance": None if self.advance is None else self.advance.to_json(),
            "pairing": None if self.pairing is None else self.pairing.to_json(),
            "tally": vars(self.tally).copy(),
            "error": self.error,
        }

    def restore(self, obj: Mapping[str, object], weight_pct: float | None) -> None:
        """Take what `to_json` wrote, in a stage of this weight. Raises KeyError, TypeError or ValueError."""
        finished, tally = obj["finished"], obj["tally"]
        if not isinstance(finished, list) or not isinstance(tally, Mapping):
            raise TypeError("'finished' must be a list and 'tally' a mapping")
        self.carried.restore(_mapping(obj["carried"]))
        self.finished = [float(log_e) for log_e in finished]
        if obj["stage_rollback"] is not None:
            self.enter_stage(weight_pct)
            if self.stage_rollback is not None and self.advance is not None:
                self.stage_rollback.restore(_mapping(obj["stage_rollback"]))
                self.advance.restore(_mapping(obj["advance"]))
            if obj["pairing"] is not None:
                self.pairing = Pairing.from_json(_mapping(obj["pairing"]))
        self.tally = Tally(**{str(key): int(str(value)) for key, value in tally.items()})
        self.error = None if obj["error"] is None else str(obj["error"])


def _mapping(obj: object) -> Mapping[str, object]:
    if not isinstance(obj, Mapping):
        raise TypeError(f"must be a mapping: {obj!r}")
    return obj
