"""A rollout judged again from its record: whole records agree, and every kind of change is found and named."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from policies.gates.evidence import Measured
from policies.rollout.rollout import Phase
from policies.rollout.verdict import Decision, ReasonCode
from services.ledger.ledger import append, entries
from services.rollout.measured_record import read_measured
from services.rollout.policy_set import load_policies
from services.rollout.release_job import ReleaseJob
from services.store import orders, rollouts
from services.trace.offline_verdicts import OfflineVerdict, offline_verdicts
from services.trace.verdict_replay import replay_verdicts

CANDIDATE = "telemarketing-bbbbbbbbbbbb"


def conducted(world: Any, doubles: ModuleType) -> str:
    record = world.begin()
    doubles.conduct(world.conductor(record))
    return str(record.id)


def give(world: Any, rollout_id: str, verb: str) -> None:
    orders.give(world.db, rollout_id=rollout_id, verb=verb, by="ann", reason="because", at=world.time)


def test_a_whole_record_agrees(simulation: Any, doubles: ModuleType) -> None:
    """Promoted without anybody's help: all polls and all verdicts on the ledger are recomputed, and agree."""
    found = replay_verdicts(simulation.db, conducted(simulation, doubles))
    assert found.differs == ()
    assert found.polls > 6
    assert found.on_ledger >= 4  # the four stages' ends, and the holds between
    assert (found.by_people, found.void) == (0, 0)


def test_what_people_ordered_is_traced_to_its_order(simulation: Any, doubles: ModuleType) -> None:
    """Held, resumed, then aborted: the hold's verdict is recomputed, the abort's is found among the orders."""
    record = simulation.begin()
    conductor = simulation.conductor(record)
    while conductor.state.phase is not Phase.CANARY:
        conductor.run_stage()
    for verb, polls in (("hold", 8), ("resume", 1), ("abort", 1)):
        give(simulation, record.id, verb)
        for _ in range(polls):
            conductor._poll()
            simulation.sleep(1.0)
    found = replay_verdicts(simulation.db, record.id)
    assert found.differs == ()
    assert found.by_people == 1
    assert rollouts.load(simulation.db, record.id).ended_at is not None


def test_a_killed_rollout_agrees(simulation: Any, doubles: ModuleType) -> None:
    """Killed, frozen, aborted: no verdict of these came from gates, and each follows from its entry."""
    record = simulation.begin()
    conductor = simulation.conductor(record)
    while conductor.state.phase is not Phase.CANARY:
        conductor.run_stage()
    for verb in ("kill", "abort"):
        give(simulation, record.id, verb)
        conductor._poll()
        conductor._poll() if verb == "kill" else None
    found = replay_verdicts(simulation.db, record.id)
    assert found.differs == ()
    assert found.by_people == 2


@pytest.mark.parametrize("dies_at", range(20, 120, 33))
def test_a_record_agrees_wherever_its_conductor_died(
    simulation: Any, doubles: ModuleType, dies_at: int
) -> None:
    """Killed at a call and taken up by another: what the dead one said and did not do is void, all else agrees."""
    record = simulation.begin()
    mortal = doubles.Mortal(simulation.world, dies_at=dies_at)
    with pytest.raises(doubles.Killed):
        doubles.conduct(doubles.Conductor(mortal.world, record, watch=lambda _: None, report=lambda *_: None))
    simulation.sleep(20.0)
    doubles.conduct(simulation.resume(rollouts.load(simulation.db, record.id)))
    assert replay_verdicts(simulation.db, record.id).differs == ()


Change = Callable[[Any, str], str]


def _another_reason(world: Any, rollout_id: str) -> str:
    _execute(world, "UPDATE poll_evidence SET reason = 'held' WHERE seq = 3")
    return "poll 3 of"


def _another_count(world: Any, rollout_id: str) -> str:
    """One poll's evidence says that the candidate failed hundreds of requests."""
    with world.db.read() as connection:
        seq, text = connection.exec_driver_sql(
            "SELECT seq, evidence FROM poll_evidence WHERE evidence LIKE '%canary_errors%' ORDER BY seq DESC LIMIT 1"
        ).one()
    evidence = json.loads(text)
    evidence["blocks"]["canary_errors"]["canary_events"] = evidence["blocks"]["canary_errors"]["canary_n"]
    with world.db.write() as connection:
        connection.exec_driver_sql(
            "UPDATE poll_evidence SET evidence = ? WHERE seq = ?", (json.dumps(evidence), seq)
        )
    return "probation"


