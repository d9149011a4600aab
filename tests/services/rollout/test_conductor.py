"""Promises of a conductor that lives: when an effect fails, people order, reports break, or two conduct."""

from types import ModuleType
from typing import Any

import pytest

from policies.rollout.rollout import Phase
from policies.rollout.verdict import Decision, ReasonCode
from services.ledger.ledger import entries, verify
from services.reports.stage_report import ReportError
from services.rollout.effects import EffectFailed
from services.rollout.sole_conductor import ConductorBusy, is_conducted, sole_conductor
from services.rollout.stage import StageContext
from services.store import orders, rollouts
from services.store.grants import read_grant, revoke_grant
from services.store.rollouts import RolloutExists, StaleRollout
from services.traffic.errors import TrafficError

OLD, NEW = "telemarketing-old", "telemarketing-new"


def to_canary(world: Any, policy: str | None = None) -> Any:
    """A conductor whose rollout has just come to 25 %."""
    conductor = world.conductor(world.begin(policy))
    conductor.settle()
    while conductor.state.phase is not Phase.CANARY:
        conductor.run_stage()
    return conductor


def order(world: Any, conductor: Any, verb: str) -> None:
    orders.give(
        world.db, rollout_id=conductor.record.id, verb=verb, by="ann", reason="because", at=world.time
    )


def kinds(world: Any) -> list[str]:
    return [entry.kind for entry in entries(world.db)]


def test_promotion_in_order(simulation: Any, doubles: ModuleType) -> None:
    """Shadow, 25 %, full, probation, each advanced by its verdict; the new release ready before stable is repointed,
    the weight 0 after it, the old one dropped last; each intent stands before its effects."""
    verdicts = doubles.conduct(simulation.conductor(simulation.begin()))
    assert [(v.stage, v.decision) for v in verdicts] == [
        (stage, Decision.ADVANCE) for stage in ("shadow", "canary-25", "full", "probation")
    ]
    actions = [e.body["action"] for e in entries(simulation.db, kind="effect")]
    assert actions == [
        *("set_weight", "start_candidate", "point_canary", "new_salt", "mirror_on"),
        *("mirror_off", "set_weight"),
        *("await_ready", "repoint_stable", "set_weight", "clear_canary"),
        "drop_old",
    ]
    intended = [s["action"] for e in entries(simulation.db, kind="intent") for s in e.body["steps"]]
    assert intended == actions
    assert kinds(simulation)[-1] == "rollout_ended"
    assert verify(simulation.db).ok


def test_failing_candidate_is_rolled_back(simulation: Any, doubles: ModuleType) -> None:
    """A third of its requests fail: rolled back out of 25 % by the gate `errors`, whose value and bound are told; the
    old release serves alone."""
    conductor = to_canary(simulation)
    simulation.envoy.error_share = 0.3
    (verdict,) = doubles.conduct(conductor)
    assert (verdict.stage, verdict.decision) == ("canary-25", Decision.ROLLBACK)
    gate = next(one for one in verdict.gates if one.gate == "errors")
    assert gate.observed is not None
    assert gate.observed > 0.05 == gate.bound
    assert (simulation.slots.stable, simulation.slots.canary) == ((OLD,), None)
    assert simulation.envoy.weight_pct() == 0.0


def test_effect_that_cannot_be_read_back_rolls_back(simulation: Any, doubles: ModuleType) -> None:
    """The weight never reads 25 %: nobody assumes it; rolled back with `release_unavailable`, the failure told."""
    conductor = simulation.conductor(simulation.begin())
    conductor.settle()
    simulation.envoy.stuck_weight = 3.0
    real_sleep = simulation.world.sleep

    def sleep(seconds: float) -> None:
        if "effect_failed" in kinds(simulation):
            simulation.envoy.stuck_weight = None
        real_sleep(seconds)

    doubles.conduct(simulation.resume(rollouts.active(simulation.db, "telemarketing"), sleep=sleep))
    failed = entries(simulation.db, kind="effect_failed")[0]
    assert "the canary's weight to read 25 %" in str(failed.body["why"])
    last = entries(simulation.db, kind="verdict")[-1].body["verdict"]
    assert (last["decision"], last["reason"]) == ("ROLLBACK", "release_unavailable")
    assert rollouts.recent(simulation.db)[0].state["state"]["phase"] == "rolled_back"


