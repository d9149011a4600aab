"""A world for conductors to act on: real store, real traffic files, and doubles at the ports that touch processes.

`SimulatedEnvoy` stands at the admin port (it obeys slots.json and the grant at once and counts requests), the clock
runs only when somebody sleeps, and while it runs a supervisor's double starts and stops what desired.json wants.
`Mortal` counts every call at the ports and dies at one of them, which is how a conductor is killed at any instant.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from policies.rollout.verdict import Verdict
from services.home import LOOPBACK, Home, Ports
from services.rollout.conductor import Conductor
from services.rollout.effects import World
from services.rollout.new_rollout import begin_rollout
from services.rollout.policy_set import POLICIES
from services.serving.release_command import ReleaseCommand
from services.store import decisions, rollouts
from services.store.database import Database, open_database
from services.store.decisions import RequestRow
from services.store.grants import current_grants, effective_weight
from services.store.rollouts import RolloutRecord
from services.trace.verdict_replay import replay_verdicts
from services.traffic.admin import Host
from services.traffic.errors import TrafficError
from services.traffic.processes import identify
from services.traffic.records import (
    ProcessSpec,
    RunningProcess,
    read_desired,
    read_running,
    write_running,
)
from services.traffic.slots import Slots
from services.traffic.supervision import want_release
from services.traffic.traffic import Traffic

SERVICE, OLD, NEW = "telemarketing", "telemarketing-old", "telemarketing-new"
UTILITY = (POLICIES / SERVICE / "utility.yaml").read_text(encoding="utf-8")
RATE_PER_S = 200


class Killed(BaseException):
    """The process was killed here; nothing may catch it."""


@dataclass
class SimulatedEnvoy:
    """The proxy, as the admin port shows it: obeys the files and the grant, and counts 200 requests a second."""

    home: Home
    db: Database
    now: Callable[[], float]
    error_share: float = 0.0
    stuck_weight: float | None = None
    counted_to: float = 0.0
    served: dict[tuple[str, str], int] = field(default_factory=dict)

    def weight_pct(self) -> float:
        if self.stuck_weight is not None:
            return self.stuck_weight
        grants = current_grants(self.db)
        return effective_weight(grants[0], self.now()) if len(grants) == 1 else 0.0

    def route_salt(self) -> str | None:
        return self._slots().salt

    def mirror_on(self) -> bool:
        return self._slots().shadow is not None

    def endpoints(self) -> dict[str, tuple[Host, ...]]:
        slots, ports = self._slots(), read_desired(self.home)
        named = {"stable": slots.stable, "canary": _one(slots.canary), "shadow": _one(slots.shadow)}
        return {
            cluster: tuple(
                self._host(cluster, release, ports[release].port or 0, priority)
                for priority, release in enumerate(releases)
            )
            for cluster, releases in named.items()
        }

    def serve(self, seconds: float) -> None:
        """Requests of this time, to whom the files and the grant send them."""
        slots, weight = self._slots(), self.weight_pct() / 100
        total = RATE_PER_S * seconds
        shares = {("canary", slots.canary): weight, ("stable", slots.stable[0]): 1 - weight}
        shares["shadow", slots.shadow] = 1.0
        for (cluster, release), share in shares.items():
            if release is not None:
                key = (cluster, release)
                self.served[key] = self.served.get(key, 0) + round(total * share)

    def _host(self, cluster: str, release: str, port: int, priority: int) -> Host:
        total = self.served.get((cluster, release), 0)
        errors = round(total * self.error_share) if release == NEW else 0
        address = f"{LOOPBACK}:{port}"
        return Host(address, priority, True, False, total, total - errors, errors, 0, 0, 0)

    def _slots(self) -> Slots:
        slots = Traffic(self.home).read_slots()
        assert slots is not None
        return slots


class Mortal:
    """The ports of a world, counted: at call number `dies_at` (from 0) the process is dead.

    `notes` holds what `note` found at each call.
    """

    def __init__(
        self, world: World, *, dies_at: int | None = None, note: Callable[[], object] = lambda: None
    ) -> None:
        self.notes: list[object] = []
        self._dies_at, self._note = dies_at, note
        self.world = replace(
            world,
            clock=self._counted("clock", world.clock),
            timer=self._counted("timer", world.timer),
            sleep=self._counted("sleep", world.sleep),
            admin=_CountedAdmin(world.admin, self._counted),  # type: ignore[arg-type]
        )

    def _counted(self, port: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            if self._dies_at is not None and len(self.notes) >= self._dies_at:
                raise Killed(port)
            self.notes.append(self._note())
            return call(*arguments)

        return counted


class _CountedAdmin:
    def __init__(self, admin: Any, counted: Callable[[str, Any], Any]) -> None:
        for name in ("weight_pct", "route_salt", "mirror_on", "endpoints"):
            setattr(self, name, counted(name, getattr(admin, name)))


def _one(release: str | None) -> tuple[str, ...]:
    return () if release is None else (release,)


class Simulation:
    """One home with a stable release, its doubles, and what happened to it."""

    def __init__(self, root: Path, store: Path) -> None:
        self.home = Home(root, Ports(40_000))
        self.home.processes.mkdir(parents=True)
        shutil.copyfile(store, root / "trimtab.db")
        self.db = open_database(self.home.database_url)
        self.is_record_honest = True
        self.time = 1_000.0
        self._units = 0
        self.envoy = SimulatedEnvoy(self.home, self.db, lambda: self.time)
        self.broken: set[str] = set()
        want_release(self.home, OLD, lambda port: self.command(OLD, port))
        Traffic(self.home).write_slots(Slots((OLD,), None, None, "before"))
        self.world = World(
            home=self.home,
            db=self.db,
            admin=self.envoy,  # type: ignore[arg-type]
            traffic=Traffic(self.home),
            command=self.command,
            clock=lambda: self.time,
            timer=lambda: self.time,
            sleep=self.sleep,
        )

    def command(self, release: str, port: int) -> ReleaseCommand:
        """The command of a release; the supervisor's double has it running before it is asked for."""
        if release in self.broken:
            raise TrafficError(f"{release} does not start")
        made = ReleaseCommand(("serve", release), {}, self.home.root, f"http://{LOOPBACK}:{port}/readyz")
        spec = ProcessSpec(release, made.argv, made.env, str(made.cwd), made.ready_url)
        self._run({**read_running(self.home), release: _process(port, spec.digest)})
        return made

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.envoy.serve(seconds)
        with self.db.write() as connection:
            decisions.upsert_requests(connection, self._requests(seconds))
            decisions.raise_mark(connection, decisions.SHIPPED_THROUGH, self.time, at=self.time)
        wanted = read_desired(self.home)
        self._run({name: one for name, one in read_running(self.home).items() if name in wanted})

    def _requests(self, seconds: float) -> list[RequestRow]:
        """A twentieth of the requests as the access log has them: one unit each, split by the weight in force."""
        n = round(RATE_PER_S * seconds / 20)
        weight = self.envoy.weight_pct() / 100
        canary = [round(weight * (i + 1)) - round(weight * i) for i in range(self._units, self._units + n)]
        first, self._units = self._units, self._units + n
        # one after the other within the time: what came while nobody conducted is not of the moment after it
        at = [self.time - seconds * (n - i - 0.5) / n for i in range(n)]
        return [
            RequestRow(f"r{first + i}", f"u{first + i}", "canary" if c else "stable", at[i], 200, 5.0, 1, "-")
            for i, c in enumerate(canary)
        ]

    def _run(self, processes: dict[str, RunningProcess]) -> None:
        if processes != read_running(self.home):
            write_running(self.home, processes)

    @property
    def slots(self) -> Slots:
        slots = Traffic(self.home).read_slots()
        assert slots is not None
        return slots

    def begin(self, policy: str | None = None, *, champion: str = OLD) -> RolloutRecord:
        return begin_rollout(
            self.world,
            service=SERVICE,
            champion=champion,
            candidate=NEW,
            policy_text=short_policy() if policy is None else policy,
            utility_text=UTILITY,
        )

    def conductor(self, record: RolloutRecord, **ports: Any) -> Conductor:
        """A new conductor; `ports` replace some of the world's."""
        world = replace(self.world, **ports)
        return Conductor(world, record, watch=lambda progress: None, report=lambda *parts: None)

    def resume(self, record: RolloutRecord, **ports: Any) -> Conductor:
        """One that takes up where another died."""
        world = replace(self.world, **ports)
        return Conductor.resume(world, record, watch=lambda progress: None, report=lambda *parts: None)

    def end(self) -> None:
        """Every rollout of every test is judged again at its end, unless the test changed the record."""
        try:
            if self.is_record_honest:
                for record in rollouts.recent(self.db):
                    differs = replay_verdicts(self.db, record.id).differs
                    assert differs == (), differs[0].sentence()
        finally:
            self.db.close()


