"""The real data plane for tests: Envoy from the wheel, small real servers as releases, a real weight server."""

import asyncio
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import httpx
import pytest
from programs import wait_for

from services.home import LOOPBACK, Home, Ports
from services.traffic.admin import EnvoyAdmin
from services.traffic.bootstrap import envoy_argv
from services.traffic.processes import Identity, is_alive, kill_session, spawn
from services.traffic.rtds import WeightServer
from services.traffic.slots import Slots
from services.traffic.traffic import Traffic

HERE = Path(__file__).parent


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"traffic_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Upstream:
    """One real server, standing for a release."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "upstream.py"), self.name, str(self.port)]
        )
        wait_for(self._answers, what=f"upstream {self.name}")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://{LOOPBACK}:{self.port}/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def mode(self, mode: str) -> None:
        httpx.post(f"http://{LOOPBACK}:{self.port}/mode/{mode}").raise_for_status()

    def seen(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = httpx.get(f"http://{LOOPBACK}:{self.port}/seen", timeout=10).json()
        return found

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass(frozen=True)
class Answer:
    at: float
    status: int
    name: str | None
    headers: dict[str, str]
    took_s: float


class Plane:
    """Envoy, its files, and releases `a`, `b`, `c`; the weight is what `weight_pct` says."""

    def __init__(self, root: Path, base: int) -> None:
        self.home = Home(root, Ports(base))
        self.traffic, self.admin = Traffic(self.home), EnvoyAdmin(self.home)
        self.weight_pct = 0.0
        self.upstreams = {
            name: Upstream(name, self.home.ports.releases[index]) for index, name in enumerate("abc")
        }
        self.ports = {name: upstream.port for name, upstream in self.upstreams.items()}
        self.slots(stable=("a",))
        self.weights: WeightServer | None = None
        self.envoy = self._start_envoy()

    def slots(
        self,
        *,
        stable: Sequence[str] = ("a",),
        canary: str | None = None,
        shadow: str | None = None,
        salt: str = "s1",
    ) -> None:
        self.traffic.write_slots(Slots(tuple(stable), canary, shadow, salt), self.ports)

    def _start_envoy(self) -> Identity:
        self.traffic.derive_bootstrap()
        self.home.access_log.parent.mkdir(parents=True, exist_ok=True)
        log = self.home.root / "envoy.log"
        identity, _ = spawn(envoy_argv(self.home), env=None, cwd=self.home.root, log=log)
        wait_for(self.admin.ready, what=f"Envoy ({log})")
        return identity

    def grant(self, weight_pct: float) -> None:
        """Publish this weight, and wait until Envoy has it."""
        self.weight_pct = weight_pct
        if self.weights is None:
            self.weights = WeightServer(self.home.ports.rtds, lambda: self.weight_pct)
            self.weights.start()
        wait_for(lambda: self.admin.weight_pct() == weight_pct, what=f"weight {weight_pct}")

    def healthy(self, cluster: str, name: str) -> bool:
        """Whether Envoy has seen this release of this cluster healthy."""
        return any(
            host.port == self.ports[name] and host.healthy for host in self.admin.endpoints().get(cluster, ())
        )

    def canary(self, name: str, *, stable: Sequence[str] = ("a",), salt: str = "s1") -> None:
        """Make `name` the canary and wait until it is healthy there."""
        self.slots(stable=stable, canary=name, salt=salt)
        wait_for(
            lambda: self.admin.route_salt() == salt and self.healthy("canary", name), what=f"canary {name}"
        )

    def decide(self, unit: str | None, *, port: int | None = None, **more: str) -> httpx.Response:
        headers = {key.replace("_", "-"): value for key, value in more.items()}
        if unit is not None:
            headers["x-unit-id"] = unit
        return httpx.post(
            f"http://{LOOPBACK}:{port or self.home.ports.users}/decide", json={}, headers=headers, timeout=15
        )

    def load(
        self, rate: float, seconds: float, *, during: Callable[[], None] | None = None, prefix: str = "u"
    ) -> list[Answer]:
        """Open-loop load of one unit per request; `during` runs in a thread after a quarter of the time."""
        return asyncio.run(self._load(rate, seconds, during, prefix))

    async def _load(
        self, rate: float, seconds: float, during: Callable[[], None] | None, prefix: str
    ) -> list[Answer]:
        url = f"http://{LOOPBACK}:{self.home.ports.users}/decide"
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

            async def one(number: int) -> Answer:
                began = time.time()
                try:
                    headers = {"x-unit-id": f"{prefix}{number}"}
                    async with session.post(url, json={"row": number}, headers=headers) as response:
                        body = await response.json(content_type=None) if response.status == 200 else {}
                        found = dict(body.get("headers", {}))
                        return Answer(began, response.status, body.get("name"), found, time.time() - began)
                except (aiohttp.ClientError, TimeoutError) as error:
                    return Answer(began, 0, repr(error), {}, time.time() - began)

            tasks: list[asyncio.Task[Answer]] = []
            aside: asyncio.Task[None] | None = None
            start = time.monotonic()
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
                tasks.append(asyncio.create_task(one(number)))
                if during is not None and aside is None and number >= rate * seconds / 4:
                    aside = asyncio.create_task(asyncio.to_thread(during))
            answers = list(await asyncio.gather(*tasks))
            if aside is not None:
                await aside
            return answers

    def access_records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.home.access_log.read_text().splitlines()]

    def reset(self) -> None:
        """Everything back: releases alive and well, stable a, no canary, weight 0."""
        for upstream in self.upstreams.values():
            if upstream.process is None:
                upstream.start()
            upstream.mode("ok")
        self.slots(stable=("a",))
        if self.weights is not None:
            self.grant(0.0)
        wait_for(self._is_reset, timeout_s=40, what="stable a alone")

    def _is_reset(self) -> bool:
        hosts = self.admin.endpoints()
        return len(hosts["stable"]) == 1 and self.healthy("stable", "a") and not hosts["canary"]

    def close(self) -> None:
        if self.weights is not None:
            self.weights.stop()
        kill_session(self.envoy)
        for upstream in self.upstreams.values():
            upstream.kill()
        wait_for(lambda: not is_alive(self.envoy), what="Envoy's end")


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    return load("xxh64_oracle")


@pytest.fixture(scope="module")
def running_plane(
    tmp_path_factory: pytest.TempPathFactory, free_base: Callable[[int], int]
) -> Iterator[Plane]:
    plane = Plane(tmp_path_factory.mktemp("plane"), free_base(40))
    try:
        yield plane
    finally:
        plane.close()


@pytest.fixture
def plane(running_plane: Plane) -> Plane:
    running_plane.reset()
    return running_plane


@pytest.fixture(scope="session")
def wait() -> Callable[..., Any]:
    return wait_for


@pytest.fixture
def base_port(free_base: Callable[[int], int]) -> int:
    return free_base(40)
