"""The weight is a lease: when its sender is gone, Envoy goes back to stable by itself."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from envoy.service.discovery.v3 import discovery_pb2  # type: ignore[import-untyped]
from envoy.service.runtime.v3 import rtds_pb2, rtds_pb2_grpc  # type: ignore[import-untyped]

from services.traffic.errors import TrafficError
from services.traffic.rtds import WeightServer

SENDER = Path(__file__).parent / "weight_sender.py"


def send(plane: Any, weight_pct: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, str(SENDER), str(plane.home.ports.rtds), str(weight_pct)])


@pytest.mark.e2e
def test_a_killed_sender_means_weight_zero(plane: Any, wait: Callable[..., Any]) -> None:
    """SIGKILL of the sender at 50 %: within 6 s no request reaches the canary; a new sender is heard again."""
    plane.canary("b")
    sender = send(plane, 50.0)
    try:
        wait(lambda: plane.admin.weight_pct() == 50.0, what="50 %")
        killed: list[float] = []

        def kill() -> None:
            sender.kill()
            killed.append(time.time())

        answers = plane.load(100, 9.0, during=kill)
    finally:
        sender.kill()
        sender.wait()
    last_s = max(answer.at for answer in answers if answer.name == "b") - killed[0]
    print(f"lease: last canary answer {last_s:.2f} s after SIGKILL of the sender")
    assert {answer.status for answer in answers} == {200}
    assert 3.0 < last_s < 6.0
    assert {answer.name for answer in answers[-50:]} == {"a"}
    assert plane.admin.weight_pct() == 0.0
    again = send(plane, 25.0)
    try:
        began = time.monotonic()
        wait(lambda: plane.admin.weight_pct() == 25.0, what="the new sender")
        print(f"lease: a new sender is heard after {time.monotonic() - began:.2f} s, its start included")
    finally:
        again.kill()
        again.wait()


def read(port: int, count: int) -> list[tuple[int, int, int]]:
    """(stable weight, canary weight, ttl in s) of the first `count` messages of a sender."""
    found = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=5)
        stub = rtds_pb2_grpc.RuntimeDiscoveryServiceStub(channel)
        stream = stub.StreamRuntime(iter([discovery_pb2.DiscoveryRequest()]))
        for response in stream:
            resource, runtime = discovery_pb2.Resource(), rtds_pb2.Runtime()
            response.resources[0].Unpack(resource)
            resource.resource.Unpack(runtime)
            layer = dict(runtime.layer)
            stable, canary = layer["routing.trimtab.stable"], layer["routing.trimtab.canary_then_stable"]
            found.append((int(stable), int(canary), resource.ttl.seconds))
            if len(found) == count:
                stream.cancel()
                return found
    return found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 100.5, "raise"])
def test_doubt_is_weight_zero(value: Any, plane: Any) -> None:
    """Whatever is not a number in [0, 100], and any exception, is published as 0, and reported once."""

    def doubtful() -> float:
        if value == "raise":
            raise OSError("the store is gone")
        return float(value)

    problems: list[str] = []
    port = plane.home.ports.base + 15
    server = WeightServer(port, doubtful, on_error=problems.append)
    server.start()
    try:
        assert read(port, 2) == [(10_000, 0, 5), (10_000, 0, 5)]
        assert server.published().weight_pct == 0.0
        assert server.published().error == problems[0]
        assert len(problems) == 1
    finally:
        server.stop()


def test_revocation_is_sent_at_once(plane: Any) -> None:
    """A change of the grant is on the wire within half a second, and the port has one sender only."""
    port = plane.home.ports.base + 16
    weight = [12.5]
    server = WeightServer(port, lambda: weight[0])
    server.start()
    try:
        with pytest.raises(TrafficError, match="another weight server"):
            WeightServer(port, lambda: 100.0).start()
        changed: list[float] = []

        def revoke() -> None:
            weight[0] = 0.0
            changed.append(time.monotonic())

        threading.Timer(1.5, revoke).start()
        messages = read(port, 3)
        heard = time.monotonic()
        assert messages[:2] == [(8_750, 1_250, 5)] * 2
        assert messages[2] == (10_000, 0, 5)
        assert heard - changed[0] < 0.5
    finally:
        server.stop()


def test_what_envoy_sends_back_is_read(plane: Any) -> None:
    """Two hundred acknowledgements of 64 kB, more than any flow control lets pass unread, all leave the sender."""
    port = plane.home.ports.base + 17
    server = WeightServer(port, lambda: 50.0)
    server.start()
    sent, over = threading.Semaphore(0), threading.Event()

    def acknowledge() -> Iterator[discovery_pb2.DiscoveryRequest]:
        for _ in range(200):
            yield discovery_pb2.DiscoveryRequest(version_info="v" * 65_536)
            sent.release()
        over.wait(30)  # the stream stays open, as Envoy's does

    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = rtds_pb2_grpc.RuntimeDiscoveryServiceStub(channel).StreamRuntime(acknowledge())
            assert next(stream).resources
            assert all(sent.acquire(timeout=10) for _ in range(200))
            stream.cancel()
    finally:
        over.set()
        server.stop()
