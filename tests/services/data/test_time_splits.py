"""What splits promise: earlier before later, nothing twice, young labels unlabelled."""

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from services.data.contract import load_contract
from services.data.splits import SplitError, by_event_time, mature, to_arrays
from services.rehearsal.bank_marketing import read_calls

TEXT = (Path(__file__).parents[3] / "policies" / "telemarketing" / "contract.yaml").read_text(
    encoding="utf-8"
)
CONTRACT = load_contract(TEXT, "contract.yaml")


@pytest.fixture(scope="module")
def calls() -> pl.DataFrame:
    return read_calls()


def test_splits_do_not_overlap_in_time(calls: pl.DataFrame) -> None:
    """Neighbouring splits of shuffled rows partition them, and each ends before the next begins."""
    shuffled = calls.sample(fraction=1.0, shuffle=True, seed=7)
    cuts = (0.0, 0.3, 0.6, 0.8, 1.0)
    parts = [by_event_time(shuffled, CONTRACT, start=a, stop=b) for a, b in pairwise(cuts)]
    assert [part.height for part in parts] == [13_563, 13_563, 9_042, 9_043]
    assert pl.concat(parts)["call_id"].to_list() == calls["call_id"].to_list()
    for earlier, later in pairwise(parts):
        assert earlier["called_at"].max() < later["called_at"].min()


def test_the_last_forty_per_cent_are_18085_calls(calls: pl.DataFrame) -> None:
    """The rows replayed in the main job are those after the first 60 % in time."""
    assert by_event_time(calls, CONTRACT, start=0.6, stop=1.0).height == 18_085


def test_rows_of_one_instant_stay_together(calls: pl.DataFrame) -> None:
    """A cut within one day, where only days are known, moves back to the day's start."""
    days = calls.with_columns(pl.col("called_at").dt.truncate("1d"))
    first, rest = (by_event_time(days, CONTRACT, start=a, stop=b) for a, b in ((0.0, 0.3), (0.3, 1.0)))
    assert first.height + rest.height == calls.height
    assert first["called_at"].max() < rest["called_at"].min()


@pytest.mark.parametrize(("start", "stop"), [(0.5, 0.5), (0.6, 0.3), (-0.1, 0.5), (0.5, 1.1)])
def test_impossible_splits_are_refused(calls: pl.DataFrame, start: float, stop: float) -> None:
    """A split that is empty or outside the whole raises SplitError."""
    with pytest.raises(SplitError, match="must have 0 <= start < stop <= 1"):
        by_event_time(calls, CONTRACT, start=start, stop=stop)


def test_young_labels_are_unlabelled_never_negative(calls: pl.DataFrame) -> None:
    """At 10:00 on a day, labels of calls after 10:00 of the day before (delay 1 day) are null; older ones stay."""
    as_of = datetime(2010, 11, 17, 10, tzinfo=UTC)
    seen = mature(calls, CONTRACT, as_of.timestamp())
    young = calls["called_at"] > datetime(2010, 11, 16, 10, tzinfo=UTC)
    assert 0 < young.sum() < 100
    assert seen["y"].is_null().to_list() == young.to_list()
    assert seen.filter(~young)["y"].to_list() == calls.filter(~young)["y"].to_list()


def test_arrays_have_nan_and_none_for_null() -> None:
    """Numbers become float64 with NaN, texts objects with None, times epoch seconds."""
    moment = datetime(2009, 1, 1, tzinfo=UTC)
    frame = pl.DataFrame(
        {"day": [1, None], "y": ["no", None], "called_at": [moment, moment], "iban": ["x", "y"]}
    )
    arrays = to_arrays(frame, CONTRACT)
    assert set(arrays) == {"day", "y", "called_at"}
    np.testing.assert_array_equal(arrays["day"], [1.0, np.nan])
    assert arrays["y"].tolist() == ["no", None]
    assert arrays["called_at"].tolist() == [moment.timestamp()] * 2
