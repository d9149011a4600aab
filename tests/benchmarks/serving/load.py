"""Load from one process: raw HTTP/1.1 over kept connections; every status and length is read, at little CPU a request.

`closed` keeps each connection busy: the most that a server can do. `steady` sends at fixed times whatever comes back,
and counts a request's time from when it was due, so that a stalled server cannot hide behind a waiting client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

HOST = "127.0.0.1"
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Burst:
    """What came of one stretch of load; `took_ms` (n,) of the requests that were answered as expected."""

    answered: int
    failed: int
    seconds: float
    took_ms: NDArray[np.float64]

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answered / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.took_ms, percent)) if len(self.took_ms) else float("nan")


def request(body: bytes, *, port: int, unit: str) -> bytes:
    """One POST /decide, ready to be sent."""
    head = (
        f"POST /decide HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
        f"X-Unit-Id: {unit}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One connection, one request at a time; `on_answer(connection, status)`, 0 where the connection broke."""

    def __init__(self, on_answer: Callable[[_Connection, int], None]) -> None:
        self._on_answer = on_answer
        self._transport: asyncio.Transport | None = None
        self._content = b""
        self.is_waiting = False
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, content: bytes, *, due: float) -> None:
        assert self._transport is not None
        self.due, self.is_waiting, self._content = due, True, b""
        self._transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._content = content = self._content + data if self._content else data
        end = content.find(b"\r\n\r\n")
        if end >= 0 and _is_whole(content, end):
            self.is_waiting = False
            self._on_answer(self, int(content[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.is_waiting:
            self.is_waiting = False
            self._on_answer(self, 0)

    def close(self) -> None:
        self.is_waiting = False
        if self._transport is not None:
            self._transport.abort()


def _is_whole(content: bytes, end: int) -> bool:
    head = content[:end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        return content.endswith(b"0\r\n\r\n")
    stop = head.find(b"\r\n", at)
    length = int(head[at + 15 : stop if stop >= 0 else end])
    return len(content) >= end + 4 + length


class Load:
    """Sends `requests` one after the other, over and over, to a port; each should get the status `expected`."""

    def __init__(self, port: int, requests: Sequence[bytes], *, expected: int = 200) -> None:
        self._expected = expected
        self._port = port
        self._requests = requests
        self._sent = self._answered = self._failed = 0
        self._took: list[float] = []
        self._open: list[_Connection] = []

    async def closed(self, *, connections: int, seconds: float) -> Burst:
        """Every connection sends its next request when it has its answer."""
        start = time.perf_counter()
        stop = start + seconds
        left = connections
        done = asyncio.get_running_loop().create_future()

        def answered(connection: _Connection, status: int) -> None:
            nonlocal left
            now = self._count(connection, status)
            if now < stop and connection.is_open:
                connection.send(self._next(), due=now)
                return
            left -= 1
            if left == 0 and not done.done():
                done.set_result(None)

        for _ in range(connections):
            connection = await self._connect(answered)
            connection.send(self._next(), due=time.perf_counter())
        return await self._finish(done, start, seconds)

    async def steady(self, *, rate: float, seconds: float) -> Burst:
        """One request every 1/`rate` seconds, over as many connections as that takes."""
        idle: list[_Connection] = []
        count = round(rate * seconds)
        done = asyncio.get_running_loop().create_future()

        def answered(connection: _Connection, status: int) -> None:
            self._count(connection, status)
            if connection.is_open:
                idle.append(connection)
            if self._answered + self._failed == count and not done.done():
                done.set_result(None)

        start = time.perf_counter()
        for number in range(count):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            while idle and not idle[-1].is_open:
                idle.pop()
            connection = idle.pop() if idle else await self._connect(answered)
            connection.send(self._next(), due=due)
        return await self._finish(done, start, seconds)

    def _count(self, connection: _Connection, status: int) -> float:
        now = time.perf_counter()
        if status == self._expected:
            self._answered += 1
            self._took.append((now - connection.due) * 1000)
        else:
            self._failed += 1
        return now

    def _next(self) -> bytes:
        self._sent += 1
        return self._requests[self._sent % len(self._requests)]

    async def _connect(self, on_answer: Callable[[_Connection, int], None]) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(on_answer), HOST, self._port)
        self._open.append(connection)
        return connection

    async def _finish(self, done: asyncio.Future[None], start: float, seconds: float) -> Burst:
        try:
            await asyncio.wait_for(done, seconds + PATIENCE_S)
        except TimeoutError:
            self._failed += sum(1 for connection in self._open if connection.is_waiting)
        took = time.perf_counter() - start
        for connection in self._open:
            connection.close()
        return Burst(self._answered, self._failed, took, np.array(self._took))