def test_candidate_that_does_not_start_is_rolled_back(simulation: Any, doubles: ModuleType) -> None:
    """The candidate cannot be started: no user sees it, the rollout ends rolled back and says why."""
    simulation.broken.add(NEW)
    conductor = simulation.conductor(simulation.begin())
    conductor.settle()
    assert conductor.ended
    assert conductor.state.phase is Phase.ROLLED_BACK
    last = entries(simulation.db, kind="verdict")[-1].body["verdict"]
    assert (last["reason"], "does not start" in last["detail"]) == ("release_unavailable", True)
    assert simulation.slots.stable == (OLD,)


def test_killed_with_the_proxy_away_no_rollback_is_claimed(simulation: Any) -> None:
    """Kill while Envoy does not answer: the conductor stops with the steps on record; the ledger tells no rollback;
    taken up again with Envoy back it is frozen at weight 0."""

    class Away:
        def __getattr__(self, name: str) -> Any:
            def refuse() -> None:
                raise TrafficError("Envoy does not answer")

            return refuse

    conductor = to_canary(simulation)
    order(simulation, conductor, "kill")
    away = simulation.conductor(rollouts.load(simulation.db, conductor.record.id), admin=Away())
    with pytest.raises(EffectFailed, match="canary's weight to read 0 %"):
        away._poll()
    assert not any(
        e.body["verdict"]["decision"] == "ROLLBACK" for e in entries(simulation.db, kind="verdict")
    )
    again = simulation.resume(rollouts.load(simulation.db, conductor.record.id))
    again.settle()
    assert (again.state.frozen, again.record.weight_pct, again.state.phase) == (True, 0.0, Phase.CANARY)


def test_revoked_grant_freezes_at_once(simulation: Any) -> None:
    """Between revoking and ordering a kill lies an instant; a poll in it freezes the rollout rather than fail."""
    conductor = to_canary(simulation)
    revoke_grant(
        simulation.db,
        service="telemarketing",
        rollout_id=conductor.record.id,
        by="ann",
        reason="now",
        at=simulation.time,
    )
    verdict = conductor._poll()
    assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.FROZEN)
    assert (conductor.state.frozen, conductor.record.weight_pct) == (True, 0.0)
    order(simulation, conductor, "kill")
    conductor._poll()
    assert conductor.state.frozen
    order(simulation, conductor, "abort")
    assert conductor._poll().reason is ReasonCode.ABORTED
    assert conductor.ended


def test_kill_with_nobody_conducting_can_be_taken_up_and_aborted(
    simulation: Any, doubles: ModuleType
) -> None:
    """The conductor is dead, a person kills, then aborts: whoever takes it up freezes it and rolls it back."""
    from services.control.kill import kill

    conductor = to_canary(simulation)
    kill(simulation.db, by="ann", reason="complaints", at=simulation.time)
    order(simulation, conductor, "abort")
    again = simulation.resume(rollouts.load(simulation.db, conductor.record.id))
    doubles.conduct(again)
    assert again.state.phase is Phase.ROLLED_BACK
    assert again.record.ended_at is not None


def test_held_stage_is_not_passed_until_resumed(simulation: Any, doubles: ModuleType) -> None:
    """Hold: the evidence is enough, yet nothing advances, however long; resume: the bake starts again, then it does."""
    conductor = to_canary(simulation)
    order(simulation, conductor, "hold")
    for _ in range(40):
        conductor._poll()
        simulation.sleep(1.0)
    assert (conductor.state.stage, conductor.state.held) == ("canary-25", True)
    order(simulation, conductor, "resume")
    conductor._poll()
    assert conductor.state.entered_at == simulation.time
    assert [v.stage for v in doubles.conduct(conductor)] == ["canary-25", "full", "probation"]


