"""Canary evidence: each unit's first delivered decision, by assignment, once matured, counted exactly once."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from policies.gates.evidence import SAMPLE_RATIO, AssignmentBlock, CountBlock
from policies.rollout.rollout_policy import Stage
from policies.rollout.verdict import ReasonCode
from services.store import decisions as store
from services.store import tables
from services.store.decisions import DecisionRow, RequestRow
from services.store.outcomes import Outcome, record_outcomes

Make = Callable[..., DecisionRow]
SOLD = 0.25 * 0.02463333 * 1000 - 1  # a call that sold, at the balance of the rows here
Rollout = Any  # tests/services/telemetry/conftest.py


def test_payoffs_come_by_assignment_in_time_order(rollout: Rollout, make_decision: Make) -> None:
    """Utility is what the assigned arm's unit earned, whoever answered; a call without an outcome earns nothing yet."""
    canary = [
        make_decision(assigned="canary", release="rel-b", action="call", at=1012.0),
        make_decision(
            assigned="canary", release="rel-a", action="call", at=1011.0
        ),  # failed over: still canary
    ]
    stable = make_decision(action="leave", at=1010.0)
    rollout.put(*canary, stable, shipped=1020.0, watermark=1020.0)
    rollout.outcome(canary[0], "subscribed")
    rollout.outcome(canary[1], "not_subscribed")
    arms = rollout.utilities(1020.0)
    assert arms == ([-1.0, pytest.approx(SOLD)], [0.0])
    assert rollout.utilities(1021.0) == ([], [])


@pytest.mark.parametrize(
    ("now", "shipped", "watermark", "counted"),
    [
        (1016.0, 1016.0, 1016.0, True),  # exactly old enough
        (1015.9, 1016.0, 1016.0, False),  # younger than the maturity
        (1020.0, 1016.1, 1015.9, False),  # its outcome may still come
        (1015.9 + 1, 1009.9 + 1.2, 1020.0, True),
        (1015.0, 1009.9, 1015.0, False),
    ],
)
def test_only_matured_decisions_count(
    rollout: Rollout, make_decision: Make, now: float, shipped: float, watermark: float, counted: bool
) -> None:
    """A decision counts when it is older than the maturity and passed by the watermark and by the shipper."""
    rollout.put(make_decision(at=1010.0), shipped=shipped, watermark=watermark)
    assert rollout.utilities(now) == ([], [0.0] if counted else [])


def test_only_first_delivered_user_decisions_count(rollout: Rollout, make_decision: Make) -> None:
    """Repeats, superseded attempts, shadow decisions, decisions without unit and from before the stage are none."""
    rows = [
        make_decision(unit="a", at=1010.0),
        make_decision(unit="a", at=1011.0, action="call"),  # repeat
        make_decision(unit="b", at=1004.0),  # before the weight was in force
        make_decision(unit="b", at=1012.0, action="call"),  # its unit was seen before
        make_decision(unit="c", at=999.0),  # before the rollout: does not matter
        make_decision(unit="c", at=1012.0),
        make_decision(unit="d", at=1012.0, shadow=True, action="call"),
        make_decision(unit=None, at=1012.0, assigned="none", action="call"),
        make_decision(unit="e", request_id="qe", attempt=1, at=1012.0, assigned="canary", action="call"),
        make_decision(unit="e", request_id="qe", attempt=2, at=1013.0, assigned="canary", action="leave"),
    ]
    rollout.put(*rows, shipped=1030.0, watermark=1030.0)
    assert rollout.utilities(1030.0) == ([0.0], [0.0, 0.0])


def test_missing_outcomes_withhold_utility_until_they_come(rollout: Rollout, make_decision: Make) -> None:
    """More than 1 % of calls without an outcome: utility is missing, nothing is consumed; once there, all count."""
    calls = [make_decision(action="call", at=1010.0 + index / 100) for index in range(100)]
    rollout.put(*calls, shipped=1030.0, watermark=1030.0)
    for row in calls[:-2]:
        rollout.outcome(row, "not_subscribed")
    evidence = rollout.poll(1030.0)
    assert evidence.missing == {
        "utility": "2 of 100 matured decisions of both arms have no outcome (at most 1%)"
    }
    assert "utility" not in evidence.blocks
    rollout.outcome(calls[-1], "subscribed")
    canary, stable = rollout.utilities(1031.0)
    assert (canary, len(stable), stable[-1]) == ([], 99, pytest.approx(SOLD))


