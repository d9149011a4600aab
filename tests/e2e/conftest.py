"""The real system in a state directory and on ports of its own: `trimtab` as a process, as a user runs it.

The main job runs once a session and its home serves all other tests. With TRIMTAB_E2E_STATE naming a folder, that
folder is used and kept, and a main job that has passed there is not run again (for those who work on these tests).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from programs import Program, free_base, wait_for

from services.home import Home, Ports
from services.store.database import Database, open_database
from services.traffic.admin import EnvoyAdmin
from services.traffic.errors import TrafficError

SERVICE = "telemarketing"
PORTS_NEEDED = 260  # the main home's 40 and one block of 50 for each drill


@dataclass
class Workplace:
    """One TRIMTAB_STATE: runs `trimtab` in it and reads what it left there."""

    state: Path
    base: int
    more_env: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        return Home(self.state / "main", Ports(self.base))

    @property
    def env(self) -> dict[str, str]:
        """The caller's environment without its own Prefect, and this workplace's settings."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "TRIMTAB_")) and name != "PYTHONDONTWRITEBYTECODE"
        }
        own = {"TRIMTAB_STATE": str(self.state), "TRIMTAB_PORT_BASE": str(self.base), "COLUMNS": "160"}
        return {**clean, **own, **self.more_env}

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "flows.command_line", *arguments]

    def trimtab(
        self, *arguments: str, timeout_s: float = 120, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            self.argv(*arguments),
            env={**self.env, **env},
            cwd=self.state,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def trimtab_json(self, *arguments: str, timeout_s: float = 120) -> Any:
        """Run one command with --json; it must succeed."""
        done = self.trimtab(*arguments, "--json", timeout_s=timeout_s)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    def start(self, *arguments: str) -> Program:
        """Start a command and go on."""
        log = (self.state / f"{'-'.join(arguments[:2])}-{time.monotonic_ns()}.log").open("wb")
        process = subprocess.Popen(
            self.argv(*arguments), env=self.env, cwd=self.state, stdout=log, stderr=subprocess.STDOUT
        )
        log.close()
        return Program(process, Path(log.name))

    def store(self) -> Database:
        return open_database(self.home.database_url)

    def weight_pct(self) -> float | None:
        """The canary's weight as Envoy has it; None while Envoy does not answer."""
        try:
            return EnvoyAdmin(self.home).weight_pct()
        except TrafficError:
            return None

    def answered(self, release: str, *, since: float, until: float = float("inf")) -> list[float]:
        """When this release answered users (not the mirror), from its decision log, epoch s."""
        found = []
        for file in (self.home.decision_logs / release).glob("*.jsonl"):
            for line in file.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                if not record["shadow"] and since <= record["at"] < until:
                    found.append(float(record["at"]))
        return sorted(found)

    def control_pid(self) -> int:
        running = json.loads((self.home.processes / "running.json").read_text(encoding="utf-8"))
        return int(running["control"]["pid"])


@pytest.fixture(scope="session")
def wait() -> Callable[..., Any]:
    return wait_for


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """The state directory and ports of the session; whatever still runs in it at the end is stopped."""
    kept = os.environ.get("TRIMTAB_E2E_STATE")
    state = Path(kept).resolve() if kept else tmp_path_factory.mktemp("trimtab-state")
    state.mkdir(parents=True, exist_ok=True)
    main = state / "main" / "ports.json"
    base = int(json.loads(main.read_text())["base"]) if main.is_file() else free_base(PORTS_NEEDED)
    found = Workplace(state, base)
    yield found
    homes = [recorded.parent.name for recorded in state.glob("*/ports.json")]
    for home in homes:
        found.trimtab("down", "--home", home)
    judge_again(found, homes)


def judge_again(workplace: Workplace, homes: Sequence[str]) -> None:
    """Every rollout that any test conducted: all its verdicts are given again from the evidence on record."""
    for home in homes:
        done = workplace.trimtab("replay", "--all", "--home", home)
        print(f"replay of {home}: {done.stdout or done.stderr}")
        assert done.returncode == 0 or "no rollout on record" in done.stderr, done.stdout + done.stderr


@dataclass(frozen=True)
class MainJob:
    """What `trimtab run --json` came to."""

    code: int
    closing: dict[str, Any]
    progress: str
    took_s: float


@pytest.fixture(scope="session")
def main_job(workplace: Workplace) -> MainJob:
    """The main job, run once."""
    passed = workplace.state / "e2e-closing.json"
    if passed.is_file():
        return MainJob(0, json.loads(passed.read_text()), "", 0.0)
    began = time.monotonic()
    done = workplace.trimtab("run", "--json", timeout_s=420)
    took_s = time.monotonic() - began
    assert done.stdout, done.stderr[-4000:]
    found = MainJob(done.returncode, json.loads(done.stdout), done.stderr, took_s)
    print(f"main job: exit {done.returncode}, {took_s:.0f} s")
    if done.returncode == 0 and "TRIMTAB_E2E_STATE" in os.environ:
        passed.write_text(done.stdout)
    return found


@dataclass
class Rollouts:
    """Rollouts of forged candidates in the running system, under users' traffic that outlives them."""

    workplace: Workplace
    replay: Any
    conductors: list[Program] = field(default_factory=list)

    def forge(self, name: str, *, changes: dict[str, dict[str, Any]] | None = None) -> str:
        """A release like the stable one, under another id, with a rollout policy of shadow, 25 %, full, probation."""
        import shutil
        import tempfile

        from policies.utility.utility import load_utility
        from services.rehearsal.drill_releases import Drill, forge_candidate
        from services.serving.release import read_release
        from services.signing.release_signature import sign_in_home
        from services.traffic.traffic import Traffic

        home = self.workplace.home
        slots = Traffic(home).read_slots()
        assert slots is not None
        stable = read_release(home.releases / slots.stable[0])
        with tempfile.TemporaryDirectory(dir=self.workplace.state) as folder:
            copy = Path(folder) / stable.id
            shutil.copytree(stable.folder, copy)
            (copy / "rollout.yaml").write_text(short_policy(copy / "rollout.yaml", changes or {}))
            utility = load_utility((copy / "utility.yaml").read_text(), "utility.yaml")
            forged = forge_candidate(
                replace(stable, folder=copy),
                Drill(name, "the stable release under another id"),
                folder_of_releases=home.releases,
                actions=utility.actions,
                created_at=time.time(),
            )
        sign_in_home(forged, home)
        return forged.id

    def conduct(self, *arguments: str) -> Program:
        """`trimtab rollout …` as a process."""
        command = self.workplace.start("rollout", *arguments)
        self.conductors.append(command)
        return command

    def status(self) -> dict[str, Any]:
        """The newest rollout, from the store."""
        from services.store import rollouts

        db = self.workplace.store()
        try:
            record = rollouts.recent(db, SERVICE, limit=1)[0]
            return {"id": record.id, "ended": record.ended_at is not None, **record.state["state"]}
        finally:
            db.close()

    def wait_weight(self, pct: float, *, timeout_s: float) -> float:
        """Wait until Envoy has this weight; when it was seen, epoch s."""
        wait_for(
            lambda: self.workplace.weight_pct() == pct,
            timeout_s=timeout_s,
            what=lambda: (
                f"weight {pct}, it is {self.workplace.weight_pct()}; {self.status()}\n"
                f"{self.conductors[-1].tail() if self.conductors else ''}"
            ),
        )
        return time.time()

    def failed(self) -> int:
        """User requests that failed so far; there must have been some that did not."""
        from services.rehearsal.replay import progress_file, read_progress

        seen = read_progress(progress_file(self.workplace.home))
        assert seen is not None
        assert seen.sent > 0
        assert seen.state == "sending", f"the rows ran out after {seen.sent}"
        return seen.failed

    def kinds(self, rollout_id: str) -> list[str]:
        """The kinds of this rollout's ledger entries, in order."""
        return [entry.kind for entry in self.entries(rollout_id)]

    def entries(self, rollout_id: str, kind: str | None = None) -> list[Any]:
        from services.ledger.ledger import entries

        db = self.workplace.store()
        try:
            return list(entries(db, rollout_id, kind))
        finally:
            db.close()

    def last_verdict(self, rollout_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.entries(rollout_id, "verdict")[-1].body["verdict"]
        return found


def short_policy(file: Path, changes: dict[str, dict[str, Any]]) -> str:
    """The policy of a release cut to shadow, 25 %, full and probation, all on the gate `errors`; JSON is YAML."""
    from policies.language.yaml_source import load_document

    policy = load_document(file.read_text(encoding="utf-8"), "rollout.yaml").data
    short: dict[str, dict[str, Any]] = {
        "shadow": {"bake": {"min": "1s", "max": "60s"}},
        "canary-25": {"bake": {"min": "120s", "max": "300s"}},
        "full": {},
        "probation": {"bake": {"min": "1s", "max": "60s"}},
    }
    stages = [
        {**stage, **short.get(stage["name"], {}), **changes.get(stage["name"], {})}
        for stage in policy["stages"]
        if stage["kind"] == "offline" or stage["name"] in short
    ]
    gates = [{**gate, "requiredFrom": "0%"} for gate in policy["gates"] if gate["name"] == "errors"]
    gates += [gate for gate in policy["gates"] if "appliesTo" in gate]  # the offline ones
    return json.dumps({**policy, "gates": gates, "stages": stages}, indent=1)


@pytest.fixture(scope="module")
def running(workplace: Workplace, main_job: MainJob) -> Iterator[Workplace]:
    """The main job's home, up; the control service comes back late enough for its absence to be seen."""
    assert main_job.code == 0, main_job.progress[-4000:]
    workplace.more_env["TRIMTAB_RESTART_DELAY_S"] = "12"
    began = time.monotonic()
    workplace.trimtab_json("up")
    print(f"up: {time.monotonic() - began:.0f} s")
    yield workplace
    workplace.trimtab("down")


@pytest.fixture(scope="module")
def rollouts_live(running: Workplace) -> Iterator[Rollouts]:
    """Users' traffic on the running system, for rollouts to be conducted and killed under it."""
    from services.data.splits import by_event_time
    from services.rehearsal.bank_marketing import read_calls
    from services.rehearsal.replay_process import ReplayProcess
    from services.rollout.policy_set import load_policies

    policies = load_policies(SERVICE)
    rows = by_event_time(read_calls(), policies.contract, start=0.0, stop=0.6)
    with ReplayProcess(running.home, policies, rows, rate_per_s=80.0) as replay:
        replay.start()
        found = Rollouts(running, replay)
        yield found
        for command in found.conductors:
            if command.process.poll() is None:
                command.kill()
