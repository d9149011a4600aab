"""What must hold of a rollout whose conductors were killed, read from its ledger, the users' answers and the machine.

Each check gives its violations in words; none: it holds. Traffic is compared with the ledger alone: an intent allows
from its entry on, a read-back effect forbids from its entry on, a death forbids once the lease has run out.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
from live_system import LiveSystem
from steady_load import Answered

from policies.gates.history import mismatches, replay
from services.ledger.ledger import LedgerEntry, verify
from services.rollout.left_undone import missing_reports
from services.rollout.recorded import recorded_rollout
from services.rollout.stage import StageContext
from services.store import rollouts
from services.store.grants import current_grants
from services.traffic.errors import TrafficError
from services.traffic.records import supervisor_identity
from services.traffic.supervision import running

SLACK_S = 0.1
"""Envoy's workers take a new weight or endpoint some milliseconds after its admin interface shows it."""


@dataclass(frozen=True)
class Allowed:
    """From `since` on (epoch s) these releases may answer users."""

    since: float
    releases: frozenset[str]


def allowed_by_ledger(
    found: Iterable[LedgerEntry], *, champion: str, candidate: str, deaths: Sequence[float], lease_s: float
) -> list[Allowed]:
    """Who may answer users when, in order of time."""
    events: list[tuple[float, str, Any]] = [(entry.at, entry.kind, entry.body) for entry in found]
    events += [(at, "death", None) for at in deaths]
    is_on_canary, is_stable, is_old_there = False, False, True
    lapses_at = float("inf")
    allowed = [Allowed(0.0, frozenset({champion}))]
    for at, kind, body in sorted(events, key=lambda event: event[0]):
        if at >= lapses_at:
            is_on_canary = False
            allowed.append(_allowed(lapses_at, champion, candidate, is_stable, is_old_there))
        lapses_at = float("inf")
        if kind == "death":
            lapses_at = at + lease_s
        elif kind == "rollout_resumed":
            lapses_at = at + lease_s  # it may die before it has said anything more
        elif kind == "intent":
            for step in body["steps"]:
                is_on_canary |= step["action"] == "set_weight" and step["weight_pct"] > 0
                is_stable |= step["action"] == "repoint_stable"
                is_old_there |= step["action"] == "undo_repoint"
        elif kind == "effect":
            action, seen = body["action"], body["read_back"]
            is_on_canary = seen["weight_pct"] > 0 if action == "set_weight" else is_on_canary
            is_stable = is_stable and action != "undo_repoint"
            is_old_there = is_old_there and action != "drop_old"
        allowed.append(_allowed(at, champion, candidate, is_on_canary or is_stable, is_old_there))
    return allowed


def _allowed(since: float, champion: str, candidate: str, is_new: bool, is_old: bool) -> Allowed:
    return Allowed(since, frozenset(name for name, may in ((champion, is_old), (candidate, is_new)) if may))


def forbidden_answers(allowed: Sequence[Allowed], answers: Iterable[Answered]) -> list[str]:
    """The answers of a release that was allowed at no instant between their sending and their arrival."""
    ends = [*(one.since for one in allowed[1:]), float("inf")]
    found = []
    for answer in answers:
        first, last = answer.at - SLACK_S, answer.at + answer.took_s
        names = [
            one.releases for one, end in zip(allowed, ends, strict=True) if one.since <= last and end >= first
        ]
        if answer.release and not any(answer.release in some for some in names):
            found.append(f"{answer.release} answered a user at {answer.at:.2f}, which the ledger forbids")
    return found


class Watching:
    """Looks at a running system five times a second, in the background: never two canaries, always a stable release."""

    def __init__(self, system: LiveSystem) -> None:
        self._system = system
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watching", daemon=True)
        self.looks = 0
        self.seen: list[str] = []

    def __enter__(self) -> "Watching":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10.0)

    def _watch(self) -> None:
        db = self._system.store()
        try:
            while not self._over.wait(0.2):
                self.looks += 1
                if len(current_grants(db)) > 1 or len(rollouts.all_active(db)) > 1:
                    self.seen.append(f"two rollouts at {time.time():.2f}")
                try:
                    hosts = self._system.admin.endpoints()
                except TrafficError:
                    continue
                if len(hosts.get("canary", ())) > 1 or len(hosts.get("shadow", ())) > 1:
                    self.seen.append(f"two canaries at {time.time():.2f}")
                if not hosts.get("stable"):
                    self.seen.append(f"no stable release at {time.time():.2f}")
        finally:
            db.close()


def conclusions(found: Iterable[LedgerEntry]) -> list[tuple[str, str, str]]:
    """Stage, decision, reason of the verdicts that ended a stage; of a stage that was judged again, the last one."""
    last: dict[str, tuple[str, str, str]] = {}
    for entry in found:
        verdict: Any = entry.body.get("verdict")
        if entry.kind == "verdict" and "report" in entry.body:
            last[verdict["stage"]] = (verdict["stage"], verdict["decision"], verdict["reason"])
    return list(last.values())


def broken_records(system: LiveSystem, rollout_id: str) -> list[str]:
    """The ledger's chain, the replay of every verdict from the stored evidence, and the reports of all stages."""
    db, found = system.store(), []
    try:
        check = verify(db)
        if not check.ok:
            found.append(f"the ledger is broken at {check.first_bad}: {check.why}")
        kept = recorded_rollout(db, rollout_id)
        wrong = mismatches(replay(kept.policy, kept.polls, kept.utility.range))
        found += [f"replayed, the poll at {one.poll.at:.2f} gives another verdict" for one in wrong]
        context = StageContext(system.home, db, kept.record.service, kept.record.candidate, rollout_id)
        found += [f"the report of {one.verdict.stage} is missing" for one in missing_reports(context)]
    finally:
        db.close()
    return found


def orphans(system: LiveSystem, expected: Iterable[str]) -> list[str]:
    """Processes of the home that nobody owns, releases that run and should not, and ports that somebody else holds."""
    owned = running(system.home)
    found = [f"{name} runs" for name in sorted(set(owned) - {"envoy", "control", *expected})]
    found += [f"{name} does not run" for name in sorted({"envoy", "control", *expected} - set(owned))]
    supervisor = supervisor_identity(system.home)
    leaders = {process.pid for process in owned.values()}
    leaders |= set() if supervisor is None else {supervisor.pid}
    own = {pid for leader in leaders for pid in (leader, *_children(leader))}
    users = {child.pid for child in psutil.Process().children(recursive=True)}
    ports = range(system.home.ports.base, system.home.ports.base + 40)
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if process.pid not in own | users and f"{system.home.root}/" in f"{words}/":
            found.append(f"process {process.pid} has no owner: {words[:120]}")
    for connection in psutil.net_connections("tcp"):
        is_open = connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports
        if is_open and connection.pid not in own:
            found.append(f"port {connection.laddr.port} is held by process {connection.pid}")
    return found


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
