"""Faults of the controller: SIGKILL before and after every effect, every ledger entry and every save of a rollout.

Each script of events is conducted once undisturbed, which tells its moments; then once more with a candidate of its
own, its conductor killed at each of these moments in turn and taken up again. Users call all the while. The short form,
before and after each step alone, is tests/e2e/test_controller_kills.py.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fault_row import FaultRow
from fault_script import run_faults
from live_system import LiveSystem, ledger_line
from mortal_conductor import Conductors, Life, conductors_of
from rollout_invariants import (
    Watching,
    allowed_by_ledger,
    broken_records,
    conclusions,
    forbidden_answers,
    orphans,
)
from steady_load import Answered

from flows.system import stable_release
from services.store import orders

RATE_PER_S = 100.0
LEASE_S = 10.0
SERVICE = "telemarketing"
QUICK: Mapping[str, Mapping[str, Any]] = {
    "canary-25": {"bake": {"min": "1s", "max": "60s"}},
    "canary-50": {"bake": {"min": "1s", "max": "60s"}},
}


@dataclass(frozen=True)
class Script:
    """What happens in a rollout. begins_at: the first conductor dies here, then the orders are given, then the killing
    begins; None: from the first moment on. unsure: ends of moments that need not come again after a death.
    waits_at: the stage that wants a person's approval.
    """

    name: str
    ends: str
    begins_at: str | None = None
    verbs: tuple[str, ...] = ()
    fault: str | None = None
    unsure: tuple[str, ...] = ()
    waits_at: str | None = None

    @property
    def stages(self) -> Mapping[str, Mapping[str, Any]]:
        """The changes to the policy."""
        waiting = {} if self.waits_at is None else {self.waits_at: {**QUICK[self.waits_at], "approval": True}}
        return {**QUICK, **waiting}


SCRIPTS = (
    Script("promoted", "promoted"),
    Script("rolled-back-on-evidence", "rolled_back", fault="error", unsure=("poll ledger verdict",)),
    Script("approved", "promoted", "after canary-50 poll save", ("promote",), waits_at="canary-50"),
    Script("aborted", "rolled_back", "after canary-25 poll save", ("abort",)),
    Script("killed-then-aborted", "rolled_back", "after canary-25 poll save", ("kill", "abort")),
    Script("promotion-undone", "rolled_back", "after probation poll save", ("abort",)),
)


@dataclass
class Survived:
    """What came of one script."""

    script: Script
    kills: int = 0
    requests: int = 0
    failed: list[Answered] = field(default_factory=list)
    lease_s: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    ledger: str = ""
    took_s: float = 0.0

    def row(self) -> FaultRow:
        """As the table has it. `safe_after_s`: the longest wait for weight 0 where nobody took it up at once."""
        return FaultRow(
            fault=f"controller-killed-{self.script.name}",
            load_rps=RATE_PER_S,
            requests=self.requests,
            failed=len(self.failed),
            safe_after_s=round(max(self.lease_s), 1) if self.lease_s else None,
            ledger=self.ledger,
            note=f"{self.kills} kills survived" + (f"; {'; '.join(self.broken[:3])}" if self.broken else ""),
            is_met=not self.failed and not self.broken and self.kills > 0,
        )


@dataclass(frozen=True)
class Plan:
    """The moments at which a script's conductors are killed, in order, and the verdicts that must come all the same."""

    moments: tuple[str, ...]
    verdicts: tuple[tuple[str, str, str], ...]


def undisturbed(system: LiveSystem, script: Script) -> Plan:
    """Conduct the script with nobody killed once it has begun: all its moments, and its verdicts."""
    candidate = system.forge(f"{script.name}-{time.time_ns()}", stages=script.stages)
    with (
        conductors_of(system.home) as conductors,
        system.load(rate_per_s=RATE_PER_S, units=f"{script.name}-before-"),
    ):
        if script.begins_at is not None:
            _die_and_order(system, conductors, script, candidate)
        life = conductors.live(candidate, fault=script.fault)
    moments = dict.fromkeys(one for one in life.moments if not one.endswith(script.unsure))
    return Plan(tuple(moments), tuple(conclusions(system.ledger(system.rollout()["id"]))))


