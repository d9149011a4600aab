"""The main job for real: from the CSV to a promoted canary, and what a user finds in its state afterwards."""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from services.home import LOOPBACK

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
STAGES = [
    "contract",
    "training",
    "alignment",
    "shadow",
    "canary-1",
    "canary-5",
    "canary-25",
    "canary-50",
    "full",
    "probation",
]
NOWHERE = "http://127.0.0.1:9/api"


def test_run_ends_promoted(main_job: Any) -> None:
    """Exit 0, promoted; a verdict for each of the ten stages of the challenger, each an advance with its reason; no
    failed user request of more than 15,000; every report that is named was written."""
    closing = main_job.closing
    assert (main_job.code, closing["phase"]) == (0, "promoted"), main_job.progress[-4000:]
    verdicts = closing["verdicts"]
    assert [v["stage"] for v in verdicts] == STAGES[:3] + STAGES
    assert {v["decision"] for v in verdicts} == {"ADVANCE"}
    reasons = {v["stage"]: v["reason"] for v in verdicts}
    assert reasons["canary-1"] == "baked"
    assert reasons["canary-25"] == reasons["canary-50"] == "gates_passed"
    assert closing["failed_user_requests"] == 0
    assert closing["user_requests"] > 15_000
    missing = [v["report"] for v in verdicts if not Path(v["report"]).is_file()]
    assert missing == []
    print(f"failed user requests: 0 of {closing['user_requests']}; took {closing['took_s']} s")


def test_each_required_gate_tells_value_and_bound(main_job: Any) -> None:
    """At 25 % and 50 %, utility, slowness and errors were judged on enough data, with value, bound and evidence."""
    for verdict in main_job.closing["verdicts"]:
        if verdict["stage"] in ("canary-25", "canary-50"):
            gates = {gate["gate"]: gate for gate in verdict["gates"] if gate["required"]}
            assert set(gates) == {"utility", "slow", "errors"}
            for gate in gates.values():
                assert gate["status"] == "pass"
                assert gate["n"] >= 200
                assert gate["observed"] is not None
                assert gate["log_e"] >= gate["log_limit"]
            assert gates["utility"]["bound"] == -0.30


def test_prefect_knows_every_stage(main_job: Any, workplace: Any) -> None:
    """In Prefect's own database: the two release flows, the rollout and a flow of every stage, all completed; an
    artifact for every stage's verdict."""
    assert main_job.code == 0
    file = workplace.state / "prefect" / "prefect.db"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        runs = connection.execute(
            "SELECT flow.name, flow_run.name, flow_run.state_type FROM flow_run JOIN flow ON flow.id = flow_run.flow_id"
        ).fetchall()
        artifacts = {key for (key,) in connection.execute("SELECT DISTINCT key FROM artifact")}
    first = [run for run in runs if run[1].startswith(("telemarketing-first", "telemarketing-challenger"))]
    assert {state for _, _, state in first} == {"COMPLETED"}
    assert sorted(flow for flow, _, _ in first) == sorted(
        2 * ["release-model", "contract-stage", "training-stage", "alignment-stage", "release-stage"]
    )
    live = {name.rpartition(" ")[2] for _, name, state in runs if state == "COMPLETED"}
    assert set(STAGES[3:]) <= live
    assert {f"verdict-{stage}" for stage in STAGES} <= artifacts


def test_promotion_left_the_old_release_quiet(main_job: Any, workplace: Any) -> None:
    """The ledger says that the old release took its last request within 2 s of the repointing, as read back at
    Envoy; and every effect is preceded by its intent."""
    from services.ledger.ledger import entries

    assert main_job.code == 0
    db = workplace.store()
    try:
        found = [e for e in entries(db) if e.kind in ("intent", "effect") and e.rollout_id is not None]
    finally:
        db.close()
    first = found[0].rollout_id
    effects = [e for e in found if e.rollout_id == first and e.kind == "effect"]
    repointed = next(e for e in effects if e.body["action"] == "repoint_stable")
    assert repointed.body["read_back"]["old_release_quiet_after_s"] <= 2.0
    assert found[0].kind == "intent"


def test_ledger_verifies_until_one_byte_is_changed(main_job: Any, workplace: Any) -> None:
    """`trimtab ledger verify` passes; with one byte of one body changed behind the triggers' back it exits 1 and
    names the entry."""
    assert main_job.code == 0
    whole = workplace.trimtab_json("ledger", "verify")
    assert whole["ok"]
    assert whole["entries"] > 30
    copy = workplace.state / "tampered"
    copy.mkdir(exist_ok=True)
    main = workplace.home.root
    for name in ("ledger.head", "ports.json"):
        shutil.copy(main / name, copy / name)
    (copy / "trimtab.db").unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(main / "trimtab.db")) as source,
        contextlib.closing(sqlite3.connect(copy / "trimtab.db")) as target,
    ):
        source.backup(target)
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            target.execute("UPDATE ledger SET body = '{}' WHERE seq = 17")
        target.execute("DROP TRIGGER ledger_no_update")
        (body,) = target.execute("SELECT body FROM ledger WHERE seq = 17").fetchone()
        at = body.index(":") - 2
        changed = body[:at] + ("x" if body[at] != "x" else "y") + body[at + 1 :]
        target.execute("UPDATE ledger SET body = ? WHERE seq = 17", (changed,))
        target.commit()
    done = workplace.trimtab("ledger", "verify", "--json", "--home", "tampered")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["ok"], found["first_bad"]) == (False, 17)
    assert "broken at entry 17" in " ".join(
        workplace.trimtab("ledger", "verify", "--home", "tampered").stdout.split()
    )
    replayed = workplace.trimtab("replay", "last", "--home", "tampered")
    assert (replayed.returncode, "ledger entry 17: " in replayed.stdout) == (1, True)
    shutil.rmtree(copy)


