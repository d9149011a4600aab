"""What a rollout policy may say alone, but not beside the service's utility spec: both are read, none is changed.

Metrics that nothing would measure, margins wider than payoffs can differ, gates that the payoff range cannot feed, and
bounds laxer than what the stakeholders signed. Source: gates.md semantics 4 and F4. Must never import: anything that
reads a file or a clock.
"""

from __future__ import annotations

from collections.abc import Iterator

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
        )
    ]
    return issues or plan_errors(rollout, document, payoff_range=utility.range)


def rollout_warnings_beside(utility: UtilitySpec, rollout: RolloutPolicy, document: Document) -> list[Issue]:
    """What is doubtful in a rollout policy that has its utility spec beside it."""
    return plan_warnings(rollout, document, payoff_range=utility.range)


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


def _laxer(gate: Gate, utility: UtilitySpec) -> Iterator[Found]:
    """An upper bound laxer than the stakeholders' own on the same quantity."""
    for constraint in utility.constraints:
        is_same = gate.metric in _SAME_QUANTITY.get(constraint.kind, ())
        if not is_same or gate.max is None or constraint.at_most is None:
            continue
        if gate.max > constraint.at_most:
            yield (
                "max",
                f"must be <= {constraint.at_most:g}, the bound of constraint '{constraint.name}' in utility.yaml: "
                f"{gate.max:g}",
            )
