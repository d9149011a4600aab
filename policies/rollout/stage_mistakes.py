"""What one stage, their order, and the policy's clocks must not say though each key is well formed.

Source: gates.md semantics 4, 5, 7, 10; design.md sections 6 and 7. Must never import: anything that reads a file.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.language.quantities import duration_text
from policies.language.yaml_source import Path
from policies.rollout.metrics import METRICS
from policies.rollout.rollout_file import RolloutFile, StageFile
from policies.rollout.stage_gates import is_required_in

OFFLINE_STAGES = ("contract", "training", "alignment")
KIND_ORDER = ("offline", "shadow", "canary", "full", "probation")
MAX_BAKE_ONLY_PCT = 1.0
LEAST_LEASE_S = 10.0

Mistake = tuple[Path, str]
"""Where in the file, and what is wrong there."""


def stage_mistakes(file: RolloutFile) -> Iterator[Mistake]:
    """Every mistake of meaning in the stages, in their order, and in the clocks."""
    for index, stage in enumerate(file.stages):
        for path, message in (*_alone(stage), *_requirements(file, stage)):
            yield ("stages", index, *path), message
    yield from _order_mistakes(file)
    yield from _weight_mistakes(file)
    yield from _clock_mistakes(file)


def _alone(stage: StageFile) -> Iterator[Mistake]:
    if stage.kind == "offline":
        if stage.approval:
            yield (
                ("approval",),
                "belongs to live stages: nobody could give it; ask for it at the stage that follows",
            )
        if stage.name not in OFFLINE_STAGES:
            yield (
                ("name",),
                f"must be one of {', '.join(OFFLINE_STAGES)} for an offline stage: '{stage.name}'",
            )
    for key, value in (("bake", stage.bake), ("onInconclusive", stage.on_inconclusive)):
        if stage.kind == "offline" and value is not None:
            yield (key,), "belongs to live stages only"
        if stage.kind != "offline" and value is None:
            yield (key,), f"is missing: a {stage.kind} stage says it"
    if stage.bake is not None and stage.bake.max < stage.bake.min:
        yield (
            ("bake", "max"),
            f"must be >= min {duration_text(stage.bake.min)}: {duration_text(stage.bake.max)}",
        )
    if (stage.weight is not None) != (stage.kind == "canary"):
        what = "is missing: a canary stage says it, like 5%"
        yield ("weight",), what if stage.kind == "canary" else "belongs to canary stages only"
    yield from _advance_mistakes(stage)


def _advance_mistakes(stage: StageFile) -> Iterator[Mistake]:
    if stage.advance_on == "gates":
        if stage.kind == "full":
            yield ("advanceOn",), "must be 'readback' in the full stage: 'gates'"
        return
    if stage.advance_on == "readback":
        if stage.kind != "full":
            yield ("advanceOn",), "'readback' belongs to the full stage only"
        return
    if stage.kind != "canary" or (stage.weight or 0) > MAX_BAKE_ONLY_PCT:
        yield (
            ("advanceOn",),
            f"'bake' is allowed only in a canary stage of at most {MAX_BAKE_ONLY_PCT:g} %",
        )
    if stage.rationale is None:
        yield ("rationale",), "is missing: a stage that advances without a gate says why"


def _requirements(file: RolloutFile, stage: StageFile) -> Iterator[Mistake]:
    """A stage that advances on gates has some, for every release that comes, and time for their outcomes."""
    if stage.advance_on != "gates" or stage.kind == "full":
        return
    is_all_known = all(
        gate.metric in METRICS for gate in file.gates
    )  # else a gate may be one of this stage's
    required = [gate for gate in file.gates if gate.metric in METRICS and is_required_in(gate, stage)]
    if not required and is_all_known:
        yield (
            ("advanceOn",),
            f"'gates' needs a gate that is required in '{stage.name}': none is that it can measure, with "
            "`requiredFrom` at or below its weight, and not on a dry run",
        )
        return
    if stage.kind == "offline" and is_all_known:
        for kind in ("first", "challenger"):
            if not any(gate.applies_to in (kind, "all", None) for gate in required):
                yield ("name",), f"no gate of stage '{stage.name}' applies to a {kind} release"
    waiting = [gate.name for gate in required if METRICS[gate.metric].needs_outcomes]
    if waiting and stage.bake is not None:
        for key, least, why in (
            ("min", file.maturity, "maturity"),
            ("max", file.maturity + file.poll, "maturity + poll"),
        ):
            value = float(getattr(stage.bake, key))
            if value <= least:
                yield (
                    ("bake", key),
                    f"must be > {why} {duration_text(least)}, or no outcome is mature for {', '.join(waiting)}, "
                    f"required here: {duration_text(value)}",
                )
                break


def _order_mistakes(file: RolloutFile) -> Iterator[Mistake]:
    names = [stage.name for stage in file.stages]
    for index, stage in enumerate(file.stages):
        if stage.name in names[:index]:
            yield ("stages", index, "name"), f"stage '{stage.name}' is there already"
        if index and KIND_ORDER.index(stage.kind) < KIND_ORDER.index(file.stages[index - 1].kind):
            yield (
                ("stages", index, "kind"),
                f"'{stage.kind}' cannot follow '{file.stages[index - 1].kind}'; the order is "
                f"{', '.join(KIND_ORDER)}",
            )
    offline = [name for name in names if name in OFFLINE_STAGES]
    if offline != [name for name in OFFLINE_STAGES if name in offline]:
        yield ("stages",), f"offline stages must stand in the order {', '.join(OFFLINE_STAGES)}"
    for missing in (name for name in OFFLINE_STAGES if name not in names):
        yield ("stages",), f"stage '{missing}' is missing"
    for kind in KIND_ORDER[1:]:
        count = sum(stage.kind == kind for stage in file.stages)
        if count == 0 or (count > 1 and kind != "canary"):
            wanted = "at least one stage" if kind == "canary" else "one stage"
            yield ("stages",), f"must hold {wanted} of kind '{kind}': {count}"


def _weight_mistakes(file: RolloutFile) -> Iterator[Mistake]:
    last = 0.0
    for index, stage in enumerate(file.stages):
        if stage.weight is None:
            continue
        if not 0 < stage.weight < 100:
            yield (
                ("stages", index, "weight"),
                f"must be > 0% and < 100%, which is the full stage: {stage.weight:g}%",
            )
        elif stage.weight <= last:
            yield (
                ("stages", index, "weight"),
                f"must be > {last:g}%, the weight before: {stage.weight:g}%",
            )
        last = max(stage.weight, last)


def _clock_mistakes(file: RolloutFile) -> Iterator[Mistake]:
    # A poll renews the grant for half the lease (the other half is the proxy's own time-to-live, 5 s): a grant that
    # ends as the next poll is due would drop the weight to 0 at every poll, and no evidence would ever count.
    if file.lease < 4 * file.poll:
        least = duration_text(4 * file.poll)
        yield (
            ("lease",),
            f"must be >= 4 * poll ({least}), or a late poll ends it: {duration_text(file.lease)}",
        )
    if file.lease < LEAST_LEASE_S:
        yield (
            ("lease",),
            f"must be >= {LEAST_LEASE_S:g}s: the proxy forgets a weight after 5 s, not sooner: "
            f"{duration_text(file.lease)}",
        )
