"""What a hostile user can send to the user listener: refused with a reason, never a 5xx, never evidence that lies."""

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.serving.request_mark import MAX_ID_CHARACTERS

pytestmark = pytest.mark.e2e
MIB = 1 << 20


def status_of(answer: bytes) -> int:
    """The status of the first response in raw bytes; 0 where the connection ended without one."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def request(*headers: bytes, body: bytes, line: bytes = b"POST /decide HTTP/1.1") -> bytes:
    """A raw request that ends its connection."""
    head = (line, b"connection: close", b"content-type: application/json", *headers)
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def sized(body: bytes) -> bytes:
    return b"content-length: %d" % len(body)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/decide/../../../../etc/passwd",
        "/decide/%2e%2e/%2e%2e/etc/passwd",
        "/decide%2f..%2f..%2fetc%2fpasswd",
        "/decide%5c..%5c..%5cetc%5cpasswd",
        "/..;/etc/passwd",
        "/readyz/../docs.json",
        "/docs.json",
        "/static_content/../../bento.yaml",
        "/metrics",
        "/status",
        "/decide/x",
        "/decidex",
        "/config_dump",
    ],
)
def test_no_path_but_decide(target: Any, path: str) -> None:
    """Whatever is asked for beside /decide, raw on the wire: 400 or 404, and no file's content."""
    raw = request(b"host: x", sized(b"{}"), body=b"{}", line=f"POST {path} HTTP/1.1".encode())
    answer = target.say(target.home.ports.users, raw)
    assert status_of(answer) in (400, 404), answer[:300]
    assert b"root:" not in answer


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 500_000, 400),
        (b'{"a":' * 150_000, 400),
        (b'{"rows": ' + b"[" * 400_000, 400),
        (b'{"age": ' + b"9" * 500_000 + b"}", 400),
        (b'{"age": 1e999}', 400),
        (b'{"age": NaN}', 400),
        (b'{"age": -Infinity}', 400),
        (b'{"marital": "' + b"x" * 900_000 + b'"}', 400),
        (b'{"age": "\xff\xfe"}', 400),
        (b'{"age": "\\ud800"}', 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"\x00": 1}', 400),
        (b"", 400),
        (b"null", 400),
        (b'"x"', 400),
        (b'{"rows": {}}', 400),
        (b'{"rows": []}', 400),
        (b'{"rows": [' + b"{}," * 1000 + b"{}]}", 400),
        (gzip.compress(b" " * 50 * MIB), 400),
        (b" " * (MIB + 1), 413),
    ],
)
def test_hostile_bodies(target: Any, body: bytes, status: int) -> None:
    """Deep, huge, torn, binary or empty: a 4xx with a short reason in JSON, soon."""
    began = time.monotonic()
    answer = target.decide(json=None, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, time.monotonic() - began < 5) == (status, True)
    assert len(answer.content) < 1_000
    if status == 400:
        assert isinstance(answer.json()["error"], str)
        assert "Traceback" not in answer.text


def test_endless_bodies(target: Any) -> None:
    """A body without an end, and one that announces 10 GB, are refused at the limit, not at their end."""

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * 65_536

    assert target.decide(json=None, content=endless()).status_code == 413
    raw = request(b"host: x", b"content-length: 10000000000", body=b"{" + b" " * 2 * MIB)
    assert status_of(target.say(target.home.ports.users, raw)) == 413


def test_a_user_cannot_write_our_marks(target: Any) -> None:
    """Headers that are the proxy's to write are forgotten: assignment, shadow, attempt, request id, and the host."""
    before = len(target.decisions())
    body = json.dumps(target.row).encode()
    forged = (
        b"host: users-shadow",
        b"x-unit-id: mallory",
        b"x-trimtab-assigned: canary",
        b"X-Trimtab-Shadow: 1",
        b"x-trimtab-throttled: 1",
        b"x-envoy-attempt-count: 7",
        b"x-envoy-upstream-rq-timeout-ms: 1",
        b"x-request-id: forged",
        b"x-force: canary",
    )
    assert status_of(target.say(target.home.ports.users, request(*forged, sized(body), body=body))) == 200
    (line,) = target.decisions()[before:]
    assert {name: line[name] for name in ("unit", "assigned", "shadow", "attempt")} == {
        "unit": "mallory",
        "assigned": "stable",
        "shadow": False,
        "attempt": 1,
    }
    assert line["request_id"] != "forged"


