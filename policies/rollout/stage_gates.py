"""Which gates a stage runs, and which of them it requires: the one place that says so.

A gate says from which weight on it is required; a stage that rests on time alone requires none, and a gate on a dry
run is required nowhere. Source: gates.md semantics 5, 10. Must never import: anything that reads a file.
"""

from __future__ import annotations

from policies.rollout.metrics import METRICS
from policies.rollout.rollout_file import GateFile, StageFile


def is_measured_in(gate: GateFile, stage: StageFile) -> bool:
    """Whether the stage runs the gate: it can measure the metric in the form in which the gate compares it."""
    metric = METRICS[gate.metric]
    if stage.kind == "offline":
        return stage.name in metric.sources
    if gate.runs_in is not None and stage.kind not in gate.runs_in:
        return False
    return stage.kind in metric.sources and (gate.compare_to == "bound" or stage.kind == "canary")


def is_required_in(gate: GateFile, stage: StageFile) -> bool:
    """Whether the stage cannot advance unless the gate passes."""
    if gate.dry_run or stage.advance_on != "gates" or not is_measured_in(gate, stage):
        return False
    return stage.kind == "offline" or weight_pct(stage) >= (gate.required_from or 0.0)


def weight_pct(stage: StageFile) -> float:
    """The stage's weight as `requiredFrom` counts it: nothing in shadow, everything in full and probation."""
    if stage.kind == "canary":
        return stage.weight or 0.0
    return 100.0 if stage.kind in ("full", "probation") else 0.0
