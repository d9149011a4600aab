"""The short form of tests/chaos/controller_kills.py: conductors of a real system killed before and after every step."""

import shutil
from collections.abc import Iterator
from typing import Any

import controller_kills as kills
import pytest
from live_system import live_system

from policies.rollout.rollout import ON_THE_WAY, Action, Phase, initial
from services.rollout.policy_set import load_policies
from services.rollout.record_forms import place_of_step
from services.serving.release import read_release

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
UP = [
    ("shadow", "gates_passed"),
    ("canary-25", "gates_passed"),
    ("canary-50", "gates_passed"),
    ("full", "baked"),
]


@pytest.fixture(scope="module")
def system(workplace: Any, main_job: Any) -> Iterator[Any]:
    """A system of its own, without Prefect, whose first release is the main job's."""
    assert main_job.code == 0
    state = workplace.state / "kills-state"
    for folder in workplace.home.releases.glob(f"{kills.SERVICE}-*"):
        if read_release(folder).provenance.get("job") == f"{kills.SERVICE}-first":
            shutil.copytree(folder, state / "first-release" / folder.name, dirs_exist_ok=True)
    with live_system(state, name="kills") as found:
        yield found


def script(name: str) -> Any:
    return next(one for one in kills.SCRIPTS if one.name == name)


def around(*places: str) -> tuple[str, ...]:
    """The moments before and after each of these."""
    return tuple(f"{when} {place}" for place in places for when in ("before", "after"))


def survive(system: Any, name: str, places: list[str], verdicts: list[tuple[str, str, str]]) -> Any:
    plan = kills.Plan(around(*places), tuple(verdicts))
    found = kills.survive(system, script(name), plan, lease_waits=1)
    print(f"{name}: {found.kills} kills, {found.requests} requests, {len(found.failed)} failed")
    print(f"  {found.took_s:.0f} s; weight 0 after {found.lease_s}")
    return found


def test_killed_at_every_step_up_it_is_promoted(system: Any) -> None:
    """Started, shadow, 25 %, 50 %, full, probation, promoted: SIGKILL before and after the record, the grant, a save, a
    verdict and each step. No user request fails, nobody answers whom the ledger forbids, never two canaries, weight 0
    within the lease, the verdicts of an undisturbed rollout, all replayed, ledger whole, reports there, no orphan."""
    policy = load_policies(kills.SERVICE).rollout
    steps = [place_of_step(one) for one in initial(policy, 0.0)[1]]
    steps += ["shadow poll ledger conclusion", "shadow poll save transition"]
    steps += ["canary-25 mirror_off", "canary-25 set_weight", "poll grant", "canary-50 set_weight"]
    full = ON_THE_WAY[Phase.CANARY, Phase.FULL]
    steps += [f"full {action}" for action in full]
    steps += [f"end {action}" for action in ON_THE_WAY[Phase.PROBATION, Phase.PROMOTED]]
    verdicts = [(stage, "ADVANCE", why) for stage, why in [*UP, ("probation", "gates_passed")]]
    found = survive(system, "promoted", ["begin record", *steps, "end save"], verdicts)
    assert (found.failed, found.broken) == ([], [])
    assert found.kills == 2 * (len(steps) + 2)
    assert len(found.lease_s) == 1


def test_killed_at_every_step_back_it_is_rolled_back(system: Any) -> None:
    """Aborted in probation while nobody conducts: SIGKILL before and after each step of the way back, and the same."""
    steps = [f"end {action}" for action in ON_THE_WAY[Phase.PROBATION, Phase.ROLLED_BACK]]
    assert f"end {Action.UNDO_REPOINT}" in steps
    verdicts = [*((stage, "ADVANCE", why) for stage, why in UP), ("probation", "ROLLBACK", "aborted")]
    found = survive(system, "promotion-undone", [*steps, "end save"], verdicts)
    assert (found.failed, found.broken) == ([], [])
    assert found.kills == 1 + 2 * (len(steps) + 1)