def decide(workplace: Any, unit: str, row: dict[str, Any]) -> httpx.Response:
    url = f"http://{LOOPBACK}:{workplace.home.ports.users}/decide"
    return httpx.post(url, json=row, headers={"x-unit-id": unit}, timeout=10)


def a_row() -> dict[str, Any]:
    """One recorded call as a caller would send it."""
    from services.rehearsal.bank_marketing import read_calls
    from services.rehearsal.replay_rows import rows_of
    from services.rollout.policy_set import load_policies

    frame = read_calls().slice(40_000, 1)
    columns = {name: frame[name].to_list() for name in frame.columns}
    return dict(rows_of(columns, load_policies("telemarketing").contract)[0].fields)


def test_up_decides_and_takes_outcomes(running: Any, wait: Any) -> None:
    """After `up`, a POST through Envoy with x-unit-id gets a decision of the promoted release; its outcome is taken,
    once: a repeat is a duplicate; a row that breaks the contract is refused with the field's name."""
    answer = decide(running, "customer-1", a_row())
    assert answer.status_code == 200, answer.text
    decision = answer.json()
    assert decision["release"] == running.trimtab_json("status")["traffic"]["stable"][0]
    assert decision["action"] in ("call", "leave")
    assert set(decision["expected_utility"]) == {"call", "leave"}
    token = running.home.token_file.read_text().strip()
    outcome = {"decision_id": decision["decision_id"], "outcome": "subscribed", "at": time.time()}

    def post(secret: str = token) -> httpx.Response:
        url = f"http://{LOOPBACK}:{running.home.ports.control}/outcomes"
        body = {"outcomes": [outcome], "watermark": None}
        return httpx.post(url, json=body, headers={"authorization": f"Bearer {secret}"}, timeout=10)

    assert post("wrong").status_code == 401
    first, again = post().json(), post().json()
    assert (first["new"], first["duplicates"]) == (1, 0)
    assert (again["new"], again["duplicates"]) == (0, 1)
    refused = decide(running, "customer-1", {**a_row(), "age": "old"})
    assert (refused.status_code, refused.json()["field"]) == (400, "age")


def test_what_was_made_is_signed(running: Any) -> None:
    """Every release of the home, the run's two and what other tests made, is vouched for by the home's key; the ledger
    agrees with its signed checkpoints."""
    found = running.trimtab_json("release", "verify")
    assert len(found) >= 2
    assert {(one["ok"], one["signed_by"]) for one in found} == {(True, "main")}
    checked = running.trimtab_json("ledger", "verify")["checkpoints"]
    assert (checked["ok"], checked["count"] > 0, checked["signed_by"]) == (True, True, "main")


def test_status_and_kill_work_without_prefect(running: Any) -> None:
    """With Prefect's API nowhere, `status` and `kill` answer, and neither imports prefect (nor torch, nor
    evidently)."""
    for command in (["status", "--json"], ["kill", "--reason", "test", "--json"]):
        argv = running.argv(*command)
        done = subprocess.run(
            [argv[0], "-X", "importtime", *argv[1:]],
            env={**running.env, "PREFECT_API_URL": NOWHERE},
            cwd=running.state,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
        assert "typer" in imported
        assert imported & {"prefect", "torch", "evidently", "bentoml"} == set()
    assert json.loads(done.stdout)["killed"] == []


def test_status_tells_who_serves(running: Any) -> None:
    """Up, one release alone, every owned process there, the last rollout as the ledger says it ended (whichever test
    was the last to conduct one), the release that it left serving, the shipper's lag."""
    found = running.trimtab_json("status")
    (last,) = running.trimtab_json("ledger", "show", "--kind", "rollout_ended", "--last", "1")
    assert found["up"] is True
    assert found["weight_pct_at_envoy"] == 0.0
    assert {"control", "envoy", "prefect"} <= set(found["processes"])
    assert found["rollout"]["ended"] is True
    assert (found["rollout"]["id"], found["rollout"]["state"]["phase"]) == (
        last["rollout_id"],
        last["body"]["phase"],
    )
    winner = "candidate" if last["body"]["phase"] == "promoted" else "champion"
    assert found["traffic"]["stable"] == [found["rollout"][winner]]
    assert found["telemetry"]["shipper_lag_s"] < 5.0


def test_down_leaves_nothing(running: Any) -> None:
    """`down` ends every process of the home and frees every port; down again says that nothing was up."""
    owned = running.trimtab_json("status")["processes"]
    assert running.trimtab_json("down")["stopped"] is True
    alive = [name for name, process in owned.items() if psutil.pid_exists(process["pid"])]
    assert alive == []
    assert processes_in(running.state) == []
    taken = [port for port in range(running.base, running.base + 40) if listens(port)]
    assert taken == []
    assert running.trimtab_json("down")["stopped"] is False


def processes_in(state: Path) -> list[str]:
    """Processes whose command line or working directory lies in the state directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if str(state) in line or Path(process.cwd()).is_relative_to(state):
                found.append(line)
    return found


def listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((LOOPBACK, port)) == 0
