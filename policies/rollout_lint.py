"""What a rollout policy must not say though each key alone is well formed: all such mistakes, with places.

A loader that let these through would produce gates that cannot pass, cannot fail, or pass without evidence.
Source: gates.md semantics 2, 4, 5, 10; design.md section 6. Must never import: anything that reads a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from policies.metrics import METRICS, Metric
from policies.yaml_mistakes import did_you_mean
from policies.yaml_source import Document, Issue

if TYPE_CHECKING:
    from policies.rollout_policy import GateFile, RolloutFile, StageFile

OFFLINE_STAGES = ("contract", "training", "alignment")
MAX_BAKE_ONLY_PCT = 1.0
LEAST_LEASE_S = 10.0
KIND_ORDER = ("offline", "shadow", "canary", "full", "probation")


def mistakes_in(file: RolloutFile, document: Document) -> list[Issue]:
    """Every mistake of meaning in a policy whose keys and types are right."""
    issues: list[Issue] = []
    known = [gate.name for gate in file.gates]
    for index, gate in enumerate(file.gates):
        path = ("gates", index)
        found = list(_gate_mistakes(gate))
        if gate.name in known[:index]:
            found.append(("name", f"gate '{gate.name}' is there already"))
        issues += [document.issue((*path, key), message) for key, message in found]
    for index, stage in enumerate(file.stages):
        found = list(_stage_mistakes(stage))
        issues += [document.issue(("stages", index, key), message) for key, message in found]
        issues += _requirement_mistakes(file, index, document)
    issues += _order_mistakes(file, document)
    issues += _clock_mistakes(file, document)
    issues += _budget_mistakes(file, document)
    return issues


def is_measured_in(gate: GateFile, stage: StageFile) -> bool:
    """Whether the stage can measure the gate's metric, in the form in which the gate compares it."""
    metric = METRICS[gate.metric]
    if stage.kind == "offline":
        return stage.name in metric.sources
    return stage.kind in metric.sources and (gate.compare_to == "bound" or stage.kind == "canary")


def _gate_mistakes(gate: GateFile) -> Iterator[tuple[str, str]]:
    metric = METRICS.get(gate.metric)
    if metric is None:
        yield (
            "metric",
            (
                f"unknown metric '{gate.metric}'{did_you_mean(gate.metric, list(METRICS))} "
                f"(known: {', '.join(METRICS)})"
            ),
        )
        return
    if gate.compare_to == "champion" and not metric.champion:
        yield "compareTo", f"must be 'bound' for metric '{metric.name}': 'champion'"
        return
    if metric.kind == "utility" and gate.compare_to == "bound":
        yield "compareTo", "must be 'champion' for metric 'utility': 'bound'"
        return
    if gate.compare_to == "bound":
        yield from _bound_mistakes(gate, metric)
    else:
        yield from _margin_mistakes(gate, metric)
    if metric.name == "slow_share" and gate.budget_ms is None:
        yield "budgetMs", "is missing: 'slow_share' needs the budget that makes a request slow"
    if metric.name != "slow_share" and gate.budget_ms is not None:
        yield "budgetMs", "belongs to metric 'slow_share' only"
    for key, value in (("estimate", gate.estimate), ("appliesTo", gate.applies_to)):
        if metric.is_live and value is not None:
            yield key, f"belongs to offline metrics only, not to '{metric.name}'"
        if not metric.is_live and value is None:
            yield key, f"is missing: an offline gate says it (metric '{metric.name}')"
    if metric.name == "gain_over_champion" and gate.applies_to not in (None, "challenger"):
        yield "appliesTo", f"must be 'challenger' for metric 'gain_over_champion': '{gate.applies_to}'"


def _bound_mistakes(gate: GateFile, metric: Metric) -> Iterator[tuple[str, str]]:
    if (gate.min is None) == (gate.max is None):
        yield (
            "min" if gate.min is not None else "max",
            ("'min' and 'max' exclude each other, and `compareTo: bound` needs one of them"),
        )
        return
    for key, value in (("tolerance", gate.tolerance), ("niMargin", gate.ni_margin)):
        if value is not None:
            yield key, "belongs to `compareTo: champion` only"
    key, bound = ("max", gate.max) if gate.max is not None else ("min", gate.min)
    if metric.kind in ("proportion", "gap") and bound is not None and not 0 < bound < 1:
        yield key, f"must be > 0 and < 1 for a {metric.kind}: {bound}"
    if metric.kind == "gap" and key == "min":
        yield "min", "must be 'max' for a gap: a gap is bounded from above"


