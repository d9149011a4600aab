"""From gate results to one verdict: the order of precedence, the bake clock, and the words.

1 an alarm rolls back; 2 a failed gate rolls back (or holds, if its onFail says so); 3 unusable evidence holds or
rolls back; 4 it advances only if every required gate passes, nothing is missing, the sample ratio is clean and the
least bake time is over; 5 otherwise it holds, and after the longest bake time `onInconclusive` speaks. Missing
evidence never counts as inconclusive: it holds, unless its gate's onMissing is `rollback`. A gate on a dry run is
shown with its result and has no part in any of this.
Source: gates.md semantics 1, 5, 10. Must never import: anything that does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from policies.gates.evidence import Alarm
from policies.rollout.rollout_policy import Gate, Stage
from policies.rollout.verdict import Decision, GateResult, GateStatus, ReasonCode, Verdict


@dataclass(frozen=True)
class Judged:
    """A gate with its result; absent: why there is no evidence now, if so; wait_s: about how long it wants."""

    gate: Gate
    result: GateResult
    absent: str | None = None
    wait_s: float | None = None


@dataclass(frozen=True)
class Clock:
    """How long the stage has lasted, in seconds."""

    at: float
    entered_at: float
    extended: bool

    @property
    def elapsed_s(self) -> float:
        """Since the stage was entered; a clock that went back counts as none."""
        return max(self.at - self.entered_at, 0.0)


def decide(
    stage: Stage,
    judged: Sequence[Judged],
    *,
    ratio: GateResult | None,
    alarms: Sequence[Alarm],
    clock: Clock,
) -> Verdict:
    """The verdict on one live stage. ratio: the sample-ratio check, in canary stages."""
    results = tuple(replace(one.result, detail=shown(one.gate, one.result.detail)) for one in judged) + (
        () if ratio is None else (ratio,)
    )
    judged = [one for one in judged if not one.gate.dry_run]

    def verdict(decision: Decision, reason: ReasonCode, detail: str, wait_s: float | None = None) -> Verdict:
        return Verdict(stage.name, decision, reason, detail, results, clock.at, wait_s)

    if alarms:
        return verdict(Decision.ROLLBACK, alarms[0].reason, "; ".join(alarm.detail for alarm in alarms))
    stop = _failed_or_unusable(judged)
    if stop is not None:
        return verdict(*stop)
    required = [one for one in judged if one.gate.required]
    ratio_bad = ratio is not None and ratio.status is not GateStatus.PASS
    open_ = [one for one in required if one.result.status is not GateStatus.PASS]
    baking_s = max(stage.bake_min_s - clock.elapsed_s, 0.0)
    if not open_ and not ratio_bad and not baking_s:
        if stage.approval:
            return verdict(Decision.HOLD, ReasonCode.AWAITING_APPROVAL, "holds: a person must promote it")
        reason = ReasonCode.GATES_PASSED if required else ReasonCode.BAKED
        return verdict(Decision.ADVANCE, reason, _passed(stage, required, clock), 0.0)
    return verdict(*_hold(stage, open_, ratio=ratio if ratio_bad else None, clock=clock))


def shown(gate: Gate, detail: str) -> str:
    """What a gate's result says in words, marked where the gate is on a dry run."""
    return f"(dry run) {detail}" if gate.dry_run else detail


def _failed_or_unusable(judged: Sequence[Judged]) -> tuple[Decision, ReasonCode, str] | None:
    """What a failed gate or unusable evidence demands, the hardest demand first."""
    failed = [one for one in judged if one.result.status is GateStatus.FAIL]
    for one in sorted(failed, key=lambda each: each.gate.on_fail != "rollback"):
        if one.gate.on_fail == "rollback":
            reason = ReasonCode.REGRESSION if one.gate.compare_to == "champion" else ReasonCode.BOUND_EXCEEDED
            return Decision.ROLLBACK, reason, one.result.sentence()
        return Decision.HOLD, ReasonCode.GATE_FAILED_HELD, f"holds: {one.result.sentence()}"
    unusable = [one for one in judged if one.result.status is GateStatus.ERROR]
    for one in sorted(unusable, key=lambda each: each.gate.on_error != "rollback"):
        decision = Decision.ROLLBACK if one.gate.on_error == "rollback" else Decision.HOLD
        return decision, ReasonCode.GATE_ERROR, one.result.sentence()
    return None


