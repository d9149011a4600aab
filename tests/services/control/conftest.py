"""A control service over real HTTP on a store of its own, and clients with the home's token."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from services.control import token
from services.control.admission import TokenBook
from services.control.service import control_app
from services.control.slow_clients import TimedProtocol
from services.control.state import ControlState
from services.home import LOOPBACK, Home, Ports
from services.store.database import Database


@dataclass
class Running:
    """A served control service, its home and store, and a client that carries the home's token."""

    home: Home
    db: Database
    state: ControlState
    client: httpx.Client
    url: str

    def client_of(self, secret: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {secret}"}, timeout=10)


@pytest.fixture
def running(db: Database, tmp_path: Path) -> Iterator[Running]:
    home = Home(tmp_path, Ports(1))
    secret = token.load_or_create(home.token_file)
    state = ControlState(home, db, clock=time.time)
    book = TokenBook(home.token_file, home.issued_tokens_file, clock=lambda: state.clock())
    listener = socket.socket()
    listener.bind((LOOPBACK, 0))
    config = uvicorn.Config(
        control_app(state, book), log_config=None, lifespan="off", access_log=False, http=TimedProtocol
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {secret}"}, timeout=10) as client:
        yield Running(home, db, state, client, url)
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()
