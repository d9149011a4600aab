"""A real running system for faults: supervisor, control service, Envoy, a real first release, in a home of its own.

Candidates are the first release under another id, with a rollout policy of a few seconds a stage; `conduct` runs
conductors as processes of their own (conduct_candidate.py), as `trimtab rollout start` does. The home is not called
`main`: it has no Prefect, for nothing here may need one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from programs import Program, free_base, wait_for
from steady_load import SteadyLoad

from flows.system import bring_up, serve_first, take_down
from flows.wiring import open_store
from policies.language.yaml_source import load_document
from services.home import LOOPBACK, Home, Ports
from services.ledger.ledger import LedgerEntry, entries
from services.rehearsal.drill_releases import Drill, copy_release, forge_candidate
from services.rehearsal.replay_rows import rows_of
from services.rollout.policy_set import POLICIES, PolicySet, load_policies
from services.serving.build import build_bento
from services.serving.release import Release, read_release
from services.signing.release_signature import sign_in_home
from services.store import orders, rollouts
from services.store.database import Database
from services.traffic.admin import EnvoyAdmin
from services.traffic.errors import TrafficError
from services.traffic.supervision import running

SERVICE = "telemarketing"
HERE = Path(__file__).parent
SOURCE = HERE.parents[1]
ROWS = 2_000
FIRST_RELEASE = "first-release"


@dataclass
class LiveSystem:
    """One running home. Make it with `live_system`. notes: what the users and conductors say, on another disk."""

    home: Home
    policies: PolicySet
    first: str
    rows: Path
    notes: Path
    conductors: list[Program] = field(default_factory=list)

    @property
    def admin(self) -> EnvoyAdmin:
        return EnvoyAdmin(self.home)

    def load(self, *, rate_per_s: float, port: int | None = None, units: str = "u") -> SteadyLoad:
        """Users at this rate; use it in a `with`."""
        return SteadyLoad(
            f"http://{LOOPBACK}:{port or self.home.ports.users}/decide",
            self.rows,
            actions=self.policies.utility.actions,
            rate_per_s=rate_per_s,
            folder=self.notes,
            units=units,
        )

    def forge(self, name: str, *, stages: Mapping[str, Mapping[str, Any]] | None = None) -> str:
        """A candidate like the first release, built, with the policy of `short_policy`; its id."""
        first = read_release(self.home.releases / self.first)
        with tempfile.TemporaryDirectory(dir=self.home.root) as folder:
            copy = Path(folder) / first.id
            shutil.copytree(first.folder, copy)
            (copy / "rollout.yaml").write_text(short_policy(copy / "rollout.yaml", stages or {}))
            made = forge_candidate(
                replace(first, folder=copy),
                Drill(name, "the first release under another id"),
                folder_of_releases=self.home.releases,
                actions=self.policies.utility.actions,
                created_at=time.time(),
            )
        sign_in_home(made, self.home)
        build_bento(made, self.home)
        return made.id

    def conduct(
        self,
        candidate: str | None = None,
        *,
        fault: str | None = None,
        env: Mapping[str, str] | None = None,
        with_prefect: bool = False,
    ) -> Program:
        """Conduct a new rollout of this candidate; without one, resume the rollout under way."""
        log = self.notes / f"conduct-{time.monotonic_ns()}.log"
        argv = [sys.executable, str(HERE / "conduct_candidate.py"), "--home", str(self.home.root)]
        argv += ["--base-port", str(self.home.ports.base)]
        argv += [] if candidate is None else ["--candidate", candidate]
        argv += [] if fault is None else ["--fault", fault]
        argv += ["--with-prefect"] if with_prefect else []
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.home.root,
                env={**os.environ, "PYTHONPATH": str(SOURCE), **(env or {})},
            )
        self.conductors.append(Program(process, log))
        return self.conductors[-1]

    def store(self) -> Database:
        return open_store(self.home)

    def rollout(self) -> dict[str, Any]:
        """The newest rollout: its state as the store has it, and `id`, `candidate`, `ended`; empty before the first."""
        db = self.store()
        try:
            found = rollouts.recent(db, SERVICE, limit=1)
        finally:
            db.close()
        if not found:
            return {}
        record = found[0]
        state: Any = record.state["state"]
        more = {"id": record.id, "candidate": record.candidate, "ended": record.ended_at is not None}
        return {**state, **more}

    def ledger(self, rollout_id: str, kind: str | None = None) -> list[LedgerEntry]:
        """This rollout's ledger entries, in order."""
        db = self.store()
        try:
            return list(entries(db, rollout_id, kind))
        finally:
            db.close()

    def order(self, verb: str) -> None:
        """Give an order (`abort`, `promote` …) to the rollout under way."""
        db = self.store()
        try:
            orders.give(
                db, rollout_id=self.rollout()["id"], verb=verb, by="chaos", reason="chaos", at=time.time()
            )
        finally:
            db.close()

    def weight_pct(self) -> float | None:
        """The canary's weight as Envoy has it; None while Envoy does not answer."""
        try:
            return self.admin.weight_pct()
        except TrafficError:
            return None

    def wait_weight(self, pct: float, *, timeout_s: float) -> float:
        """Wait until Envoy has this weight; when it was seen, epoch s."""
        wait_for(
            lambda: self.weight_pct() == pct,
            timeout_s=timeout_s,
            what=lambda: (
                f"weight {pct:g}, it is {self.weight_pct()}; {self.rollout()}\n"
                f"{self.conductors[-1].tail() if self.conductors else ''}"
            ),
        )
        return time.time()

    def pid(self, name: str) -> int:
        """The process of this name now: `envoy`, `control`, a release id."""
        return running(self.home)[name].pid

    def kill(self, name: str) -> float:
        """SIGKILL to the process of this name; when, epoch s."""
        pid, at = self.pid(name), time.time()
        os.kill(pid, signal.SIGKILL)
        return at

    def close(self) -> None:
        """End the conductors that still run, then the system."""
        for conducting in self.conductors:
            if conducting.process.poll() is None:
                conducting.kill()
        take_down(self.home)


