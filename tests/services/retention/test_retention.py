"""Retention: old days go to Parquet, each row once, whatever is killed; what is open or not shipped stays."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from sqlalchemy import select

from services.home import Home, Ports
from services.ledger.ledger import append, entries, verify
from services.retention.archive import archived_days
from services.retention.retention import Done, Kept, run_retention
from services.serving.decision_log import DecisionLog, LogLimits
from services.store import decisions as store
from services.store import rollouts, tables
from services.store.database import Database, open_database
from services.store.decisions import DecisionRow, LogGap, RequestRow
from services.store.measurements import Measurement, record_measurements
from services.store.outcomes import Outcome, record_outcomes
from services.store.rollouts import RolloutRecord
from services.telemetry.shipper import Shipper
from tests.decision_records import made_up_line

DAY_S = 86_400.0
NOW = datetime(2026, 11, 22, 15, tzinfo=UTC).timestamp()
KEPT = Kept(store_s=3 * DAY_S, logs_s=DAY_S)  # 2026-11-19 is the first day that stays
DECISION = DecisionRow(
    "d1", "q1", 1, 10.0, "u1", "stable", False, "rel", "call", 0.5, 1.0, "[0,1]", "[1,0]", '{"age":30}'
)


def at(day: int, hour: float = 12.0) -> float:
    return datetime(2026, 11, day, tzinfo=UTC).timestamp() + hour * 3600


def decision(number: int, moment: float) -> DecisionRow:
    return replace(DECISION, decision_id=f"d{number}", request_id=f"q{number}", at=moment)


def fill(db: Database, *rows: DecisionRow) -> None:
    """Decisions, their requests, and an outcome an hour after each."""
    with db.write() as connection:
        store.upsert_decisions(connection, rows)
        requests = [RequestRow(row.request_id, row.unit, "stable", row.at, 200, 1.0, 1, "") for row in rows]
        store.upsert_requests(connection, requests)
    known = [Outcome(row.decision_id, "subscribed", row.at + 3600) for row in rows]
    record_outcomes(db, known, received_at=NOW)


def stored(db: Database, table: str = "decisions") -> set[str]:
    key = tables.metadata.tables[table].c["request_id" if table == "requests" else "decision_id"]
    with db.read() as connection:
        return set(connection.execute(select(key)).scalars())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", Ports(0))


def run(home: Home, db: Database, kept: Kept = KEPT, **more: Any) -> Done:
    return run_retention(home, db, kept, now=NOW, by="ann", **more)


def test_whole_old_days_go_and_the_archive_has_each_row_once(db: Database, home: Home) -> None:
    """Rows of the days before the cutoff are in the archive by their own UTC day, readable by polars and DuckDB; newer
    ones stay; outcome and amount go after their decision."""
    rows = [
        decision(1, at(17, 0.0)),
        decision(2, at(17, 23.9)),
        decision(3, at(18)),
        decision(4, at(19, 0.0)),
    ]
    fill(db, *rows, decision(5, at(22)))
    record_outcomes(db, [Outcome("d1", "not_subscribed", at(17, 0.5))], received_at=NOW)
    amounts = [Measurement(f"d{number}", "call_cost", 1.5, at(17)) for number in (1, 4)]
    record_measurements(db, amounts, received_at=NOW)
    with db.write() as connection:
        store.upsert_gaps(connection, [LogGap("g1", "rel", at(17), at(17), 3)])
    done = run(home, db)
    assert (done.before, done.held_by) == (date(2026, 11, 19), None)
    assert done.archived == done.deleted
    # d2's outcome is of the 18th; d3's of the 18th, too.
    wanted = {"decisions": 3, "outcomes": 3, "outcome_conflicts": 1, "requests": 3, "log_gaps": 1}
    wanted["measurements"] = 1
    assert done.archived == wanted
    assert stored(db) == stored(db, "outcomes") == {"d4", "d5"}
    assert stored(db, "measurements") == {"d4"}
    assert stored(db, "requests") == {"q4", "q5"}
    days = {(one.table, one.day.day, one.rows) for one in archived_days(home.archive)}
    assert {("decisions", 17, 2), ("decisions", 18, 1), ("outcomes", 17, 1), ("outcomes", 18, 2)} <= days
    files = home.archive / "decisions" / "*" / "*.parquet"
    frame = pl.read_parquet(files, hive_partitioning=True)
    assert frame.sort("decision_id")["day"].to_list() == [date(2026, 11, day) for day in (17, 17, 18)]
    query = f"select decision_id, \"row\"->>'age' from '{files}' where day = '2026-11-17' order by \"at\""  # noqa: S608
    assert duckdb.sql(query).fetchall() == [("d1", "30"), ("d2", "30")]
    assert {path.stat().st_mode & 0o077 for path in home.archive.rglob("*.parquet")} == {0}


def test_a_second_run_does_nothing_and_a_dry_one_only_counts(db: Database, home: Home) -> None:
    """Dry: the same numbers, nothing moved. Again: nothing left to do, and no entry in the ledger."""
    fill(db, decision(1, at(17)), decision(2, at(22)))
    dry = run(home, db, is_dry=True)
    assert (dry.deleted["decisions"], dry.deleted["requests"], stored(db)) == (1, 1, {"d1", "d2"})
    assert list(archived_days(home.archive)) == []
    assert not run(home, db).is_nothing
    assert run(home, db).is_nothing
    (entry,) = entries(db, kind="retention")
    assert (entry.body["by"], entry.body["before"]) == ("ann", "2026-11-19")


def test_what_comes_late_joins_its_day(db: Database, home: Home) -> None:
    """A decision that is shipped late, and an outcome that comes after its decision was archived, are archived by the
    next run; what is said twice is there once."""
    fill(db, decision(1, at(17)), decision(9, at(22)))
    run(home, db)
    with db.write() as connection:
        store.upsert_decisions(connection, [decision(1, at(17)), decision(2, at(17)), decision(8, at(22))])
    record_outcomes(db, [Outcome("d1", "not_subscribed", at(18))], received_at=NOW)
    done = run(home, db)
    assert (done.archived["decisions"], done.deleted["decisions"]) == (1, 2)
    ids = pl.read_parquet(home.archive / "decisions/day=2026-11-17/*.parquet")["decision_id"].to_list()
    assert sorted(ids) == ["d1", "d2"]
    said = pl.read_parquet(home.archive / "outcomes/*/*.parquet").filter(pl.col("decision_id") == "d1")
    assert said.sort("at")["outcome"].to_list() == ["subscribed", "not_subscribed"]


def test_an_open_rollout_keeps_every_day_that_it_has_seen(
    db: Database, home: Home, draft: RolloutRecord
) -> None:
    """Evidence is counted from a rollout's creation on, however long ago that is; ended, its days go."""
    created = rollouts.create(db, replace(draft, created_at=at(17, 6.0), updated_at=at(17, 6.0)))
    fill(db, decision(1, at(16)), decision(2, at(17, 1.0)), decision(3, at(18)), decision(4, at(22)))
    done = run(home, db)
    assert (done.before, done.held_by) == (date(2026, 11, 17), created.id)
    assert stored(db) == {"d2", "d3", "d4"}
    rollouts.save(db, replace(created, ended_at=at(19)), at=at(19))
    run(home, db)
    assert stored(db) == {"d4"}
    assert len(rollouts.recent(db)) == 1


