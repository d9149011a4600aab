"""Faults of the data plane and its control under users' load, with a canary at 50 %: Envoy, the control service and the
supervisor killed or hanging; the kill switch; a throttle; a release stopped with requests in flight.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fault_row import FaultRow
from fault_script import Fault, run_faults
from live_system import SERVICE, LiveSystem, ledger_line
from programs import Program
from steady_load import SteadyLoad

from flows.system import bring_up
from services.control.kill import kill
from services.control.throttling import throttle
from services.traffic.bootstrap import bootstrap_file, envoy_argv
from services.traffic.processes import kill_session, spawn
from services.traffic.records import supervisor_identity

RATE_PER_S = 150.0
AT_PCT = 50.0
LEASE_S = 10.0
SWITCH_S = 2.0
LONG = {"canary-50": {"bake": {"min": "600s", "max": "900s"}}}


@contextmanager
def at_half(system: LiveSystem) -> Iterator[tuple[SteadyLoad, Program]]:
    """Users, and a canary that has had 50 % of them for two seconds: the rollout under way, or a new one."""
    with system.load(rate_per_s=RATE_PER_S, units=f"u{time.time_ns()}-") as users:
        found = system.rollout()
        if not found or found["ended"]:
            conductor = system.conduct(system.forge(f"half-{time.time_ns()}", stages=LONG))
        elif system.conductors[-1].process.poll() is not None:
            conductor = system.conduct()
        else:
            conductor = system.conductors[-1]
        system.wait_weight(AT_PCT, timeout_s=120)
        time.sleep(2.0)
        yield users, conductor


def row(
    system: LiveSystem,
    users: SteadyLoad,
    fault: str,
    *,
    safe_after_s: float | None,
    is_met: bool,
    note: str = "",
    kind: str | None = None,
    most_failed: int = 0,
) -> FaultRow:
    """A row; `kind`: the ledger entry that accounts for it (None: none is due)."""
    failed = users.failed()
    said = [entry.kind for entry in system.ledger(system.rollout()["id"])]
    return FaultRow(
        fault=fault,
        load_rps=RATE_PER_S,
        requests=len(users.answers()),
        failed=len(failed),
        safe_after_s=None if safe_after_s is None else round(safe_after_s, 1),
        ledger="" if kind is None else (kind if kind in said else f"no {kind}"),
        note="; ".join(part for part in (note, failed[0].why if failed else "") if part),
        is_met=is_met and len(failed) <= most_failed and (kind is None or kind in said),
    )


def envoy_killed(system: LiveSystem) -> FaultRow:
    """SIGKILL of the only Envoy: the gap until the supervisor has it back, and the canary's weight with it."""
    with at_half(system) as (users, _):
        killed_at = system.kill("envoy")
        time.sleep(1.0)
        back_at = system.wait_weight(AT_PCT, timeout_s=20)
        time.sleep(2.0)
        gap_s = users.gap_s(since=killed_at)
    return row(
        system,
        users,
        "envoy-killed",
        safe_after_s=gap_s,
        is_met=gap_s < 3.0,
        note=f"one Envoy: nobody was served for {gap_s:.1f} s; weight back after {back_at - killed_at:.1f} s",
        most_failed=sys.maxsize,
    )


def envoy_killed_controller_dead(system: LiveSystem) -> FaultRow:
    """SIGKILL of conductor, control service and Envoy together: Envoy comes back by itself, the canary's lease ends."""
    with at_half(system) as (users, conductor):
        killed_at = conductor.kill()
        for name in ("control", "envoy"):
            system.kill(name)
        time.sleep(LEASE_S + 1.0)
        gap_s = users.gap_s(since=killed_at)
        late = [one for one in users.answers(since=killed_at + LEASE_S) if one.release != system.first]
        last = max(
            (one.at for one in users.answers(since=killed_at) if one.release not in ("", system.first)),
            default=killed_at,
        )
        system.conduct()
        system.wait_weight(AT_PCT, timeout_s=60)
    return row(
        system,
        users,
        "envoy-killed-controller-dead",
        safe_after_s=last - killed_at,
        is_met=not late and gap_s < 4.0,
        note=f"nobody was served for {gap_s:.1f} s; the canary's last answer {last - killed_at:.1f} s after",
        kind="rollout_resumed",
        most_failed=sys.maxsize,
    )


