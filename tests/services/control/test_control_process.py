"""The control service as the process that runs in production: a real gRPC stream, real logs, kill within 2 s."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, Resource
from envoy.service.runtime.v3 import rtds_pb2_grpc
from envoy.service.runtime.v3.rtds_pb2 import Runtime

from services.home import LOOPBACK, Home, Ports
from services.store import grants, rollouts
from services.store.database import open_database
from services.store.rollouts import RolloutRecord
from services.traffic.routes import CANARY_KEY

pytestmark = pytest.mark.skipif("TRIMTAB_TEST_DATABASE_URL" in os.environ, reason="a home's own SQLite file")


@dataclass
class Control:
    """One running control service, restartable."""

    home: Home
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = ["--home", str(self.home.root), "--base-port", str(self.home.ports.base)]
        log = (self.home.root / "control.log").open("ab")
        self.process = subprocess.Popen([sys.executable, "-m", "services.control", *arguments], stderr=log)
        url = f"http://{LOOPBACK}:{self.home.ports.control}/healthz"
        until(lambda: answers(url), 20)

    def stop(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=10)

    def client(self) -> httpx.Client:
        secret = self.home.token_file.read_text().strip()
        url = f"http://{LOOPBACK}:{self.home.ports.control}"
        return httpx.Client(base_url=url, headers={"authorization": f"Bearer {secret}"}, timeout=10)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def until(is_true: Callable[[], bool], within_s: float) -> float:
    """Wait for something; how long it took."""
    began = time.monotonic()
    while not is_true():
        assert time.monotonic() - began < within_s, f"not within {within_s} s"
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.fixture
def control(tmp_path: Path, free_base: Callable[[int], int]) -> Iterator[Control]:
    service = Control(Home(tmp_path, Ports(free_base(40))))
    yield service
    if service.process is not None and service.process.poll() is None:
        service.process.kill()
        service.process.wait()


def weights(home: Home) -> Iterator[float]:
    """The canary's weights in percent, as Envoy would receive them."""
    with grpc.insecure_channel(f"{LOOPBACK}:{home.ports.rtds}") as channel:
        stub = rtds_pb2_grpc.RuntimeDiscoveryServiceStub(channel)
        for response in stub.StreamRuntime(iter([DiscoveryRequest()]), timeout=20):
            resource, runtime = Resource(), Runtime()
            response.resources[0].Unpack(resource)
            resource.resource.Unpack(runtime)
            yield runtime.layer[CANARY_KEY] / 100


def first(found: Iterator[float], wanted: float, within_s: float) -> float:
    """Read weights until one is `wanted`; how long it took."""
    began = time.monotonic()
    for weight in found:
        took = time.monotonic() - began
        assert took < within_s, f"{weight} after {took:.1f} s"
        if weight == wanted:
            return took
    raise AssertionError("the stream ended")


def test_kill_reaches_the_sender_within_two_seconds(control: Control, draft: RolloutRecord) -> None:
    """A grant is published, a kill over HTTP takes it to 0 within 2 s; a restarted service still publishes 0; its
    log holds no secret."""
    db = open_database(control.home.database_url)
    rollouts.create(db, draft)
    now = time.time()
    grants.write_grant(
        db, service="telemarketing", rollout_id="r1", weight_pct=25.0, valid_until=now + 60, at=now
    )
    control.start()
    stream = weights(control.home)
    first(stream, 25.0, 5.0)
    with control.client() as client:
        began = time.monotonic()
        answer = client.post("/kill", json={"by": "ann", "reason": "drill"}).json()
        assert answer["effective_weight_pct"] == 0.0
        first(stream, 0.0, 2.0)
        took = time.monotonic() - began
    print(f"kill_to_sender_s={took:.2f}")
    assert took < 2.0
    control.stop(signal.SIGKILL)
    control.start()
    assert next(weights(control.home)) == 0.0
    assert control.stop(signal.SIGTERM) == 0
    log = (control.home.root / "control.log").read_text()
    assert "event=kill rollout=r1 by=ann reason=drill" in log
    assert control.home.token_file.read_text().strip() not in log
    db.close()


def test_lease_ends_and_logs_are_shipped_across_a_kill(control: Control, draft: RolloutRecord) -> None:
    """A grant that nobody renews is 0 when its lease ends; killed and started again, the shipper goes on where it
    was: every record once."""
    db = open_database(control.home.database_url)
    rollouts.create(db, draft)
    folder = control.home.decision_logs / "rel-a"
    folder.mkdir(parents=True)

    def write(numbers: range) -> None:
        lines = [
            {
                "v": 1, "decision_id": f"d{n}", "request_id": f"q{n}", "attempt": 1, "at": time.time(), "unit": f"u{n}",
                "assigned": "stable", "shadow": False, "release": "rel-a", "action": "leave", "score": 0.1,
                "expected_utility": [0, 0], "probabilities": [1, 0], "row": {}, "took_ms": 1.0,
            }
            for n in numbers
        ]  # fmt: skip
        with (folder / "decisions-1.jsonl").open("a") as stream:
            stream.writelines(json.dumps(one) + "\n" for one in lines)

    def stored() -> int:
        with control.client() as client:
            return int(client.get("/status").json()["shipper"]["decisions"])

    write(range(100))
    control.start()
    until(lambda: stored() == 100, 5.0)
    write(range(100, 200))
    control.stop(signal.SIGKILL)
    write(range(200, 300))
    control.start()
    until(lambda: stored() == 300, 5.0)
    now = time.time()
    grants.write_grant(
        db, service="telemarketing", rollout_id="r1", weight_pct=50.0, valid_until=now + 2, at=now
    )
    stream = weights(control.home)
    first(stream, 50.0, 2.0)
    first(stream, 0.0, 4.0)
    assert 1.9 < time.time() - now < 4.0
    db.close()
