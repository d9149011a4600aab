"""Rows of one's own: the same from Parquet and CSV, refused in words a newcomer understands."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.read_rows import RowsError, read_rows
from services.data.contract import DataContract
from services.data.splits import by_event_time
from services.rollout.policy_set import load_policies


@pytest.fixture(scope="module")
def contract() -> DataContract:
    return load_policies("telemarketing").contract


def test_none_is_the_bank_s_calls(contract: DataContract) -> None:
    """Without a file, the 45,211 calls that ship with Trimtab."""
    assert len(read_rows(None, contract)) == 45_211


@pytest.mark.parametrize("name", ["mine.parquet", "mine.csv"])
def test_a_file_gives_the_same_rows_in_time(contract: DataContract, tmp_path: Path, name: str) -> None:
    """Parquet and CSV give the same values, the event time as UTC instants, so splits by time agree."""
    calls = read_rows(None, contract).head(300)
    path = tmp_path / name
    if path.suffix == ".csv":
        calls.write_csv(path)
    else:
        calls.write_parquet(path)
    found = read_rows(path, contract)
    assert found.equals(calls)
    assert found["called_at"][0] == datetime(2008, 5, 5, 9, tzinfo=UTC)
    assert len(by_event_time(found, contract, start=0.0, stop=0.5)) == 150


def test_what_is_wrong_is_said(contract: DataContract, tmp_path: Path) -> None:
    """No file, another kind of file, no Parquet inside, or a column the contract needs is missing: each is named."""
    with pytest.raises(RowsError, match="there is no file"):
        read_rows(tmp_path / "none.csv", contract)
    other = tmp_path / "mine.xlsx"
    other.write_text("x")
    with pytest.raises(RowsError, match=r"must be \.parquet, \.csv or \.csv\.gz"):
        read_rows(other, contract)
    hollow = tmp_path / "mine.parquet"
    hollow.write_text("x")
    with pytest.raises(RowsError, match="cannot be read"):
        read_rows(hollow, contract)
    short = tmp_path / "short.csv"
    short.write_text("call_id,age\nc00001,30\n")
    with pytest.raises(RowsError, match="lacks called_at, y, which the contract names; it has call_id, age"):
        read_rows(short, contract)
