"""What a rollout was judged by is on record: judged again by its policy, every verdict is the one that was given."""

import json
from types import ModuleType
from typing import Any

import pytest

from policies.gates.history import Timeline, mismatches, rehearse, replay, side_by_side
from policies.rollout.rollout import Phase
from policies.rollout.rollout_policy import RolloutPolicy, load_rollout
from policies.rollout.verdict import Decision, ReasonCode, Verdict
from services.rollout.recorded import RecordedRollout, recorded_rollout
from services.store import orders, poll_evidence, rollouts


def watched(world: Any, doubles: ModuleType, record: Any, **ports: Any) -> tuple[Any, list[Verdict]]:
    """A conductor, and the verdicts of its polls as it tells them."""
    told: list[Verdict] = []
    conductor = doubles.Conductor(
        ports.get("ports", world.world),
        record,
        watch=lambda progress: told.append(progress.verdict),
        report=lambda *parts: None,
    )
    return conductor, told


def judged_again(world: Any, rollout_id: str) -> tuple[RecordedRollout, Timeline]:
    kept = recorded_rollout(world.db, rollout_id)
    return kept, replay(kept.policy, kept.polls, kept.utility.range)


def give(world: Any, record: Any, verb: str) -> None:
    orders.give(world.db, rollout_id=record.id, verb=verb, by="ann", reason="because", at=world.time)


def policy_of(doubles: ModuleType, *, bound: float = 0.05, **changes: Any) -> RolloutPolicy:
    """The rollout's policy with another bound on errors, and other stages."""
    data = json.loads(doubles.short_policy(**changes))
    gates = [{**gate, "max": bound} if gate["name"] == "errors" else gate for gate in data["gates"]]
    return load_rollout(json.dumps({**data, "gates": gates}), "other.yaml")


def test_every_verdict_is_given_again(simulation: Any, doubles: ModuleType) -> None:
    """Conducted to its promotion: every poll is on record, and replayed each verdict equals the one that was told, gate
    by gate, number by number, word by word; the gates end up as they are stored."""
    record = simulation.begin()
    conductor, told = watched(simulation, doubles, record)
    doubles.conduct(conductor)
    kept, timeline = judged_again(simulation, record.id)
    assert mismatches(timeline) == ()
    assert [one.verdict for one in timeline.said] == told
    assert [story.first.verdict.decision for story in timeline.stories()] == [Decision.ADVANCE] * 4
    assert timeline.book.to_json() == kept.record.gates


def test_a_rollback_is_given_again(simulation: Any, doubles: ModuleType) -> None:
    """The candidate fails at 25 %: the replay rolls back at the same poll for the same reason."""
    record = simulation.begin()
    conductor, told = watched(simulation, doubles, record)
    while conductor.state.phase is not Phase.CANARY:
        conductor.run_stage()
    simulation.envoy.error_share = 0.3
    doubles.conduct(conductor)
    kept, timeline = judged_again(simulation, record.id)
    assert mismatches(timeline) == ()
    assert timeline.said[-1].verdict == told[-1]
    assert (told[-1].decision, told[-1].reason) == (Decision.ROLLBACK, ReasonCode.BOUND_EXCEEDED)
    assert timeline.book.to_json() == kept.record.gates


@pytest.mark.parametrize("dies_at", [40, 90])
def test_given_again_after_a_crash(simulation: Any, doubles: ModuleType, dies_at: int) -> None:
    """The conductor is killed between any two of its calls and another one takes up: nothing is recorded twice, nothing
    is lost, and the verdicts of both are given again, to the last number of the stored gates."""
    record = simulation.begin()
    mortal = doubles.Mortal(simulation.world, dies_at=dies_at)
    conductor, _ = watched(simulation, doubles, record, ports=mortal.world)
    with pytest.raises(doubles.Killed):
        doubles.conduct(conductor)
    simulation.sleep(20.0)
    doubles.conduct(simulation.resume(rollouts.load(simulation.db, record.id)))
    kept, timeline = judged_again(simulation, record.id)
    assert kept.record.ended_at is not None
    assert mismatches(timeline) == ()
    assert timeline.book.to_json() == kept.record.gates


def test_given_again_whatever_people_ordered(simulation: Any, doubles: ModuleType) -> None:
    """Held for some polls, resumed, then promoted by a person before the gates say so: the record tells the gates' own
    verdicts, which are given again; a stage that was passed by order is passed in the replay too."""
    record = simulation.begin(doubles.short_policy(canary_25={"bake": {"min": "25s", "max": "30s"}}))
    conductor, told = watched(simulation, doubles, record)
    while conductor.state.phase is not Phase.CANARY:
        conductor.run_stage()
    give(simulation, record, "hold")
    for _ in range(28):
        conductor._poll()
        simulation.sleep(1.0)
    held = [verdict for verdict in told if verdict.reason is ReasonCode.HELD]
    give(simulation, record, "resume")
    for _ in range(3):
        conductor._poll()
        simulation.sleep(1.0)
    give(simulation, record, "promote")
    doubles.conduct(conductor)
    kept, timeline = judged_again(simulation, record.id)
    assert kept.record.state["state"]["phase"] == "promoted"  # type: ignore[index]
    assert mismatches(timeline) == ()
    assert timeline.book.to_json() == kept.record.gates
    assert held
    advances = [one for one in timeline.said if one.poll.held and one.verdict.decision is Decision.ADVANCE]
    assert len(advances) == len(held)
    assert not any(one.moves for one in advances)