@contextmanager
def live_system(state: Path, *, name: str = "chaos") -> Iterator[LiveSystem]:
    """A system in `state`/`name`, up and with its first release serving; down again at the end of the block.

    The first release is trained once a `state` (half a minute) and copied from there into further homes of it.
    """
    policies = load_policies(SERVICE)
    home = Home(state.resolve() / name, Ports(free_base(40)))
    kept = state.resolve() / FIRST_RELEASE
    rows = _rows_file(state.resolve(), policies)
    bring_up(home, _quiet)
    try:
        shutil.copytree(POLICIES / SERVICE, home.root / "policies" / SERVICE)  # to be edited and deleted
        release = _first(home, policies, kept)
        serve_first(home, release)
        with tempfile.TemporaryDirectory(prefix="chaos-notes-") as notes:
            system = LiveSystem(home, policies, release.id, rows, Path(notes))
            with _closing(system):
                yield system
    finally:
        take_down(home)


@contextmanager
def _closing(system: LiveSystem) -> Iterator[None]:
    try:
        yield
    finally:
        system.close()


def _first(home: Home, policies: PolicySet, kept: Path) -> Release:
    from flows.drill import first_release
    from services.rehearsal.bank_marketing import read_calls
    from services.rollout.release_job import Watcher

    if kept.is_dir():
        copy = copy_release(read_release(next(kept.iterdir())), home.releases)
        sign_in_home(copy, home)
        return copy
    db = open_store(home)
    try:
        made = first_release(home, db, policies, read_calls(), Watcher())
    finally:
        db.close()
    copy_release(made, kept)
    return made


def _rows_file(state: Path, policies: PolicySet) -> Path:
    """Bodies for the users, one a line: rows of the service's data that keep its contract."""
    from services.data.splits import by_event_time
    from services.rehearsal.bank_marketing import read_calls

    path = state / "rows.jsonl"
    if not path.is_file():
        state.mkdir(parents=True, exist_ok=True)
        frame = by_event_time(read_calls(), policies.contract, start=0.3, stop=0.6).head(ROWS)
        rows = rows_of({name: frame[name].to_list() for name in frame.columns}, policies.contract)
        path.write_bytes(b"".join(orjson.dumps(dict(row.fields)) + b"\n" for row in rows))
    return path


def short_policy(file: Path, stages: Mapping[str, Mapping[str, Any]]) -> str:
    """A release's policy cut to shadow, 50 %, full and probation of a few seconds, all on the gate `errors`.

    `stages`: changes by stage name (`{"canary-50": {"bake": …}}`); one that is named here is kept, too. JSON is YAML.
    """
    policy = load_document(file.read_text(encoding="utf-8"), "rollout.yaml").data
    short: dict[str, dict[str, Any]] = {
        "shadow": {"bake": {"min": "1s", "max": "60s"}},
        "canary-50": {"bake": {"min": "5s", "max": "120s"}},
        "full": {},
        "probation": {"bake": {"min": "1s", "max": "60s"}},
    }
    kept = [
        {**stage, **short.get(stage["name"], {}), **stages.get(stage["name"], {})}
        for stage in policy["stages"]
        if stage["kind"] == "offline" or stage["name"] in {**short, **stages}
    ]
    gates = [{**gate, "requiredFrom": "0%"} for gate in policy["gates"] if gate["name"] == "errors"]
    gates += [gate for gate in policy["gates"] if "appliesTo" in gate]  # the offline ones
    return json.dumps({**policy, "gates": gates, "stages": kept}, indent=1)


def _quiet(text: str) -> None:
    """Whoever measures does not chat."""


def ledger_line(found: Sequence[LedgerEntry]) -> str:
    """How the ledger accounts for a rollout: its last verdict that did not hold, else its last entry."""
    for entry in reversed(found):
        verdict: Any = entry.body.get("verdict")
        if isinstance(verdict, Mapping) and verdict["decision"] != "HOLD":
            detail = "; ".join(verdict["detail"].split("; ")[:2])
            return f"{verdict['decision']} {verdict['reason']}: {detail}"
    return found[-1].kind if found else ""
