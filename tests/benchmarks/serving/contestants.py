"""Who takes part: our release, Envoy and the peers, started once on ports of their own and ended together.

What cannot be started here (nginx, HAProxy or LitServe not installed) is left out with a line that says so.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from made_up_release import write_made_up_release
from proxy_files import haproxy_cfg, nginx_conf

from services.home import LOOPBACK, Home
from services.serving.build import build_bento
from services.serving.release import Release
from services.serving.release_command import launch_command
from services.traffic.admin import EnvoyAdmin
from services.traffic.bootstrap import envoy_argv
from services.traffic.rtds import WeightServer
from services.traffic.slots import Slots
from services.traffic.traffic import Traffic

HERE = Path(__file__).parent
PATIENCE_S = 90.0
ALONE, THROUGH_ENVOY, WITH_SHADOW = "release alone", "release through Envoy", "the same, with a shadow"
SILENT = "release alone, log off"
FASTAPI, LITSERVE = "FastAPI by hand, equal function", "LitServe, same network"
BENTOML, BENTOML_TUNED = "BentoML, same network", "BentoML, same network, tuned"
GATEWAY, NGINX, HAPROXY = "release through Python gateway", "release through nginx", "release through HAProxy"


@dataclass(frozen=True)
class Contestant:
    """Takes POST /decide on `port`; `pids` are the processes whose CPU a request costs, children included.

    `twins` are the ports of further processes that are started alike: two processes of the same code differ by some
    percent for as long as they live, so what differs by little is told apart over several of each.
    """

    name: str
    port: int
    pids: tuple[int, ...]
    twins: tuple[int, ...] = ()

    def cpu_s(self) -> float:
        """CPU time (s) that its processes have used so far."""
        total = 0.0
        for pid in self.pids:
            with suppress(psutil.Error):
                leader = psutil.Process(pid)
                for process in (leader, *leader.children(recursive=True)):
                    with suppress(psutil.Error):
                        times = process.cpu_times()
                        total += times.user + times.system
        return total


@dataclass
class Arena:
    """A home with a release in it, and every process of the benchmark."""

    home: Home
    release: Release
    contestants: dict[str, Contestant] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _ports: Iterator[int] = field(default_factory=lambda: iter(()))
    _weights: WeightServer | None = None
    upstream_port: int = 0
    _upstream_pid: int = 0
    _shadow_port: int = 0

    def add_release(self, *, twins: int = 0) -> None:
        """The release by itself, in as many processes more as `twins` says."""
        self._add_twins(ALONE, twins, script=None)

    def _add_twins(self, name: str, twins: int, *, script: Path | None) -> None:
        (port, pid), *more = [self._serve(self.home, script=script) for _ in range(1 + twins)]
        self._take(Contestant(name, port, (pid,), tuple(port for port, _ in more)))

    def add_ours(self, *, twins: int = 0) -> None:
        """The release by itself, with its log off, and through Envoy with everything on, without and with a shadow.

        What stands behind proxies is a process of its own: theirs to check and to keep connections to.
        """
        self.add_release(twins=twins)
        self._add_twins(SILENT, twins, script=HERE / "release_without_log.py")
        self.upstream_port, pid = self._serve(self.home)
        self._upstream_pid = pid
        self._shadow_port, shadow_pid = self._serve(self.home)
        self.slots(shadow=False)
        envoy = self._start_envoy()
        users = self.home.ports.users
        self._take(Contestant(THROUGH_ENVOY, users, (pid, envoy)))
        self._take(Contestant(WITH_SHADOW, users, (pid, envoy, shadow_pid)))

    def slots(self, *, shadow: bool) -> None:
        """Stable and canary are the same process, so that one core serves, as for the peers."""
        port = self.upstream_port
        ports = {"a": port, "b": port, "c": self._shadow_port}
        Traffic(self.home).write_slots(Slots(("a",), "b", "c" if shadow else None, "s1"), ports)

    def add_peers(self) -> None:
        """Other servers of the same network, and other proxies before the same release."""
        folder = str(self.release.folder)
        contract = str(self.release.folder / "contract.yaml")
        log = str(self.home.root / "fastapi.jsonl")
        self._peer(FASTAPI, "peer_fastapi.py", folder, contract, log)
        if _can_import("litserve"):
            self._peer(LITSERVE, "peer_litserve.py", folder, health="/health")
        else:
            self.left_out.append("LitServe is not installed (tests/benchmarks/serving/run installs it)")
        for name, tuned in ((BENTOML, "0"), (BENTOML_TUNED, "1")):
            port = next(self._ports)
            argv = [sys.executable, "-m", "bentoml", "serve", "peer_bentoml:Decisions", "--port", str(port)]
            more = {
                "BENCH_RELEASE": folder,
                "BENCH_TUNED": tuned,
                "BENTOML_HOME": str(self.home.root / f"bentoml-peer-{tuned}"),
                "BENTOML_DO_NOT_TRACK": "True",
            }
            self._add(name, port, argv, more, health="/readyz")
        upstream = str(self.upstream_port)
        self._peer(GATEWAY, "peer_gateway.py", upstream, str(self.home.root / "gateway.jsonl"), behind=True)
        self._proxies(int(upstream))

    def _proxies(self, upstream: int) -> None:
        for name, program in ((NGINX, "nginx"), (HAPROXY, "haproxy")):
            path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
            if path is None:
                self.left_out.append(f"{program} is not installed (apt-get install {program})")
                continue
            port = next(self._ports)
            file = self.home.root / f"{program}.conf"
            if program == "nginx":
                file.write_text(nginx_conf(self.home.root, port=port, upstream=upstream))
                argv = [path, "-p", str(self.home.root), "-c", str(file)]
            else:
                file.write_text(haproxy_cfg(port=port, upstream=upstream))
                argv = [path, "-f", str(file), "-db"]
            self._add(name, port, argv, {}, health="/", behind=True)

    def _peer(self, name: str, script: str, *arguments: str, health: str = "/", behind: bool = False) -> None:
        port = next(self._ports)
        argv = [sys.executable, str(HERE / script), str(port), *arguments]
        self._add(name, port, argv, {}, health=health, behind=behind)

    def _add(
        self,
        name: str,
        port: int,
        argv: Sequence[str],
        more_env: Mapping[str, str],
        *,
        health: str,
        behind: bool = False,
    ) -> None:
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = self._start(argv, {**os.environ, **one_thread, **more_env}, HERE)
        self._wait(process, f"http://{LOOPBACK}:{port}{health}", name)
        pids = (process.pid, *((self._upstream_pid,) if behind else ()))
        self._take(Contestant(name, port, pids))

    def _serve(self, home: Home, *, script: Path | None = None) -> tuple[int, int]:
        port = next(self._ports)
        command = launch_command(self.release.id, home, port)
        argv = list(command.argv)
        if script is not None:
            assert argv[1:3] == ["-m", "services.serving.launch"]
            argv[1:3] = [str(script)]
        process = self._start(argv, command.env, command.cwd)
        self._wait(process, command.ready_url, "the release")
        return port, process.pid

    def _start_envoy(self) -> int:
        Traffic(self.home).derive_bootstrap()
        self.home.access_log.parent.mkdir(parents=True, exist_ok=True)
        process = self._start(envoy_argv(self.home), os.environ, self.home.root)
        admin = EnvoyAdmin(self.home)
        _until(admin.ready, "Envoy")
        self._weights = WeightServer(self.home.ports.rtds, lambda: 50.0)
        self._weights.start()
        _until(lambda: admin.weight_pct() == 50.0, "the weight")
        return process.pid

    def _start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
        with (self.home.root / "output.log").open("ab") as output:
            process = subprocess.Popen(
                list(argv), env=dict(env), cwd=cwd, stdout=output, stderr=output, start_new_session=True
            )
        self._processes.append(process)
        return process

    def _wait(self, process: subprocess.Popen[bytes], url: str, name: str) -> None:
        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended: {(self.home.root / 'output.log').read_text()[-2000:]}")
            try:
                urllib.request.urlopen(url, timeout=1)  # noqa: S310
            except urllib.error.HTTPError as error:
                return error.code < 500
            except (OSError, http.client.HTTPException):  # a port of the kernel's range may answer itself
                return False
            return True

        _until(answers, name)

    def _take(self, contestant: Contestant) -> None:
        self.contestants[contestant.name] = contestant

    def close(self) -> None:
        """End every process that was started, and what it started."""
        if self._weights is not None:
            self._weights.stop()
        alive = []
        for process in self._processes:
            with suppress(psutil.Error):
                leader = psutil.Process(process.pid)
                alive += [leader, *leader.children(recursive=True)]
        for one in alive:
            with suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(alive, timeout=5)


@contextmanager
def arena(home: Home, ports: Iterator[int]) -> Iterator[Arena]:
    """A release in `home`, built; nobody serves yet. Everything is ended afterwards."""
    release = write_made_up_release(home)
    build_bento(release, home)
    found = Arena(home, release, _ports=ports)
    try:
        yield found
    finally:
        found.close()


def _can_import(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _until(check: object, what: str) -> None:
    assert callable(check)
    deadline = time.monotonic() + PATIENCE_S
    while not check():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} was not ready within {PATIENCE_S:g} s")
        time.sleep(0.05)