def test_ledger_and_evidence_stay_and_numbers_are_never_given_twice(db: Database, home: Home) -> None:
    """With every decision old: the ledger verifies, and what is shipped next has a higher number than all before."""
    append(db, "note", {"text": "old"}, service="telemarketing", rollout_id=None, at=at(1))
    fill(db, *(decision(number, at(10)) for number in range(1, 6)))
    run(home, db)
    assert stored(db) == {"d5"}
    fill(db, decision(6, at(22)))
    with db.read() as connection:
        query = select(tables.decisions.c.seq).where(tables.decisions.c.decision_id == "d6")
        assert connection.execute(query).scalar_one() > 5
    assert verify(db).ok
    assert [entry.kind for entry in entries(db)] == ["note", "retention"]


def test_days_of_the_archive_go_for_good_when_asked(db: Database, home: Home) -> None:
    """Days before the last kept one are erased; the others stay. What may not be is refused by name."""
    fill(db, decision(1, at(10)), decision(2, at(15)), decision(3, at(22)))
    done = run(home, db, replace(KEPT, archive_s=8 * DAY_S))
    assert (done.erased_days, done.erased_rows) == (3, 3)  # decisions, outcomes, requests of the 10th
    assert {one.day.day for one in archived_days(home.archive)} == {15}
    assert [entry.kind for entry in entries(db)] == [
        "retention_erases",
        "retention",
    ]  # the intent comes first
    assert next(iter(entries(db))).body == {"by": "ann", "before": "2026-11-14"}
    with pytest.raises(ValueError, match=r"'archive_s' must be > store_s = 259200: 86400"):
        Kept(store_s=3 * DAY_S, logs_s=DAY_S, archive_s=DAY_S)
    with pytest.raises(ValueError, match="'store_s' must be >= 86400: 60"):
        Kept(store_s=60.0, logs_s=DAY_S)


