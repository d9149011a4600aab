"""Faults of the decision log and its shipper, under users' load: a full disk, killed releases, a killed shipper, a
rotated access log. Every answer's decision is looked for in the logs, and every log's line in the store.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import orjson
from fault_row import FaultRow
from fault_script import Fault, run_faults
from live_system import LiveSystem, ledger_line
from programs import wait_for
from sqlalchemy import func, select
from steady_load import Answered

from services.retention.old_logs import begin_access_log
from services.store import decisions as store
from services.store import tables
from services.traffic.supervision import running

RATE_PER_S = 150.0
KILLS = 6
LONG = {"canary-50": {"bake": {"min": "90s", "max": "120s"}}}


def log_disk_full(system: LiveSystem) -> FaultRow:
    """The decision logs' disk is full while a canary has 50 %: the canary refuses, stable answers everybody and counts;
    the canary is rolled back, and when there is room again the logs account for each decision that they miss."""
    candidate = system.forge(f"full-disk-{time.time_ns()}", stages=LONG)
    with _small_disk(system) as disk, system.load(rate_per_s=RATE_PER_S) as users:
        conductor = system.conduct(candidate)
        system.wait_weight(50.0, timeout_s=90)
        time.sleep(2.0)
        full_at = time.time()
        _fill(disk)
        safe_at = system.wait_weight(0.0, timeout_s=60)
        time.sleep(2.0)
        (disk / "ballast").unlink()
        conductor.end(timeout_s=60)
        time.sleep(1.0)
    answers = users.answers()
    failed = users.failed()
    _caught_up(system)
    lost = _lost(answers, _logged(system))
    unlogged = sum(not one.logged for one in answers)
    counted = _unlogged(system, since=full_at)
    phase = system.rollout()["phase"]
    return FaultRow(
        fault="decision-log-disk-full",
        load_rps=RATE_PER_S,
        requests=len(answers),
        failed=len(failed),
        safe_after_s=round(safe_at - full_at, 1),
        ledger=ledger_line(system.ledger(system.rollout()["id"])),
        note=f"{unlogged} answered unlogged and told so, {counted} in the logs' gaps, {len(lost)} lost"
        + (f"; {failed[0].why}" if failed else ""),
        is_met=not failed and not lost and unlogged == counted > 0 and phase == "rolled_back",
    )


def canary_killed_acknowledged(system: LiveSystem) -> FaultRow:
    """SIGKILL of the canary while it answers half of the users: every decision that a user has is in the logs, and what
    is in the logs is in the store."""
    candidate = system.forge(
        f"acknowledged-{time.time_ns()}", stages={"canary-50": {"bake": {"min": "60s", "max": "90s"}}}
    )
    with system.load(rate_per_s=RATE_PER_S) as users:
        conductor = system.conduct(candidate)
        system.wait_weight(50.0, timeout_s=90)
        time.sleep(1.0)
        killed_at = system.kill(candidate)
        safe_at = system.wait_weight(0.0, timeout_s=40)
        conductor.end(timeout_s=60)
        time.sleep(1.0)
    answers, failed = users.answers(), users.failed()
    _caught_up(system)
    logged = _logged(system)
    lost = _lost(answers, logged) | (logged - _stored(system))
    return FaultRow(
        fault="canary-killed-decisions-acknowledged",
        load_rps=RATE_PER_S,
        requests=len(answers),
        failed=len(failed),
        safe_after_s=round(safe_at - killed_at, 1),
        ledger=ledger_line(system.ledger(system.rollout()["id"])),
        note=f"{len(answers) - len(failed)} decisions acknowledged, {len(lost)} lost",
        is_met=not failed and not lost,
    )


def shipper_killed(system: LiveSystem) -> FaultRow:
    """SIGKILL of the control service, which ships, again and again: the store equals the logs soon after."""
    with system.load(rate_per_s=RATE_PER_S) as users:
        for number in range(KILLS):
            time.sleep(0.3 + 0.4 * number)
            _kill_and_wait(system, "control")
        last_kill_at = time.time()
        time.sleep(1.0)
    answers, failed = users.answers(), users.failed()
    caught_up_at = _caught_up(system)
    logged, stored = _logged(system), _stored(system)
    is_same = logged == stored and len(stored) == _rows(system)
    lost = _lost(answers, logged)
    return FaultRow(
        fault="shipper-killed",
        load_rps=RATE_PER_S,
        requests=len(answers),
        failed=len(failed),
        safe_after_s=round(max(0.0, caught_up_at - last_kill_at), 1),
        ledger="",
        note=f"{KILLS} kills; {len(stored)} decisions in the store, {len(logged)} in the logs, {len(lost)} lost",
        is_met=not failed and not lost and is_same,
    )


def access_log_rotated(system: LiveSystem) -> FaultRow:
    """The proxy's log is put aside under load, three times: each request is in the store once."""
    with system.load(rate_per_s=RATE_PER_S) as users:
        began = time.time()
        aside = []
        for number in range(3):
            time.sleep(1.0)
            aside.append(begin_access_log(system.home, now=began + number, most_bytes=1))
        time.sleep(1.0)
    answers, failed = users.answers(), users.failed()
    _caught_up(system)
    begun = [path for path in aside if path is not None]
    files = [*begun, system.home.access_log]
    requests = {orjson.loads(line)["request_id"] for path in files for line in path.read_bytes().splitlines()}
    with system.store().read() as connection:
        stored = set(connection.execute(select(tables.requests.c.request_id)).scalars())
    missing = len(requests - stored)
    return FaultRow(
        fault="access-log-rotated",
        load_rps=RATE_PER_S,
        requests=len(answers),
        failed=len(failed),
        safe_after_s=None,
        ledger="",
        note=f"{len(begun)} rotations; {len(requests)} requests in the files, {missing} of them not in the store",
        is_met=not failed and not missing and len(begun) == 3 and len(requests) >= len(answers),
    )


