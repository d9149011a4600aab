"""What a rollout policy must not say though each key alone is well formed: all such mistakes, with places.

A loader that let these through would produce gates that cannot pass, cannot fail, or pass without evidence.
Here stand the rules between gates and stages; those of one gate and of the stages stand beside it.
Source: gates.md semantics 2, 4, 5, 10; design.md section 6. Must never import: anything that reads a file.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.language.yaml_source import Document, Issue, Path
from policies.rollout.condition import condition_mistakes
from policies.rollout.gate_mistakes import gate_mistakes
from policies.rollout.metrics import METRICS, measured_beside
from policies.rollout.rollout_file import GateFile, RolloutFile
from policies.rollout.stage_gates import is_measured_in, weight_pct
from policies.rollout.stage_mistakes import stage_mistakes


def mistakes_in(file: RolloutFile, document: Document) -> list[Issue]:
    """Every mistake of meaning in a policy whose keys and types are right."""
    issues: list[Issue] = []
    known = [gate.name for gate in file.gates]
    for index, gate in enumerate(file.gates):
        found = list(gate_mistakes(gate))
        if gate.name in known[:index]:
            found.append(("name", f"gate '{gate.name}' is there already"))
        if gate.metric in METRICS and not found:
            found += _placement_mistakes(file, index)
            issues += _condition_mistakes(gate, ("gates", index, "when"), document)
        issues += [document.issue(("gates", index, *key.split(".")), message) for key, message in found]
    found_elsewhere: tuple[tuple[Path, str], ...] = (*stage_mistakes(file), *_budget_mistakes(file))
    return issues + [document.issue(path, message) for path, message in found_elsewhere]


def _placement_mistakes(file: RolloutFile, index: int) -> Iterator[tuple[str, str]]:
    """A gate that no stage runs, that none requires though it says so, or whose blocks are shorter than a poll."""
    gate = file.gates[index]
    metric = METRICS[gate.metric]
    stages = [stage for stage in file.stages if is_measured_in(gate, stage)]
    if not stages:
        sources = "canary" if gate.compare_to == "champion" else ", ".join(metric.sources)
        key = "metric" if gate.runs_in is None else "runsIn"
        yield key, f"no stage runs it: '{gate.metric}' against {gate.compare_to} comes from {sources}"
        return
    highest = max(stages, key=weight_pct)
    if gate.required_from is not None and gate.required_from > weight_pct(highest):
        yield (
            "requiredFrom",
            f"must be <= {weight_pct(highest):g}%, the weight of '{highest.name}', the last stage that runs it: "
            f"{gate.required_from:g}%",
        )
    if gate.window is not None and gate.window < file.poll:
        yield "window", f"must be >= poll ({file.poll:g}s): {gate.window:g}s"


def _condition_mistakes(gate: GateFile, path: Path, document: Document) -> Iterator[Issue]:
    """What is wrong with the gate's `when`, each at its place in the expression."""
    if gate.when is None:
        return
    known = measured_beside(gate.metric)
    for mistake in condition_mistakes(gate.when, metric=gate.metric, known=known):
        yield document.issue_within(path, mistake.line, mistake.column, message=mistake.message)


def _budget_mistakes(file: RolloutFile) -> Iterator[tuple[Path, str]]:
    slow = [(index, gate) for index, gate in enumerate(file.gates) if gate.metric == "slow_share"]
    for index, gate in slow[1:]:
        first = slow[0][1].budget
        if first is not None and gate.budget is not None and gate.budget != first:
            yield (
                ("gates", index, "budget"),
                f"must be the same for every gate on 'slow_share' ({first * 1000:g}ms): {gate.budget * 1000:g}ms",
            )