def second_envoy(system: LiveSystem) -> FaultRow:
    """The same with a second Envoy on the same ports (SO_REUSEPORT): what fails is what the dead one had in hand."""
    home = system.home
    start: dict[str, Any] = json.loads(bootstrap_file(home).read_text())
    start["admin"]["address"]["socket_address"]["port_value"] = home.ports.base + 7
    text = json.dumps(start).replace(str(home.access_log), f"{home.access_log}.second")
    second_file = home.traffic / "bootstrap-second.json"
    second_file.write_text(text)
    argv = [str(second_file) if word == str(bootstrap_file(home)) else word for word in envoy_argv(home)]
    second, _ = spawn(argv, env=None, cwd=home.root, log=home.processes / "envoy-second.log")
    try:
        time.sleep(3.0)
        with at_half(system) as (users, _):
            killed_at = system.kill("envoy")
            time.sleep(1.0)
            system.wait_weight(AT_PCT, timeout_s=20)
            time.sleep(2.0)
            failed = users.failed(since=killed_at)
            gap_s = users.gap_s(since=killed_at)
            at_once = [
                one for one in users.answers(since=killed_at + 0.05, until=killed_at + 0.5) if not one.why
            ]
    finally:
        kill_session(second)
    return row(
        system,
        users,
        "envoy-killed-beside-a-second",
        safe_after_s=gap_s,
        is_met=bool(at_once) and gap_s < 0.5,
        note=f"{len(failed)} in flight on the dead one; {len(at_once)} served in the next half second",
        most_failed=20,
    )


def control_killed(system: LiveSystem) -> FaultRow:
    """SIGKILL of the control service: it is back before the weight's time-to-live is over."""
    with at_half(system) as (users, _):
        killed_at = system.kill("control")
        lowest, deadline = AT_PCT, time.monotonic() + 8.0
        while time.monotonic() < deadline:
            lowest = min(lowest, AT_PCT if (seen := system.weight_pct()) is None else seen)
            time.sleep(0.1)
        back_at = system.wait_weight(AT_PCT, timeout_s=30)
    note = (
        "the canary kept its weight"
        if lowest == AT_PCT
        else f"weight 0, back after {back_at - killed_at:.0f} s"
    )
    return row(system, users, "control-killed", safe_after_s=None, is_met=True, note=note)


def control_hangs(system: LiveSystem) -> FaultRow:
    """SIGSTOP of the control service: the weight's time-to-live ends, the canary has none until it goes on."""
    with at_half(system) as (users, _):
        pid, stopped_at = system.pid("control"), time.time()
        os.kill(pid, signal.SIGSTOP)
        try:
            safe_at = system.wait_weight(0.0, timeout_s=LEASE_S)
        finally:
            os.kill(pid, signal.SIGCONT)
        system.wait_weight(AT_PCT, timeout_s=30)
    return row(
        system,
        users,
        "control-hangs",
        safe_after_s=safe_at - stopped_at,
        is_met=safe_at - stopped_at <= LEASE_S,
    )


def supervisor_killed(system: LiveSystem) -> FaultRow:
    """SIGKILL of the supervisor: all it owned goes on, and its successor adopts it."""
    with at_half(system) as (users, _):
        before = {name: system.pid(name) for name in ("envoy", "control", system.first)}
        identity = supervisor_identity(system.home)
        assert identity is not None
        os.kill(identity.pid, signal.SIGKILL)
        time.sleep(2.0)
        bring_up(system.home, lambda _: None)
        time.sleep(3.0)
        after = {name: system.pid(name) for name in before}
        weight = system.weight_pct()
    note = "the successor adopted every process" if before == after else f"{before} became {after}"
    return row(
        system,
        users,
        "supervisor-killed",
        safe_after_s=None,
        is_met=before == after and weight == AT_PCT,
        note=note,
    )


