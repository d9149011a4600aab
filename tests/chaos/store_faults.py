"""Faults of what state stands on, under users' load with a canary at 50 %: policy files edited and deleted, the
database locked, torn or restarted, the disk full. Users depend on none of it; the canary's weight lapses when its grant
cannot be renewed.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fault_row import FaultRow
from fault_script import Fault, OwnHome, run_faults
from live_system import SERVICE, LiveSystem, ledger_line, live_system
from programs import Program, free_base, wait_for
from proxy_faults import AT_PCT, LEASE_S, RATE_PER_S, at_half, row
from steady_load import SteadyLoad

from services.home import LOOPBACK
from services.ledger.ledger import verify
from services.rollout.frozen_rules import RULES_DIFFER
from services.store.database import StoreError
from services.traffic.records import supervisor_identity

FAULT_S = 16.0  # longer than the store's patience (10 s) and than the lease
NOBODY = 65534
DISK_MIB = 700
PAGE = 4096


def database_locked(system: LiveSystem) -> FaultRow:
    """Another program holds the SQLite file's write lock for 16 s."""
    with at_half(system) as (users, conductor):
        lock = sqlite3.connect(system.home.root / "trimtab.db", isolation_level=None)
        began = time.time()
        lock.execute("BEGIN EXCLUSIVE")
        try:
            time.sleep(FAULT_S)
        finally:
            lock.execute("ROLLBACK")
            lock.close()
        note = _taken_up(system, conductor)
    return _judged(system, users, "database-locked", began, note)


def policy_files_changed(system: LiveSystem) -> FaultRow:
    """In the middle of a rollout rollout.yaml is edited and utility.yaml deleted: the frozen rules go on."""
    folder = system.home.root / "policies" / SERVICE
    with at_half(system) as (users, _):
        rules = folder / "rollout.yaml"
        rules.write_text(rules.read_text(encoding="utf-8").replace("0.05", "0.95"), encoding="utf-8")
        (folder / "utility.yaml").unlink()
        said = wait_for(
            lambda: system.ledger(system.rollout()["id"], RULES_DIFFER),
            timeout_s=15,
            what="a word on the ledger",
        )
        time.sleep(3.0)
        weight = system.weight_pct()
    words = sorted(f"{Path(path).name} {word}" for path, word in said[-1].body["files"].items())
    return row(
        system,
        users,
        "policy-files-changed",
        safe_after_s=None,
        is_met=weight == AT_PCT,
        note=f"{', '.join(words)}; the canary kept {weight:g} %",
        kind=RULES_DIFFER,
    )


def disk_full(state: Path) -> FaultRow:
    """The home's own disk (a tmpfs) is full for 16 s: the store, the logs, the supervisor's files."""
    folder = state / "home"
    folder.mkdir()
    options = f"size={DISK_MIB}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        with live_system(state, name=folder.name) as system, at_half(system) as (users, conductor):
            supervisor, began = supervisor_identity(system.home), time.time()
            _fill(system.home.root / "filler")
            time.sleep(FAULT_S)
            unlogged = sum(not one.logged for one in users.answers(since=began) if not one.why)
            (system.home.root / "filler").unlink()
            still = supervisor is not None and supervisor_identity(system.home) == supervisor
            note = f"{unlogged} answers were not logged, and say so; {_taken_up(system, conductor)}"
            time.sleep(1.0)
            found = _judged(system, users, "disk-full", began, note)
            return FaultRow(**{**vars(found), "is_met": found.is_met and still})
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def postgres_restarted(state: Path) -> FaultRow:
    """The store is a PostgreSQL server, which is stopped for 16 s (`immediate`: it recovers when it starts)."""
    with _postgres() as (url, control):
        os.environ.update({"TRIMTAB_DATABASE_URL": url, "PREFECT_API_URL": f"http://{LOOPBACK}:9/api"})
        try:
            with live_system(state, name="main") as system, at_half(system) as (users, conductor):
                began = time.time()
                control("stop", "-m", "immediate")
                time.sleep(FAULT_S)
                control("start", "-w", "-l", "/dev/null")
                note = _taken_up(system, conductor)
                time.sleep(1.0)
                return _judged(system, users, "postgresql-restarted", began, note)
        finally:
            del os.environ["TRIMTAB_DATABASE_URL"], os.environ["PREFECT_API_URL"]


