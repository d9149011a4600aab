"""What the control service tells of decision logs, and of outcomes that name a unit instead of a decision."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from services.control.log_status import LogStatus, read_log_statuses
from services.home import LOOPBACK
from services.store import decisions as store
from services.store.decisions import DecisionRow, LogGap
from services.traffic.records import ProcessSpec, RunningProcess, write_desired, write_running

SAYS = {"release": "telemarketing-a", "file": "f.jsonl", "written": 5, "missed": 3, "sync_failures": 1}


@pytest.fixture
def release_port() -> Iterator[int]:
    """A process that answers as a serving release does."""

    class Release(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/decision_log" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(SAYS).encode())

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer((LOOPBACK, 0), Release)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_full_disk_shows_in_status_and_metrics(running: Any, release_port: int) -> None:
    """What a serving process could not log is told while the store may know nothing of it; a silent one is no zero;
    what the logs say of gaps is told for good."""
    ports = {"telemarketing-a": release_port, "telemarketing-b": 1}
    specs = {name: ProcessSpec(name, ("x",), {}, "/", None) for name in ports}
    write_desired(running.home, specs)
    process = {name: RunningProcess(1, 1.0, port, True, 1.0, 0, "") for name, port in ports.items()}
    write_running(running.home, process)
    assert read_log_statuses(running.home) == {
        "telemarketing-a": LogStatus("telemarketing-a", "f.jsonl", 5, 3, 1),
        "telemarketing-b": None,
    }
    with running.db.write() as connection:
        store.upsert_gaps(connection, [LogGap("g", "telemarketing-a", 1.0, 2.0, 40)])
    status = running.client.get("/status").json()
    assert status["decision_logs"] == {"telemarketing-a": SAYS, "telemarketing-b": None}
    assert status["unlogged"] == {"telemarketing-a": 40}
    metrics = running.client.get("/metrics").text
    for line in ("unlogged_decisions_total", "decision_log_missed_total", "decision_log_sync_failures_total"):
        assert f'trimtab_{line}{{release="telemarketing-a"}}' in metrics
    assert 'release="telemarketing-b"' not in metrics


def test_outcomes_by_unit_and_time(running: Any) -> None:
    """Rows by unit find the shipped decisions of their window; what was found nowhere, or is not shipped, is named by
    its place, to be sent again; a row that is wrong is refused by name."""
    now = time.time()
    row = DecisionRow(
        "d1", "q1", 1, now - 60, "u1", "stable", False, "rel", "call", 0.5, 1.0, "[0,1]", "[1,0]", "{}"
    )
    with running.db.write() as connection:
        store.upsert_decisions(connection, [row])
        store.raise_mark(connection, store.SHIPPED_THROUGH, now - 30, at=now)
    units = [("u1", now - 40), ("u2", now - 40), ("u1", now - 1)]
    said = [{"unit": unit, "outcome": "subscribed", "at": at, "within_s": 3600} for unit, at in units]
    answer = running.client.post("/outcomes", json={"outcomes": [], "unit_outcomes": said}).json()
    assert (answer["new"], answer["unmatched"], answer["too_early"]) == (1, [1], [2])
    wrong = {"outcomes": [], "unit_outcomes": [{**said[0], "within_s": 0}]}
    refused = running.client.post("/outcomes", json=wrong)
    assert (refused.status_code, refused.json()["field"]) == (422, "unit_outcomes.0.within_s")
