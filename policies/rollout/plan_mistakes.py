"""What the plan shows to be impossible or doubtful: gates that their stages cannot feed, bakes without end.

A gate that cannot be decided within the longest bake leaves every rollout inconclusive, sound ones too; the author
learns it here, with the time it would take, and not after weeks. Impossible or unsafe is an error, doubtful a warning.
Source: gates.md semantics 4, 5, 7. Must never import: anything that reads a file or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from policies.language.quantities import about, duration_text
from policies.language.yaml_source import Document, Issue, Path
from policies.rollout.metrics import METRICS
from policies.rollout.planning import (
    MIN_EXPECTED_EVENTS,
    Plan,
    longest_passage_s,
    plan_rollout,
    shortest_passage_s,
)

if TYPE_CHECKING:
    from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage

MIN_BLOCKS = 10
STARVED = 1.5
"""How many times the units that the spread alone would need are worth a warning."""

Found = tuple[Path, str]


def plan_errors(
    policy: RolloutPolicy, document: Document, *, payoff_range: tuple[float, float] | None = None
) -> list[Issue]:
    """What cannot work, each with its place. payoff_range: (low, high) of the utility spec, where it is known."""
    places = _Places(document)
    found = [
        *(
            one
            for plan in plan_rollout(policy, payoff_range)
            for one in _unreachable(plan, policy, places, payoff_range)
        ),
        *_never_failing(policy, places),
        *_beyond_the_scale(policy, places, payoff_range),
        *_endless(policy),
    ]
    return [document.issue(path, message) for path, message in found]


def plan_warnings(
    policy: RolloutPolicy, document: Document, *, payoff_range: tuple[float, float] | None = None
) -> list[Issue]:
    """What may work but should be looked at."""
    places = _Places(document)
    found = [*_starvation(policy), *_few_blocks(policy, places)]
    if "timeScale" in document.data:
        found.append((("timeScale",), "is read by nothing: take it out"))
    if payoff_range is not None:
        found += _starved_bets(policy, places, payoff_range)
    return [document.issue(path, message) for path, message in found]


class _Places:
    """Where gates and stages stand in the file."""

    def __init__(self, document: Document) -> None:
        self._gates = [gate["name"] for gate in document.data["gates"]]
        self._stages = [stage["name"] for stage in document.data["stages"]]

    def gate(self, name: str, *keys: str) -> Path:
        return ("gates", self._gates.index(name), *keys)

    def stage(self, name: str, *keys: str) -> Path:
        return ("stages", self._stages.index(name), *keys)


def _unreachable(
    plan: Plan, policy: RolloutPolicy, places: _Places, payoff_range: tuple[float, float] | None
) -> Iterator[Found]:
    """One gate that its stage's longest bake cannot decide: why, and where that is said."""
    stage = policy.stage(plan.stage)
    gate = next(one for one in stage.gates if one.name == plan.gate)
    longest = f"the longest bake of '{stage.name}' is {duration_text(plan.longest_s)}" + (
        ", extended once" if stage.on_inconclusive == "extend" else ""
    )
    if not math.isfinite(plan.units):
        yield places.gate(gate.name, "expected"), f"can never pass: {_hopeless(gate)}"
        return
    if plan.events is not None and plan.events < MIN_EXPECTED_EVENTS:
        yield (
            places.gate(gate.name, "niMargin", "ratio"),
            f"a ratio of rates needs at least {MIN_EXPECTED_EVENTS} expected events: {longest}, which brings about "
            f"{plan.events:.1f} in the candidate's arm; write `compareTo: bound`, or require it from a larger weight",
        )
        return
    if plan.reaches:
        return
    pace = _pace(stage, policy)
    brought = max(plan.longest_s - (plan.seconds - plan.units / pace), 0.0) * pace
    if plan.units == gate.min_samples > brought:
        yield (
            places.gate(gate.name, "minSamples"),
            f"cannot be reached: {longest}, which brings about {brought:,.0f} units: {gate.min_samples}",
        )
        return
    if payoff_range is not None and plan.starved >= STARVED:
        yield (
            places.gate(gate.name, "niMargin"),
            f"{_starved(plan, payoff_range)}: {plan.says}; {longest}. Cap the payoffs in utility.yaml, or widen the "
            "margin",
        )
        return
    yield (
        places.stage(stage.name, "bake", "max"),
        f"is too short: {plan.says}; {longest}. Require it from a larger weight (`requiredFrom`), widen its margin, "
        "or bake longer",
    )


def _hopeless(gate: Gate) -> str:
    if gate.compare_to == "bound":
        return f"the expected rate {gate.expected_rate:g} is not within the bound {gate.bound:g}"
    return "at what is expected of it, evidence for passing does not grow"


def _pace(stage: Stage, policy: RolloutPolicy) -> float:
    """Candidate units a second."""
    return policy.expected_requests_per_s * (1.0 if stage.weight_pct is None else stage.weight_pct / 100)