def test_canary_arm_alone_may_not_lack_outcomes(rollout: Rollout, make_decision: Make) -> None:
    """Outcomes that are missing in one arm only do not hide behind the other arm's many."""
    calls = [make_decision(action="call", at=1010.0) for _ in range(400)]
    few = [make_decision(action="call", at=1010.0, assigned="canary") for _ in range(20)]
    rollout.put(*calls, *few, shipped=1030.0, watermark=1030.0)
    known = [Outcome(row.decision_id, "not_subscribed", 1014.0) for row in (*calls, *few[3:])]
    record_outcomes(rollout.db, known, received_at=1014.0)
    assert "3 of 20 matured decisions of canary" in rollout.poll(1030.0).missing["utility"]


def test_stalled_sources_are_missing_evidence(rollout: Rollout, make_decision: Make) -> None:
    """No watermark, a stalled one, a stalled shipper and a silent proxy are each named as the reason."""
    rollout.put(make_decision())
    assert "no log has been shipped" in rollout.poll(1030.0, saved=False).missing["utility"]
    rollout.put(shipped=1029.0)
    assert "watermark has never been set" in rollout.poll(1030.0, saved=False).missing["utility"]
    rollout.put(watermark=1012.0)
    assert rollout.poll(1030.0, saved=False).missing["utility"].endswith("18.0 s old (at most 17 s)")
    lagging = rollout.poll(1036.0, saved=False).missing
    assert lagging["slow_share"] == lagging["utility"] == "the shipper is 7.0 s behind (at most 6 s)"
    rollout.proxy.is_down = True
    silent = rollout.poll(1030.0, saved=False)
    assert silent.blocks == {}
    assert set(silent.missing) == {"utility", "canary_errors", "slow_share", SAMPLE_RATIO}


def test_wrong_weight_discards_the_poll(rollout: Rollout, make_decision: Make) -> None:
    """Decisions taken while the weight was not the stage's are never evidence, before or after it is right again."""
    rollout.put(make_decision(at=1010.0), shipped=1020.0, watermark=1020.0)
    rollout.proxy.weight = 0.0
    lapsed = rollout.poll(1020.0)
    assert lapsed.weight_pct == 0.0
    assert set(lapsed.missing.values()) == {"the canary's weight is 0 %, not 25 %"}
    assert lapsed.blocks == {}
    rollout.proxy.weight = 25.0
    rollout.put(make_decision(at=1021.0), make_decision(at=1019.0), shipped=1030.0, watermark=1030.0)
    assert rollout.utilities(1030.0) == ([], [0.0])


def test_next_stage_starts_its_window_anew(rollout: Rollout, make_decision: Make) -> None:
    """What was decided before the next stage's weight was in force does not count in it; later units do."""
    rollout.put(make_decision(at=1010.0), make_decision(at=1019.0), shipped=1030.0, watermark=1030.0)
    assert rollout.utilities(1018.0) == ([], [0.0])
    rollout.stage = replace(rollout.stage, name="canary-50")
    rollout.settled_at = 1020.0
    rollout.put(make_decision(at=1021.0, unit="late"), shipped=1040.0, watermark=1040.0)
    assert rollout.utilities(1040.0) == ([], [0.0])


def requests(rollout: Rollout, *rows: tuple[str, str, str | None, float, float]) -> None:
    found = [RequestRow(key, unit, variant, at, 200, ms, 1, "") for key, variant, unit, at, ms in rows]
    with rollout.db.write() as connection:
        store.upsert_requests(connection, found)


def test_latency_and_sample_ratio_by_first_request(rollout: Rollout) -> None:
    """Units are counted once, at their first request, whenever that is logged; slow is above the budget."""
    rollout.put(shipped=1030.0, watermark=1030.0)
    requests(
        rollout,
        ("q1", "canary", "a", 1010.0, 251.0),
        ("q2", "canary", "b", 1010.0, 250.0),
        ("q3", "canary", "a", 1011.0, 900.0),
        ("q4", "stable", "c", 1010.0, 900.0),
        ("q5", "stable", "d", 1004.0, 900.0),
        ("q6", "none", None, 1010.0, 900.0),
    )
    blocks = rollout.poll(1030.0).blocks
    assert blocks["slow_share"] == CountBlock(1, 2, 1, 1)
    assert blocks[SAMPLE_RATIO] == AssignmentBlock(2, 1, 25.0)
    requests(rollout, ("q7", "stable", "e", 1006.0, 5.0))  # began early, logged late
    blocks = rollout.poll(1031.0).blocks
    assert blocks["slow_share"] == CountBlock(0, 0, 0, 1)
    assert blocks[SAMPLE_RATIO] == AssignmentBlock(0, 1, 25.0)


