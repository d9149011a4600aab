"""`policies.gates.gate_alone`: gates on gaps and ratios have their power told, by the engine's own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.gates.gate_alone import Alone, gate_alone
from policies.rollout.rollout_policy import RolloutPolicy, load_rollout

RANGE = (-1.0, 29.8)
SHIPPED = Path(__file__).parents[3] / "policies" / "telemarketing" / "rollout.yaml"
TEXT = SHIPPED.read_text(encoding="utf-8")
GAP_BESIDE_STABLE = """
  - name: gap-beside-stable
    metric: call_rate_gap
    compareTo: champion
    tolerance: {absolute: 0.05}
    niMargin: {absolute: 0.15}
    expected: {rate: 0.13, groupShare: 0.3}
    requiredFrom: 50%
    onFail: rollback
    onMissing: hold
    onError: hold
    rationale: The difference between the groups must not grow.
  - name: earns-a-call
    metric: utility_per_action
    compareTo: champion
    tolerance: {absolute: 0}
    niMargin: {absolute: 4}
    expected: {rate: 0.3, sd: 5}
    requiredFrom: 50%
    onFail: rollback
    onMissing: hold
    onError: hold
    rationale: A call must not earn much less than the champion's calls.

stages:
"""


def _told(policy: RolloutPolicy, name: str, runs: int = 40) -> list[Alone]:
    gate = next(gate for gate in policy.live_gates if gate.name == name)
    return list(gate_alone(gate, policy, RANGE, runs=runs))


@pytest.fixture(scope="module")
def policy() -> RolloutPolicy:
    return load_rollout(TEXT.replace("\nstages:\n", GAP_BESIDE_STABLE, 1), "rollout.yaml")


@pytest.mark.parametrize("name", ["call-rate-gap", "gap-beside-stable", "earns-a-call"])
def test_good_passes_bad_is_stopped(policy: RolloutPolicy, name: str) -> None:
    """As good as stable: it passes, hardly ever stopped. At the margin: hardly ever passed. Far beyond: stopped."""
    good, at_margin, bad = _told(policy, name)
    assert (good.passed >= 0.9, good.stopped <= 0.05) == (True, True), good
    assert at_margin.passed <= 0.15, at_margin
    assert (bad.stopped >= 0.9, bad.passed <= 0.05) == (True, True), bad


def test_it_is_simulated_where_it_must_pass(policy: RolloutPolicy) -> None:
    """The stage is the first that requires the gate, not the first that can run it."""
    assert {one.stage for one in _told(policy, "earns-a-call", 1)} == {"canary-50"}
    assert {one.stage for one in _told(policy, "call-rate-gap", 1)} == {"shadow"}


def test_a_metric_of_which_nothing_is_expected_is_not_made_up() -> None:
    """Without `expected` nothing can be drawn, and nothing is told."""
    bare = load_rollout(
        TEXT.replace("    expected: {rate: 0.13, groupShare: 0.15}", "   ", 1), "rollout.yaml"
    )
    assert _told(bare, "call-rate-gap", 1) == []
