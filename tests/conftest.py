"""What tests of all rooms share: blocks of ports that nobody else will take."""

import random
import socket
from collections.abc import Callable

import pytest

from services.home import LOOPBACK

# Below the ports that the kernel gives to clients (32768 and up on Linux): a restarted server must find its port again.
LOWEST, HIGHEST = 12_000, 30_000


@pytest.fixture(scope="session")
def free_base() -> Callable[[int], int]:
    """`free_base(count)`: the first of `count` consecutive loopback ports that are free now."""

    def find(count: int) -> int:
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

    return find
