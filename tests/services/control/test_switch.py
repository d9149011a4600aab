"""Switching an action off for everyone: on the ledger first, in the file, read back from the serving processes."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from policies.operating.operating_point import OperatingPoint
from services.control.switch import Switched, SwitchRefused, restore, switch, switched_off
from services.home import Home, Ports
from services.ledger.ledger import entries, verify
from services.serving.release import Release, write_release
from services.serving.release_command import launch_command
from services.serving.switches import Switches
from services.store.database import Database
from services.traffic.processes import identify
from services.traffic.records import RunningProcess, write_running
from services.traffic.supervision import want_release

SERVICE = "telemarketing"


class Serving:
    """A serving process's /switches, with the real reader of the file behind it."""

    def __init__(self, home: Home) -> None:
        self.port = 0
        reader = Switches(
            home.switches_file(SERVICE),
            actions=("leave", "call"),
            default_action=0,
            timer_ms=iter(range(0, 10**9, 500)).__next__,
        )

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                reader.gate()
                body = json.dumps({"entry": None if reader.known is None else reader.known.entry}).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Answer)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def home(tmp_path: Path, parts: Any, policy_texts: dict[str, str]) -> Home:
    """A home that serves one release."""
    home = Home(tmp_path / "home", Ports(41_000))
    home.processes.mkdir(parents=True)
    release = _release(home, parts, policy_texts)
    want_release(home, release.id, lambda port: launch_command(release.id, home, port))
    return home


def _release(home: Home, parts: Any, policy_texts: dict[str, str]) -> Release:
    return write_release(
        home.releases,
        service=SERVICE,
        candidate=parts,
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=policy_texts,
        provenance={},
        created_at=1.0,
    )


@pytest.fixture
def serving(home: Home) -> Iterator[Serving]:
    """The release runs and answers."""
    found = Serving(home)
    own = identify(os.getpid())
    assert own is not None
    name = next(home.releases.iterdir()).name
    process = RunningProcess(own.pid, own.created, found.port, True, own.created, 0, "")
    write_running(home, {name: process})
    yield found
    found.stop()


@pytest.fixture
def turn(db: Database, home: Home) -> Callable[..., Switched]:
    def call(action: str, **changes: Any) -> Switched:
        known = {"is_off": True, "by": "ann", "reason": "closed", "at": 1000.0}
        return switch(db, home, service=SERVICE, action=action, **{**known, **changes})

    return call


def test_off_is_on_the_ledger_in_the_file_and_read_back(
    turn: Callable[..., Switched], db: Database, home: Home, serving: Serving
) -> None:
    """Ledger entry, file and the process's own word agree; who, why and when are on record; the chain stays whole."""
    found = turn("call")
    assert (found.changed, found.silent, len(found.confirmed)) == (True, (), 1)
    (one,) = switched_off(db, SERVICE)
    assert (one.action, one.by, one.reason, one.at) == ("call", "ann", "closed", 1000.0)
    document = json.loads(home.switches_file(SERVICE).read_text())
    assert document == {"v": 1, "service": SERVICE, "off": ["call"], "entry": one.entry}
    kinds = [entry.kind for entry in entries(db)]
    assert kinds == ["switch", "switch_effect"]
    assert entries(db, kind="switch_effect")[0].body["confirmed"] == list(found.confirmed)
    assert turn("call", is_off=False, at=1001.0).off == ()
    assert json.loads(home.switches_file(SERVICE).read_text())["off"] == []
    assert verify(db).ok


def test_repeating_changes_nothing_and_mends_the_file(
    turn: Callable[..., Switched], db: Database, home: Home, serving: Serving
) -> None:
    """The same switch again adds no entry; a file that is not as the ledger says is written again, by `up` too."""
    turn("call")
    for mend in (lambda: turn("call"), lambda: restore(db, home)):
        home.switches_file(SERVICE).write_text("{")
        mend()
        assert json.loads(home.switches_file(SERVICE).read_text())["off"] == ["call"]
    assert turn("call").changed is False
    assert len(entries(db)) == 2


def test_a_release_that_does_not_follow_is_named(
    turn: Callable[..., Switched],
    serving: Serving,
    db: Database,
) -> None:
    """A process that does not answer is silent: the switch stands on the ledger, and so does who did not confirm."""
    serving.stop()
    found = turn("call", confirm_s=0.3)
    assert (len(found.silent), found.confirmed) == (1, ())
    assert entries(db, kind="switch_effect")[0].body["silent"] == list(found.silent)
    assert [one.action for one in found.off] == ["call"]


@pytest.mark.parametrize(
    ("action", "why"),
    [("leave", "must not be the default action"), ("email", "must be one of call, leave: 'email'")],
)
def test_what_cannot_be_switched_is_refused(
    turn: Callable[..., Switched], db: Database, action: str, why: str
) -> None:
    """The default action and unknown actions are refused by name, and nothing is recorded."""
    with pytest.raises(SwitchRefused, match=why):
        turn(action)
    assert entries(db) == ()


def test_a_service_that_is_not_served_is_refused(db: Database, home: Home) -> None:
    """There is nothing to switch for a service without releases: a misspelled name is heard of."""
    with pytest.raises(SwitchRefused, match="no release of service 'lending' is served"):
        switch(db, home, service="lending", action="call", is_off=True, by="ann", reason="x", at=1.0)


def test_over_http_it_goes_on_record_under_the_callers_name(
    running: Any, parts: Any, policy_texts: dict[str, str]
) -> None:
    """POST /switches does what the command does; a service that is not served is 409 and names the field."""
    release = _release(running.home, parts, policy_texts)
    body = {"service": SERVICE, "action": "call", "turn": "off", "reason": "closed"}
    refused = running.client.post("/switches", json=body)
    assert (refused.status_code, refused.json()["field"]) == (409, "action")
    running.home.processes.mkdir()
    want_release(running.home, release.id, lambda port: launch_command(release.id, running.home, port))
    answer = running.client.post("/switches", json={**body, "by": "ann"})
    assert (answer.status_code, answer.json()["changed"], answer.json()["silent"]) == (200, True, [])
    assert [(one.action, one.by) for one in switched_off(running.db, SERVICE)] == [("call", "ann")]