def _never_failing(policy: RolloutPolicy, places: _Places) -> Iterator[Found]:
    """A bound so near the end of its scale that even nothing but events against it would not fail the gate."""
    for gate in policy.live_gates:
        if METRICS[gate.metric].kind != "proportion" or gate.compare_to != "bound":
            continue
        bound = gate.max if gate.max is not None else 1 - (gate.min or 0.0)
        units = sum(
            _pace(stage, policy) * longest_passage_s((stage,))
            for stage in policy.live_stages
            if any(one.name == gate.name for one in stage.gates)
        )
        needed = -math.log(policy.alpha_of(gate.name)) / -math.log(bound)
        if needed > units:
            yield (
                places.gate(gate.name, "max" if gate.max is not None else "min"),
                f"can never fail: even if every unit counted against it, it would take {needed:,.0f}, and the longest "
                f"bakes of its stages bring about {units:,.0f}: {gate.bound:g}",
            )


def _beyond_the_scale(
    policy: RolloutPolicy, places: _Places, payoff_range: tuple[float, float] | None
) -> Iterator[Found]:
    """A margin against stable so wide that no candidate could be worse by it: at once, where it is the tolerance."""
    for gate in policy.live_gates:
        if gate.compare_to != "champion":
            continue
        kind = METRICS[gate.metric].kind
        for key, margin in (("tolerance", gate.tolerance), ("niMargin", gate.ni_margin)):
            why = _why_beyond(gate, kind, margin or 0.0, payoff_range)
            if why is not None:
                cannot = "fail" if key == "tolerance" else "keep a candidate back"
                yield places.gate(gate.name, key, gate.scale), f"can never {cannot}: {why}"
                break


def _why_beyond(gate: Gate, kind: str, margin: float, payoff_range: tuple[float, float] | None) -> str | None:
    """Why nothing can be worse than stable by so much, or None where something can."""
    rate = gate.expected_rate
    if kind == "proportion" and rate is not None:
        worst = rate * margin if gate.scale == "ratio" else rate + margin
        what = f"{margin:g} times" if gate.scale == "ratio" else f"{margin:g} above"
        return (
            f"{what} the expected rate {rate:g} is a rate of {worst:g}, and none reaches 1"
            if worst >= 1
            else None
        )
    if kind == "gap":
        return f"a difference of shares is below 1: {margin:g}" if margin >= 1 else None
    if kind in ("utility", "ratio") and payoff_range is not None:
        low, high = payoff_range
        half = (high - low) / 2 / (1.0 if kind == "utility" else rate or 1.0)
        if margin >= half:
            return (
                f"payoffs range over [{low:g}, {high:g}] (utility.yaml), and no release that anyone would try is worse "
                f"by half of that, {half:g}: {margin:g}"
            )
    return None


def _endless(policy: RolloutPolicy) -> Iterator[Found]:
    shortest = shortest_passage_s(policy.live_stages)
    if shortest >= policy.retrain_every_s:
        yield (
            ("retrainEvery",),
            f"must be > the least bakes of all live stages together ({duration_text(shortest)}), or no rollout ends "
            f"before the next candidate comes: {duration_text(policy.retrain_every_s)}",
        )


def _starvation(policy: RolloutPolicy) -> Iterator[Found]:
    shortest, longest = shortest_passage_s(policy.live_stages), longest_passage_s(policy.live_stages)
    if shortest < policy.retrain_every_s < longest:
        yield (
            ("retrainEvery",),
            f"a rollout may last {about(longest)}, longer than the {duration_text(policy.retrain_every_s)} until the "
            "next candidate comes: candidates may starve; shorten the longest bakes, or retrain less often",
        )


def _few_blocks(policy: RolloutPolicy, places: _Places) -> Iterator[Found]:
    for gate in policy.live_gates:
        stages = [stage for stage in policy.live_stages for one in stage.required if one.name == gate.name]
        if not gate.window_s or not stages:
            continue
        tightest = min(stages, key=lambda stage: stage.bake_max_s)
        blocks = tightest.bake_max_s / gate.window_s
        if blocks < MIN_BLOCKS:
            yield (
                places.gate(gate.name, "window"),
                f"leaves {blocks:.0f} blocks of evidence in the longest bake of '{tightest.name}' "
                f"({duration_text(tightest.bake_max_s)}), and a gate wants at least {MIN_BLOCKS}: "
                f"{duration_text(gate.window_s)}",
            )


def _starved_bets(
    policy: RolloutPolicy, places: _Places, payoff_range: tuple[float, float]
) -> Iterator[Found]:
    plans = [plan for plan in plan_rollout(policy, payoff_range) if plan.starved >= STARVED]
    for plan in {plan.gate: plan for plan in plans}.values():
        yield (
            places.gate(plan.gate, "niMargin"),
            f"{_starved(plan, payoff_range)}; cap the payoffs in utility.yaml, or widen the margin",
        )


def _starved(plan: Plan, payoff_range: tuple[float, float]) -> str:
    low, high = payoff_range
    return (
        f"its bets are starved: payoffs range over [{low:g}, {high:g}] (utility.yaml), so that '{plan.stage}' needs "
        f"{plan.starved:,.1f} times the units that their spread alone would need"
    )