def _margin_mistakes(gate: GateFile, metric: Metric) -> Iterator[tuple[str, str]]:
    for key, value in (("min", gate.min), ("max", gate.max)):
        if value is not None:
            yield key, "belongs to `compareTo: bound` only"
    for key, value in (("tolerance", gate.tolerance), ("niMargin", gate.ni_margin)):
        if value is None:
            yield key, "is missing: `compareTo: champion` needs it"
    if gate.tolerance is None or gate.ni_margin is None:
        return
    if gate.ni_margin <= gate.tolerance:
        yield "niMargin", f"must be > tolerance {gate.tolerance:g}: {gate.ni_margin:g}"
    if metric.kind == "proportion" and gate.tolerance < 1:
        yield "tolerance", f"must be >= 1, a ratio of rates: {gate.tolerance:g}"


def _stage_mistakes(stage: StageFile) -> Iterator[tuple[str, str]]:
    if stage.kind == "offline":
        if stage.approval:
            yield (
                "approval",
                "belongs to live stages: nobody could give it; ask for it at the stage that follows",
            )
        if stage.name not in OFFLINE_STAGES:
            yield "name", f"must be one of {', '.join(OFFLINE_STAGES)} for an offline stage: '{stage.name}'"
        for key, value in (
            ("bakeMinS", stage.bake_min_s),
            ("bakeMaxS", stage.bake_max_s),
            ("onInconclusive", stage.on_inconclusive),
        ):
            if value is not None:
                yield key, "belongs to live stages only"
    else:
        yield from _bake_mistakes(stage)
    if (stage.weight_pct is not None) != (stage.kind == "canary"):
        yield "weightPct", "is missing" if stage.kind == "canary" else "belongs to canary stages only"
    yield from _advance_mistakes(stage)


def _bake_mistakes(stage: StageFile) -> Iterator[tuple[str, str]]:
    for key, value in (
        ("bakeMinS", stage.bake_min_s),
        ("bakeMaxS", stage.bake_max_s),
        ("onInconclusive", stage.on_inconclusive),
    ):
        if value is None:
            yield key, f"is missing: a {stage.kind} stage says it"
    if stage.bake_min_s is not None and stage.bake_max_s is not None and stage.bake_max_s < stage.bake_min_s:
        yield "bakeMaxS", f"must be >= bakeMinS {stage.bake_min_s:g}: {stage.bake_max_s:g}"


def _advance_mistakes(stage: StageFile) -> Iterator[tuple[str, str]]:
    if stage.advance_on == "gates":
        if not stage.require:
            yield "require", "must name at least one gate where `advanceOn: gates`"
        return
    if stage.require:
        yield "require", f"must be empty where `advanceOn: {stage.advance_on}`"
    if stage.advance_on == "readback":
        if stage.kind != "full":
            yield "advanceOn", "'readback' belongs to the full stage only"
        return
    if stage.kind != "canary" or (stage.weight_pct or 0) > MAX_BAKE_ONLY_PCT:
        yield "advanceOn", f"'bake' is allowed only in a canary stage of at most {MAX_BAKE_ONLY_PCT:g} %"
    if stage.rationale is None:
        yield "rationale", "is missing: a stage that advances without a gate says why"


def _requirement_mistakes(file: RolloutFile, index: int, document: Document) -> Iterator[Issue]:
    stage = file.stages[index]
    gates = {gate.name: gate for gate in file.gates}
    required = []
    for place, name in enumerate(stage.require):
        path = ("stages", index, "require", place)
        gate = gates.get(name)
        if gate is None:
            yield document.issue(path, f"unknown gate '{name}'{did_you_mean(name, list(gates))}")
        elif name in stage.require[:place]:
            yield document.issue(path, f"gate '{name}' is required twice")
        elif gate.metric in METRICS:
            required.append(gate)
            if not is_measured_in(gate, stage):
                sources = ", ".join(METRICS[gate.metric].sources)
                yield document.issue(
                    path,
                    f"gate '{name}' cannot be judged in '{stage.name}': '{gate.metric}' comes from {sources}",
                )
            else:
                yield from _too_slow(file, stage, gate, document.issue(path, ""))
    if stage.kind == "offline" and required:
        for kind in ("first", "challenger"):
            if not any(gate.applies_to in (kind, "all", None) for gate in required):
                yield document.issue(
                    ("stages", index, "require"), f"must name a gate that applies to a {kind} release"
                )


