"""The shipper: every record once, whatever is torn, rotated, bad, or killed in between."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from services.serving.decision_log import DecisionLog, Gated
from services.store import decisions as store
from services.store import tables
from services.store.database import Database, StoreError
from services.telemetry.events import log_event
from services.telemetry.records import BadLine, decision_or_gap, request_row
from services.telemetry.shipper import Shipper, ShipReport, run_shipper
from tests.decision_records import made_up_line


def record(number: int, **changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "v": 1,
        "decision_id": f"d{number}",
        "request_id": f"q{number}",
        "attempt": 1,
        "at": 1000.0 + number,
        "unit": f"u{number}",
        "assigned": "stable",
        "shadow": False,
        "release": "rel-a",
        "action": "call",
        "score": 0.5,
        "expected_utility": [0.0, 0.25],
        "probabilities": [0.5, 0.5],
        "row": {"balance": 100},
        "took_ms": 1.5,
    }
    return {**known, **changes}


def line(number: int, **changes: Any) -> str:
    return json.dumps(record(number, **changes)) + "\n"


class Logs:
    """A home's log folders and a shipper over them, with a clock that the test moves."""

    def __init__(self, db: Database, root: Path) -> None:
        self.db, self.now = db, 2000.0
        self.decisions, self.access = root / "decisions", root / "envoy" / "access.jsonl"
        (self.decisions / "rel-a").mkdir(parents=True)
        self.access.parent.mkdir()
        self.file = self.decisions / "rel-a" / "decisions-1.jsonl"
        self.restart()

    def restart(self, **settings: int) -> None:
        self.shipper = Shipper(self.db, self.decisions, self.access, clock=lambda: self.now, **settings)

    def write(self, text: str, file: Path | None = None) -> None:
        with (file or self.file).open("a") as stream:
            stream.write(text)

    def ship(self) -> ShipReport:
        return self.shipper.ship_once()

    def ids(self) -> list[str]:
        with self.db.read() as connection:
            query = select(tables.decisions.c.decision_id).order_by(tables.decisions.c.seq)
            return list(connection.execute(query).scalars())


@pytest.fixture
def logs(db: Database, tmp_path: Path) -> Logs:
    return Logs(db, tmp_path / "logs")


def test_serving_and_shipping_agree_on_the_format(logs: Logs) -> None:
    """What the decision log of services/serving writes arrives unchanged in the store."""
    written = made_up_line(
        "d1",
        attempt=2,
        at=1000.5,
        shadow=True,
        release="rel-a",
        score=0.25,
        expected_utility=[0.0, 1.5],
        probabilities=[0.5, 0.5],
        row={"age": 30},
        gated=Gated(("mail",), "mail"),
    )
    DecisionLog(logs.decisions, "rel-a", pid=7).append([written])
    report = logs.ship()
    assert (report.records, report.bad_lines, report.lag_s) == (1, 0, 0.0)
    with logs.db.read() as connection:
        row = connection.execute(select(tables.decisions)).one()
    assert (row.decision_id, row.attempt, row.at, row.unit, row.shadow) == ("d1", 2, 1000.5, None, True)
    assert row.gated == '{"off":["mail"],"instead_of":"mail"}'
    assert (row.row, row.expected_utility, row.score) == ('{"age":30}', "[0.0,1.5]", 0.25)


def test_many_files_each_record_once(logs: Logs) -> None:
    """Several releases' files are tailed together; a pass without news ships nothing."""
    other = logs.decisions / "rel-b"
    other.mkdir()
    logs.write(line(1) + line(2))
    logs.write(line(3, release="rel-b"), other / "decisions-9.jsonl")
    assert logs.ship().records == 3
    assert logs.ship().records == 0
    logs.write(line(4))
    logs.restart()
    assert logs.ship().records == 1
    assert sorted(logs.ids()) == ["d1", "d2", "d3", "d4"]


def test_torn_last_line_waits(logs: Logs) -> None:
    """A line without its newline is not a bad line: it waits, and is shipped when it is whole."""
    whole, half = line(1), line(2)
    logs.write(whole + half[:40])
    report = logs.ship()
    assert (report.records, report.bad_lines) == (1, 0)
    logs.write(half[40:])
    report = logs.ship()
    assert (report.records, report.bad_lines) == (1, 0)


def test_bad_lines_are_counted_and_skipped(logs: Logs, caplog: pytest.LogCaptureFixture) -> None:
    """What is no record is counted, said in one event per file without its content, and does not stop the rest."""
    secret = "Mrs. Example"
    bad = [
        "{broken " + secret,
        "[1]",
        line(2, v=2),
        line(3, assigned="both"),
        line(4, at="soon"),
        line(5, row=[]),
        line(7, attempt=1e300),  # no store takes such a number
    ]
    logs.write(line(1) + "\n".join(entry.strip() for entry in bad) + "\n\n" + line(6))
    with caplog.at_level(logging.WARNING):
        report = logs.ship()
    assert (report.records, report.bad_lines) == (2, 7)
    assert logs.ids() == ["d1", "d6"]
    events = [entry.getMessage() for entry in caplog.records]
    assert len(events) == 1
    assert "event=bad_lines" in events[0]
    assert "count=7" in events[0]
    assert secret not in events[0]


