"""Faults of Prefect's server, under users' load in the middle of a rollout that is shown there: it is gone, or hangs.

Nothing that protects users may wait for it (called_back.py).
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import httpx
from called_back import called_back
from fault_row import FaultRow
from fault_script import Fault, OwnHome, run_faults
from live_system import LiveSystem, live_system
from programs import wait_for

from flows.system import wait_for_prefect
from flows.wiring import own_prefect_url
from services.rollout.recorded import recorded_rollout
from services.traffic.processes import kill_session, session_members
from services.traffic.supervision import running

SILENCE_S = 5.0  # half the lease: what a poll may be late before the canary loses its weight
AWAY_S = "90"


def prefect_away(state: Path, *, fault: str, strike: Callable[[LiveSystem], None]) -> FaultRow:
    """A home with a Prefect server of its own; `strike` takes it away."""
    kept = dict(os.environ)
    os.environ.update({"TRIMTAB_STATE": str(state), "TRIMTAB_RESTART_DELAY_S": AWAY_S})
    os.environ.pop("PREFECT_API_URL", None)
    try:
        with live_system(state, name="main") as system:
            wait_for_prefect(system.home)
            return _called_back(system, fault, strike)
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _called_back(system: LiveSystem, fault: str, strike: Callable[[LiveSystem], None]) -> FaultRow:
    def when_shown(rollout_id: str) -> None:
        wait_for(lambda: _is_shown(system, rollout_id), timeout_s=30, what="the flow run in Prefect")
        strike(system)

    found = called_back(system, lambda candidate: system.conduct(candidate, with_prefect=True), when_shown)
    silence_s = _longest_silence(system, found.rollout_id, since=found.struck_at, until=found.ordered_at)
    note = f"at most {silence_s:.1f} s between two polls"
    return found.row(fault, is_met=silence_s <= SILENCE_S, note=note)


def _is_shown(system: LiveSystem, rollout_id: str) -> bool:
    """Whether Prefect has a run of the rollout's flow."""
    url = f"{own_prefect_url(system.home)}/flow_runs/filter"
    asked = {"flow_runs": {"name": {"any_": [rollout_id]}}}
    return bool(httpx.post(url, json=asked, timeout=10.0).json())


def _longest_silence(system: LiveSystem, rollout_id: str, *, since: float, until: float) -> float:
    """The longest time between two polls of the conductor, s."""
    db = system.store()
    try:
        polls = [poll.evidence.at for poll in recorded_rollout(db, rollout_id).polls]
    finally:
        db.close()
    times = [since, *(at for at in polls if since < at < until), until]
    return max(later - earlier for earlier, later in pairwise(times))


def _kill(system: LiveSystem) -> None:
    kill_session(running(system.home)["prefect"].identity)


def _stop(system: LiveSystem) -> None:
    for process in session_members(running(system.home)["prefect"].identity):
        process.send_signal(signal.SIGSTOP)


FAULTS: dict[str, Fault] = {
    name: OwnHome(partial(prefect_away, fault=name, strike=strike))
    for name, strike in (("prefect-api-down", _kill), ("prefect-api-hangs", _stop))
}

if __name__ == "__main__":
    sys.exit(run_faults(FAULTS, sys.argv[1:]))