def _too_slow(file: RolloutFile, stage: StageFile, gate: GateFile, place: Issue) -> Iterator[Issue]:
    """A required bound that even zero events cannot pass within the longest bake (gates.md, semantics 4)."""
    if METRICS[gate.metric].kind != "proportion" or stage.bake_max_s is None:
        return
    if gate.compare_to == "champion":
        return
    bound = gate.max if gate.max is not None else 1 - (gate.min or 0)
    if not 0 < bound < 1:
        return
    share = (stage.weight_pct or 100.0) / 100
    needed = max(gate.min_samples, math.log(1.14 / file.alpha_advance) / -math.log1p(-bound))
    seconds = needed / (file.expected_requests_per_s * share)
    if seconds > stage.bake_max_s:
        message = (
            f"gate '{gate.name}' needs about {_duration(seconds)} at {share:.0%} of "
            f"{file.expected_requests_per_s:g} requests a second; the longest bake is {stage.bake_max_s:g} s"
        )
        yield Issue(place.source, place.line, place.column, place.path, message)


def _duration(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def _order_mistakes(file: RolloutFile, document: Document) -> Iterator[Issue]:
    names = [stage.name for stage in file.stages]
    for index, stage in enumerate(file.stages):
        if stage.name in names[:index]:
            yield document.issue(("stages", index, "name"), f"stage '{stage.name}' is there already")
        if index and KIND_ORDER.index(stage.kind) < KIND_ORDER.index(file.stages[index - 1].kind):
            yield document.issue(
                ("stages", index, "kind"),
                f"'{stage.kind}' cannot follow '{file.stages[index - 1].kind}'; the order is "
                f"{', '.join(KIND_ORDER)}",
            )
    offline = [name for name in names if name in OFFLINE_STAGES]
    if offline != [name for name in OFFLINE_STAGES if name in offline]:
        yield document.issue(
            ("stages",), f"offline stages must stand in the order {', '.join(OFFLINE_STAGES)}"
        )
    for missing in (name for name in OFFLINE_STAGES if name not in names):
        yield document.issue(("stages",), f"stage '{missing}' is missing")
    for kind in KIND_ORDER[1:]:
        count = sum(stage.kind == kind for stage in file.stages)
        if count == 0 or (count > 1 and kind != "canary"):
            wanted = "at least one stage" if kind == "canary" else "one stage"
            yield document.issue(("stages",), f"must hold {wanted} of kind '{kind}': {count}")
    last = 0.0
    for index, stage in enumerate(file.stages):
        if stage.weight_pct is not None:
            if stage.weight_pct <= last:
                yield document.issue(
                    ("stages", index, "weightPct"),
                    f"must be > {last:g}, the weight before: {stage.weight_pct:g}",
                )
            last = stage.weight_pct


def _clock_mistakes(file: RolloutFile, document: Document) -> Iterator[Issue]:
    # A poll renews the grant for half the lease (the other half is the proxy's own time-to-live, 5 s): a grant that
    # ends as the next poll is due would drop the weight to 0 at every poll, and no evidence would ever count.
    if file.lease_s < 4 * file.poll_s:
        yield document.issue(
            ("leaseS",),
            f"must be >= 4 * pollS ({4 * file.poll_s:g}), or a late poll ends it: {file.lease_s:g}",
        )
    if file.lease_s < LEAST_LEASE_S:
        yield document.issue(
            ("leaseS",),
            f"must be >= {LEAST_LEASE_S:g}: the proxy forgets a weight after 5 s, not sooner: {file.lease_s:g}",
        )
    for index, stage in enumerate(file.stages):
        if stage.kind == "canary" and stage.require and stage.bake_max_s is not None:
            least = file.maturity_s + file.poll_s
            if stage.bake_max_s <= least:
                yield document.issue(
                    ("stages", index, "bakeMaxS"),
                    f"must be > maturityS + pollS ({least:g}), or no outcome matures: {stage.bake_max_s:g}",
                )


def _budget_mistakes(file: RolloutFile, document: Document) -> Iterator[Issue]:
    budgets: dict[str, float | None] = {}
    for index, gate in enumerate(file.gates):
        if gate.metric == "slow_share" and budgets.setdefault(gate.metric, gate.budget_ms) != gate.budget_ms:
            yield document.issue(
                ("gates", index, "budgetMs"),
                f"must be the same for every gate on 'slow_share' ({budgets[gate.metric]}): {gate.budget_ms}",
            )
