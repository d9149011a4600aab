"""One real system to attack: supervisor, Envoy, control service, and a served release of made-up weights."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.system import bring_up, serve_first, take_down
from policies.operating.operating_point import OperatingPoint
from services.home import LOOPBACK, Home, Ports
from services.serving.release import Release, write_release
from services.signing.release_signature import sign_in_home


@dataclass(frozen=True)
class Target:
    """What is attacked, and a row that it decides."""

    home: Home
    release: Release
    row: dict[str, Any]

    @property
    def users(self) -> str:
        return f"http://{LOOPBACK}:{self.home.ports.users}"

    @property
    def control(self) -> str:
        return f"http://{LOOPBACK}:{self.home.ports.control}"

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.home.token_file.read_text().strip()}"}

    def decide(self, **how: Any) -> httpx.Response:
        return httpx.post(f"{self.users}/decide", **{"json": self.row, "timeout": 15, **how})

    def decisions(self) -> list[dict[str, Any]]:
        """Every line of every decision log, parsed: what is no JSON object fails here."""
        logs = sorted(self.home.decision_logs.rglob("*.jsonl"))
        return [json.loads(line) for log in logs for line in log.read_bytes().split(b"\n") if line]

    def say(self, port: int, raw: bytes, *, wait_s: float = 15.0, to_end: bool = False) -> bytes:
        """Send raw bytes; the first response, or with `to_end` all that comes until nothing comes for `wait_s`."""
        with socket.create_connection((LOOPBACK, port), timeout=wait_s) as connection:
            answer = b""
            with suppress(ConnectionError):  # refused before all was read; what was said can still be read
                connection.sendall(raw)
            try:
                while part := connection.recv(65_536):
                    answer += part
                    if not to_end and is_whole(answer):
                        break
            except (TimeoutError, ConnectionError):
                pass
            return answer


def is_whole(answer: bytes) -> bool:
    """Whether these bytes are a whole response, by its content-length."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(end) and length is not None and len(body) >= int(length[1])


@pytest.fixture(scope="session")
def target(
    tmp_path_factory: pytest.TempPathFactory,
    free_base: Callable[[int], int],
    parts: Any,
    policy_texts: dict[str, str],
    rows: list[dict[str, Any]],
) -> Iterator[Target]:
    home = Home(tmp_path_factory.mktemp("attacked") / "target", Ports(free_base(40)))
    release = write_release(
        home.releases,
        service="telemarketing",
        candidate=parts,
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=policy_texts,
        provenance={"of": "tests/security"},
        created_at=1.0,
    )
    sign_in_home(release, home)
    try:
        bring_up(home, lambda _: None)
        serve_first(home, release)
        row = {**rows[0], "age": 40, "marital": "single"}
        yield Target(home, release, row)
    finally:
        take_down(home)


@pytest.fixture(autouse=True)
def _all_is_well_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every attack the system decides and answers as before."""
    yield
    if "target" not in request.fixturenames:
        return
    target: Target = request.getfixturevalue("target")
    assert target.decide().status_code == 200
    assert httpx.get(f"{target.control}/healthz", timeout=15).status_code == 200


@pytest.fixture
def documents(target: Target, tmp_path: Path) -> Callable[[str, dict[str, object]], Path]:
    """Writes an OpenAPI document where the fuzzer finds it."""

    def write(name: str, document: dict[str, object]) -> Path:
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(document))
        return file

    return write