def test_killed_at_any_instant_nothing_is_lost_or_doubled(store_url: str, home: Home, tmp_path: Path) -> None:
    """SIGKILL of a real run again and again, later each time: archive and store together always hold every row, and in
    the end the archive holds each old one once."""
    db = open_database(store_url, folder=tmp_path)
    everything = [decision(number, at(10 + number % 8, number % 24)) for number in range(2_400)]
    fill(db, *everything, decision(10_000, at(22)))
    code = (
        "import sys; from pathlib import Path; from services.home import Home, Ports\n"
        "from services.store.database import open_database\n"
        "from services.retention import retention\n"
        "retention.ROWS_A_PART = 250\n"
        "db = open_database(sys.argv[1], folder=Path(sys.argv[2]))\n"
        "print('begun', flush=True)\n"
        "kept = retention.Kept(3 * 86400.0, 86400.0)\n"
        "retention.run_retention(Home(Path(sys.argv[3]), Ports(0)), db, kept, now=float(sys.argv[4]), by='ann')\n"
    )
    argv = [sys.executable, "-c", code, store_url, str(tmp_path), str(home.root), str(NOW)]
    kills, patience_s = 0, 0.15
    while True:
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            try:
                assert process.wait(patience_s) == 0
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
        patience_s *= 2.5
        parts = list(home.archive.glob("decisions/*/part-*.parquet"))
        kept = set(pl.read_parquet(parts)["decision_id"]) if parts else set()
        assert kept | stored(db) >= {row.decision_id for row in everything}
    assert kills >= 2
    for table, key in (("decisions", "decision_id"), ("requests", "request_id"), ("outcomes", "decision_id")):
        frame = pl.read_parquet(home.archive / table / "*" / "*.parquet")
        assert frame.height == len(everything)
        assert frame[key].n_unique() == len(everything)
    db.close()


def logged(name: str, moment: float) -> bytes:
    return made_up_line(name, at=moment, release="rel")


@pytest.fixture
def shipper(home: Home, db: Database) -> Shipper:
    home.access_log.parent.mkdir(parents=True)
    return Shipper(db, home.decision_logs, home.access_log, clock=lambda: NOW)