def _passed(stage: Stage, required: Sequence[Judged], clock: Clock) -> str:
    if stage.kind == "full":
        return "advances: the new release serves all users, read back"
    baked = f"baked {clock.elapsed_s:.0f} s"
    if not required:
        return f"advances: {baked}"
    return f"advances: {baked}; {', '.join(one.gate.name for one in required)} passed"


def _hold(
    stage: Stage, open_: Sequence[Judged], *, ratio: GateResult | None, clock: Clock
) -> tuple[Decision, ReasonCode, str, float | None]:
    """What to do while something is open: wait with a reason, or, after the longest bake, what the policy says."""
    longest_s = stage.bake_max_s * (2 if clock.extended else 1)
    is_over = clock.elapsed_s >= longest_s
    wants = _wants(stage, open_, ratio=ratio, clock=clock)
    wait_s = _wait_s(stage, open_, clock)
    absent = [one for one in open_ if one.result.status is GateStatus.NO_DATA]
    told = [one for one in absent if one.absent is not None]
    if is_over and any(one.gate.on_missing == "rollback" for one in absent):
        reason = ReasonCode.MISSING_EVIDENCE if told else ReasonCode.NO_DATA
        return Decision.ROLLBACK, reason, f"rolls back after {longest_s:g} s: {wants}", None
    if ratio is not None:
        reason = (
            ReasonCode.MISSING_EVIDENCE if ratio.status is GateStatus.NO_DATA else ReasonCode.SAMPLE_RATIO
        )
        return Decision.HOLD, reason, f"holds: {wants}", wait_s
    if told:
        return Decision.HOLD, ReasonCode.MISSING_EVIDENCE, f"holds: {wants}", wait_s
    if clock.elapsed_s < stage.bake_min_s:
        return Decision.HOLD, ReasonCode.BAKING, f"holds: {wants}", wait_s
    if absent:
        return Decision.HOLD, ReasonCode.NO_DATA, f"holds: {wants}", wait_s
    if not is_over:
        return Decision.HOLD, ReasonCode.MORE_EVIDENCE, f"holds: {wants}", wait_s
    if stage.on_inconclusive == "manual":
        detail = f"holds for a person: still inconclusive after {longest_s:g} s; {wants}"
        return Decision.HOLD, ReasonCode.INCONCLUSIVE_MANUAL, detail, None
    if stage.on_inconclusive == "extend" and not clock.extended:
        detail = f"extended once, to {2 * stage.bake_max_s:g} s: {wants}"
        return Decision.HOLD, ReasonCode.EXTENDED, detail, wait_s
    detail = f"rolls back: still inconclusive after {longest_s:g} s; {wants}"
    return Decision.ROLLBACK, ReasonCode.INCONCLUSIVE, detail, None


def _wants(stage: Stage, open_: Sequence[Judged], *, ratio: GateResult | None, clock: Clock) -> str:
    """In plain words what is still wanting: "bake 6 s of 15 s; utility needs about 120 more canary units"."""
    parts = []
    if clock.elapsed_s < stage.bake_min_s:
        parts.append(f"bake {clock.elapsed_s:.0f} s of {stage.bake_min_s:g} s")
    if ratio is not None:
        parts.append(ratio.detail)
    parts += [f"{one.gate.name} {one.result.detail}" for one in open_]
    return "; ".join(parts)


def _wait_s(stage: Stage, open_: Sequence[Judged], clock: Clock) -> float | None:
    """At least how long until it could advance: the bake, and what the gates want at the pace so far."""
    waits = [one.wait_s for one in open_]
    known = [wait for wait in waits if wait is not None]
    return max([stage.bake_min_s - clock.elapsed_s, 0.0, *known])