def test_rotated_file_is_followed(logs: Logs) -> None:
    """Renamed files are the same files; the new one under the old name is another."""
    logs.write(line(1))
    logs.ship()
    logs.write(line(2))
    logs.file.rename(logs.file.with_name("decisions-1.jsonl.1"))
    logs.write(line(3))
    assert logs.ship().records == 2
    assert sorted(logs.ids()) == ["d1", "d2", "d3"]


def test_replaced_and_truncated_files_begin_anew(logs: Logs, caplog: pytest.LogCaptureFixture) -> None:
    """A file that shrank, or whose first bytes changed under the same inode, is read from its start, and said so."""
    logs.write(line(1) + line(2))
    logs.ship()
    os.truncate(logs.file, 0)
    logs.write(line(3))
    with caplog.at_level(logging.WARNING):
        assert logs.ship().records == 1
    assert "event=log_file_reset" in caplog.text
    logs.restart()
    logs.file.write_text(
        "".join(line(number) for number in range(10, 20))
    )  # same inode, longer than the checkpoint
    assert logs.ship().records == 10


def test_a_new_file_in_the_place_of_a_deleted_one_is_read(logs: Logs) -> None:
    """A file that got the inode and the very size of one that was deleted is another file, also where the store refuses
    in between: nothing of it is passed over."""
    logs.write(line(1))
    logs.ship()
    logs.ship()
    written = logs.file.stat()
    with logs.file.open("r+") as file:  # same inode, same size: what a reused inode looks like
        file.write(line(2))
    logs.file.rename(logs.file.with_name("decisions-2.jsonl"))
    os.utime(logs.file.with_name("decisions-2.jsonl"), ns=(0, written.st_mtime_ns))
    dying = DyingDatabase(logs.db.engine, logs.db.folder)
    logs.shipper._db = dying
    with pytest.raises(StoreError, match="killed"):
        logs.ship()
    logs.shipper._db = logs.db
    assert logs.ship().records == 1
    assert logs.ids() == ["d1", "d2"]


def test_gaps_of_the_log_are_shipped_once(logs: Logs) -> None:
    """What a release could not log is accounted for in the store, by release, however often it is read."""
    gap = {"v": 1, "gap_id": "rel-a:1:5.0", "release": "rel-a", "since": 5.0, "until": 6.0, "decisions": 40}
    logs.write(line(1) + json.dumps(gap) + "\n" + line(2))
    report = logs.ship()
    assert (report.records, report.bad_lines) == (2, 0)
    with logs.db.write() as connection:
        connection.execute(tables.checkpoints.delete())
    logs.restart()
    logs.ship()
    assert store.unlogged_decisions(logs.db) == {"rel-a": 40}


class DyingDatabase(Database):
    """A store whose writer is killed when everything is written and nothing committed."""

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[Connection]:
        with super().write(durable=durable) as connection:
            yield connection
            raise StoreError("killed before the commit")


def test_killed_before_the_commit_ships_again(logs: Logs) -> None:
    """Records and checkpoint are committed together: die between writing and committing, and nothing is lost or
    doubled."""
    logs.write("".join(line(number) for number in range(50)))
    dying = DyingDatabase(logs.db.engine, logs.db.folder)
    with pytest.raises(StoreError, match="killed"):
        Shipper(dying, logs.decisions, logs.access, clock=lambda: logs.now).ship_once()
    assert logs.ids() == []
    assert store.checkpoints(logs.db) == ()
    assert logs.ship().records == 50
    logs.restart()
    assert logs.ship().records == 0
    assert len(logs.ids()) == 50


def test_killed_after_the_commit_changes_nothing(logs: Logs) -> None:
    """Even with its checkpoints gone the shipper only writes the same rows again."""
    logs.write("".join(line(number) for number in range(50)))
    logs.ship()
    with logs.db.write() as connection:
        connection.execute(tables.checkpoints.delete())
    logs.restart()
    assert logs.ship().records == 0
    assert len(logs.ids()) == 50


def test_lag_and_shipped_through(logs: Logs) -> None:
    """While a file has more to give, `shipped_through` stops at what it has given; caught up, it follows the clock."""
    logs.restart(chunk_bytes=4 * len(line(100)))
    logs.write("".join(line(number) for number in range(100, 110)))
    first = logs.ship()
    assert (first.records, first.shipped_through) == (4, 1103.0 - 1.0)
    assert first.lag_s == pytest.approx(2000.0 - 1103.0)
    while logs.ship().records:
        pass
    assert len(logs.ids()) == 10
    logs.now = 2001.0
    assert logs.ship() == ShipReport(0, 0.0, 0, 0, 2000.0)
    assert store.read_mark(logs.db, store.SHIPPED_THROUGH) == 2000.0


