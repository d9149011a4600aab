"""What a rollout policy may say alone, but not beside the service's utility spec: both are read, none is changed.

Metrics that nothing would measure, margins wider than payoffs can differ, gates that the payoff range cannot feed, and
bounds laxer than what the stakeholders signed. Source: gates.md semantics 4 and F4. Must never import: anything that
reads a file or a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from policies.language.yaml_source import Document, Issue
from policies.rollout.metrics import METRICS
from policies.rollout.plan_mistakes import plan_errors, plan_warnings
from policies.rollout.rollout_policy import Gate, RolloutPolicy
from policies.utility.utility import UtilitySpec

# The gate metric that judges a constraint's quantity, by the constraint's kind.
_SAME_QUANTITY = {
    "action_rate_gap": ("call_rate_gap", "group_call_rate_gap"),
    "action_rate": ("action_rate",),
}
Found = tuple[str, str]


def rollout_errors_beside(utility: UtilitySpec, rollout: RolloutPolicy, document: Document) -> list[Issue]:
    """Every contradiction between the two; `document` is that of rollout.yaml."""
    names = [gate["name"] for gate in document.data["gates"]]
    gates = {gate.name: gate for stage in rollout.stages for gate in stage.gates}
    issues = [
        document.issue(("gates", names.index(gate.name), *key.split(".")), message)
        for gate in gates.values()
        for key, message in (
            *_unproduced(gate, utility),
            *_too_wide(gate, utility),
            *_laxer(gate, utility),
            *_slower(gate, utility),
        )
    ]
    if not issues:
        unjudged = _unjudged(gates.values(), utility)
        issues = [document.issue(("gates",), message, of_key=True) for message in unjudged]
    return issues or plan_errors(rollout, document, payoff_range=utility.range)


def rollout_warnings_beside(utility: UtilitySpec, rollout: RolloutPolicy, document: Document) -> list[Issue]:
    """What is doubtful in a rollout policy that has its utility spec beside it."""
    gaps = [one.name for one in utility.constraints if one.kind == "action_rate_gap"]
    unjudged = [
        document.issue(
            ("gates", at, "metric"),
            f"judges the groups of constraint '{gaps[0]}' alone, the first of its kind in utility.yaml: live nobody "
            f"judges {', '.join(gaps[1:])}",
        )
        for at, gate in enumerate(document.data["gates"])
        if gate["metric"] == "call_rate_gap" and len(gaps) > 1
    ]
    return [*unjudged, *plan_warnings(rollout, document, payoff_range=utility.range)]


def _unproduced(gate: Gate, utility: UtilitySpec) -> Iterator[Found]:
    """Metrics of groups and of stakeholders exist only where the utility spec speaks of them."""
    kinds = {constraint.kind for constraint in utility.constraints}
    if gate.metric in ("call_rate_gap", "group_call_rate_gap") and "action_rate_gap" not in kinds:
        yield (
            "metric",
            f"nobody measures '{gate.metric}' here: utility.yaml has no constraint of kind 'action_rate_gap', which "
            "would say the groups",
        )
    stakeholders = [one.name for one in utility.stakeholders]
    if gate.metric == "customer_utility" and "customer" not in stakeholders:
        yield (
            "metric",
            f"nobody measures '{gate.metric}' here: utility.yaml has no stakeholder 'customer' "
            f"(there are {', '.join(stakeholders)})",
        )


def _too_wide(gate: Gate, utility: UtilitySpec) -> Iterator[Found]:
    """A margin as wide as payoffs can differ at all."""
    low, high = utility.range
    if not METRICS[gate.metric].needs_outcomes or gate.ni_margin is None:
        return
    if gate.ni_margin >= high - low:
        yield (
            "niMargin.absolute",
            f"must be < {high - low:g}, the width of the payoff range [{low:g}, {high:g}] in utility.yaml, or no gate "
            f"could fail: {gate.ni_margin:g}",
        )


def _slower(gate: Gate, utility: UtilitySpec) -> Iterator[Found]:
    """An absolute bound on slow answers that a broken latency constraint would pass."""
    if gate.metric != "slow_share" or gate.max is None or gate.budget_ms is None:
        return
    for name, within_ms, slow in _latencies(utility):
        signed = f"constraint '{name}' in utility.yaml lets {slow:.4g} of the answers take longer than {within_ms:g}ms"
        if gate.budget_ms > within_ms:
            yield "budget", f"must be <= {within_ms:g}ms, as {signed}: {gate.budget_ms:g}ms"
        if gate.budget_ms >= within_ms and gate.max > slow:
            yield "max", f"must be <= {slow:.4g}, as {signed}: {gate.max:g}"


def _unjudged(gates: Collection[Gate], utility: UtilitySpec) -> Iterator[str]:
    """Latency is judged live or not at all: a constraint on it that no gate judges would be kept by nobody."""
    slow_gates = [one for one in gates if one.metric == "slow_share" and not one.dry_run]
    for name, within_ms, slow in _latencies(utility):
        if not any(
            one.max is not None
            and one.budget_ms is not None
            and one.max <= slow
            and one.budget_ms <= within_ms
            for one in slow_gates
        ):
            yield (
                f"must hold one that judges constraint '{name}' of utility.yaml: `metric: slow_share`, `compareTo: "
                f"bound`, `budget: {within_ms:g}ms`, `max: {slow:.4g}`, or stricter, and no dry run"
            )


def _latencies(utility: UtilitySpec) -> Iterator[tuple[str, float, float]]:
    """Name, milliseconds and the share that may be slower, of each latency constraint."""
    for one in utility.constraints:
        if one.kind == "latency" and one.at_most is not None and one.share is not None:
            yield one.name, 1000 * one.at_most, round(1 - one.share, 9)


def _laxer(gate: Gate, utility: UtilitySpec) -> Iterator[Found]:
    """An upper bound laxer than the stakeholders' own on the same quantity."""
    for constraint in utility.constraints:
        is_same = gate.metric in _SAME_QUANTITY.get(constraint.kind, ())
        if not is_same or gate.max is None or constraint.at_most is None:
            continue
        others = [action for action in utility.actions if action != utility.default_action]
        if gate.metric == "action_rate" and others != [constraint.action]:
            continue  # the gate counts every action but the default, the constraint one of several
        if gate.max > constraint.at_most:
            yield (
                "max",
                f"must be <= {constraint.at_most:g}, the bound of constraint '{constraint.name}' in utility.yaml: "
                f"{gate.max:g}",
            )