def test_only_logs_that_are_shipped_ended_and_old_are_deleted(
    db: Database, home: Home, shipper: Shipper
) -> None:
    """The file in use stays by its lock, a file that is not shipped stays and is named, a young one stays; a torn last
    line keeps nothing; the shipper goes on with what takes the deleted files' places."""
    log = DecisionLog(home.decision_logs, "rel", pid=7, limits=LogLimits(max_bytes=1))
    for number in range(1, 5):
        log.append([logged(f"d{number}", at(22))])
    shipped, torn, young, in_use = sorted((home.decision_logs / "rel").iterdir())
    with torn.open("ab") as file:
        file.write(b'{"v":1,"deci')
    shipper.ship_once()
    unshipped = home.decision_logs / "gone" / "decisions-9-0001.jsonl"
    unshipped.parent.mkdir()
    unshipped.write_bytes(logged("d9", at(22)))
    aside, second = (home.access_log.with_name(f"access.jsonl.{name}") for name in ("1795329000", "second"))
    for path in (aside, second, home.access_log):
        path.touch()
    for path in (shipped, torn, unshipped, in_use, aside, second, home.access_log):
        os.utime(path, (NOW - 2 * DAY_S, NOW - 2 * DAY_S))
    os.utime(young, (NOW, NOW))
    done = run(home, db)
    assert done.logs == 3
    assert sorted(home.access_log.parent.iterdir()) == [
        home.access_log,
        second,
    ]  # a proxy may have these open
    assert {Path(path).name: why for path, why in done.logs_kept.items()} == {
        "decisions-7-0004.jsonl": "is being written",
        "decisions-9-0001.jsonl": f"shipped up to 0 of {unshipped.stat().st_size} bytes",
    }
    assert {one.path for one in store.checkpoints(db)} == {str(young), str(in_use)}
    assert sorted((home.decision_logs / "rel").iterdir()) == [young, in_use]
    for number in range(5, 9):  # on most file systems these get the inodes of the deleted ones
        log.append([logged(f"d{number}", at(22))])
    shipper.ship_once()
    assert stored(db) == {f"d{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9)}


def test_a_log_in_the_place_of_a_deleted_one_is_not_taken_for_shipped(
    db: Database, home: Home, shipper: Shipper
) -> None:
    """The inode of a log that somebody deleted goes to the next one; that the old one was shipped to its end says
    nothing about the new one, however short it is, while the shipper is away."""
    folder = home.decision_logs / "rel"
    folder.mkdir(parents=True)
    log = folder / "decisions-7-0001.jsonl"
    lines = [logged(f"d{number}", at(20)) for number in range(3)]
    log.write_bytes(b"".join(lines))
    shipper.ship_once()
    log.write_bytes(b"".join(reversed(lines)))  # the same inode, no longer, other content
    os.utime(log, (at(20), at(20)))
    done = run(home, db)
    assert (done.logs, list(done.logs_kept.values())) == (
        0,
        [f"shipped up to 0 of {log.stat().st_size} bytes"],
    )
    assert log.exists()


def test_retention_beside_writers_is_short_in_every_lock(db: Database, home: Home) -> None:
    """While 24,000 rows go, another writer of the store never waits longer than half a second."""
    fill(db, *(decision(number, at(17)) for number in range(8_000)), decision(30_000, at(22)))
    code = (
        "import sys, time; from pathlib import Path; from services.store.database import open_database\n"
        "from services.store.decisions import set_watermark\n"
        "db = open_database(sys.argv[1], folder=Path(sys.argv[2])); worst = 0.0; n = 0\n"
        "while not Path(sys.argv[3]).exists():\n"
        "    began = time.monotonic(); n += 1; set_watermark(db, float(n), at=0.0)\n"
        "    worst = max(worst, time.monotonic() - began); time.sleep(0.01)\n"
        "print(worst)"
    )
    end = home.root.parent / "end"
    url = db.engine.url.render_as_string(hide_password=False)
    argv = [sys.executable, "-c", code, url, str(db.folder), str(end)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(1.0)
        began = time.monotonic()
        assert run(home, db).deleted["decisions"] == 8_000
        took_s = time.monotonic() - began
        end.touch()
        worst_s = float(process.communicate(timeout=60)[0])
    print(f"retention_rows_per_s={24_000 / took_s:.0f} longest_wait_of_another_writer_s={worst_s:.3f}")
    assert worst_s < 0.5 * 3  # shared cores