def test_the_sample_ratio_counts_assigned_units(rollout: Rollout) -> None:
    """Whatever came of their requests: what the canary refuses or fails is asked of stable, so no unit is lost."""
    rollout.put(shipped=1030.0, watermark=1030.0)
    answers = [("canary", 200), ("canary", 400), ("canary", 0), ("stable", 200), ("stable", 503)]
    found = [
        RequestRow(f"q{n}", f"u{n}", variant, 1010.0, status, 5.0, 1, "")
        for n, (variant, status) in enumerate(answers)
    ]
    with rollout.db.write() as connection:
        store.upsert_requests(connection, found)
    assert rollout.poll(1030.0).blocks[SAMPLE_RATIO] == AssignmentBlock(3, 2, 25.0)


def test_what_stable_refuses_too_is_no_failure_of_the_canary(rollout: Rollout) -> None:
    """Of 9 errors 5 were refused by stable as well: 4 count. What earlier canaries were excused says nothing of this
    one, and after a restart of the proxy both counters count from 0."""
    rollout.put(shipped=1030.0, watermark=1030.0)
    rollout.proxy.set_host("canary", 0, 0, rq_excused=40)
    assert rollout.poll(1020.0).blocks["canary_errors"] == CountBlock(0, 0)
    rollout.proxy.set_host("canary", 100, 9, rq_excused=45)
    assert rollout.poll(1021.0).blocks["canary_errors"] == CountBlock(4, 100)
    rollout.proxy.set_host("canary", 10, 3, rq_excused=2)
    assert rollout.poll(1022.0).blocks["canary_errors"] == CountBlock(1, 10)


def test_failures_are_what_the_canary_did(rollout: Rollout) -> None:
    """Errors are deltas of the hosts' counters; the candidate's own count from its first request on, stable's from the
    stage's first poll on; a restarted counter counts from 0.
    """
    rollout.put(shipped=1030.0, watermark=1030.0)
    rollout.proxy.set_host("canary", 100, 7)
    rollout.proxy.set_host("stable", 0, 0, port=9000)
    assert rollout.poll(1020.0).blocks["canary_errors"] == CountBlock(7, 100)
    rollout.proxy.set_host("canary", 110, 9)
    rollout.proxy.set_host("stable", 300, 1, port=9000)
    assert rollout.poll(1021.0).blocks["canary_errors"] == CountBlock(2, 10, 1, 300)
    rollout.proxy.set_host("canary", 4, 1)
    assert rollout.poll(1022.0).blocks["canary_errors"] == CountBlock(1, 4, 0, 0)


def test_failures_at_the_wrong_weight_count_at_the_next_poll(rollout: Rollout) -> None:
    """A poll at another weight than the stage's is discarded, but the canary's own failures in it are not forgotten."""
    rollout.put(shipped=1030.0, watermark=1030.0)
    rollout.proxy.set_host("canary", 0, 0)
    rollout.poll(1020.0)
    rollout.proxy.set_host("canary", 40, 9)
    rollout.proxy.weight = 5.0
    assert "canary_errors" in rollout.poll(1021.0).missing
    rollout.proxy.weight = 25.0
    rollout.proxy.set_host("canary", 50, 9)
    assert rollout.poll(1022.0).blocks["canary_errors"] == CountBlock(9, 50)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ejected": True, "healthy": False}, ReasonCode.CANARY_EJECTED),
        ({"healthy": False}, ReasonCode.CANARY_UNHEALTHY),
    ],
)
def test_shut_out_canary_raises_an_alarm(
    rollout: Rollout, changes: dict[str, bool], reason: ReasonCode
) -> None:
    """Ejected or unhealthy for 3 s is an alarm; shorter is not, and an interruption starts the clock again."""
    rollout.put(shipped=1030.0, watermark=1030.0)
    sick = {**{"healthy": True}, **changes}
    rollout.proxy.set_host("canary", 0, **sick)
    assert [rollout.poll(at).alarms for at in (1020.0, 1022.9)] == [(), ()]
    (alarm,) = rollout.poll(1023.0).alarms
    assert alarm.reason is reason
    assert "3.0 s" in alarm.detail
    rollout.proxy.set_host("canary", 0)
    assert rollout.poll(1024.0).alarms == ()
    rollout.proxy.set_host("canary", 0, **sick)
    assert rollout.poll(1025.0).alarms == ()


def test_probation_watches_the_new_release(rollout: Rollout, make_stage: Callable[..., Stage]) -> None:
    """After promotion the first-priority host of stable is the new release, and all users' latency is its own."""
    rollout.stage = make_stage("probation", "probation", None, "canary_errors", "slow_share")
    rollout.proxy.weight = 0.0
    rollout.proxy.set_host("stable", 10, 0, port=9001)
    rollout.proxy.set_host("stable", 900, 90, port=9000, priority=1)
    rollout.put(shipped=1030.0)
    rollout.poll(1020.0)
    rollout.proxy.set_host("stable", 30, 2, port=9001)
    requests(rollout, ("q1", "stable", "a", 1010.0, 300.0), ("q2", "stable", "b", 1010.0, 3.0))
    evidence = rollout.poll(1021.0)
    assert evidence.blocks == {"canary_errors": CountBlock(2, 20), "slow_share": CountBlock(1, 2)}
    assert evidence.missing == {}


