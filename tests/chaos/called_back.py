"""A rollout that is struck by a fault with its canary at 50 %, goes on to probation all the same, and is called back.

For faults that must change nothing: every boundary between stages comes after them, and in probation no lease protects
users any more, only a conductor that still polls.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from fault_row import FaultRow
from live_system import LiveSystem, ledger_line
from programs import Program, wait_for
from proxy_faults import AT_PCT, LEASE_S, RATE_PER_S
from steady_load import Answered

BAKE_S = 8.0
STAGES = {
    "canary-50": {"bake": {"min": f"{BAKE_S:g}s", "max": "120s"}},
    "probation": {"bake": {"min": "600s", "max": "900s"}},
}
IN_PROBATION_S = 3.0
PATIENCE_S = 120.0


@dataclass(frozen=True)
class CalledBack:
    """What came of it. baked_s: from the fault until 50 % was left; safe_after_s: from the order to come back until the
    candidate's last answer to a user."""

    rollout_id: str
    answers: list[Answered]
    baked_s: float
    safe_after_s: float
    struck_at: float
    ordered_at: float
    ledger: str

    def row(self, fault: str, *, is_met: bool, note: str) -> FaultRow:
        """No user felt it, and the candidate was gone within the lease."""
        failed = [one for one in self.answers if one.why]
        return FaultRow(
            fault=fault,
            load_rps=RATE_PER_S,
            requests=len(self.answers),
            failed=len(failed),
            safe_after_s=round(self.safe_after_s, 1),
            ledger=self.ledger,
            note=f"{note}; {failed[0].why}" if failed else note,
            is_met=is_met and not failed and self.safe_after_s <= LEASE_S,
        )


def called_back(
    system: LiveSystem, conduct: Callable[[str], Program], strike: Callable[[str], None]
) -> CalledBack:
    """`conduct` a candidate; `strike` once users are on it, given its rollout. Raises TimeoutError if it stalls."""
    with system.load(rate_per_s=RATE_PER_S, units=f"u{time.time_ns()}-") as users:
        conductor = conduct(system.forge(f"called-back-{time.time_ns()}", stages=STAGES))
        system.wait_weight(AT_PCT, timeout_s=PATIENCE_S)
        rollout_id = system.rollout()["id"]
        strike(rollout_id)
        struck_at = time.time()
        _wait_phase(system, conductor, "full", "probation")
        baked_s = time.time() - struck_at
        _wait_phase(system, conductor, "probation")
        time.sleep(IN_PROBATION_S)
        ordered_at = time.time()
        system.order("abort")
        _wait_phase(system, conductor, "rolled_back")
        time.sleep(2.0)
        answers = users.answers()
    by_candidate = [one.at for one in answers if not one.why and one.release != system.first]
    return CalledBack(
        rollout_id=rollout_id,
        answers=answers,
        baked_s=baked_s,
        safe_after_s=max(by_candidate) - ordered_at,
        struck_at=struck_at,
        ordered_at=ordered_at,
        ledger=ledger_line(system.ledger(rollout_id)),
    )


def _wait_phase(system: LiveSystem, conductor: Program, *phases: str) -> None:
    def told() -> str:
        return f"{' or '.join(phases)}: {system.rollout()}\n{conductor.tail()}"

    wait_for(lambda: system.rollout()["phase"] in phases, timeout_s=PATIENCE_S, what=told)
