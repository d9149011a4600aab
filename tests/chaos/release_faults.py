"""Faults of the releases under users' load at 50 %: the candidate killed, failing, refusing, hanging, leaking, out of
files, slow to start; stable restarted beside it.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
from fault_row import FaultRow
from fault_script import Fault, run_faults
from live_system import LiveSystem, ledger_line
from programs import wait_for
from steady_load import SteadyLoad

RATE_PER_S = 150.0
AT_FULL_PCT = 50.0
LONG = {"canary-50": {"bake": {"min": "60s", "max": "90s"}}}
MEMORY_LIMIT_BYTES = 600 * 2**20


def canary_fault(
    name: str, fault: str | None, strike: Callable[[LiveSystem, str], None] | None = None
) -> Fault:
    """A candidate with this fault, or struck by `strike(system, release)` at 50 %, must be rolled back, unfelt."""

    def run(system: LiveSystem) -> FaultRow:
        candidate = system.forge(f"{name}-{time.time_ns()}", stages=LONG)
        with system.load(rate_per_s=RATE_PER_S) as users:
            conductor = system.conduct(candidate, fault=fault)
            # A candidate that fails at once may be out again before anybody has seen it in.
            wait_for(
                lambda: system.weight_pct() == AT_FULL_PCT or conductor.process.poll() is not None,
                timeout_s=120,
                what=lambda: f"{AT_FULL_PCT:g} % for {name}: {system.rollout()}\n{conductor.tail()}",
            )
            struck_at = time.time()
            if strike is not None:
                time.sleep(1.0)
                struck_at = time.time()
                strike(system, candidate)
            safe_at = system.wait_weight(0.0, timeout_s=80)
            conductor.end(timeout_s=150)
            time.sleep(1.0)
        return _row(system, users, name, safe_after_s=safe_at - struck_at, phase="rolled_back")

    return run


def slow_to_start(system: LiveSystem) -> FaultRow:
    """A candidate that needs 15 s before it listens gets no traffic before it is ready, then as any other."""
    candidate = system.forge(f"slow-start-{time.time_ns()}", stages=LONG)
    with system.load(rate_per_s=RATE_PER_S) as users:
        conductor = system.conduct(candidate, fault="slow-start:15")
        began = time.time()
        seen_at = system.wait_weight(AT_FULL_PCT, timeout_s=120)
        first_at = wait_for(
            lambda: next((one.at for one in users.answers(since=began) if one.release == candidate), 0.0),
            timeout_s=10,
            what="an answer of the candidate",
        )
        system.order("abort")
        conductor.end(timeout_s=150)
    row = _row(system, users, "canary-slow-to-start", safe_after_s=None, phase="rolled_back")
    return _noted(
        row,
        f"first answer after {first_at - began:.1f} s, 50 % seen after {seen_at - began:.1f} s",
        first_at > began + 15,
    )


def killed_by_memory(system: LiveSystem, candidate: str) -> None:
    """Stand for the kernel's out-of-memory killer: SIGKILL at 600 MiB, as often as it gets there."""
    process = psutil.Process(system.pid(candidate))
    wait_for(
        lambda: process.memory_info().rss > MEMORY_LIMIT_BYTES, timeout_s=40, what="600 MiB of the candidate"
    )
    system.kill(candidate)


def killed_again_and_again(system: LiveSystem, candidate: str) -> None:
    """SIGKILL, and once more if it is back within 3 s."""
    system.kill(candidate)
    deadline = time.monotonic() + 3.0
    while time.monotonic() < deadline:
        with suppress(KeyError, ProcessLookupError):
            system.kill(candidate)
        time.sleep(0.2)


def stable_restarted(system: LiveSystem) -> FaultRow:
    """SIGTERM to the stable release while a canary has 50 %: what its own users feel until it is back."""
    candidate = system.forge(f"stable-restarted-{time.time_ns()}", stages=LONG)
    with system.load(rate_per_s=RATE_PER_S) as users:
        conductor = system.conduct(candidate)
        system.wait_weight(AT_FULL_PCT, timeout_s=120)
        time.sleep(2.0)
        stopped_at = time.time()
        os.kill(system.pid(system.first), signal.SIGTERM)
        time.sleep(12.0)
        weight = system.weight_pct()
        system.order("abort")
        conductor.end(timeout_s=150)
        time.sleep(1.0)
    row = _row(
        system, users, "stable-restarted", safe_after_s=users.gap_s(since=stopped_at), phase="rolled_back"
    )
    return _noted(row, f"the canary kept {weight:g} %", weight == AT_FULL_PCT)


def _row(
    system: LiveSystem, users: SteadyLoad, name: str, *, safe_after_s: float | None, phase: str
) -> FaultRow:
    found = system.rollout()
    failed = users.failed()
    return FaultRow(
        fault=name,
        load_rps=RATE_PER_S,
        requests=len(users.answers()),
        failed=len(failed),
        safe_after_s=None if safe_after_s is None else round(safe_after_s, 1),
        ledger=ledger_line(system.ledger(found["id"])),
        note=failed[0].why if failed else "",
        is_met=not failed and found["phase"] == phase,
    )


def _noted(row: FaultRow, note: str, is_so: bool) -> FaultRow:
    text = "; ".join(part for part in (note, row.note) if part)
    return FaultRow(**{**vars(row), "note": text, "is_met": row.is_met and is_so})


FAULTS: dict[str, Fault] = {
    "canary-killed": canary_fault("canary-killed", None, killed_again_and_again),
    "canary-hangs": canary_fault("canary-hangs", "hang"),
    "canary-500": canary_fault("canary-500", "error"),
    "canary-nan": canary_fault("canary-nan", "nan"),
    "canary-unknown-action": canary_fault("canary-unknown-action", "unknown-action"),
    "canary-refuses": canary_fault("canary-refuses", "refuse"),
    "canary-leaks-until-killed": canary_fault("canary-leaks-until-killed", "leak:1024", killed_by_memory),
    "canary-out-of-files": canary_fault("canary-out-of-files", "files"),
    "canary-slow-to-start": slow_to_start,
    "stable-restarted": stable_restarted,
}

if __name__ == "__main__":
    sys.exit(run_faults(FAULTS, sys.argv[1:]))
