"""What a served release has answered is in its log: killed, ended, and with a disk that is full. Real processes."""

import http.client
import json
import os
import resource
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.home import LOOPBACK, Home, Ports
from services.serving.build import build_bento
from services.serving.release import Release
from services.serving.release_command import launch_command
from services.signing.release_signature import sign_in_home
from services.store import decisions as store
from services.store.database import Database
from services.telemetry.shipper import Shipper

CALLERS = 8
HAS_PRLIMIT = hasattr(resource, "prlimit")


@dataclass
class Server:
    """A served release, and how to ask it."""

    process: "subprocess.Popen[bytes]"
    port: int
    logs: Path
    acknowledged: list[str] = field(default_factory=list)

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)
        try:
            connection.request("GET" if body is None else "POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.load(answer)
        finally:
            connection.close()

    def call_until_it_dies(self, body: bytes) -> None:
        """Ask on one connection, over and over; an answer that came whole is acknowledged."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)
        try:
            while True:
                connection.request("POST", "/decide", body)
                answer = connection.getresponse()
                found = json.loads(answer.read())
                if answer.status == 200:
                    decisions = found.get("decisions", [found])
                    self.acknowledged += [one["decision_id"] for one in decisions]
        except (OSError, http.client.HTTPException, ValueError):
            return
        finally:
            connection.close()

    def file(self) -> Path:
        return max(self.logs.glob(f"decisions-{self.process.pid}-*.jsonl"))

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file().read_bytes().splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"), Ports(0))


@pytest.fixture(scope="module")
def built(home: Home, write: Callable[[Path], Release]) -> Release:
    release = write(home.releases)
    sign_in_home(release, home)
    build_bento(release, home)
    return release


@contextmanager
def served(home: Home, release: Release, port: int) -> Iterator[Server]:
    command = launch_command(release.id, home, port)
    with (home.root / "launch.log").open("ab") as output:
        process = subprocess.Popen(
            command.argv, env=dict(command.env), cwd=command.cwd, stdout=output, stderr=output
        )
    server = Server(process, port, home.decision_logs / release.id)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, (home.root / "launch.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            with suppress(OSError), urllib.request.urlopen(command.ready_url, timeout=1):  # noqa: S310
                break
            time.sleep(0.05)
        yield server
    finally:
        process.kill()
        process.wait()


def test_no_acknowledged_decision_is_lost_when_the_release_dies(
    home: Home, built: Release, rows: list[Any], db: Database, free_base: Callable[[int], int]
) -> None:
    """Eight callers, single rows and batches; SIGKILL and SIGTERM in the middle of it: every decision that a
    caller has was in the log, and what is in the logs is what the store has after shipping."""
    bodies = [json.dumps(row).encode() for row in rows[: CALLERS - 1]]
    bodies.append(json.dumps({"rows": rows[:50]}).encode())
    acknowledged: set[str] = set()
    for number in (signal.SIGKILL, signal.SIGTERM):
        with served(home, built, free_base(1)) as server:
            callers = [
                threading.Thread(target=server.call_until_it_dies, args=(body,), daemon=True)
                for body in bodies
            ]
            for caller in callers:
                caller.start()
            time.sleep(0.7)
            os.kill(server.process.pid, number)
            assert server.process.wait(10) in (0, -number)
            for caller in callers:
                caller.join(10)
            assert len(server.acknowledged) > 100
            acknowledged.update(server.acknowledged)
    lines = [
        line
        for file in (home.decision_logs / built.id).iterdir()
        for line in file.read_bytes().split(b"\n")[:-1]
    ]
    logged = {json.loads(line)["decision_id"] for line in lines}
    assert acknowledged - logged == set()
    shipper = Shipper(db, home.decision_logs, home.access_log, clock=time.time)
    while shipper.ship_once().records:
        pass
    assert store.count_decisions(db) == len(logged) == len(lines)
    print(f"acknowledged={len(acknowledged)} logged={len(logged)} lost=0")


@pytest.mark.skipif(not HAS_PRLIMIT, reason="limits of another process are Linux's")
def test_with_a_full_disk_the_canary_refuses_and_stable_serves_on_and_counts(
    home: Home, built: Release, rows: list[Any], free_base: Callable[[int], int]
) -> None:
    """The kernel refuses the log of a running release every byte: as the canary it answers 503 on the first try, as
    stable 200 with `logged: false`; when there is room again the log says how many are missing."""
    canary = {"x-unit-id": "u", "x-trimtab-assigned": "canary", "x-envoy-attempt-count": "1"}
    stable = {"x-unit-id": "u", "x-trimtab-assigned": "stable"}
    with served(home, built, free_base(1)) as server:
        status, first = server.ask("/decide", rows[0], **canary)
        assert (status, "logged" in first) == (200, False)
        room = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        full = (server.file().stat().st_size, room[1])
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, full)
        status, refused = server.ask("/decide", rows[1], **canary)
        assert (status, refused["error"]) == (503, "the decision could not be recorded")
        status, kept = server.ask("/decide", rows[1], **stable)
        assert (status, kept["logged"]) == (200, False)
        status, again = server.ask("/decide", rows[1], **{**canary, "x-envoy-attempt-count": "2"})
        assert (status, again["action"], again["logged"]) == (200, kept["action"], False)
        status, batch = server.ask("/decide", {"rows": rows[:5]})
        assert [one["logged"] for one in batch["decisions"]] == [False] * 5
        found = {"release": built.id, "file": server.file().name, "written": 1, "missed": 7}
        assert server.ask("/decision_log") == (200, {**found, "sync_failures": 0})
        assert [entry["decision_id"] for entry in server.entries()] == [first["decision_id"]]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, room)
        status, after = server.ask("/decide", rows[2], **canary)
        assert status == 200
        one, two, gap = server.entries()
        assert [one["decision_id"], two["decision_id"]] == [first["decision_id"], after["decision_id"]]
        assert (gap["release"], gap["decisions"]) == (built.id, 7)
        assert one["at"] <= gap["since"] <= gap["until"] <= two["at"]
