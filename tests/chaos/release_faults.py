"""Faults of the releases under users' load: the candidate killed, failing, hanging; stable restarted beside it."""

import sys
import time

from fault_row import FaultRow
from fault_script import run_faults
from live_system import LiveSystem, ledger_line

RATE_PER_S = 150.0


def canary_killed(system: LiveSystem) -> FaultRow:
    """SIGKILL of the canary at 50 %, again whenever it comes back: the proxy takes it out, the policy rolls it back."""
    candidate = system.forge(
        f"killed-{time.time_ns()}", stages={"canary-50": {"bake": {"min": "60s", "max": "90s"}}}
    )
    with system.load(rate_per_s=RATE_PER_S) as users:
        conductor = system.conduct(candidate)
        system.wait_weight(50.0, timeout_s=90)
        time.sleep(2.0)
        killed_at = system.kill(candidate)
        safe_at = system.wait_weight(0.0, timeout_s=40)
        conductor.end(timeout_s=60)
        time.sleep(1.0)
    found = system.rollout()
    failed = users.failed()
    return FaultRow(
        fault="canary-killed",
        load_rps=RATE_PER_S,
        requests=len(users.answers()),
        failed=len(failed),
        safe_after_s=round(safe_at - killed_at, 1),
        ledger=ledger_line(system.ledger(found["id"])),
        note=failed[0].why if failed else "",
        is_met=not failed and found["phase"] == "rolled_back",
    )


FAULTS = {"canary-killed": canary_killed}

if __name__ == "__main__":
    sys.exit(run_faults(FAULTS, sys.argv[1:]))
