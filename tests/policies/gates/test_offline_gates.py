"""Promises of the offline gates: a measurement passes within its bound, and nothing else passes."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from policies.gates.evidence import Measured
from policies.gates.gates import judge_measured
from policies.rollout.rollout_policy import load_rollout
from policies.rollout.verdict import Decision, GateStatus, ReasonCode

YAML = Path(__file__).parents[3] / "policies" / "telemarketing" / "rollout.yaml"
POLICY = load_rollout(YAML.read_text(encoding="utf-8"), "rollout.yaml")


def alignment(**changes: Measured | None) -> dict[str, Measured]:
    values: dict[str, Measured | None] = {
        "gain_over_trivial": Measured(0.08, -0.01, 0.17, 4000),
        "gain_over_champion": Measured(0.02, -0.1, 0.14, 4000),
        "customer_utility": Measured(-0.24, -0.26, -0.22, 4000),
        "constraints_broken": Measured(0.0, n=4000),
        "failed_scenarios": Measured(0.0, n=4000),
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def test_offline_stage_passes_on_measurements() -> None:
    """All required measurements within their bounds: ADVANCE, the gates by name, their numbers in the results."""
    verdict = judge_measured(POLICY.stage("alignment"), alignment(), at=5.0)
    assert (verdict.decision, verdict.reason) == (Decision.ADVANCE, ReasonCode.GATES_PASSED)
    assert "surely-not-much-worse-than-trivial" in verdict.detail
    (surely,) = [gate for gate in verdict.gates if gate.gate == "surely-not-much-worse-than-trivial"]
    assert (surely.observed, surely.bound) == (-0.01, -0.05)
    assert "the interval's lower end must be >= -0.05: -0.01" in surely.detail


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"gain_over_trivial": Measured(0.08, -0.06, 0.2, 4000)}, "fail", ReasonCode.BOUND_EXCEEDED),
        ({"gain_over_trivial": Measured(math.nan, -0.01, 0.2, 4000)}, "error", ReasonCode.GATE_ERROR),
        ({"gain_over_trivial": Measured(0.08, None, None, 4000)}, "no_data", ReasonCode.NO_DATA),
        ({"gain_over_champion": None}, "no_data", ReasonCode.NO_DATA),
        ({"customer_utility": Measured(-0.41, -0.43, -0.39, 4000)}, "fail", ReasonCode.BOUND_EXCEEDED),
        ({"customer_utility": None}, "no_data", ReasonCode.NO_DATA),
        ({"constraints_broken": Measured(1.0, n=4000)}, "fail", ReasonCode.BOUND_EXCEEDED),
    ],
)
def test_offline_stage_never_passes_on_less(
    changes: dict[str, Measured | None], status: str, reason: ReasonCode
) -> None:
    """Beyond the bound, NaN, without the interval it asks for, or not measured: refused with its own reason."""
    verdict = judge_measured(POLICY.stage("alignment"), alignment(**changes), at=5.0)
    assert (verdict.decision, verdict.reason, verdict.status.value) == (Decision.ROLLBACK, reason, status)


def test_first_release_needs_no_champion() -> None:
    """A gate for challengers is not asked of the first release, and no others are dropped."""
    verdict = judge_measured(
        POLICY.stage("alignment"), alignment(gain_over_champion=None), at=5.0, first_release=True
    )
    assert verdict.decision is Decision.ADVANCE
    assert {gate.gate for gate in verdict.gates} == {
        "better-than-trivial",
        "surely-not-much-worse-than-trivial",
        "customers-spared",
        "constraints",
        "scenarios",
    }


@pytest.mark.parametrize("measured", [Measured(-0.41, -0.43, -0.39, 4000), Measured(math.nan, n=4000), None])
def test_gate_on_a_dry_run_is_shown_and_decides_nothing(measured: Measured | None) -> None:
    """Failed, unusable or missing: a dry run's result is there, marked, and the release goes on."""
    stage = POLICY.stage("alignment")
    gates = tuple(
        replace(gate, required=False, dry_run=True) if gate.name == "customers-spared" else gate
        for gate in stage.gates
    )
    verdict = judge_measured(replace(stage, gates=gates), alignment(customer_utility=measured), at=5.0)
    assert verdict.decision is Decision.ADVANCE
    (tried,) = [result for result in verdict.gates if result.gate == "customers-spared"]
    assert tried.status is not GateStatus.PASS
    assert tried.detail.startswith("(dry run) ")
    assert "customers-spared" not in verdict.detail


def test_on_missing_hold_holds_offline() -> None:
    """onMissing: hold holds an offline stage instead of refusing the release."""
    stage = POLICY.stage("training")
    held = replace(stage, gates=tuple(replace(gate, on_missing="hold") for gate in stage.gates))
    verdict = judge_measured(held, {}, at=5.0)
    assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.NO_DATA)


def test_live_stage_is_not_judged_from_measurements() -> None:
    """A live stage handed to the offline judge is a mistake of the caller."""
    with pytest.raises(ValueError, match="must be offline: 'shadow' is shadow"):
        judge_measured(POLICY.stage("shadow"), {}, at=1.0)