def test_a_clock_set_back_promises_nothing(logs: Logs) -> None:
    """An hour back, `shipped_through` follows the clock again at once, and what comes then is not late."""
    logs.ship()
    logs.now = 2000.0 - 3600.0
    logs.write(line(1, at=logs.now - 0.5))
    assert logs.ship() == ShipReport(1, 0.0, 0, 0, logs.now - 1.0)
    assert store.read_mark(logs.db, store.SHIPPED_THROUGH) == logs.now - 1.0


def test_late_decisions_are_counted(logs: Logs) -> None:
    """A decision older than what was declared shipped is stored, and counted as late."""
    logs.ship()
    logs.write(line(1, at=1998.9) + line(2, at=1999.1))
    assert (logs.ship().late, len(logs.ids())) == (1, 2)


def test_access_log_lines(logs: Logs) -> None:
    """Envoy's line becomes a request; its "-" and null are absent values, its start an instant."""
    entry = {
        "request_id": "q1",
        "unit": "u1",
        "assigned": "canary",
        "at": "2026-11-22T06:30:00.250Z",
        "status": 200,
        "duration_ms": 12,
        "attempts": 2,
        "flags": "-",
    }
    bare = {
        **entry,
        "request_id": "q2",
        "unit": None,
        "assigned": None,
        "attempts": None,
        "at": 1795329000.25,
    }
    logs.write(json.dumps(entry) + "\n" + json.dumps(bare) + "\n", logs.access)
    assert logs.ship().records == 2
    with logs.db.read() as connection:
        one, two = connection.execute(select(tables.requests).order_by(tables.requests.c.seq)).all()
    assert (one.at, one.unit, one.assigned, one.attempts, one.flags) == (1795329000.25, "u1", "canary", 2, "")
    assert (two.at, two.unit, two.assigned, two.attempts) == (1795329000.25, None, "none", 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decision_id": ""}, "'decision_id'"),
        ({"request_id": None}, "'request_id'"),
        ({"shadow": 1}, "'shadow' must be true or false"),
        ({"attempt": True}, "'attempt'"),
        ({"took_ms": None}, "'took_ms'"),
        ({"action": 3}, "'action'"),
        ({"action": "call\0"}, "'action' must not hold a NUL"),
        ({"attempt": 1e300}, "'attempt' must be >= 0 and <= 2147483647: 1e\\+300"),
        ({"attempt": -1}, "'attempt' must be >= 0"),
        ({"at": 1e300}, "'at' must be epoch seconds"),
    ],
)
def test_bad_fields_are_named(changes: dict[str, Any], message: str) -> None:
    """A record with a wrong field is refused with the field's name."""
    with pytest.raises(BadLine, match=message):
        decision_or_gap(json.dumps(record(1, **changes)).encode())
    with pytest.raises(BadLine, match="offset from UTC"):
        request_row(b'{"request_id": "q", "at": "2026-11-22T06:30:00", "status": 200, "duration_ms": 1}')
    with pytest.raises(BadLine, match="not JSON"):
        decision_or_gap(b'{"v": 1, "at": NaN}')


def test_five_hundred_records_a_second_cost_little(logs: Logs) -> None:
    """Ten seconds of 500 records a second, shipped four times a second, take less than a tenth of a core."""
    rows = {"job": "admin.", "marital": "single", "education": "tertiary", "balance": 1234, "month": "may"}
    took = time.process_time()
    for part in range(40):
        logs.write("".join(line(part * 125 + number, row=rows) for number in range(125)))
        logs.now += 0.25
        assert logs.ship().records == 125
    took = time.process_time() - took
    print(f"ship_cpu_share={took / 10:.3f} (writing the lines included)")
    assert took < 2.0  # 10 s of traffic; generous for slow machines


def test_shipper_survives_a_store_that_refuses(logs: Logs, caplog: pytest.LogCaptureFixture) -> None:
    """A failed pass is an event; the next one ships."""
    stop, reports = threading.Event(), list[ShipReport]()
    calls = iter([True, False, False])

    class Failing(Shipper):
        def ship_once(self) -> ShipReport:
            if next(calls, False):
                raise StoreError("the store does not answer: locked")
            return super().ship_once()

    logs.write(line(1))
    shipper = Failing(logs.db, logs.decisions, logs.access, clock=lambda: logs.now)

    def take(report: ShipReport) -> None:
        reports.append(report)
        stop.set()

    with caplog.at_level(logging.ERROR):
        run_shipper(shipper, stop, interval_s=0.01, on_report=take)
    assert [report.records for report in reports] == [1]
    assert 'event=ship_failed error=StoreError why="the store does not answer: locked"' in caplog.text


def test_events_are_key_value(caplog: pytest.LogCaptureFixture) -> None:
    """Events are one line of key=value, quoted only where needed."""
    emit: Callable[..., None] = log_event
    with caplog.at_level(logging.INFO):
        emit(logging.getLogger("t"), "kill", by="ann lee", n=3, lag_s=0.25, path="/a/b", text='say "hi"\n')
    assert caplog.messages == ['event=kill by="ann lee" n=3 lag_s=0.25 path=/a/b text="say \\"hi\\"\\n"']