def canary_throttled(system: LiveSystem) -> FaultRow:
    """The canary limited to 20 a second of 75: stable answers the rest at once."""
    db = system.store()
    who: dict[str, Any] = {"service": SERVICE, "by": "chaos", "reason": "chaos"}
    try:
        with at_half(system) as (users, _):
            asked_at = time.time()
            throttle(db, system.home, variant="canary", per_s=20.0, at=asked_at, **who)
            limited_at = time.time()
            time.sleep(5.0)
            throttle(db, system.home, variant="canary", per_s=None, at=time.time(), **who)
            time.sleep(1.0)
        during = users.answers(since=limited_at, until=limited_at + 5.0)
        by_canary = sum(one.release != system.first for one in during)
    finally:
        db.close()
    return row(
        system,
        users,
        "canary-throttled",
        safe_after_s=limited_at - asked_at,
        is_met=80 <= by_canary <= 125,
        note=f"the canary answered {by_canary / 5:.0f} a second instead of {RATE_PER_S / 2:.0f}",
        kind="throttle",
    )


def kill_switch(system: LiveSystem) -> FaultRow:
    """`trimtab kill` with everything alive: weight 0 within 2 s."""
    with at_half(system) as (users, conductor):
        killed_at = _kill(system)
        safe_at = system.wait_weight(0.0, timeout_s=LEASE_S)
        time.sleep(1.0)
        system.order("abort")
        conductor.end(timeout_s=150)
    took_s = safe_at - killed_at
    return row(system, users, "kill-switch", safe_after_s=took_s, is_met=took_s <= SWITCH_S, kind="kill")


def kill_switch_controller_dead(system: LiveSystem) -> FaultRow:
    """`trimtab kill` with the control service hanging and the conductor dead: weight 0 within the lease."""
    with at_half(system) as (users, conductor):
        pid = system.pid("control")
        os.kill(pid, signal.SIGSTOP)
        conductor.kill()
        try:
            killed_at = _kill(system)
            safe_at = system.wait_weight(0.0, timeout_s=LEASE_S)
        finally:
            os.kill(pid, signal.SIGCONT)
        system.order("abort")
        system.conduct().end(timeout_s=150)
    took_s = safe_at - killed_at
    return row(
        system,
        users,
        "kill-switch-controller-dead",
        safe_after_s=took_s,
        is_met=took_s <= LEASE_S,
        kind="kill",
    )


def stopped_in_flight(system: LiveSystem) -> FaultRow:
    """A candidate that needs 0.8 s for an answer is stopped by an abort: every request that it has begun it ends."""
    candidate = system.forge(f"slow-{time.time_ns()}", stages=LONG)
    with system.load(rate_per_s=RATE_PER_S / 3) as users:
        conductor = system.conduct(candidate, fault="slow:800")
        system.wait_weight(AT_PCT, timeout_s=120)
        time.sleep(3.0)
        ordered_at = time.time()
        system.order("abort")
        safe_at = system.wait_weight(0.0, timeout_s=20)
        conductor.end(timeout_s=150)
        time.sleep(2.0)
    in_hand = [
        one
        for one in users.answers(since=ordered_at - 2.0, until=safe_at)
        if one.at + one.took_s > ordered_at
    ]
    ended = [one for one in in_hand if one.release == candidate]
    asked_again = [one for one in in_hand if one.took_s > 0.75 and one.release != candidate]
    found = row(
        system,
        users,
        "release-stopped-in-flight",
        safe_after_s=safe_at - ordered_at,
        is_met=bool(ended) and not asked_again,
        note=f"it ended {len(ended)} begun requests itself, {len(asked_again)} were asked again",
    )
    account = ledger_line(system.ledger(system.rollout()["id"]))
    return FaultRow(**{**vars(found), "load_rps": RATE_PER_S / 3, "ledger": account})


def _kill(system: LiveSystem) -> float:
    at, db = time.time(), system.store()
    try:
        kill(db, by="chaos", reason="chaos", at=at)
    finally:
        db.close()
    return at


FAULTS: dict[str, Fault] = {
    "envoy-killed": envoy_killed,
    "envoy-killed-beside-a-second": second_envoy,
    "control-killed": control_killed,
    "control-hangs": control_hangs,
    "supervisor-killed": supervisor_killed,
    "canary-throttled": canary_throttled,
    "envoy-killed-controller-dead": envoy_killed_controller_dead,
    "kill-switch": kill_switch,
    "kill-switch-controller-dead": kill_switch_controller_dead,
    "release-stopped-in-flight": stopped_in_flight,
}

if __name__ == "__main__":
    sys.exit(run_faults(FAULTS, sys.argv[1:]))
