"""Outcomes from files: three formats, by decision or by unit; refused whole with every mistake, recorded once."""

import gzip
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import select

from services.store import decisions as store
from services.store import tables
from services.store.database import Database
from services.store.decisions import DecisionRow
from services.store.measurements import Measurement, measured_decisions
from services.store.outcomes import Outcome, OutcomeReceipt, UnitOutcome
from services.telemetry import outcome_file
from services.telemetry.outcome_file import Imported, OutcomeFileError, import_outcomes, read_outcomes

KNOWN = ("not_subscribed", "subscribed")
NOW = 2_000_000_000.0
AT = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
DECISION = DecisionRow(
    "d1", "q1", 1, 10.0, "u1", "stable", False, "rel", "call", 0.5, 1.0, "[0,1]", "[1,0]", "{}"
)


def refused(path: Path, *, within_s: float | None = None) -> list[str]:
    with pytest.raises(OutcomeFileError) as caught:
        read_outcomes(path, outcomes=KNOWN, within_s=within_s, now=NOW)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_each_format_says_the_same(tmp_path: Path, kind: str) -> None:
    """A decision_id goes before a unit; times are epoch seconds, ISO texts with an offset, or Parquet's timestamps."""
    path = tmp_path / f"outcomes.{kind}"
    frame = pl.DataFrame(
        {
            "decision_id": ["d1", None, "d3"],
            "unit": ["u1", "u2", None],
            "outcome": ["subscribed", "not_subscribed", "subscribed"],
            "at": ["2026-11-22T07:30:00+01:00", str(AT.timestamp()), "2026-11-22T06:30:00Z"],
        }
    )
    if kind == "csv":
        frame.write_csv(path)
    elif kind == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.with_columns(pl.lit(AT).alias("at")).write_parquet(path)
    found = read_outcomes(path, outcomes=KNOWN, within_s=60.0, now=NOW)
    at = AT.timestamp()
    assert found.named == (Outcome("d1", "subscribed", at), Outcome("d3", "subscribed", at))
    assert found.of_units == (UnitOutcome("u2", "not_subscribed", at, 60.0),)


def test_every_mistake_is_named_with_its_row(tmp_path: Path) -> None:
    """Unknown outcome with a hint, times that are none, without offset or ahead of now, rows about nobody."""
    path = tmp_path / "outcomes.csv"
    path.write_text(
        "decision_id,unit,outcome,at\n"
        "d1,,subscribd,10\n"
        "d2,,subscribed,soon\n"
        "d3,,subscribed,2026-11-22T06:30:00\n"
        "d4,,subscribed,3000000000\n"
        ",,subscribed,10\n"
        ",u1,subscribed,10\n"
        "d7,,subscribed,10\n"
    )
    lines = refused(path)
    assert [line.partition(":")[0] for line in lines[1:]] == [f"row {number}" for number in range(1, 7)]
    assert "must be one of not_subscribed, subscribed: 'subscribd'; did you mean 'subscribed'?" in lines[1]
    assert "'at' must be epoch seconds, or ISO 8601 with its offset from UTC: 'soon'" in lines[2]
    assert "must be in the past" in lines[4]
    assert "'--within' must say" in lines[6]


def test_more_than_twenty_mistakes_are_counted(tmp_path: Path) -> None:
    """Twenty are shown, the rest is a number."""
    path = tmp_path / "outcomes.csv"
    path.write_text("decision_id,outcome,at\n" + "d,subscribed,x\n" * 25)
    lines = refused(path)
    assert (len(lines), lines[-1]) == (22, "and 5 more")


def test_a_file_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    """No file, no such kind, no such columns, not what its name says."""
    assert "there is no file" in refused(tmp_path / "none.csv")[0]
    wrong = tmp_path / "outcomes.xlsx"
    wrong.write_bytes(b"")
    assert "'file' must be .csv" in refused(wrong)[0]
    bare = tmp_path / "bare.csv"
    bare.write_text("outcome,at\nsubscribed,1\n")
    assert "must have the column decision_id or unit; it has outcome, at" in refused(bare)[0]
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    assert "cannot be read" in refused(broken)[0]
    torn = tmp_path / "torn.csv.gz"
    torn.write_bytes(gzip.compress(b"decision_id,outcome,at\nd1,subscribed,1\n" * 99)[:-6])
    assert "cannot be read" in refused(torn)[0]


