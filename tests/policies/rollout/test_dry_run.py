"""Promises of `dryRun`: a gate on trial is judged and shown, never acts, and takes nothing from the others."""

from pathlib import Path

import pytest

from policies.gates.evidence import SAMPLE_RATIO, AssignmentBlock, CountBlock, PollEvidence
from policies.gates.gates import GateBook
from policies.language.yaml_source import PolicyError
from policies.rollout.rollout_policy import load_rollout
from policies.rollout.verdict import Decision, GateStatus, ReasonCode

TEXT = (Path(__file__).parents[3] / "policies" / "telemarketing" / "rollout.yaml").read_text(encoding="utf-8")
SLOW = "    minSamples: 50\n    requiredFrom: 25%\n"


def on_trial() -> str:
    """The shipped policy with the gate `slow` on a dry run."""
    assert SLOW in TEXT
    return TEXT.replace(SLOW, "    minSamples: 50\n    dryRun: true\n")


def test_a_failing_dry_run_is_shown_and_does_not_roll_back() -> None:
    """Every request is slow: the same evidence rolls back by the policy in force, and is only shown on a dry run."""
    blocks = {
        "slow_share": CountBlock(200, 200),
        "canary_errors": CountBlock(0, 200),
        SAMPLE_RATIO: AssignmentBlock(10, 190, 5.0),
    }
    poll = PollEvidence(0.0, 5.0, blocks)
    found = []
    for text in (TEXT, on_trial()):
        book = GateBook.start(load_rollout(text, "r.yaml"), (-1.0, 29.8))
        book.enter_stage("canary-5")
        book.observe(poll)
        found.append(book.judge("canary-5", at=20.0, entered_at=0.0, extended=False))
    in_force, tried = found
    assert (in_force.decision, in_force.reason) == (Decision.ROLLBACK, ReasonCode.BOUND_EXCEEDED)
    assert tried.decision is Decision.ADVANCE
    (slow,) = [result for result in tried.gates if result.gate == "slow"]
    assert (slow.status, slow.required) == (GateStatus.FAIL, False)
    assert slow.detail == "(dry run) is above its bound"
    assert "slow" not in tried.detail


def test_a_dry_run_takes_no_alpha_from_the_others() -> None:
    """The acting gates split alphaRollback among themselves; the one on trial has what it would have if it acted."""
    policy = load_rollout(on_trial(), "r.yaml")
    parts = {gate.name: policy.alpha_of(gate.name) for gate in policy.live_gates}
    assert parts["slow"] == pytest.approx(0.002)  # 1 of 5 weights, as in force
    del parts["slow"]
    assert sum(parts.values()) == pytest.approx(0.01)
    assert parts["utility"] == pytest.approx(0.005)


def test_a_dry_run_is_required_nowhere() -> None:
    """Beside `dryRun: true` a `requiredFrom` says the opposite and is refused."""
    with pytest.raises(PolicyError, match=r"requiredFrom' must go where `dryRun: true`"):
        load_rollout(TEXT.replace(SLOW, SLOW + "    dryRun: true\n"), "r.yaml")
    assert all(gate.name != "slow" for gate in load_rollout(on_trial(), "r.yaml").stage("canary-25").required)
