"""A promotion that was decided, but whose conductor died before it: a kill or an abort meanwhile comes first."""

from pathlib import Path
from typing import cast

import pytest

from policies.rollout.rollout import Action, Step
from services.control.kill import kill
from services.home import Home, Ports
from services.rollout.effects import EffectFailed, Effects, World
from services.store import orders, rollouts
from services.store.database import Database
from services.store.rollouts import RolloutRecord
from services.traffic.admin import EnvoyAdmin
from services.traffic.slots import Slots
from services.traffic.traffic import Traffic

PORTS = {"telemarketing-aaaaaaaaaaaa": 41_010, "telemarketing-bbbbbbbbbbbb": 41_011}


class NeverAsked(Exception):
    """The effect went further than it may."""


@pytest.fixture
def effects(db: Database, draft: RolloutRecord, tmp_path: Path) -> Effects:
    home = Home(tmp_path / "home", Ports(41_000))
    record = rollouts.create(db, draft)
    slots = Slots((str(record.champion),), record.candidate, None, "s1")
    Traffic(home).write_slots(slots, PORTS)

    def never(*_: object) -> float:
        raise NeverAsked

    world = World(
        home, db, cast(EnvoyAdmin, None), Traffic(home), never, clock=never, timer=never, sleep=never
    )  # type: ignore[arg-type]
    return Effects(world, record, lease_s=10.0)


@pytest.mark.parametrize("verb", ["kill", "abort"])
def test_stable_is_not_repointed_to_a_release_that_was_stopped(
    effects: Effects, db: Database, tmp_path: Path, verb: str
) -> None:
    """Killed, or aborted with nobody there to take it: repointing stable fails, says who and why, moves nobody."""
    if verb == "kill":
        kill(db, by="ana", reason="complaints", at=1001.0)
    else:
        orders.give(db, rollout_id="r1", verb=verb, by="ana", reason="complaints", at=1001.0)
    with pytest.raises(EffectFailed, match="by ana: complaints; stable is not repointed"):
        effects.carry_out(Step(Action.REPOINT_STABLE))
    slots = Traffic(Home(tmp_path / "home", Ports(41_000))).read_slots()
    assert slots is not None
    assert slots.stable == ("telemarketing-aaaaaaaaaaaa",)


def test_a_promotion_that_nobody_stopped_goes_on(effects: Effects, db: Database) -> None:
    """An open order of another kind does not stand in its way."""
    orders.give(db, rollout_id="r1", verb="hold", by="ana", reason="wait", at=1001.0)
    with pytest.raises(NeverAsked):
        effects.carry_out(Step(Action.REPOINT_STABLE))
