"""Promises of whoever takes up a rollout: what its dead conductor had said is done, once, and nothing else is."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from policies.rollout.rollout import Phase
from policies.rollout.verdict import Verdict
from services.ledger.ledger import entries
from services.rollout.left_undone import missing_reports
from services.rollout.stage import StageContext
from services.store import orders, rollouts
from services.traffic.records import read_desired

OLD, NEW = "telemarketing-old", "telemarketing-new"


def dying_at(doubles: ModuleType, world: Any, moment: str) -> Any:
    """The world of a conductor that dies at this moment, the first time it comes."""

    def tell(now: str) -> None:
        if now == moment:
            raise doubles.Killed(now)

    return doubles.replace(world.world, tell=tell)


def start(doubles: ModuleType, ports: Any, record: Any, **parts: Any) -> Any:
    quiet = {"watch": lambda progress: None, "report": lambda *given: None}
    return doubles.Conductor(ports, record, **{**quiet, **parts})


def take_up(doubles: ModuleType, world: Any, **parts: Any) -> Any:
    record = rollouts.active(world.db, "telemarketing")
    quiet = {"watch": lambda progress: None, "report": lambda *given: None}
    return doubles.Conductor.resume(world.world, record, **{**quiet, **parts})


def verdicts(world: Any, stage: str) -> list[Any]:
    found = [entry.body["verdict"] for entry in entries(world.db, kind="verdict")]
    return [one for one in found if one["stage"] == stage]


def to_canary(world: Any, **changes: Any) -> Any:
    conductor = world.conductor(world.begin(**changes))
    while conductor.state.phase is not Phase.CANARY:
        conductor.run_stage()
    return conductor


def give(world: Any, verb: str) -> Any:
    record = rollouts.recent(world.db, limit=1)[0]
    return orders.give(world.db, rollout_id=record.id, verb=verb, by="ann", reason="so", at=world.time)


@pytest.mark.parametrize(
    "moment",
    [
        "before canary-25 poll ledger order",
        "after canary-25 poll ledger order",
        "after canary-25 poll ledger conclusion",
        "before canary-25 poll save transition",
        "after canary-25 poll save transition",
        "before full await_ready",
    ],
)
def test_a_promote_is_carried_out_once(simulation: Any, doubles: ModuleType, moment: str) -> None:
    """The conductor dies at any instant of taking `promote`: its successor passes that one stage by it, and only that;
    order and verdict stand on the ledger once."""
    to_canary(simulation)
    record = rollouts.active(simulation.db, "telemarketing")
    give(simulation, "promote")
    with pytest.raises(doubles.Killed):
        start(doubles, dying_at(doubles, simulation, moment), record).run_stage()
    told = doubles.conduct(take_up(doubles, simulation))
    assert orders.open_orders(simulation.db, record.id) == ()
    assert [entry.body["verb"] for entry in entries(simulation.db, kind="order")] == ["promote"]
    approved = [one for one in verdicts(simulation, "canary-25") if one["reason"] == "approved"]
    assert len(approved) == 1
    assert [verdict.reason.value for verdict in told if verdict.stage != "canary-25"] == [
        "baked",
        "gates_passed",
    ]


def test_a_rollback_on_the_ledger_is_carried_out(simulation: Any, doubles: ModuleType) -> None:
    """ROLLBACK was said, then the conductor died: its successor rolls back before the candidate has any weight again,
    though by now the candidate answers well; the verdict is said once."""
    to_canary(simulation)
    simulation.envoy.error_share = 0.6
    record = rollouts.active(simulation.db, "telemarketing")
    mortal = dying_at(doubles, simulation, "after canary-25 poll ledger conclusion")
    with pytest.raises(doubles.Killed):
        start(doubles, mortal, record).run_stage()
    simulation.envoy.error_share = 0.0
    simulation.sleep(20.0)
    weights: list[float] = []

    def sleep(seconds: float) -> None:
        weights.append(simulation.envoy.weight_pct())
        simulation.sleep(seconds)

    conductor = simulation.resume(rollouts.active(simulation.db, "telemarketing"), sleep=sleep)
    doubles.conduct(conductor)
    assert conductor.state.phase is Phase.ROLLED_BACK
    assert set(weights) <= {0.0}
    assert len([one for one in verdicts(simulation, "canary-25") if one["decision"] == "ROLLBACK"]) == 1


def test_a_report_that_was_announced_is_written(simulation: Any, doubles: ModuleType) -> None:
    """A stage's report was waiting when its conductor died: the successor has it written, with the stage's beginning;
    one that is there, or whose failure stands on the ledger, is not written again."""
    written: list[tuple[str, float]] = []

    def lose(context: StageContext, *rest: Any) -> None:
        """It waits in the background and dies with the process."""

    def write(context: StageContext, record: Any, stage: Any, verdict: Verdict, since: float) -> None:
        written.append((stage.name, since))
        file = context.link(verdict).path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("report")

    conductor = start(doubles, simulation.world, simulation.begin(), report=lose)
    conductor.settle()
    began = conductor.state.entered_at
    conductor.run_stage()
    take_up(doubles, simulation, report=write)
    assert written == [("shadow", began)]
    again = take_up(doubles, simulation, report=write)
    assert written == [("shadow", began)]
    doubles.conduct(again)
    assert missing_reports(again._context()) == ()


@pytest.mark.parametrize("verb", ["abort", "kill"])
def test_a_stop_comes_before_the_next_weight(simulation: Any, doubles: ModuleType, verb: str) -> None:
    """The conductor died on the way to 25 %, then a person stops the rollout: its successor gives the candidate no
    weight at all, not even for one poll."""
    mortal = dying_at(doubles, simulation, "before canary-25 set_weight")
    with pytest.raises(doubles.Killed):
        doubles.conduct(start(doubles, mortal, simulation.begin()))
    give(simulation, verb)
    conductor = take_up(doubles, simulation)
    conductor.settle()
    assert ("canary", NEW) not in {key for key, n in simulation.envoy.served.items() if n}
    assert conductor.state.frozen if verb == "kill" else conductor.state.phase is Phase.ROLLED_BACK


@pytest.mark.parametrize("verb", ["abort", "kill"])
def test_a_promotion_is_called_back_while_the_old_release_is_there(
    simulation: Any, doubles: ModuleType, verb: str
) -> None:
    """Probation is passed, the conductor dies before the old release is dropped, a person stops it: the old release
    serves again, the candidate is stopped, the rollout ends rolled back."""
    mortal = dying_at(doubles, simulation, "before end drop_old")
    with pytest.raises(doubles.Killed):
        doubles.conduct(start(doubles, mortal, simulation.begin()))
    record = rollouts.active(simulation.db, "telemarketing")
    assert record.state["state"]["phase"] == "promoted"
    give(simulation, verb)
    doubles.conduct(take_up(doubles, simulation))
    record = rollouts.load(simulation.db, record.id)
    assert (record.state["state"]["phase"], record.ended_at is None) == ("rolled_back", False)
    assert simulation.slots.stable == (OLD,)
    assert set(read_desired(simulation.home)) == {OLD}
    assert verdicts(simulation, "probation")[-1]["detail"] == "ann: so"


@pytest.mark.parametrize("verb", ["abort", "kill"])
def test_a_stop_that_comes_too_late_is_refused_with_the_way_back(
    simulation: Any, doubles: ModuleType, verb: str
) -> None:
    """The old release has left stable when the stop comes: it stays promoted, and the ledger says so and how to go
    back; no order stays open."""
    mortal = dying_at(doubles, simulation, "after end drop_old slots")
    with pytest.raises(doubles.Killed):
        doubles.conduct(start(doubles, mortal, simulation.begin()))
    given = give(simulation, verb)
    doubles.conduct(take_up(doubles, simulation))
    assert rollouts.load(simulation.db, given.rollout_id).state["state"]["phase"] == "promoted"
    refused = entries(simulation.db, kind="order_refused")[-1].body
    assert (refused["verb"], refused["by"]) == (verb, "ann")
    assert "comes too late" in str(refused["why"])
    assert orders.open_orders(simulation.db, given.rollout_id) == ()


def test_a_candidate_that_runs_is_left_running(simulation: Any, doubles: ModuleType) -> None:
    """Taken up from another checkout, whose command for the candidate is another: the candidate that runs is not
    started anew; one that does not run is started by the new command."""
    mortal = dying_at(doubles, simulation, "after shadow start_candidate")
    with pytest.raises(doubles.Killed):
        doubles.conduct(start(doubles, mortal, simulation.begin()))
    before = read_desired(simulation.home)[NEW]
    asked: list[str] = []

    def elsewhere(release: str, port: int) -> Any:
        asked.append(release)
        return simulation.command(release, port)

    record = rollouts.active(simulation.db, "telemarketing")
    simulation.resume(record, command=elsewhere).settle()
    assert (read_desired(simulation.home)[NEW], asked) == (before, [])


def test_the_start_stands_on_the_ledger_once(simulate: Callable[[], Any], doubles: ModuleType) -> None:
    """Killed between the record and its first ledger entry, or after it: whoever takes it up says it, once."""
    for moment in ("after begin record", "after begin ledger"):
        world = simulate()
        normal, world.world = world.world, dying_at(doubles, world, moment)
        with pytest.raises(doubles.Killed):
            world.begin()
        world.world = normal
        doubles.conduct(take_up(doubles, world))
        (started,) = entries(world.db, kind="rollout_started")
        assert started.body["candidate"] == NEW
        assert len(entries(world.db, kind="rollout_ended")) == 1


def test_edited_policy_files_are_told_and_change_nothing(
    simulation: Any, doubles: ModuleType, tmp_path: Path
) -> None:
    """The policy file is edited, then deleted, then restored while its rollout runs: each is said once on the ledger,
    a resumption does not say it again, and the verdicts are those of the frozen rules."""
    file = tmp_path / "policies" / "telemarketing" / "rollout.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("as it was")
    simulation.world = doubles.replace(simulation.world, policies=tmp_path / "policies")
    conductor = simulation.conductor(simulation.begin())
    started = entries(simulation.db, kind="rollout_started")[0].body["policy_files"]
    assert started[str(file)] == hashlib.sha256(b"as it was").hexdigest()
    conductor.settle()
    said = []
    for change in (
        lambda: file.write_text("alphaRollback: 1"),
        file.unlink,
        lambda: file.write_text("as it was"),
    ):
        change()
        conductor._poll()
        conductor._poll()
        conductor = simulation.resume(rollouts.load(simulation.db, conductor.record.id))
        said.append(entries(simulation.db, kind="policy_file_differs")[-1].body["files"])
    assert said == [{str(file): "edited"}, {str(file): "deleted"}, {}]
    assert len(entries(simulation.db, kind="policy_file_differs")) == 3
    doubles.conduct(conductor)
    assert rollouts.load(simulation.db, conductor.record.id).state["state"]["phase"] == "promoted"
