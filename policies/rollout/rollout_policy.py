"""A rollout policy: the stages a release passes, and the gates that judge it there, read from `rollout.yaml`.

Gates stand once, under `gates`, and say from which weight on a stage requires them. A gate that a stage does not
require still runs its rollback side there, if the stage can measure its metric. What a mistake would make unsafe has
no default: onFail, onMissing, onError, onInconclusive, advanceOn, every bound, margin and bake time.
Source: gates.md semantics 1 to 10. Must never import: anything that reads a file or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal

from policies.language.digest import canonical_sha256
from policies.language.yaml_source import Issue, PolicyError, load_document, parse
from policies.rollout.metrics import METRICS as METRICS
from policies.rollout.plan_mistakes import plan_errors, plan_warnings
from policies.rollout.rollout_file import (
    AdvanceOn,
    AppliesTo,
    CompareTo,
    Estimate,
    GateFile,
    MarginFile,
    OnInconclusive,
    Outcome,
    RolloutFile,
    StageFile,
    StageKind,
    Where,
)
from policies.rollout.rollout_lint import mistakes_in
from policies.rollout.stage_gates import is_measured_in, is_required_in

Scale = Literal["ratio", "absolute"]


@dataclass(frozen=True)
class Gate:
    """One gate as a stage sees it.

    tolerance and ni_margin: ratios of rates where `scale` is ratio, else differences in the metric's own unit. min
    and max are inclusive; one is there where compare_to is `bound`, or `when` (CEL) in their place. weight: its share
    of alpha_rollback. window_s: length of a block of evidence, 0 for one per poll. where: the units that are compared.
    dry_run: judged and shown, it never acts and is never required. expected_*: what planning reckons with.
    """

    name: str
    metric: str
    compare_to: CompareTo
    min: float | None
    max: float | None
    tolerance: float | None
    ni_margin: float | None
    min_samples: int
    required: bool
    weight: float
    on_fail: Outcome
    on_missing: Outcome
    on_error: Outcome
    budget_ms: float | None
    estimate: Estimate
    applies_to: AppliesTo
    owner: str
    rationale: str
    scale: Scale = "absolute"
    window_s: float = 0.0
    where: Where = "all"
    dry_run: bool = False
    required_from_pct: float | None = None
    expected_rate: float | None = None
    expected_sd: float | None = None
    expected_variance_left: float | None = None
    expected_group_share: float | None = None
    when: str | None = None

    @property
    def bound(self) -> float | None:
        """The absolute bound: max or min."""
        return self.max if self.max is not None else self.min


@dataclass(frozen=True)
class Stage:
    """One stage. gates: those whose metric it can measure, required ones marked. Bake times in seconds."""

    name: str
    kind: StageKind
    weight_pct: float | None
    bake_min_s: float
    bake_max_s: float
    on_inconclusive: OnInconclusive
    advance_on: AdvanceOn
    approval: bool
    rationale: str
    gates: tuple[Gate, ...]

    @property
    def required(self) -> tuple[Gate, ...]:
        """The gates that must pass for it to advance."""
        return tuple(gate for gate in self.gates if gate.required)


@dataclass(frozen=True)
class RolloutPolicy:
    """A whole policy. Times in seconds of wall time.

    warnings: what is lawful but doubtful, with its place; digest covers the meaning, not the layout.
    """

    service: str
    version: int
    owner: str
    alpha_rollback: float
    alpha_advance: float
    maturity_s: float
    poll_s: float
    lease_s: float
    expected_requests_per_s: float
    stages: tuple[Stage, ...]
    digest: str
    review_by: date | None = None
    retrain_every_s: float = math.inf
    warnings: tuple[Issue, ...] = field(default=(), compare=False)

    @property
    def live_stages(self) -> tuple[Stage, ...]:
        """The stages that see traffic, shadow first."""
        return tuple(stage for stage in self.stages if stage.kind != "offline")

    @property
    def live_gates(self) -> tuple[Gate, ...]:
        """Every gate that some live stage runs, once each, in the order of first appearance."""
        seen: dict[str, Gate] = {}
        for stage in self.live_stages:
            for gate in stage.gates:
                seen.setdefault(gate.name, gate)
        return tuple(seen.values())

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises KeyError that says what exists."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(f"no stage {name!r}; there are {', '.join(stage.name for stage in self.stages)}")

    def stage_after(self, name: str) -> Stage | None:
        """The stage that follows, or None after the last."""
        index = self.stages.index(self.stage(name)) + 1
        return self.stages[index] if index < len(self.stages) else None

    def alpha_of(self, gate_name: str) -> float:
        """The gate's part of alpha_rollback, split by weight over the live gates that act.

        A gate on a dry run takes nothing from them: its own part is what it would have if it acted as well.
        """
        gates = {gate.name: gate for gate in self.live_gates}
        gate = gates[gate_name]
        others = sum(one.weight for one in gates.values() if not one.dry_run and one.name != gate_name)
        return self.alpha_rollback * gate.weight / (others + gate.weight)


def load_rollout(text: str, source: str) -> RolloutPolicy:
    """Read a rollout policy. Raises PolicyError with every mistake, each with its file, line and column."""
    document = load_document(text, source)
    file = parse(document, RolloutFile)
    issues = mistakes_in(file, document)
    if issues:
        raise _refused(issues)
    policy = RolloutPolicy(
        service=file.service,
        version=file.version,
        owner=file.owner,
        alpha_rollback=file.alpha_rollback,
        alpha_advance=file.alpha_advance,
        maturity_s=file.maturity,
        poll_s=file.poll,
        lease_s=file.lease,
        expected_requests_per_s=file.expected_traffic,
        stages=tuple(_stage(stage, file) for stage in file.stages),
        digest=canonical_sha256(document.data),
        review_by=file.review_by,
        retrain_every_s=math.inf if file.retrain_every is None else file.retrain_every,
    )
    issues = plan_errors(policy, document)
    if issues:
        raise _refused(issues)
    return replace(policy, warnings=tuple(plan_warnings(policy, document)))


def _refused(issues: Sequence[Issue]) -> PolicyError:
    return PolicyError(tuple(sorted(issues, key=lambda issue: (issue.line, issue.column))))


def _stage(stage: StageFile, file: RolloutFile) -> Stage:
    gates = tuple(_gate(gate, stage, file) for gate in file.gates if is_measured_in(gate, stage))
    return Stage(
        name=stage.name,
        kind=stage.kind,
        weight_pct=stage.weight,
        bake_min_s=0.0 if stage.bake is None else stage.bake.min,
        bake_max_s=0.0 if stage.bake is None else stage.bake.max,
        on_inconclusive=stage.on_inconclusive or "manual",
        advance_on=stage.advance_on,
        approval=stage.approval,
        rationale=stage.rationale or "",
        gates=gates,
    )


def _gate(gate: GateFile, stage: StageFile, file: RolloutFile) -> Gate:
    expected = gate.expected
    return Gate(
        name=gate.name,
        metric=gate.metric,
        compare_to=gate.compare_to,
        min=gate.min,
        max=gate.max,
        tolerance=_size(gate.tolerance),
        ni_margin=_size(gate.ni_margin),
        min_samples=gate.min_samples,
        required=is_required_in(gate, stage),
        weight=gate.weight,
        on_fail=gate.on_fail,
        on_missing=gate.on_missing,
        on_error=gate.on_error,
        budget_ms=None if gate.budget is None else gate.budget * 1000,
        estimate=gate.estimate or "value",
        applies_to=gate.applies_to or "all",
        owner=gate.owner or file.owner,
        rationale=gate.rationale,
        scale=_scale(gate),
        window_s=gate.window or 0.0,
        where=gate.where or "all",
        dry_run=gate.dry_run,
        required_from_pct=gate.required_from,
        expected_rate=None if expected is None else expected.rate,
        expected_sd=None if expected is None else expected.sd,
        expected_variance_left=None if expected is None else expected.variance_left,
        expected_group_share=None if expected is None else expected.group_share,
        when=gate.when,
    )


def _size(margin: MarginFile | None) -> float | None:
    """The number in it, whichever form it has; the lint has seen to it that there is one."""
    if margin is None:
        return None
    return margin.ratio if margin.ratio is not None else margin.absolute


def _scale(gate: GateFile) -> Scale:
    if gate.ni_margin is not None:
        return "absolute" if gate.ni_margin.ratio is None else "ratio"
    return "ratio" if METRICS[gate.metric].kind == "proportion" else "absolute"