@contextlib.contextmanager
def _small_disk(system: LiveSystem) -> Iterator[Path]:
    """A file system of 16 MB for the decision logs; stable is started anew on it, and anew without it in the end."""
    folder = system.home.decision_logs
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", str(folder)], check=True)
    try:
        _restart_stable(system)
        yield folder
    finally:
        _caught_up(system)
        kept = {path: path.read_bytes() for path in folder.glob("*/*.jsonl")}
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        for path, content in kept.items():  # what the small disk held is still to be counted
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        _restart_stable(system)


def _restart_stable(system: LiveSystem) -> None:
    _kill_and_wait(system, system.first)
    time.sleep(2.0)  # the proxy finds it healthy again


def _kill_and_wait(system: LiveSystem, name: str) -> None:
    """SIGKILL, until the supervisor has another one up."""
    before = system.pid(name)
    system.kill(name)

    def is_up() -> bool:
        found = running(system.home).get(name)
        return found is not None and found.ready and found.pid != before

    wait_for(is_up, timeout_s=60, what=f"{name} is up again")


def _fill(disk: Path) -> None:
    """Write until the disk takes no byte more."""
    with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(65_536))
    with (disk / "ballast").open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(b"\0")


def _caught_up(system: LiveSystem) -> float:
    """Wait until the shipper has passed this instant; when it had, epoch s."""
    db, now = system.store(), time.time()
    try:
        wait_for(
            lambda: (store.read_mark(db, store.SHIPPED_THROUGH) or 0.0) > now,
            timeout_s=60,
            what="the shipper has caught up",
        )
    finally:
        db.close()
    return time.time()


def _records(system: LiveSystem) -> Iterator[Mapping[str, object]]:
    for path in system.home.decision_logs.glob("*/*.jsonl"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            with contextlib.suppress(orjson.JSONDecodeError):  # a line that a full disk has torn
                yield orjson.loads(line)


def _logged(system: LiveSystem) -> set[str]:
    """The ids of every decision in the logs."""
    return {str(one["decision_id"]) for one in _records(system) if "decision_id" in one}


def _stored(system: LiveSystem) -> set[str]:
    with system.store().read() as connection:
        return set(connection.execute(select(tables.decisions.c.decision_id)).scalars())


def _rows(system: LiveSystem) -> int:
    with system.store().read() as connection:
        return int(connection.execute(select(func.count()).select_from(tables.decisions)).scalar_one())


def _unlogged(system: LiveSystem, *, since: float) -> int:
    """Decisions in the gaps that the store knows of since then."""
    with system.store().read() as connection:
        gaps = tables.log_gaps
        query = select(func.coalesce(func.sum(gaps.c.decisions), 0)).where(gaps.c.since >= since - 1.0)
        return int(connection.execute(query).scalar_one())


def _lost(answers: Sequence[Answered], logged: set[str]) -> set[str]:
    """Decisions that users were told are logged, and that no log has."""
    return {one.decision_id for one in answers if not one.why and one.logged} - logged


FAULTS: dict[str, Fault] = {
    "shipper-killed": shipper_killed,
    "access-log-rotated": access_log_rotated,
    "canary-killed-decisions-acknowledged": canary_killed_acknowledged,
}
if (
    os.geteuid() == 0
):  # who may not mount has the same in tests/services/serving/test_acknowledged_decisions.py
    FAULTS["decision-log-disk-full"] = log_disk_full

if __name__ == "__main__":
    sys.exit(run_faults(FAULTS, sys.argv[1:]))