def conduct(conductor: Conductor, *, most_stages: int = 12) -> list[Verdict]:
    """Conduct to the end; the verdict of each stage."""
    verdicts: list[Verdict] = []
    conductor.settle()
    while not conductor.ended:
        assert len(verdicts) < most_stages, "the rollout does not end"
        verdicts.append(conductor.run_stage())
    return verdicts


def _process(port: int, digest: str) -> RunningProcess:
    own = identify(os.getpid())
    assert own is not None
    return RunningProcess(own.pid, own.created, port, True, own.created, 0, digest)


def short_policy(**changes: Any) -> str:
    """The service's policy with one gate (`errors`) and four live stages: shadow, 25 %, full, probation.

    `changes`: stage name with `_` for `-` → the fields to change in that stage.
    """
    from policies.language.yaml_source import load_document

    policy = load_document((POLICIES / SERVICE / "rollout.yaml").read_text(encoding="utf-8"), "r").data
    live = {"shadow", "canary-25", "full", "probation"}
    stages = []
    for stage in policy["stages"]:
        if stage["kind"] != "offline" and stage["name"] not in live:
            continue
        if stage["kind"] in ("shadow", "canary", "probation"):
            stage = {**stage, "bake": {"min": "2s", "max": "30s"}}
        stages.append({**stage, **changes.get(stage["name"].replace("-", "_"), {})})
    gates = [{**gate, "requiredFrom": "0%"} for gate in policy["gates"] if gate["name"] == "errors"]
    gates += [gate for gate in policy["gates"] if "appliesTo" in gate]  # the offline ones
    return json.dumps({**policy, "poll": "1s", "gates": gates, "stages": stages})


@pytest.fixture(scope="session")
def doubles() -> ModuleType:
    """This file, for its names."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store at head, to copy."""
    file = tmp_path_factory.mktemp("store") / "trimtab.db"
    open_database(f"sqlite:///{file}").close()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("VACUUM INTO ?", (f"{file}.copy",))
    return Path(f"{file}.copy")


@pytest.fixture
def simulate(tmp_path: Path, migrated: Path) -> Iterator[Callable[[], Simulation]]:
    """Makes as many worlds as a test asks for."""
    made: list[Simulation] = []

    def make() -> Simulation:
        made.append(Simulation(tmp_path / f"world-{len(made)}", migrated))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def simulation(simulate: Callable[[], Simulation]) -> Simulation:
    return simulate()
