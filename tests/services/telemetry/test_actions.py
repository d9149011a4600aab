"""What each arm was given in a canary stage: action rates, groups, payoffs per action; each unit once."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from policies.gates.evidence import SAMPLE_RATIO, CountBlock, GapArmsBlock, GapBlock, RatioBlock
from policies.rollout.rollout_policy import Stage
from services.store.decisions import DecisionRow

Make = Callable[..., DecisionRow]
SOLD = 0.25 * 0.02463333 * 1000 - 1  # a call that sold, at the balance of the rows here


@pytest.fixture
def acting(rollout: Any, make_stage: Callable[..., Stage]) -> Any:
    """The rollout in a stage that judges what units were given."""
    rollout.stage = make_stage("canary-25", "canary", 25.0, "action_rate", "call_rate_gap")
    return rollout


def aged(age: object) -> dict[str, object]:
    return {"balance": 1000, "age": age}


def test_actions_count_by_assignment_and_group(acting: Any, make_decision: Make) -> None:
    """Each arm's units that were not given the default action, whoever answered, and the same by age, up to 30 and
    over; a unit's first delivered decision only, and none from before the stage."""
    rows = [
        make_decision(assigned="canary", action="call", row=aged(30)),
        make_decision(assigned="canary", action="call", row=aged(31), release="rel-a"),  # failed over
        make_decision(assigned="canary", action="leave", row=aged(50)),
        make_decision(unit="b", action="call", row=aged(20)),
        make_decision(unit="b", action="leave", row=aged(20), at=1011.0),  # repeat
        make_decision(unit="c", action="leave", row=aged(70)),
        make_decision(unit="d", action="call", row=aged(70), at=1004.0),  # before the weight was in force
        make_decision(unit="e", action="call", row=aged(20), shadow=True),
        make_decision(unit="f", request_id="f", action="call", row=aged(20), assigned="canary"),
        make_decision(unit="f", request_id="f", attempt=2, action="leave", row=aged(20), assigned="canary"),
    ]
    acting.put(*rows, shipped=1020.0)
    evidence = acting.poll(1020.0)
    assert evidence.missing == {}
    assert evidence.blocks["action_rate"] == CountBlock(2, 4, 1, 2)
    assert evidence.blocks["call_rate_gap"] == GapArmsBlock(GapBlock(1, 2, 1, 2), GapBlock(1, 1, 0, 1))
    assert acting.poll(1021.0).blocks["action_rate"] == CountBlock(0, 0, 0, 0)


def test_actions_wait_for_a_retry_and_for_nothing_else(acting: Any, make_decision: Make) -> None:
    """A decision counts 2 s after it was taken, when no retry can replace it any more; it needs no maturity, outcome or
    watermark."""
    acting.put(make_decision(at=1010.0, action="call"), shipped=1011.9)
    assert acting.poll(1012.0).blocks["action_rate"] == CountBlock(0, 0, 0, 0)
    acting.put(shipped=1012.0)
    assert acting.poll(1012.1).blocks["action_rate"] == CountBlock(0, 0, 1, 1)


@pytest.mark.parametrize("seed", range(2))
def test_actions_count_exactly_once(acting: Any, make_decision: Make, seed: int) -> None:
    """Polls at any rhythm, some lost before they are saved, bring together what one poll over everything brings."""
    random_ = random.Random(seed)  # noqa: S311
    rows = [
        make_decision(
            unit=f"u{random_.randrange(200)}",
            assigned=random_.choice(("canary", "stable")),
            action=random_.choice(("call", "leave")),
            row=aged(random_.randrange(18, 70)),
            at=round(1006.0 + 20 * random_.random(), 1),
        )
        for _ in range(300)
    ]
    acting.put(*rows, shipped=1007.0)
    total, now = [0] * 4, 1008.0
    while now < 1040.0:
        acting.put(shipped=now)
        acting.poll(now, saved=False)
        block = acting.poll(now).blocks["action_rate"]
        total = [sum(pair) for pair in zip(total, vars(block).values(), strict=True)]
        now += 4 * random_.random()
    acting.record = replace(acting.record, cursors={})
    whole = acting.poll(now).blocks["action_rate"]
    assert total == list(vars(whole).values())
    assert whole.canary_n + whole.stable_n == len({row.unit for row in rows})


def test_groups_that_cannot_be_told_are_missing(acting: Any, make_decision: Make) -> None:
    """A row without the group's field, or a spec without groups, makes the gap missing, not the action rate."""
    acting.put(make_decision(row={"balance": 1}), shipped=1020.0)
    evidence = acting.poll(1020.0, saved=False)
    assert evidence.missing == {
        "call_rate_gap": "some decided rows have no number in field 'age', which tells the groups"
    }
    assert evidence.blocks["action_rate"] == CountBlock(0, 0, 0, 1)
    acting.utility = replace(acting.utility, constraints=())
    assert "no constraint of kind action_rate_gap" in acting.poll(1020.0).missing["call_rate_gap"]


def test_payoff_per_action_is_gathered_matured(
    acting: Any, make_decision: Make, make_stage: Callable[..., Stage]
) -> None:
    """Each matured unit brings its payoff and whether it was acted on, by assignment; it waits for outcomes as utility
    does, and no other block is made."""
    acting.stage = make_stage("canary-25", "canary", 25.0, "utility_per_action")
    sold = make_decision(assigned="canary", action="call")
    not_sold = make_decision(action="call", at=1011.0)
    acting.put(sold, make_decision(assigned="canary", at=1011.0), not_sold, shipped=1020.0)
    acting.put(make_decision(at=1018.0), watermark=1020.0)  # too young
    assert "no outcome" in acting.poll(1020.0).missing["utility_per_action"]
    acting.outcome(sold, "subscribed")
    acting.outcome(not_sold, "not_subscribed")
    evidence = acting.poll(1020.0)
    assert set(evidence.blocks) == {SAMPLE_RATIO, "utility_per_action"}
    block = evidence.blocks["utility_per_action"]
    assert isinstance(block, RatioBlock)
    assert block.canary.tolist() == [[pytest.approx(SOLD), 1.0], [0.0, 0.0]]
    assert block.stable.tolist() == [[-1.0, 1.0]]


def test_only_what_gates_name_is_gathered(
    acting: Any, make_decision: Make, make_stage: Callable[..., Stage]
) -> None:
    """A stage without such gates makes no such block and moves no cursor for it."""
    acting.stage = make_stage("canary-25", "canary", 25.0, "slow_share")
    acting.put(make_decision(), shipped=1020.0, watermark=1020.0)
    assert set(acting.poll(1020.0).blocks) == {SAMPLE_RATIO, "slow_share"}
    cursors = acting.record.cursors
    assert (cursors["acted_through"], cursors["decided_through"]) == (1005.0, 1005.0)
