"""The audit of dependencies: it finds what must not be, and asks for advisories only where it is told to."""

import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

AUDIT = Path(__file__).resolve().parents[2] / "infra" / "audit.py"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", AUDIT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("licence", "accepted"),
    [
        ("MIT", True),
        ("GPL-3.0-only OR MIT", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only", False),
        ("MIT AND AGPL-3.0-only", False),
        ("MIT AND (AGPL-3.0-only OR BUSL-1.1)", False),
        ("MIT OR", False),
        ("(MIT", False),
        ("MIT MIT", False),
        ("", False),
    ],
)
def test_licences_are_read_as_spdx_means_them(audit: ModuleType, licence: str, accepted: bool) -> None:
    """Of each OR one is enough, of each AND all are needed; what cannot be read is not accepted."""
    assert audit.is_accepted(licence) is accepted


def test_the_environment_is_pinned_and_licensed(
    audit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """This very environment passes, as in the check, with a line that says that no advisories were asked for."""
    assert audit.main([], {}) == 0
    said = capsys.readouterr().out
    assert "0 faults" in said
    assert "advisories: skipped; TRIMTAB_ADVISORIES=https://api.osv.dev asks for them" in said


def test_what_must_not_be_is_named(audit: ModuleType) -> None:
    """Not pinned, another version than the pin, and a licence that is not ours to use: one sentence each."""
    found = [
        audit.Package("loose", "1.0", "MIT", True),
        audit.Package("old", "1.0", "MIT", False),
        audit.Package("copyleft", "1.0+cpu", "AGPL-3.0-only", True),
    ]
    wrong = list(audit.faults(found, {"old": "2.0", "copyleft": "1.0"}))
    assert wrong == [
        "loose 1.0 is not pinned in constraints.txt",
        "old must be 2.0 by constraints.txt: 1.0 is installed",
        "copyleft: 'licence' must be one that we accept (infra/audit.py): 'AGPL-3.0-only'",
    ]
    assert audit.unlisted(found, audit.table(found[:2])) == ["copyleft"]


class Advisories(BaseHTTPRequestHandler):
    """Knows one advisory, in the shape of OSV's /v1/querybatch."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["queries"]
        known = {"package": {"name": "jinja2", "ecosystem": "PyPI"}}
        results: list[dict[str, Any]] = [
            {"vulns": [{"id": "PYSEC-0000-1"}]} if {**one, "version": ""} == {**known, "version": ""} else {}
            for one in asked
        ]
        body = json.dumps({"results": results}).encode()
        self.send_response(200 if self.path == "/v1/querybatch" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Advisories)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_advisories_are_asked_for_where_a_service_is_named(
    audit: ModuleType, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A known advisory fails the audit and is named; a service that does not answer is a skip that says so."""
    assert audit.main([], {"TRIMTAB_ADVISORIES": service}) == 1
    said = capsys.readouterr()
    assert "advisories: 1 known at" in said.out
    assert "PYSEC-0000-1" in said.err
    assert audit.main([], {"TRIMTAB_ADVISORIES": "http://127.0.0.1:1"}) == 0
    assert "advisories: skipped; http://127.0.0.1:1 does not answer" in capsys.readouterr().out