@pytest.mark.parametrize(
    "headers",
    [
        (b"x-unit-id: a\r\n\tx-trimtab-shadow: 1",),  # a folded line
        (b"x-unit-id: a\x00b",),
        (b"x-unit-id: a\nx-trimtab-shadow: 1",),  # a bare line feed
        (b"x-unit-id: a\rx-trimtab-shadow: 1",),
        (b"x_unit_id: a", b"x_trimtab_shadow: 1"),
        (b"x-unit-id : a",),
        (b"x-unit-id: " + b"a" * 70_000,),
        (b"transfer-encoding: xchunked",),
        (b"content-length: 3",),
    ],
)
def test_torn_headers(target: Any, headers: tuple[bytes, ...]) -> None:
    """A header that parsers read in two ways is refused, or read in the one way that gives no power."""
    before = len(target.decisions())
    body = json.dumps(target.row).encode()
    answer = target.say(target.home.ports.users, request(b"host: x", *headers, sized(body), body=body))
    assert status_of(answer) in (0, 200, 400, 404, 431, 501), answer[:300]
    for line in target.decisions()[before:]:
        assert (line["shadow"], line["assigned"] in ("stable", "none")) == (False, True)
        assert line["unit"] is None or "\n" not in line["unit"]


def test_no_request_is_smuggled(target: Any) -> None:
    """Length and chunks at once, or two lengths: refused whole; nothing behind the first request is decided."""
    before = len(target.decisions())
    hidden = request(b"host: x", b"x-unit-id: smuggled", sized(b"{}"), body=b"{}")
    for headers in (
        (b"transfer-encoding: chunked", sized(b"0\r\n\r\n" + hidden)),
        (b"content-length: 5", b"content-length: 500"),
        (b"transfer-encoding: chunked", b"transfer-encoding: identity"),
    ):
        answer = target.say(
            target.home.ports.users,
            request(b"host: x", *headers, body=b"0\r\n\r\n" + hidden),
            wait_s=3,
            to_end=True,
        )
        assert status_of(answer) in (0, 400, 501)
        assert answer.count(b"HTTP/1.1 ") <= 1
    assert len(target.decisions()) == before


def test_units_are_logged_as_they_are_and_only_once(target: Any) -> None:
    """Quotes, markup and line breaks of other alphabets stay inside one JSON line; two units at once are refused."""
    before = len(target.decisions())
    other_breaks = "a\x85b\u2028".encode().decode("latin-1")
    units = [
        'a"b\\',
        "<script>alert(1)</script>",
        other_breaks,
        "event=kill by=root",
        "a, b",
    ]
    for unit in units:
        assert target.decide(headers={"x-unit-id": unit.encode("latin-1")}).status_code == 200
    assert [line["unit"] for line in target.decisions()[before:]] == units
    too_long = target.decide(headers={"x-unit-id": "u" * (MAX_ID_CHARACTERS + 1)})
    assert (too_long.status_code, too_long.json()["field"]) == (400, "x-unit-id")
    twice = target.decide(headers=[(b"x-unit-id", b"a"), (b"x-unit-id", b"b")])
    assert (twice.status_code, twice.json()["field"]) == (400, "x-unit-id")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"])
def test_other_methods(target: Any, method: str) -> None:
    """Only POST decides."""
    answer = httpx.request(method, f"{target.users}/decide", timeout=15)
    assert answer.status_code in (400, 405)


def test_errors_do_not_repeat_what_was_sent(target: Any) -> None:
    """Of a value that is refused at most 80 characters come back, as JSON: no page can be made of an error."""
    evil = "<script>" + "x" * 10_000
    answer = target.decide(json={**target.row, "marital": evil, evil: 1})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert "x" * 81 not in answer.text