def test_promote_passes_one_stage_as_approved(simulation: Any) -> None:
    """Promote ends this stage only, reason `approved`, with who and why; the next one is baked as ever."""
    conductor = to_canary(simulation)
    order(simulation, conductor, "promote")
    verdict = conductor.run_stage()
    assert (verdict.stage, verdict.reason, verdict.detail) == (
        "canary-25",
        ReasonCode.APPROVED,
        "ann: because",
    )
    assert conductor.state.phase is Phase.FULL


def test_impossible_order_is_refused_on_record(simulation: Any) -> None:
    """`resume` of a rollout that is not held: on the ledger as refused with the reason, taken, nothing changed."""
    conductor = to_canary(simulation)
    before = conductor.state
    order(simulation, conductor, "resume")
    conductor._poll()
    refused = entries(simulation.db, kind="order_refused")[-1]
    assert "needs a held rollout" in str(refused.body["why"])
    assert orders.open_orders(simulation.db, conductor.record.id) == ()
    assert conductor.state == before


def test_a_second_conductor_stops(simulation: Any) -> None:
    """Two that hold the same record: the second to save raises StaleRollout and changes nothing."""
    first = to_canary(simulation)
    second = simulation.conductor(first.record)
    first._poll()
    version = first.record.version
    with pytest.raises(StaleRollout):
        second._poll()
    assert rollouts.load(simulation.db, first.record.id).version == version


def test_only_one_conducts_a_service(simulation: Any) -> None:
    """The lock is the kernel's: held, another is told so; a second rollout of the service is refused by the store."""
    simulation.begin()
    with sole_conductor(simulation.home, "telemarketing"):
        assert is_conducted(simulation.home, "telemarketing")
        assert not is_conducted(simulation.home, "credit")
        with pytest.raises(ConductorBusy, match="another process conducts"):
            sole_conductor(simulation.home, "telemarketing")
    assert not is_conducted(simulation.home, "telemarketing")
    with pytest.raises(RolloutExists):
        simulation.begin()


def test_broken_report_stops_nothing(simulation: Any, doubles: ModuleType) -> None:
    """Every report fails: the rollout is promoted all the same, and each failure is on the ledger."""

    def report(context: StageContext, *parts: Any) -> None:
        raise ReportError("the disk is full")

    record = simulation.begin()
    conductor = doubles.Conductor(simulation.world, record, watch=lambda p: None, report=report)
    assert len(doubles.conduct(conductor)) == 4
    assert conductor.state.phase is Phase.PROMOTED
    failures = [e.body for e in entries(simulation.db, kind="report_failed")]
    assert failures == [
        {"stage": stage, "why": "the disk is full"} for stage in ("shadow", "canary-25", "full", "probation")
    ]


def test_every_poll_renews_the_lease(simulation: Any, doubles: ModuleType) -> None:
    """While it polls, the grant is always ahead of the clock by half the lease; when it stops, the weight is 0."""
    conductor = to_canary(simulation, doubles.short_policy(canary_25={"bake": {"min": "60s", "max": "200s"}}))
    for _ in range(5):
        conductor._poll()
        grant = read_grant(simulation.db, "telemarketing")
        assert grant is not None
        assert grant.valid_until == simulation.time + 5.0
        simulation.sleep(1.0)
    simulation.sleep(5.0)
    assert simulation.envoy.weight_pct() == 0.0


def test_resumed_evidence_is_kept_and_the_gap_does_not_count(simulation: Any, doubles: ModuleType) -> None:
    """Taken up after a gap: the weight is set again before anything counts, the bake starts again, and what the gate
    had seen is still there."""
    conductor = to_canary(simulation, doubles.short_policy(canary_25={"bake": {"min": "60s", "max": "200s"}}))
    conductor._poll()
    simulation.sleep(1.0)
    seen = next(g for g in conductor._poll().gates if g.gate == "errors").n
    assert seen > 0
    simulation.sleep(60.0)
    again = simulation.resume(rollouts.load(simulation.db, conductor.record.id))
    again.settle()
    assert simulation.envoy.weight_pct() == 25.0
    assert again.state.entered_at == simulation.time
    verdict = again._poll()
    assert verdict.decision is Decision.HOLD
    assert next(g for g in verdict.gates if g.gate == "errors").n >= seen