def test_a_changed_record_is_found_out(simulation: Any, doubles: ModuleType) -> None:
    """One poll's verdict on record is not what its evidence gives: the replay names that poll."""
    record = simulation.begin()
    doubles.conduct(simulation.conductor(record))
    simulation.is_record_honest = False
    with simulation.db.write() as connection:
        connection.exec_driver_sql("UPDATE poll_evidence SET reason = 'held' WHERE seq = 3")
    _, timeline = judged_again(simulation, record.id)
    assert [timeline.said.index(one) for one in mismatches(timeline)] == [2]


def test_a_stricter_policy_would_have_rolled_back(simulation: Any, doubles: ModuleType) -> None:
    """A candidate that fails 2 % of requests is promoted under a bound of 5 %; under 0.5 % it would have been rolled
    back in the shadow, and nothing is said of what came after."""
    simulation.envoy.error_share = 0.02
    record = simulation.begin()
    doubles.conduct(simulation.conductor(record))
    kept, ran = judged_again(simulation, record.id)
    other = rehearse(policy_of(doubles, bound=0.005), kept.polls, kept.utility.range, recorded_by=kept.policy)
    assert other.said[-1].moves
    assert (other.said[-1].verdict.stage, other.said[-1].verdict.decision) == ("shadow", Decision.ROLLBACK)
    first, *rest = side_by_side(ran, other)
    assert first.differs
    assert first.one is not None
    assert first.one.first.verdict.decision is Decision.ADVANCE
    assert [(one.logged_stage, one.other) for one in rest] == [
        ("canary-25", None),
        ("full", None),
        ("probation", None),
    ]


def test_a_more_patient_policy_would_still_have_held(simulation: Any, doubles: ModuleType) -> None:
    """The traffic moved on after 2 s at 25 %; a policy that bakes for 20 s would still have been baking then."""
    record = simulation.begin()
    doubles.conduct(simulation.conductor(record))
    kept, ran = judged_again(simulation, record.id)
    patient = policy_of(doubles, canary_25={"bake": {"min": "20s", "max": "30s"}})
    other = rehearse(patient, kept.polls, kept.utility.range, recorded_by=kept.policy)
    rows = {row.logged_stage: row for row in side_by_side(ran, other)}
    assert not rows["shadow"].differs
    assert rows["canary-25"].other is not None
    said = rows["canary-25"].other.first
    assert (said.verdict.decision, said.verdict.reason, said.moves) == (
        Decision.HOLD,
        ReasonCode.BAKING,
        False,
    )


def test_the_policy_that_ran_rehearsed_is_the_replay(simulation: Any, doubles: ModuleType) -> None:
    """Asked as if it were another policy, the one that ran says what it said."""
    record = simulation.begin()
    doubles.conduct(simulation.conductor(record))
    kept, ran = judged_again(simulation, record.id)
    other = rehearse(kept.policy, kept.polls, kept.utility.range, recorded_by=kept.policy)
    assert [one.verdict for one in other.said] == [one.verdict for one in ran.said]
    assert other.unknown == {}


def test_what_was_not_recorded_is_not_known(simulation: Any, doubles: ModuleType) -> None:
    """Another policy asks for latency, which this rollout did not measure: no data, it would have held, and is told."""
    record = simulation.begin()
    doubles.conduct(simulation.conductor(record))
    kept, _ = judged_again(simulation, record.id)
    slow = {
        **next(gate for gate in json.loads(doubles.short_policy())["gates"] if gate["name"] == "errors"),
        "name": "slow",
        "metric": "slow_share",
        "budget": "250ms",
    }
    data = json.loads(doubles.short_policy())
    asks = load_rollout(json.dumps({**data, "gates": [*data["gates"], slow]}), "other.yaml")
    other = rehearse(asks, kept.polls, kept.utility.range, recorded_by=kept.policy)
    assert other.unknown["canary-25"] == {"slow_share": "was not recorded in this stage"}
    assert {one.verdict.decision for one in other.said if one.verdict.stage != "full"} == {Decision.HOLD}
    assert other.said[-1].verdict.reason is ReasonCode.MISSING_EVIDENCE


def test_a_poll_costs_little_on_record(simulation: Any, doubles: ModuleType) -> None:
    """One gate, a poll a second: under 400 characters of evidence a poll, so under 1.5 MB an hour."""
    record = simulation.begin()
    doubles.conduct(simulation.conductor(record))
    polls, characters = poll_evidence.size_of(simulation.db, record.id)
    assert polls >= 6
    assert characters / polls < 400