def test_what_says_two_things_at_once_is_refused(tmp_path: Path) -> None:
    """A column that stands twice, ids that no request ever had, numbers as only Python writes them."""
    path = tmp_path / "outcomes.csv"
    path.write_text("decision_id,outcome,at,outcome\nd1,subscribed,1,not_subscribed\n")
    assert "must have the column outcome once" in refused(path)[0]
    path.write_text(
        "decision_id,unit,outcome,at\n"
        f"{'d' * 201},,subscribed,10\nd\x1b[2J,,subscribed,10\n,u\0,subscribed,10\nd4,,subscribed,1_0\n"
    )
    lines = refused(path, within_s=60.0)[1:]
    assert [line.partition("must be")[0] for line in lines] == [
        "row 1: 'decision_id' ",
        "row 2: 'decision_id' ",
        "row 3: 'unit' ",
        "row 4: 'at' ",
    ]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    """What a spreadsheet writes is read: a byte order mark, and lines that end in CR LF."""
    path = tmp_path / "outcomes.csv"
    path.write_bytes(b"\xef\xbb\xbfdecision_id,outcome,at\r\nd1,subscribed,1\r\n")
    found = read_outcomes(path, outcomes=KNOWN, within_s=None, now=NOW)
    assert found.named == (Outcome("d1", "subscribed", 1.0),)


def test_an_import_can_be_repeated_and_takes_up_what_was_too_early(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By decision and by unit in one file, in several transactions; again: duplicates only; once the shipper has
    passed, the rest."""
    monkeypatch.setattr(outcome_file, "ROWS_AT_ONCE", 2)
    with db.write() as connection:
        rows = [replace(DECISION, decision_id=f"d{n}", request_id=f"q{n}", unit=f"u{n}") for n in range(1, 6)]
        store.upsert_decisions(connection, rows)
        store.raise_mark(connection, store.SHIPPED_THROUGH, 50.0, at=50.0)
    path = tmp_path / "outcomes.csv"
    path.write_text(
        "decision_id,unit,outcome,at\n"
        "d1,,subscribed,20\nd2,,subscribed,20\nd3,,subscribed,20\n"
        ",u4,subscribed,40\n,u9,subscribed,40\n,u5,not_subscribed,60\n"
    )
    read = read_outcomes(path, outcomes=KNOWN, within_s=100.0, now=NOW)
    assert import_outcomes(db, read, received_at=70.0) == Imported(OutcomeReceipt(4, 0, 0, 0), 1, 1)
    assert import_outcomes(db, read, received_at=71.0) == Imported(OutcomeReceipt(0, 4, 0, 0), 1, 1)
    with db.write() as connection:
        store.raise_mark(connection, store.SHIPPED_THROUGH, 80.0, at=80.0)
    assert import_outcomes(db, read, received_at=81.0) == Imported(OutcomeReceipt(1, 4, 0, 0), 1, 0)
    with db.read() as connection:
        assert len(connection.execute(select(tables.outcomes)).all()) == 5


def test_amounts_come_with_decisions(db: Database, tmp_path: Path) -> None:
    """Columns that utility.yaml names as amounts are recorded where they are not empty; other columns are not read."""
    path = tmp_path / "outcomes.csv"
    text = "decision_id,unit,outcome,at,call_cost,note\nd1,,subscribed,1000,1.25,x\nd2,,subscribed,1000,,7\n"
    path.write_text(text)
    rows = read_outcomes(path, outcomes=KNOWN, within_s=None, now=NOW, amounts=("call_cost", "deposited"))
    assert rows.measured == (Measurement("d1", "call_cost", 1.25, 1000.0),)
    with db.write() as connection:
        store.upsert_decisions(connection, [DECISION])
    for _ in range(2):
        import_outcomes(db, rows, received_at=NOW)
    assert [(one.name, one.value) for one in measured_decisions(db, since=0.0, limit=9)] == [
        ("call_cost", 1.25)
    ]


def test_an_amount_that_is_none_is_named_with_its_row(tmp_path: Path) -> None:
    """A text, not a number, a unit instead of a decision: each refuses the file."""
    path = tmp_path / "outcomes.csv"
    path.write_text(
        "decision_id,unit,outcome,at,call_cost\nd1,,subscribed,1000,dear\nd2,,subscribed,1000,nan\n,u1,subscribed,1000,1\n"
    )
    with pytest.raises(OutcomeFileError) as caught:
        read_outcomes(path, outcomes=KNOWN, within_s=60.0, now=NOW, amounts=("call_cost",))
    assert str(caught.value).splitlines()[1:] == [
        "row 1: 'call_cost' must be a number: 'dear'",
        "row 2: 'call_cost' must be a number: 'nan'",
        "row 3: 'call_cost' must go with a decision_id: a unit may have several decisions",
    ]
