"""Rows against the contract: whole columns at once judge as row by row does, whatever is sent."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.serving.row_check import MANY_ROWS, RowCheck, RowRefused

Row = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """A contract's column as far as serving reads it."""

    name: str
    kind: str
    required: bool = True
    role: str = "feature"
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None
    available_at_s: float = 0.0
    pattern: str | None = None
    min_length: int | None = None
    max_length: int | None = None


NEEDED = (
    Field("share", "number", minimum=0.0, maximum=1.0),
    Field("day", "integer", minimum=1),
    Field("is_new", "boolean"),
    Field("job", "category", categories=("clerk", "none")),
    Field("code", "text", pattern="^[A-Z]+$", max_length=3),
    Field("called_at", "timestamp"),
)
FIELDS = (*NEEDED, *(replace(field, name=f"{field.name}_or_not", required=False) for field in NEEDED))
GOOD: Row = {
    "share": 0.5,
    "day": 3,
    "is_new": True,
    "job": "clerk",
    "code": "AB",
    "called_at": "2026-11-22T10:00:00",
}
CHECK = RowCheck(FIELDS, payoff_fields=())

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(
        [0, 1, 1.0, 2, -0.0, "clerk", "none", "", "AB", "ABCD", "ab", "2026-11-22", [], {}, ["clerk"]]
    ),
)
names = st.sampled_from([field.name for field in FIELDS] + ["unknown"])
changes = st.lists(st.tuples(st.integers(0, MANY_ROWS), names, values, st.booleans()), max_size=6)


def refusal(rows: list[Any]) -> object:
    try:
        CHECK.columns(rows)
    except RowRefused as refused:
        return refused.to_json()
    return None


@settings(max_examples=300, deadline=None)
@given(changes)
def test_many_rows_are_judged_as_each_alone(made: list[tuple[int, str, Any, bool]]) -> None:
    """Whatever is changed in a batch, it is refused for the first row that is refused alone, with the same words."""
    rows = [dict(GOOD) for _ in range(MANY_ROWS + 1)]
    for at, name, value, is_taken_out in made:
        if is_taken_out:
            rows[at].pop(name, None)
        else:
            rows[at][name] = value
    alone = [refusal([row]) for row in rows]
    first = next((at for at, found in enumerate(alone) if found is not None), None)
    expected = None if first is None else {**alone[first], "row": first}  # type: ignore[dict-item]
    assert refusal(rows) == expected


@pytest.mark.parametrize("wrong", [3, None, "row", ["share"], [GOOD]])
def test_what_is_no_object_is_refused_among_many(wrong: Any) -> None:
    """A batch that holds something else than objects names the place of the first."""
    found = refusal([dict(GOOD)] * MANY_ROWS + [wrong])
    assert isinstance(found, dict)
    assert (found["row"], found["field"], found["bound"]) == (MANY_ROWS, None, "an object")


@pytest.mark.parametrize("at", [0, 1, MANY_ROWS])
@pytest.mark.parametrize("unknown", ["unknown", "day_or_not"])
def test_as_many_fields_in_all_are_not_the_same_fields(at: int, unknown: str) -> None:
    """One row has a field more and another one less, so that the number of fields is that of rows which are alike."""
    rows = [dict(GOOD) for _ in range(MANY_ROWS + 1)]
    rows[at][unknown] = 1
    del rows[2]["share"]
    found = refusal(rows)
    assert isinstance(found, dict)
    assert (found["row"], found["field"]) == (
        (at, unknown) if unknown == "unknown" and at < 2 else (2, "share")
    )


def test_columns_hold_the_values_in_order() -> None:
    """Numbers and booleans become float64 with NaN for missing, the rest objects with None; no order is lost."""
    rows = [{**GOOD, "day": at, "day_or_not": at or None, "job_or_not": "none"} for at in range(1, 20)]
    rows[4] = {**GOOD, "day": 5}
    columns = CHECK.columns(rows)
    assert set(columns) == {field.name for field in FIELDS}
    assert columns["day"].dtype == np.float64
    assert columns["day"].tolist() == [float(at) for at in range(1, 20)]
    assert columns["is_new"].tolist() == [1.0] * 19
    assert math.isnan(columns["day_or_not"][4])
    assert columns["day_or_not"][5] == 6.0
    assert columns["job_or_not"].tolist() == ["none"] * 4 + [None] + ["none"] * 14
    assert columns["code"].dtype == object
    for name, column in CHECK.columns(rows[:1]).items():
        np.testing.assert_array_equal(column, columns[name][:1])
