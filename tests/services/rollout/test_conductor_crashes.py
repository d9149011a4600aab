"""A conductor may be killed at any instant: another one takes up the rollout, and it ends as it would have."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from policies.rollout.rollout import Phase
from services.ledger.ledger import entries, verify
from services.store import orders, rollouts
from services.traffic.records import read_desired

OLD, NEW = "telemarketing-old", "telemarketing-new"


def durable_state(world: Any) -> object:
    """What a crash leaves behind, polls that only gathered evidence aside."""
    record = rollouts.recent(world.db, limit=1)[0]
    open_orders = orders.open_orders(world.db, record.id)
    return len(entries(world.db)), record.state, record.ended_at, len(open_orders)


def crash_points(doubles: ModuleType, world: Any, conduct: Callable[..., Any]) -> list[int]:
    """The first call at a port after each durable change, when nobody dies."""
    mortal = doubles.Mortal(world.world, note=lambda: durable_state(world))
    conduct(world, mortal.world)
    seen = mortal.notes
    return [at for at, state in enumerate(seen) if at == 0 or state != seen[at - 1]]


def effects_without_intent(world: Any) -> list[str]:
    """Actions that were done without standing in the intent before them."""
    intended: list[str] = []
    found = []
    for entry in entries(world.db):
        if entry.kind == "intent":
            intended = [str(step["action"]) for step in entry.body["steps"]]
        elif entry.kind == "effect" and entry.body["action"] not in intended:
            found.append(f"{entry.seq}: {entry.body['action']}")
    return found


def die_then_take_up(doubles: ModuleType, world: Any, conduct: Callable[..., Any], *, dies_at: int) -> Any:
    """Kill the conductor at this call; another conducts what stands on record to its end."""
    mortal = doubles.Mortal(world.world, dies_at=dies_at)
    with pytest.raises(doubles.Killed):
        conduct(world, mortal.world)
    world.sleep(20.0)  # longer than the lease
    assert world.envoy.weight_pct() == 0.0
    record = rollouts.active(world.db, "telemarketing")
    if record is not None:
        doubles.conduct(world.resume(record))
    return rollouts.recent(world.db, limit=1)[0]


def test_killed_anywhere_it_is_promoted_all_the_same(
    simulate: Callable[[], Any], doubles: ModuleType
) -> None:
    """Killed after a durable change (every third is tried) of a rollout that would be promoted: lease lapsed, resumed,
    promoted; the old release stopped; every effect stood in an intent before it was done; the ledger is whole."""

    def conduct(world: Any, ports: Any) -> None:
        record = rollouts.active(world.db, "telemarketing")
        doubles.conduct(doubles.Conductor(ports, record, watch=lambda p: None, report=lambda *p: None))

    first = simulate()
    first.begin()
    points = crash_points(doubles, first, conduct)
    assert len(points) >= 30
    for dies_at in points[::-3]:
        world = simulate()
        world.begin()
        record = die_then_take_up(doubles, world, conduct, dies_at=dies_at)
        assert (record.state["state"]["phase"], record.ended_at is None) == ("promoted", False), dies_at
        assert world.slots.stable == (NEW,), dies_at
        assert (world.slots.canary, world.slots.shadow) == (None, None), dies_at
        assert set(read_desired(world.home)) == {NEW}, dies_at
        assert effects_without_intent(world) == [], dies_at
        assert verify(world.db).ok, dies_at


def test_killed_anywhere_in_a_rollback_it_is_rolled_back(
    simulate: Callable[[], Any], doubles: ModuleType
) -> None:
    """The candidate fails at 25 %; the conductor is killed after any durable change from there on: rolled back, the
    candidate stopped, the old release alone."""

    def conduct(world: Any, ports: Any) -> None:
        record = rollouts.active(world.db, "telemarketing")
        doubles.conduct(doubles.Conductor(ports, record, watch=lambda p: None, report=lambda *p: None))

    def failing() -> Any:
        world = simulate()
        conductor = world.conductor(world.begin())
        while conductor.state.phase is not Phase.CANARY:
            conductor.run_stage()
        world.envoy.error_share = 0.6
        return world

    points = crash_points(doubles, failing(), conduct)
    assert len(points) >= 8
    for dies_at in points:
        world = failing()
        record = die_then_take_up(doubles, world, conduct, dies_at=dies_at)
        assert record.state["state"]["phase"] == "rolled_back", dies_at
        assert record.ended_at is not None, dies_at
        assert (world.slots.stable, world.slots.canary) == ((OLD,), None), dies_at
        assert set(read_desired(world.home)) == {OLD}, dies_at
        assert effects_without_intent(world) == [], dies_at


@pytest.mark.parametrize("verb", ["abort", "kill"])
def test_a_safety_order_survives_the_conductor(
    simulate: Callable[[], Any], doubles: ModuleType, verb: str
) -> None:
    """Abort or kill, and the conductor dies after any durable change from then on: whoever takes the rollout up
    carries the order out; the canary gets no traffic again."""

    def ordered() -> Any:
        world = simulate()
        conductor = world.conductor(world.begin())
        while conductor.state.phase is not Phase.CANARY:
            conductor.run_stage()
        give(world, conductor.record.id, verb)
        return world

    def conduct(world: Any, ports: Any) -> None:
        record = rollouts.active(world.db, "telemarketing")
        conductor = doubles.Conductor(ports, record, watch=lambda p: None, report=lambda *p: None)
        conductor.settle()
        for _ in range(3):
            if not conductor.ended:
                conductor._poll()

    for dies_at in crash_points(doubles, ordered(), conduct):
        world = ordered()
        mortal = doubles.Mortal(world.world, dies_at=dies_at)
        with pytest.raises(doubles.Killed):
            conduct(world, mortal.world)
        world.sleep(20.0)
        record = rollouts.active(world.db, "telemarketing")
        if record is not None:
            conductor = world.resume(record)
            conductor.settle()
            for _ in range(3):
                if not conductor.ended:
                    conductor._poll()
        record = rollouts.recent(world.db, limit=1)[0]
        state = record.state["state"]
        assert state["phase"] == "rolled_back" if verb == "abort" else state["frozen"], (dies_at, state)
        assert world.envoy.weight_pct() == 0.0, dies_at


def give(world: Any, rollout_id: str, verb: str) -> None:
    if verb == "kill":
        from services.control.kill import kill

        kill(world.db, by="ann", reason="drill", at=world.time)
    else:
        orders.give(world.db, rollout_id=rollout_id, verb=verb, by="ann", reason="drill", at=world.time)