@pytest.mark.parametrize("seed", range(4))
def test_every_unit_counts_exactly_once(rollout: Rollout, make_decision: Make, seed: int) -> None:
    """Random units, retries, repeats, batches and polls, some of them lost before the save: all polls together are
    what an independent pass over everything finds."""
    random_ = random.Random(seed)  # noqa: S311
    rows: list[DecisionRow] = []
    for index in range(400):
        unit, at = f"u{random_.randrange(150)}", 1006.0 + random_.random() * 20
        variant = "canary" if hash(unit) % 4 == 0 else "stable"
        for attempt in range(1, random_.choice((2, 2, 2, 3))):
            rows.append(
                make_decision(
                    request_id=f"r{index}",
                    attempt=attempt,
                    unit=unit,
                    assigned=variant,
                    at=round(at + attempt * 0.1, 1),
                    row={"balance": 10 * index},
                    action=random_.choice(("call", "leave")),
                )
            )
    random_.shuffle(rows)  # files are shipped in any order
    rollout.put(*rows, shipped=1030.0, watermark=1100.0)
    for row in rows:
        rollout.outcome(row, random_.choice(("subscribed", "not_subscribed")))
    wanted = _oracle(rows, rollout)
    got: dict[str, list[float]] = {"canary": [], "stable": []}
    now = 1012.0
    while now < 1040.0:
        rollout.poll(now, saved=False)  # a controller that died before it saved
        rollout.put(shipped=now)
        canary, stable = rollout.utilities(now)
        got["canary"] += canary
        got["stable"] += stable
        now += random_.random() * 4
    assert got["canary"] == pytest.approx(wanted["canary"])
    assert got["stable"] == pytest.approx(wanted["stable"])
    assert len(wanted["canary"]) + len(wanted["stable"]) > 100


def _oracle(rows: list[DecisionRow], rollout: Rollout) -> dict[str, list[float]]:
    import json

    last = {row.request_id: max(r.attempt for r in rows if r.request_id == row.request_id) for row in rows}
    with rollout.db.read() as connection:
        query = select(tables.outcomes.c.decision_id, tables.outcomes.c.outcome)
        outcomes = {decision_id: outcome for decision_id, outcome in connection.execute(query)}
    seen: set[str | None] = set()
    found: dict[str, list[float]] = {"canary": [], "stable": []}
    for _, row in sorted(enumerate(rows), key=lambda pair: (pair[1].at, pair[0])):
        if row.attempt != last[row.request_id] or row.unit in seen:
            continue
        seen.add(row.unit)
        balance = min(json.loads(row.row)["balance"], 5000)
        sold = outcomes[row.decision_id] == "subscribed"
        earned = 0.0 if row.action == "leave" else (0.25 * 0.02463333 * balance - 1 if sold else -1.0)
        found[row.assigned].append(earned)
    return found


def test_a_poll_costs_what_is_new(rollout: Rollout, make_decision: Make) -> None:
    """With 50,000 decisions stored and 400 new ones a second, a poll takes less than 30 ms of CPU."""
    rows = [
        make_decision(
            at=1000.0 + index / 400,
            assigned="canary" if index % 4 == 0 else "stable",
            action="call" if index % 3 == 0 else "leave",
            row={
                "balance": index % 5000,
                "age": 40,
                "job": "admin.",
                "month": "may",
                "education": "tertiary",
            },
        )
        for index in range(50_000)
    ]
    rollout.put(*rows, shipped=1200.0, watermark=1200.0)
    outcomes = [Outcome(row.decision_id, "subscribed", row.at + 4) for row in rows if row.action == "call"]
    record_outcomes(rollout.db, outcomes, received_at=1200.0)
    found = [RequestRow(r.request_id, r.unit, r.assigned, r.at, 200, 5.0, 1, "") for r in rows]
    with rollout.db.write() as connection:
        store.upsert_requests(connection, found[:49_000])
    rollout.settled_at = 1100.0
    rollout.poll(1110.0)
    took: list[float] = []
    for second in range(10):
        with rollout.db.write() as connection:
            store.upsert_requests(connection, found[49_000 + 100 * second : 49_100 + 100 * second])
        began = time.thread_time()
        canary, stable = rollout.utilities(1111.0 + second)
        took.append(1000 * (time.thread_time() - began))
        assert (len(canary), len(stable)) == (100, 300)
    print(f"poll_ms median={np.median(took):.1f} max={max(took):.1f}")
    assert np.median(took) < 60  # the machine that runs this may be a slow one
