"""Measured amounts with the rows they were measured on: from the store's decisions, or from a file of rows.

Must never import Prefect, sqlalchemy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import orjson

from policies.utility.reestimation import Amounts
from policies.utility.utility import UtilitySpec
from services.store.database import Database
from services.store.measurements import MeasuredDecision, measured_decisions

if TYPE_CHECKING:
    import polars as pl

MOST_DECISIONS = 200_000


@dataclass(frozen=True)
class MeasuredAmounts:
    """The amounts by name, and how many decisions are not among them for want of a field that a quantity reads."""

    amounts: Mapping[str, Amounts]
    left_out: int
    source: str


def amounts_of_store(db: Database, utility: UtilitySpec, *, since: float) -> MeasuredAmounts:
    """What came with the outcomes of the service's decisions taken since then (epoch s); the newest 200,000."""
    found = [
        one
        for one in measured_decisions(db, since=since, limit=MOST_DECISIONS)
        if one.release.rpartition("-")[0] == utility.service
    ]
    amounts, left_out = {}, 0
    for name, fields in _wanted(utility).items():
        own = [one for one in found if one.name == name]
        values, columns = _rows(own, fields)
        left_out += len(own) - len(values)
        if values:
            amounts[name] = Amounts(np.array(values), columns)
    return MeasuredAmounts(amounts, left_out, "decisions of the store")


def amounts_of_rows(rows: pl.DataFrame, utility: UtilitySpec, *, source: str) -> MeasuredAmounts:
    """The columns of the file that are named as an amount, where they are not empty."""
    import polars as pl

    amounts, left_out = {}, 0
    for name, fields in _wanted(utility).items():
        if name not in rows.columns or not set(fields) <= set(rows.columns):
            continue
        own = rows.select(pl.col(name, *fields).cast(pl.Float64, strict=False)).filter(
            pl.col(name).is_not_null()
        )
        whole = own.filter(pl.all_horizontal(pl.all().is_finite().fill_null(value=False)))
        left_out += len(own) - len(whole)
        if len(whole):
            columns = {field: whole.get_column(field).to_numpy() for field in fields}
            amounts[name] = Amounts(whole.get_column(name).to_numpy(), columns)
    return MeasuredAmounts(amounts, left_out, source)


def _wanted(utility: UtilitySpec) -> dict[str, tuple[str, ...]]:
    """Each amount that a quantity is measured by, with the fields of the row that are read beside it."""
    wanted: dict[str, set[str]] = {}
    for quantity in utility.quantities:
        if quantity.measured is not None:
            per = quantity.measured.per
            wanted.setdefault(quantity.measured.amount, set()).update(() if per is None else per.fields)
    return {name: tuple(sorted(fields)) for name, fields in wanted.items()}


def _rows(
    decided: Sequence[MeasuredDecision], fields: tuple[str, ...]
) -> tuple[list[float], dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]]:
    """The values and fields of the decisions whose rows have every field as a number."""
    values: list[float] = []
    read: list[list[float]] = []
    for one in decided:
        row = orjson.loads(one.row) if fields else {}
        numbers = [float(x) for field in fields if _is_number(x := row.get(field))]
        if len(numbers) == len(fields):
            values.append(one.value)
            read.append(numbers)
    return values, {field: np.array([row[at] for row in read]) for at, field in enumerate(fields)}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