def survive(system: LiveSystem, script: Script, plan: Plan, *, lease_waits: int = 2) -> Survived:
    """Conduct the script with a candidate of its own, killed at each moment of the plan in turn, and look at all."""
    began, found = time.monotonic(), Survived(script)
    candidate = system.forge(f"{script.name}-{time.time_ns()}", stages=script.stages)
    champion = stable_release(system.home) or ""
    with (
        conductors_of(system.home) as conductors,
        system.load(rate_per_s=RATE_PER_S, units=f"{script.name}-") as users,
        Watching(system) as watching,
    ):
        deaths = _kill_at_each(system, conductors, script, candidate, plan.moments, found, lease_waits)
        time.sleep(1.0)
        answers = users.answers()
    rollout = system.rollout()
    entries = system.ledger(rollout["id"])
    found.requests, found.failed = len(answers), [one for one in answers if one.why]
    found.ledger = ledger_line(entries)
    allowed = allowed_by_ledger(
        entries, champion=champion, candidate=candidate, deaths=deaths, lease_s=LEASE_S
    )
    found.broken += forbidden_answers(allowed, answers)
    found.broken += watching.seen
    found.broken += broken_records(system, rollout["id"])
    found.broken += orphans(system, [candidate if script.ends == "promoted" else champion])
    if (rollout["phase"], rollout["ended"]) != (script.ends, True):
        found.broken.append(f"ended {rollout['phase']}, not {script.ends}")
    if tuple(conclusions(entries)) != plan.verdicts:
        found.broken.append(f"the verdicts are {conclusions(entries)}, undisturbed they were {plan.verdicts}")
    found.took_s = time.monotonic() - began
    return found


def _die_and_order(system: LiveSystem, conductors: Conductors, script: Script, candidate: str) -> Life:
    life = conductors.live(candidate, dies_at=script.begins_at, fault=script.fault)
    db = system.store()
    try:
        for verb in script.verbs:
            given = {"rollout_id": system.rollout()["id"], "by": "chaos", "reason": script.name}
            orders.give(db, verb=verb, at=time.time(), **given)
    finally:
        db.close()
    return life


def _kill_at_each(
    system: LiveSystem,
    conductors: Conductors,
    script: Script,
    candidate: str,
    moments: Sequence[str],
    found: Survived,
    lease_waits: int,
) -> list[float]:
    """One life for each moment, and a last one that ends the rollout; when they died, epoch s."""
    deaths = []
    if script.begins_at is not None:
        deaths.append(_die_and_order(system, conductors, script, candidate).ended_at)
        found.kills += 1
    for moment in moments:
        life = conductors.live(candidate, dies_at=moment, fault=script.fault)
        if life.status == 0:
            found.broken.append(f"{moment} never came")
            break
        deaths.append(life.ended_at)
        found.kills += 1
        if len(found.lease_s) < lease_waits and (system.weight_pct() or 0.0) > 0 and "canary" in moment:
            found.lease_s.append(system.wait_weight(0.0, timeout_s=LEASE_S + 2.0) - life.ended_at)
            if found.lease_s[-1] > LEASE_S:
                found.broken.append(f"weight 0 only {found.lease_s[-1]:.1f} s after a death")
    conductors.live(candidate, fault=script.fault)
    return deaths


def _fault(script: Script) -> Any:
    def run(system: LiveSystem) -> FaultRow:
        found = survive(system, script, undisturbed(system, script))
        print(f"{script.name}: {found.kills} kills in {found.took_s:.0f} s", file=sys.stderr, flush=True)
        return found.row()

    return run


FAULTS = {f"controller-killed-{script.name}": _fault(script) for script in SCRIPTS}

if __name__ == "__main__":
    sys.exit(run_faults(FAULTS, sys.argv[1:]))
