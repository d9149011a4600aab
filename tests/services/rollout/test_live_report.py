"""The frames behind a live stage's report."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.operating.operating_point import OperatingPoint
from policies.rollout.rollout_policy import load_rollout
from policies.utility.utility import load_utility
from services.rollout.live_report import add_agreement, arm_frame, split_arms, watched_gaps
from services.serving.release import write_release
from services.store.stage_decisions import StageDecision
from services.telemetry.disagreement import Disagreement

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


def test_groups_are_those_of_the_constraints() -> None:
    """The bound belongs to the younger group, as in utility.yaml; a second gap, told by a text, has its own column;
    a row that does not say is of no group."""
    by_job = replace(
        UTILITY.constraints[-1], name="by_job", group_field="job", group_up_to=None, group_value="student"
    )
    utility = replace(UTILITY, constraints=(*UTILITY.constraints, by_job))
    decided = [
        replace(decision(float(at)), row=json.dumps(row))
        for at, row in enumerate(
            (
                {"age": 30, "balance": 1, "job": "student"},
                {"age": 31, "balance": 1, "job": "admin."},
                {"balance": 1},
            )
        )
    ]
    frame = arm_frame(decided, utility, mature_at=0.0)
    assert [one.column for one in watched_gaps(utility)] == [
        "group of call_rate_gap_by_age",
        "group of by_job",
    ]
    for column in ("group of call_rate_gap_by_age", "group of by_job"):
        assert list(frame[column]) == [True, False, None]


def test_gaps_among_outcomes_wait_for_mature_ones() -> None:
    """The outcome stands in the frame once it is mature; a rate among an outcome is said to be unseen where an action
    leaves none, a precision is seen."""
    gap = UTILITY.constraints[-1]
    among = replace(gap, name="among", kind="rate_among_gap", among="not_subscribed")
    precision = replace(gap, name="precise", kind="precision_gap", outcome="subscribed")
    utility = replace(UTILITY, constraints=(among, precision))
    seen = {one.name: (one.among, one.outcome, one.unseen) for one in watched_gaps(utility)}
    assert seen == {
        "among": ("not_subscribed", None, "no outcome is known after 'leave'"),
        "precise": (None, "subscribed", ""),
    }
    told_of_all = replace(utility, outcome_known_after=utility.actions)
    assert [one.unseen for one in watched_gaps(told_of_all)] == ["", ""]
    decided = [decision(at, action="call", outcome="subscribed") for at in (10.0, 20.0)]
    assert list(arm_frame(decided, utility, mature_at=15.0)["outcome"]) == ["subscribed", None]


@pytest.mark.parametrize("is_known", [True, False])
def test_agreement_is_said_of_each_decision_where_it_can_be_recomputed(
    is_known: bool, parts: Any, policy_texts: Mapping[str, str], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Whether both releases would act alike on the row; where a release is not there, the frames stay as they are."""
    ids = [
        write_release(
            tmp_path,
            service="telemarketing",
            candidate=parts,
            operating_point=OperatingPoint((0.0, shift)),
            policies=policy_texts,
            provenance={},
            created_at=1.0,
        ).id
        for shift in (0.0, -1000.0)  # the second calls nobody
    ]
    releases = Disagreement(tmp_path, champion=ids[0] if is_known else None, candidate=ids[1])
    sent = [{**row, "balance": balance} for row, balance in zip(rows, (3000, -50), strict=False)]
    decided = [replace(decision(float(at)), row=json.dumps(row)) for at, row in enumerate(sent)]
    frames = [arm_frame(decided, UTILITY, mature_at=0.0)]
    add_agreement(frames, (decided, []), releases)
    assert [list(frame["agrees"]) for frame in frames if "agrees" in frame] == ([[False, True]] * is_known)
