"""What tests that start programs share, here and in tests/: ports nobody else will take, waiting, a program that runs.

pytest finds it by `pythonpath` in pyproject.toml.
"""

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
# Below the ports that the kernel gives to clients (32768 and up on Linux): a restarted server must find its port again.
LOWEST, HIGHEST = 12_000, 30_000
LOOK_S = 0.02
TAIL = 3000


def free_base(count: int) -> int:
    """The first of `count` consecutive loopback ports that are free now."""
    while True:
        base = random.randrange(LOWEST, HIGHEST)  # noqa: S311 - spreads parallel runs
        try:
            for port in range(base, base + count):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((LOOPBACK, port))
        except OSError:
            continue
        return base


def wait_for(
    check: Callable[[], Any], *, timeout_s: float = 10.0, what: str | Callable[[], str] = "the condition"
) -> Any:
    """Poll until `check()` is true; its value. Raises TimeoutError saying what did not come true."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(LOOK_S)


@dataclass(frozen=True)
class Program:
    """A program that runs beside the test, and the file of its output."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def kill(self) -> float:
        """SIGKILL; when, epoch s."""
        at = time.time()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return at

    def end(self, *, timeout_s: float) -> int:
        """Wait for its end; the exit status. Raises TimeoutError with the end of its output."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"still running after {timeout_s:g} s:\n{self.tail()}") from None

    def tail(self) -> str:
        """The end of what it said."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
