"""What whoever reaches the control port can try: with no token nothing, with one no more than its role, never a 5xx."""

import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from services.home import LOOPBACK
from services.traffic.records import read_running, supervisor_identity

pytestmark = pytest.mark.e2e
PATHS = (
    "/../../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/status/../tokens",
    "//tokens",
    "/tokens%2frotate%2fx",
)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


@pytest.mark.parametrize("path", PATHS)
def test_no_path_but_the_listed(target: Any, path: str) -> None:
    """Without a token every path is 401 (or 429 by then); with one, what is not listed is 404, in JSON."""
    line = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n".encode()
    assert status_of(target.say(target.home.ports.control, line + b"\r\n")) in (401, 429)
    token = f"authorization: {target.bearer['authorization']}\r\n\r\n".encode()
    answer = target.say(target.home.ports.control, line + token)
    assert status_of(answer) == 404, answer[:300]
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2]) == {"error": "Not Found"}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 500_000,
        b'{"reason": ' * 90_000,
        b'{"reason": "' + b"x" * 900_000 + b'"}',
        b'{"reason": "a", "reason": "b", "by": 1}',
        b'{"reason": "\\ud800", "service": ' + b"9" * 10_000 + b"}",
        b"\xff",
        b"",
        b"null",
    ],
)
def test_hostile_bodies(target: Any, body: bytes) -> None:
    """Deep, huge or torn bodies are 400 or 422 with a short reason; nothing is killed."""
    answer = httpx.post(f"{target.control}/kill", content=body, headers=target.bearer, timeout=15)
    assert answer.status_code in (400, 422)
    assert len(answer.content) < 2_000
    assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize(
    "header",
    [
        b"authorization: Bearer \xff\xfe",
        b"authorization: Bearer tt_000000000000_" + b"A" * 43,
        b"authorization: Bearer " + b"A" * 60_000,
        b"authorization: Bearer",
        b"authorization: bearer  ",
        b"Authorization: Bearer x\r\nAuthorization: Bearer y",
        b"cookie: authorization=Bearer x",
        b"x-forwarded-for: 127.0.0.1",
    ],
)
def test_hostile_tokens(target: Any, header: bytes) -> None:
    """Whatever stands in place of a token, nobody comes in."""
    raw = b"GET /tokens HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + header + b"\r\n\r\n"
    assert status_of(target.say(target.home.ports.control, raw)) in (401, 429)


def test_headers_without_end(target: Any) -> None:
    """A client that sends headers for ever is cut off long before they fill the memory."""
    process = psutil.Process(read_running(target.home)["control"].pid)
    before = process.memory_info().rss
    with socket.create_connection((LOOPBACK, target.home.ports.control), timeout=10) as connection:
        connection.sendall(b"GET /status HTTP/1.1\r\n")
        line = b"x-a: " + b"a" * 8_000 + b"\r\n"
        with pytest.raises(OSError, match=r"reset|roken pipe"):
            connection.sendall(line * 32_000)
    assert process.memory_info().rss - before < 32 * 2**20


def test_slow_clients_are_let_go(target: Any) -> None:
    """Half a header, half a body, held on all doors at once: others are served meanwhile; by 15 s all are let go."""
    users, control = target.home.ports.users, target.home.ports.control
    half_header = b"POST /outcomes HTTP/1.1\r\nhost: x\r\nx-slow"
    half_body = (
        b"POST /outcomes HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n"
        + f"authorization: {target.bearer['authorization']}\r\n\r\n{{".encode()
    )
    held = []
    for port, raw in ((users, half_header), (control, half_header), (control, half_body)):
        for _ in range(60):
            connection = socket.create_connection((LOOPBACK, port), timeout=20)
            connection.sendall(raw)
            held.append(connection)
    began = time.monotonic()
    assert target.decide().status_code == 200
    assert httpx.get(f"{target.control}/status", headers=target.bearer, timeout=15).status_code == 200
    assert time.monotonic() - began < 5
    for connection in held:
        with connection:
            while connection.recv(65_536):
                pass
    assert 8 < time.monotonic() - began < 15


def test_everything_listens_on_loopback_only(target: Any) -> None:
    """No process of the home listens on an address that another machine reaches."""
    supervisor = supervisor_identity(target.home)
    assert supervisor is not None
    pids = {supervisor.pid, *(process.pid for process in read_running(target.home).values())}
    processes = [psutil.Process(pid) for pid in pids]
    processes += [child for process in processes for child in process.children(recursive=True)]
    listening = {
        found.laddr.ip
        for process in processes
        for found in process.net_connections(kind="inet")
        if found.status == psutil.CONN_LISTEN
    }
    assert listening <= {LOOPBACK, f"::ffff:{LOOPBACK}"}


def test_what_is_private_is_private(target: Any) -> None:
    """Nobody else may enter the home; secrets, decisions and the store are readable by their owner alone."""
    home = target.home
    target.decide()
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    private = [home.token_file, home.keys / "signing.pem", home.root / "trimtab.db"]
    private += [Path(folder) / name for folder, _, names in os.walk(home.decision_logs) for name in names]
    assert len(private) > 3
    assert {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in private} == {
        file.name: "0o600" for file in private
    }


def test_answers_are_not_kept_nor_guessed_at(target: Any) -> None:
    """No cache keeps an answer, no browser takes it for another type, nobody learns what serves it."""
    headers = httpx.get(f"{target.control}/tokens", headers=target.bearer, timeout=15).headers
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert "server" not in headers


def test_no_secret_in_any_log(target: Any) -> None:
    """Neither the home's token nor a word of the signing key stands in what the processes say."""
    secret = target.home.token_file.read_text().strip()
    key = (target.home.keys / "signing.pem").read_text().splitlines()[1]
    for log in target.home.processes.iterdir():
        text = log.read_bytes().decode(errors="replace") if log.is_file() else ""
        assert secret not in text
        assert key not in text
