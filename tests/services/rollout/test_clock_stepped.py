"""Promises of a conductor whose wall clock is set anew in the middle of a stage."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from services.ledger.ledger import entries

HOUR_S = 3600.0


class SteppedClock:
    """The simulation's time, and from `at` seconds on another one by `by_s`."""

    def __init__(self, simulation: Any, *, at: float, by_s: float) -> None:
        self._simulation, self._steps_at, self._by_s = simulation, simulation.time + at, by_s

    def __call__(self) -> float:
        time: float = self._simulation.time
        return time + (self._by_s if time >= self._steps_at else 0.0)


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
@pytest.mark.parametrize("stage", ["shadow", "probation"])
def test_no_bake_is_cut_short_or_drawn_out(
    simulation: Any, doubles: ModuleType, by_s: float, stage: str
) -> None:
    """An hour ahead, or back, in the middle of a stage of 20 s: the stage starts again, is passed after 20 s by the
    monotonic clock, and the ledger tells of the step once."""
    policy = doubles.short_policy(**{stage: {"bake": {"min": "20s", "max": "60s"}}})
    conductor = simulation.conductor(simulation.begin(policy))
    conductor.settle()
    while conductor.state.stage != stage:
        conductor.run_stage()
    clock = SteppedClock(simulation, at=10.0, by_s=by_s)
    conductor._world = replace(simulation.world, clock=clock)
    began = simulation.time
    assert conductor.run_stage().reason == "gates_passed"
    assert 30.0 <= simulation.time - began <= 35.0
    (said,) = entries(simulation.db, kind="clock_stepped")
    assert (said.body["stage"], said.body["by_s"]) == (stage, by_s)
