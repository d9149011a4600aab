"""The frames behind a live stage's report."""

import json
from pathlib import Path

import numpy as np

from policies.rollout_policy import load_rollout
from policies.utility import load_utility
from services.rollout.live_report import arm_frame, split_arms
from services.store.stage_decisions import StageDecision

FOLDER = Path(__file__).resolve().parents[3] / "policies" / "telemarketing"
UTILITY = load_utility((FOLDER / "utility.yaml").read_text(), "utility.yaml")
POLICY = load_rollout((FOLDER / "rollout.yaml").read_text(), "rollout.yaml")


def decision(
    at: float,
    *,
    assigned: str = "canary",
    shadow: bool = False,
    action: str = "leave",
    outcome: str | None = None,
) -> StageDecision:
    """A decision on a 30-year-old with 1,000 EUR."""
    return StageDecision(
        decision_id=f"d{at}",
        request_id=f"r{at}",
        at=at,
        assigned=assigned,
        shadow=shadow,
        release="new" if assigned == "canary" or shadow else "old",
        action=action,
        score=0.5,
        took_ms=1.0,
        row=json.dumps({"age": 30, "balance": 1000}),
        outcome=outcome,
    )


def test_leaving_does_not_mature_before_calling() -> None:
    """A decision younger than the maturity has no utility, though leaving is known to be worth 0."""
    decided = [
        decision(10.0),
        decision(11.0, action="call", outcome="not_subscribed"),
        decision(12.0, action="call"),
        decision(20.0),
    ]
    utility = arm_frame(decided, UTILITY, mature_at=15.0)["utility"].to_numpy()
    np.testing.assert_array_equal(utility, [0.0, -1.0, np.nan, np.nan])


def test_arms_are_told_by_assignment_and_in_the_shadow_by_its_mark() -> None:
    """Canary: by assigned variant, no mirrored decision; shadow: the mirrored ones against the answered ones."""
    mine, theirs, mirrored = (
        decision(1.0),
        decision(2.0, assigned="stable"),
        decision(3.0, assigned="stable", shadow=True),
    )
    everything = [mine, theirs, mirrored]
    assert split_arms(everything, POLICY.stage("canary-25"), "new") == ([mine], [theirs])
    assert split_arms(everything, POLICY.stage("shadow"), "new") == ([mirrored], [mine, theirs])


def test_groups_are_those_of_the_constraint() -> None:
    """The bound belongs to the younger group, as in utility.yaml."""
    assert list(arm_frame([decision(1.0)], UTILITY, mature_at=0.0)["group"]) == ["age up to 30"]