def pages_corrupted(system: LiveSystem) -> FaultRow:
    """Half of the SQLite file is overwritten in place. Run it last: this home's store is lost."""
    with at_half(system) as (users, _):
        with sqlite3.connect(system.home.root / "trimtab.db") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        file, began = system.home.root / "trimtab.db", time.time()
        with file.open("r+b") as opened:
            for page in range(2, file.stat().st_size // PAGE, 2):
                opened.seek(page * PAGE)
                opened.write(os.urandom(PAGE))
        safe_at = system.wait_weight(0.0, timeout_s=2 * LEASE_S)
        time.sleep(2.0)
        said = _check_of(system)
    failed = users.failed()
    return FaultRow(
        fault="database-pages-corrupted",
        load_rps=RATE_PER_S,
        requests=len(users.answers()),
        failed=len(failed),
        safe_after_s=round(safe_at - began, 1),
        ledger=said,
        note=failed[0].why if failed else "",
        is_met=not failed and safe_at - began <= LEASE_S and "says nothing" not in said,
    )


def _check_of(system: LiveSystem) -> str:
    """What `trimtab ledger verify` would say of the store."""
    try:
        db = system.store()
    except StoreError as error:
        return f"the store does not open: {str(error).partition(chr(10))[0].rpartition(') ')[2]}"
    try:
        check = verify(db)
        return "the ledger's check says nothing" if check.ok else f"the ledger's check: {check.why}"
    except StoreError as error:
        return f"the store: {str(error)[:80]}"
    finally:
        db.close()


def _taken_up(system: LiveSystem, conductor: Program) -> str:
    """The fault is over: the conductor goes on, or another one does, until the weight is back or the rollout over."""

    def is_settled() -> bool:
        return system.weight_pct() == AT_PCT or bool(system.rollout()["ended"])

    how = "the conductor went on by itself"
    wait_for(lambda: is_settled() or conductor.process.poll() is not None, timeout_s=60, what="the conductor")
    if not is_settled():
        how = "the conductor gave up and was started again"
        print(conductor.tail(), file=sys.stderr, flush=True)
        system.conduct()
        wait_for(is_settled, timeout_s=90, what=lambda: f"{system.rollout()}\n{system.conductors[-1].tail()}")
    if not system.rollout()["ended"]:
        return how
    return f"{how}; {ledger_line(system.ledger(system.rollout()['id']))}"


def _judged(system: LiveSystem, users: SteadyLoad, fault: str, began: float, note: str) -> FaultRow:
    """The canary must have stopped answering within the lease, and no user may have felt anything."""
    lapsed = [one for one in users.answers(since=began, until=began + FAULT_S) if one.release != system.first]
    last_s = max((one.at for one in lapsed if not one.why), default=began) - began
    kinds = [entry.kind for entry in system.ledger(system.rollout()["id"])]
    account = next((kind for kind in reversed(kinds) if kind in ("lease_lapsed", "rollout_resumed")), None)
    return row(system, users, fault, safe_after_s=last_s, is_met=last_s <= LEASE_S, note=note, kind=account)


def _fill(file: Path) -> None:
    with file.open("wb") as opened:
        try:
            while True:
                opened.write(b"\0" * 2**20)
                opened.flush()
        except OSError:
            return


@contextmanager
def _postgres() -> Iterator[tuple[str, Any]]:
    """A PostgreSQL server of its own: its URL, and `pg_ctl`; it does not run as root, so it runs as nobody."""
    programs = Path(
        os.path.realpath(shutil.which("postgres") or "/usr/lib/postgresql/15/bin/postgres")
    ).parent
    with tempfile.TemporaryDirectory(prefix="chaos-pg-") as folder:
        port = free_base(1)
        shutil.chown(folder, NOBODY, NOBODY)
        data = f"{folder}/data"

        def run(program: str, *arguments: str) -> None:
            argv = [str(programs / program), "-D", data, *arguments]
            as_nobody = {"user": NOBODY, "group": NOBODY} if os.geteuid() == 0 else {}
            subprocess.run(
                argv, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=folder, **as_nobody
            )

        run("initdb", "-A", "trust", "-U", "trimtab")
        with (Path(data) / "postgresql.conf").open("a", encoding="utf-8") as opened:
            opened.write(f"port = {port}\nlisten_addresses = '{LOOPBACK}'\nunix_socket_directories = ''\n")
        run("pg_ctl", "start", "-w", "-l", "/dev/null")
        try:
            yield f"postgresql://trimtab@{LOOPBACK}:{port}/postgres", lambda *words: run("pg_ctl", *words)
        finally:
            with suppress(subprocess.CalledProcessError):  # it may have been stopped already
                run("pg_ctl", "stop", "-m", "immediate")


FAULTS: dict[str, Fault] = {
    "policy-files-changed": policy_files_changed,
    "database-locked": database_locked,
    "disk-full": OwnHome(disk_full),
    "postgresql-restarted": OwnHome(postgres_restarted),
    "database-pages-corrupted": pages_corrupted,
}

if __name__ == "__main__":
    sys.exit(run_faults(FAULTS, sys.argv[1:]))
