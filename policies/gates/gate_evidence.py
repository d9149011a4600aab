"""One live gate's evidence over a whole rollout: its e-processes, what each stage has shown, what is missing.

Every gate runs three processes: rollback carried over all stages, rollback restarted at each stage, advance restarted
at each stage. All are stored, with what waits for a window to close; a restart changes nothing.
Source: gates.md semantics 2, 3, 6, 8, 11. Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from policies.gates.evidence import Block, CountBlock, GapArmsBlock, GapBlock, RatioBlock, UtilityBlock
from policies.gates.gate_tests import (
    Fed,
    GateError,
    Process,
    Test,
    advance_test,
    feed,
    growth_factor,
    guarded,
    kind_of,
    margin_of,
    rollback_test,
)
from policies.rollout.rollout_policy import Gate
from policies.sequential.betting import BettingTest, Pairing, PayoffOutOfRange, check_payoffs
from policies.sequential.contrasts import MIN_EVENTS, MIN_PER_ARM, RatioArm, RatioContrast
from policies.sequential.disagreement import Savings
from policies.sequential.dispersion import Dispersion
from policies.sequential.evidence_blocks import stored_list, stored_mapping
from policies.sequential.mixture import EffectTest, interval_of_mean
from policies.sequential.proportions import interval_of_rate, interval_of_ratio
from policies.sequential.statistics import rollback_log_e
from policies.sequential.windows import Window

__all__ = ["GateError", "GateEvidence", "Tally", "Test", "advance_test", "kind_of", "rollback_test"]

INTERVAL_ALPHA = 0.05
_MIN_DIFFERENCES = 30
_TAKES: Mapping[str, tuple[type, ...]] = {
    "proportion": (CountBlock,),
    "utility": (UtilityBlock,),
    "ratio": (RatioBlock,),
    "gap": (GapBlock, GapArmsBlock),
}


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
        self.dispersion = Dispersion()
        self.carried = self._rollback_process()
        self.finished: list[float] = []
        self._has_crossed = False
        self.stage_rollback: Process | None = None
        self.advance: Process | None = None
        self._start_stage(None)

    def _start_stage(self, weight_pct: float | None) -> None:
        self.pairing = Pairing(weight_pct) if kind_of(self.gate) == "utility" and weight_pct else None
        self.window, self.savings = Window(self.gate.window_s), Savings()
        self.tally = Tally()
        self.error: str | None = None

    @property
    def compared_range(self) -> tuple[float, float]:
        """Where what is compared lies: the payoffs' range, with 0 where payoffs are masked or of units not acted on."""
        low, high = self.payoff_range
        if self.gate.where == "all" and kind_of(self.gate) == "utility":
            return low, high
        return min(low, 0.0), max(high, 0.0)

    @property
    def width(self) -> float:
        """Differences of payoffs lie in [−width, width]."""
        return self.compared_range[1] - self.compared_range[0]

    def _rollback_process(self) -> Process:
        test = rollback_test(self.gate, alpha=self.alpha, width=self.width)
        return guarded(test, alpha=self.alpha, dispersion=self.dispersion)

    def leave_stage(self) -> None:
        """Freeze what the stage's own rollback process came to; what waits for its window is dropped."""
        if self.stage_rollback is not None:
            self.finished.append(self.stage_rollback.log_e)
            self.stage_rollback = self.advance = None
            self.carried.begin_stage()
            self.dispersion.begin_stage()
            self._start_stage(None)

    def enter_stage(self, weight_pct: float | None) -> None:
        """Start the stage's own processes afresh; the carried one goes on."""
        self.stage_rollback = self._rollback_process()
        test = advance_test(self.gate, alpha=self.alpha_advance, width=self.width)
        self.advance = guarded(test, alpha=self.alpha_advance, dispersion=self.dispersion)
        self._start_stage(weight_pct)

    def observe(self, block: Block, *, at: float = 0.0) -> None:
        """Take one poll's block, taken at epoch seconds `at`; it is judged when the gate's window is over.

        Payoffs that are not finite or out of range make the gate `error` for the rest of the stage: what was
        lost cannot be known to be harmless. Raises GateError for a block of the wrong kind.
        """
        if self.stage_rollback is None or self.advance is None:
            raise GateError(f"gate {self.gate.name!r} is not in a stage")
        if not isinstance(block, _TAKES[kind_of(self.gate)]):
            raise GateError(
                f"gate {self.gate.name!r} on {self.gate.metric!r} cannot take a {type(block).__name__}"
            )
        whole = self.window.add(block, at)
        if whole is not None:
            try:
                seen = self._count(whole)
            except PayoffOutOfRange as error:
                self.error = str(error)
                return
            for process in (self.carried, self.stage_rollback, self.advance):
                feed(process, seen)
        self._has_crossed = self.has_failed

    def _count(self, block: Block) -> Fed:
        """Add the block to the tally; what the processes take from it. Raises PayoffOutOfRange, GateError."""
        tally = self.tally
        if isinstance(block, UtilityBlock) and self.pairing is not None:
            arms = block if self.gate.where == "disagreement" or block.plain is None else block.plain
            check_payoffs(arms.canary, *self.compared_range)
            check_payoffs(arms.stable, *self.compared_range)
            if self.gate.where == "disagreement":
                self.savings.update(block)
            tally.add(len(arms.canary), 0, stable_n=len(arms.stable), stable_events=0)
            return self.pairing.pair(arms.canary, arms.stable)
        if isinstance(block, RatioBlock):
            for arm in (block.canary, block.stable):
                check_payoffs(arm[:, 0], *self.compared_range)
                check_payoffs(arm[:, 1], 0.0, math.inf)
            tally.add(len(block.canary), 0, stable_n=len(block.stable), stable_events=0)
            return RatioContrast(RatioArm.of(block.canary), RatioArm.of(block.stable))
        if isinstance(block, (GapBlock, GapArmsBlock)):
            gap = block.canary if isinstance(block, GapArmsBlock) else block
            events = gap.group_a_events + gap.group_b_events
            tally.add(gap.group_a_n + gap.group_b_n, events, stable_n=0, stable_events=0)
            return block
        if not isinstance(block, CountBlock):
            raise GateError(f"gate {self.gate.name!r} cannot take a {type(block).__name__} in this stage")
        self.dispersion.update(block.stable_events, block.stable_n)
        tally.add(
            block.canary_n,
            block.canary_events,
            stable_n=block.stable_n,
            stable_events=block.stable_events,
        )
        if self.gate.min is None:
            return block
        # the events that count against the release are the others
        others = block.canary_n - block.canary_events
        return CountBlock(others, block.canary_n, block.stable_events, block.stable_n)

    @property
    def rollback_log_e(self) -> float:
        """½ carried + ½ mean over the planned stages, in logs."""
        current = [] if self.stage_rollback is None else [self.stage_rollback.log_e]
        return rollback_log_e(
            self.carried.log_e, [*self.finished, *current], planned_stages=self.planned_stages
        )

    @property
    def has_failed(self) -> bool:
        """Whether the evidence of harm has ever reached its limit in this rollout: then H0 is rejected for good."""
        return self._has_crossed or self.rollback_log_e >= self.rollback_limit

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

        Against a bound: the rate, or the absolute gap. Against the champion: the ratio of rates, the difference of
        rates, ratios or mean payoffs; where a shift either way counts, and for gaps, its absolute value.
        """
        tally, test = self.tally, self.advance
        if isinstance(test, EffectTest):
            effect, ends = test.effect, test.interval(INTERVAL_ALPHA)
            if effect is None or ends is None:
                return None, None
            if test.side != "within":
                return effect[0], ends
            return abs(effect[0]), (max(0.0, ends[0], -ends[1]), max(abs(ends[0]), abs(ends[1])))
        if isinstance(test, BettingTest):
            return self._mean_difference(test)
        if tally.canary_n == 0:
            return None, None
        rate = tally.canary_events / tally.canary_n
        if self.gate.compare_to == "bound":
            return rate, interval_of_rate(tally.canary_events, tally.canary_n, alpha=INTERVAL_ALPHA)
        if tally.stable_events == 0:
            return None, None
        ends = interval_of_ratio(
            tally.canary_events,
            tally.canary_n,
            stable_events=tally.stable_events,
            stable_n=tally.stable_n,
            alpha=INTERVAL_ALPHA,
        )
        return rate / (tally.stable_events / tally.stable_n), ends

    def _mean_difference(self, test: BettingTest) -> tuple[float | None, tuple[float, float] | None]:
        if test.n == 0:
            return None, None
        mean = test.total / test.n
        variance = max(test.squares / test.n - mean**2, 0.0) / test.n
        v_opt = 9 / margin_of(self.gate) ** 2
        ends = interval_of_mean(mean + test.null, variance, v_opt=v_opt, alpha=INTERVAL_ALPHA)
        return mean + test.null, ends if test.n >= _MIN_DIFFERENCES else None

    @property
    def is_silent(self) -> bool:
        """Whether a test that needs a normal approximation has too little for it."""
        return isinstance(self.advance, EffectTest) and self.advance.is_silent

    def least(self) -> str:
        """What a silent test needs first, in words."""
        if kind_of(self.gate) == "gap":
            return f"{MIN_PER_ARM} units and {MIN_EVENTS} actions in each group"
        if kind_of(self.gate) == "ratio":
            return f"{MIN_PER_ARM} units and {RatioContrast.MIN_DENOMINATORS} acted on in each arm"
        return f"{MIN_PER_ARM} trials and {MIN_EVENTS} events in each arm"

    def notes(self) -> list[str]:
        """What else is to be said: bursts, units saved, a window that is still open."""
        notes = []
        if self.dispersion.is_bursty:
            notes.append(
                f"stable's events come in bursts ({self.dispersion.index or 1:.1f} times chance): "
                "it must show in the polls too"
            )
        saved = None if self.pairing is None else self.savings.share(self.pairing.group_sizes)
        if saved is not None:
            notes.append(f"comparing only where they differ saves {100 * saved:.0f} % of the units")
        if self.window.waiting is not None:
            notes.append(f"its window of {self.window.length_s:g} s is not over")
        return notes

    def more_wanted(self) -> int | None:
        """About how many more canary units or requests until it passes, if things stay as they look; or None."""
        n = self.tally.canary_n
        short = max(self.gate.min_samples - n, 0)
        if self.advance is None or self.advance_log_e >= self.advance_limit:
            return short
        factor = growth_factor(self.advance, self.advance_limit)
        return None if factor is None else max(math.ceil((factor - 1) * n), short, 1)

    def to_json(self) -> dict[str, object]:
        """Everything that was seen, JSON-safe and exact."""
        return {
            "carried": self.carried.to_json(),
            "finished": list(self.finished),
            "stage_rollback": None if self.stage_rollback is None else self.stage_rollback.to_json(),
            "advance": None if self.advance is None else self.advance.to_json(),
            "pairing": None if self.pairing is None else self.pairing.to_json(),
            "dispersion": self.dispersion.to_json(),
            "window": self.window.to_json(),
            "savings": self.savings.to_json(),
            "tally": vars(self.tally).copy(),
            "error": self.error,
            "has_failed": self._has_crossed,
        }

    def restore(self, obj: Mapping[str, object], weight_pct: float | None) -> None:
        """Take what `to_json` wrote, in a stage of this weight. Raises KeyError, TypeError or ValueError."""
        self.finished = [float(str(log_e)) for log_e in stored_list(obj["finished"])]
        if obj["stage_rollback"] is not None:
            self.enter_stage(weight_pct)
            if self.stage_rollback is not None and self.advance is not None:
                self.stage_rollback.restore(stored_mapping(obj["stage_rollback"]))
                self.advance.restore(stored_mapping(obj["advance"]))
            if obj["pairing"] is not None:
                self.pairing = Pairing.from_json(stored_mapping(obj["pairing"]))
                if self.pairing.weight_pct != weight_pct:
                    raise ValueError(
                        f"'weight_pct' must be the stage's {weight_pct}: {self.pairing.weight_pct}"
                    )
        self.carried.restore(stored_mapping(obj["carried"]))
        self.dispersion.restore(stored_mapping(obj["dispersion"]))
        self.window.restore(stored_mapping(obj["window"]))
        self.savings.restore(stored_mapping(obj["savings"]))
        tally = stored_mapping(obj["tally"])
        self.tally = Tally(**{key: int(str(value)) for key, value in tally.items()})
        self.error = None if obj["error"] is None else str(obj["error"])
        self._has_crossed = bool(obj["has_failed"])

    def check(self, *, is_running: bool, most_finished: int) -> None:
        """Refuse what cannot have been seen. is_running: whether the current stage runs the gate; most_finished: the
        stages before it that do. Raises GateError."""
        if (self.stage_rollback is not None) is not is_running:
            state = "has" if is_running else "has not"
            raise GateError(f"gate {self.gate.name!r}: its stage {state} this gate, the stored book differs")
        if len(self.finished) > most_finished:
            raise GateError(
                f"gate {self.gate.name!r}: 'finished' must hold at most {most_finished} stages: {len(self.finished)}"
            )
        if not all(math.isfinite(log_e) for log_e in self.finished):
            raise GateError(f"gate {self.gate.name!r}: 'finished' must be finite: {self.finished}")
        tally = self.tally
        pairs = ((tally.canary_events, tally.canary_n), (tally.stable_events, tally.stable_n))
        if not all(0 <= events <= n for events, n in pairs):
            raise GateError(f"gate {self.gate.name!r}: 'tally' must have 0 <= events <= n: {vars(tally)}")
