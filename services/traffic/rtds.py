"""Grants the canary its weight: a gRPC runtime stream (RTDS) to Envoy whose every message expires by itself.

Each message carries a time-to-live of 5 s and is sent again each second. When this process, its thread or the
store behind `read_weight` stops, Envoy drops the layer and is back on its static default, stable 100 %.
Rule 1: whatever is not a finite number in [0, 100] is published as 0; so is any exception.
Rule 2: only one sender per home: the port is not shared.
Rule 3: what Envoy sends back is read. Unread, its acknowledgements took 65 kB of its memory a second.
Source: facts.md (Envoy), design.md §7. Must never import bentoml, torch or sqlalchemy.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import grpc  # type: ignore[import-untyped]
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse, Resource  # type: ignore[import-untyped]
from envoy.service.runtime.v3 import rtds_pb2_grpc  # type: ignore[import-untyped]
from envoy.service.runtime.v3.rtds_pb2 import Runtime  # type: ignore[import-untyped]
from google.protobuf.any_pb2 import Any as ProtoAny  # type: ignore[import-untyped]
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]

from services.home import LOOPBACK
from services.traffic.bootstrap import LAYER
from services.traffic.errors import TrafficError
from services.traffic.routes import CANARY_KEY, STABLE_KEY, TOTAL_WEIGHT

TTL_S = 5
RESEND_S = 1.0
LOOK_S = 0.25
_TYPE_URL = "type.googleapis.com/envoy.service.runtime.v3.Runtime"


@dataclass(frozen=True)
class Published:
    """What Envoy was last sent: weight in percent, why it is 0 if reading failed, how many Envoys listen."""

    weight_pct: float
    error: str | None
    streams: int


class WeightServer:
    """Publishes `read_weight()` (percent; 0 for expired or revoked) to the Envoy of one home.

    A change is sent within `LOOK_S` seconds. `on_error` gets one line when reading starts to fail, and one when
    it fails otherwise; never a line per second.
    """

    def __init__(
        self, port: int, read_weight: Callable[[], float], *, on_error: Callable[[str], None] | None = None
    ) -> None:
        self._port = port
        self._read_weight = read_weight
        self._on_error = on_error
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._published = Published(weight_pct=0.0, error=None, streams=0)
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Listen. Raises: TrafficError when the port is taken (another sender?)."""
        # Each connected Envoy occupies a thread; streams of an Envoy that died end at their next send.
        server = grpc.server(ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
        rtds_pb2_grpc.add_RuntimeDiscoveryServiceServicer_to_server(_Service(self._stream), server)
        try:
            bound = server.add_insecure_port(f"{LOOPBACK}:{self._port}")
        except RuntimeError as error:
            raise self._taken() from error
        if bound != self._port:
            raise self._taken()
        server.start()
        self._server = server

    def stop(self) -> None:
        """Stop sending; Envoy falls back to stable 100 % within the time-to-live."""
        self._stopping.set()
        if self._server is not None:
            self._server.stop(grace=0.5).wait(timeout=2.0)

    def published(self) -> Published:
        """What was last sent."""
        with self._lock:
            return self._published

    def _taken(self) -> TrafficError:
        return TrafficError(
            f"port {self._port} is taken: another weight server of this home runs; stop it (`trimtab down`)"
        )

    def _weight(self) -> int:
        """Hundredths of a percent; 0 for anything doubtful."""
        problem: str | None = None
        weight_pct = 0.0
        try:
            value = float(self._read_weight())
        except Exception as error:  # the weight is 0 whatever went wrong, and the stream must live
            problem = f"reading the grant failed: {type(error).__name__}: {error}"
        else:
            if math.isfinite(value) and 0.0 <= value <= 100.0:
                weight_pct = value
            else:
                problem = f"'weight_pct' must be in [0, 100]: {value}"
        with self._lock:
            news = problem is not None and problem != self._published.error
            self._published = Published(weight_pct, problem, self._published.streams)
        if news and self._on_error is not None and problem is not None:
            self._on_error(problem)
        return round(weight_pct * TOTAL_WEIGHT / 100.0)

    def _stream(self, is_active: Callable[[], bool]) -> Iterator[DiscoveryResponse]:
        self._count(+1)
        try:
            last: int | None = None
            due = time.monotonic()
            while is_active() and not self._stopping.is_set():
                weight = self._weight()
                if weight != last or time.monotonic() >= due:
                    last, due = weight, time.monotonic() + RESEND_S
                    yield _response(weight)
                self._stopping.wait(LOOK_S)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            now = self._published
            self._published = Published(now.weight_pct, now.error, now.streams + change)


class _Service(rtds_pb2_grpc.RuntimeDiscoveryServiceServicer):  # type: ignore[misc]
    def __init__(self, stream: Callable[[Callable[[], bool]], Iterator[DiscoveryResponse]]) -> None:
        self._stream = stream

    def StreamRuntime(
        self, request_iterator: Iterator[DiscoveryRequest], context: grpc.ServicerContext
    ) -> Iterator[DiscoveryResponse]:
        threading.Thread(target=_read_all, args=(request_iterator,), name="rtds-read", daemon=True).start()
        return self._stream(context.is_active)


def _read_all(requests: Iterator[DiscoveryRequest]) -> None:
    """Read until the stream ends. Envoy acknowledges every message, and keeps what nobody reads, for ever."""
    with suppress(grpc.RpcError):
        for _ in requests:
            pass


def _response(weight: int) -> DiscoveryResponse:
    runtime = Runtime(name=LAYER)
    # Dotted keys in one struct, both weights in one message: the sum is 10,000 at every instant.
    runtime.layer.update({STABLE_KEY: TOTAL_WEIGHT - weight, CANARY_KEY: weight})
    packed = ProtoAny()
    packed.Pack(runtime)
    version = str(weight)
    wrapped = Resource(name=LAYER, version=version, resource=packed, ttl=Duration(seconds=TTL_S))
    response = DiscoveryResponse(version_info=version, type_url=_TYPE_URL, nonce=version)
    response.resources.add().Pack(wrapped)
    return response
