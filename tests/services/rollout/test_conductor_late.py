"""Promises of a conductor that comes late, finds another champion, or rolls back between two polls."""

from types import ModuleType
from typing import Any

import pytest

from policies.rollout.rollout import Phase
from policies.rollout.verdict import Decision, ReasonCode
from services.ledger.ledger import entries
from services.rollout.new_rollout import ChampionReplaced
from services.store import rollouts


def test_only_the_release_that_serves_can_be_challenged(simulation: Any) -> None:
    """A champion that was replaced while the candidate was trained: refused, nothing on record."""
    with pytest.raises(ChampionReplaced, match="must be the release that serves all users"):
        simulation.begin(champion="telemarketing-000000000000")
    assert rollouts.active(simulation.db, "telemarketing") is None


def test_a_late_poll_starts_the_stage_again(simulation: Any, doubles: ModuleType) -> None:
    """Silent for longer than its grant: the weight was 0 for a while, so it is set again and the bake starts anew."""
    conductor = simulation.conductor(
        simulation.begin(doubles.short_policy(canary_25={"bake": {"min": "60s", "max": "200s"}}))
    )
    conductor.run_stage()
    conductor._poll()
    entered = conductor.state.entered_at
    simulation.sleep(30.0)
    assert simulation.envoy.weight_pct() == 0.0
    conductor._poll()
    assert simulation.envoy.weight_pct() == 25.0
    assert conductor.state.entered_at > entered + 29.0
    assert [entry.kind for entry in entries(simulation.db)].count("lease_lapsed") == 1


def test_a_rollback_between_polls_is_told(simulation: Any, doubles: ModuleType) -> None:
    """The 25 % weight cannot be read back after shadow had advanced: both verdicts are told, in their order."""
    conductor = simulation.conductor(simulation.begin())
    conductor.settle()
    simulation.envoy.stuck_weight = 3.0
    real_sleep = conductor._world.sleep

    def sleep(seconds: float) -> None:
        if any(entry.kind == "effect_failed" for entry in entries(simulation.db)):
            simulation.envoy.stuck_weight = None
        real_sleep(seconds)

    conductor = simulation.resume(rollouts.active(simulation.db, "telemarketing"), sleep=sleep)
    advanced = conductor.run_stage()
    (sudden,) = conductor.sudden_verdicts()
    assert (advanced.stage, advanced.decision) == ("shadow", Decision.ADVANCE)
    assert (sudden.stage, sudden.reason) == ("canary-25", ReasonCode.RELEASE_UNAVAILABLE)
    assert conductor.state.phase is Phase.ROLLED_BACK
    assert conductor.sudden_verdicts() == ()


def test_shadow_taken_up_bakes_again(simulation: Any, doubles: ModuleType) -> None:
    """A conductor dead for an hour in shadow: the stage's clock starts at the resumption, not an hour ago."""
    conductor = simulation.conductor(simulation.begin())
    conductor.settle()
    simulation.sleep(3600.0)
    again = simulation.resume(rollouts.load(simulation.db, conductor.record.id))
    assert again.state.entered_at == simulation.time
    assert again._poll().decision is Decision.HOLD