def _another_gate_number(world: Any, rollout_id: str) -> str:
    """A verdict on the ledger names another number; its chain is broken by it, which is said first."""
    with world.db.read() as connection:
        seq, body = connection.exec_driver_sql(
            "SELECT seq, body FROM ledger WHERE kind = 'verdict' ORDER BY seq DESC LIMIT 1"
        ).one()
    verdict = json.loads(body)
    verdict["verdict"]["gates"][0]["n"] += 1
    _execute(world, "DROP TRIGGER IF EXISTS ledger_no_update")
    with world.db.write() as connection:
        connection.exec_driver_sql("UPDATE ledger SET body = ? WHERE seq = ?", (json.dumps(verdict), seq))
    return f"ledger entry {seq}"


def _gates_at_the_end(world: Any, rollout_id: str) -> str:
    _execute(world, "UPDATE rollouts SET gates = json_set(gates, '$.ratio_has_failed', json('true'))")
    return "the gates at the end"


def _a_poll_is_gone(world: Any, rollout_id: str) -> str:
    _execute(world, "DELETE FROM poll_evidence WHERE seq = (SELECT MAX(seq) FROM poll_evidence)")
    return "ledger entry"


def _execute(world: Any, statement: str) -> None:
    with world.db.write() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    "change", [_another_reason, _another_count, _another_gate_number, _gates_at_the_end, _a_poll_is_gone]
)
def test_every_change_of_the_record_is_named(simulation: Any, doubles: ModuleType, change: Change) -> None:
    """A verdict, a count, a number on the ledger, the gates, a poll that is gone: the replay says where."""
    rollout_id = conducted(simulation, doubles)
    simulation.is_record_honest = False
    where = change(simulation, rollout_id)
    found = replay_verdicts(simulation.db, rollout_id)
    assert found.differs
    assert where in found.differs[0].where


@dataclass(frozen=True)
class Found:
    """What a stage measured."""

    metrics: dict[str, Measured]

    def measured(self) -> dict[str, Measured]:
        return self.metrics


def test_offline_verdicts_are_given_again(simulation: Any) -> None:
    """A stage's measurements stand on the ledger before its verdict, not finite ones too: judged again, it is the same;
    with another number on record it is not."""
    measured = {
        "quarantined_share": Measured(0.011, None, None, 9000),
        "failed_rules": Measured(0.0, None, None, 31),
        "rows": Measured(9000.0, None, None, 9000),
        "gone": Measured(float("nan"), float("-inf"), 1.0, 3),
    }
    policies = load_policies("telemarketing")
    job = ReleaseJob("job", simulation.home, simulation.db, policies, 0.0, 1.0, 7, None, "test", time.time)
    job.pass_stage("contract", gather=lambda: Found(measured), report=lambda *_: None)
    packed = {"job": "job", "release": CANDIDATE, "content_digest": "sha256:00"}
    append(simulation.db, "release_packed", packed, service="telemarketing", rollout_id=None, at=time.time())

    def judged() -> OfflineVerdict:
        (one,) = offline_verdicts(simulation.db, candidate=CANDIDATE, policy=policies.rollout)
        return one

    entry = entries(simulation.db, kind="measured")[0]
    assert str(read_measured(entry.body)) == str(dict(sorted(measured.items())))
    first = judged()
    assert first.again == first.recorded
    body = json.dumps(entry.body).replace('"value": 9000', '"value": 4999')
    _execute(simulation, "DROP TRIGGER IF EXISTS ledger_no_update")
    with simulation.db.write() as connection:
        connection.exec_driver_sql("UPDATE ledger SET body = ? WHERE seq = ?", (body, entry.seq))
    again = judged().again
    assert again is not None
    assert (again.decision, again.reason) == (Decision.ROLLBACK, ReasonCode.BOUND_EXCEEDED)
