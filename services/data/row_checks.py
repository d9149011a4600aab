"""Compiles a contract's row checks to polars expressions: one boolean per check, true where the row breaks it.

A value that cannot be read as its declared type is null in the typed column and counted by `<column>.type`;
the other checks look at typed values only, so that one mistake is counted once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from services.data.columns import Column, QualityRule
from services.data.contract import DataContract

ROW = "row_number"
RAW = "raw of "
UTC_TIME = pl.Datetime("us", "UTC")
_NAIVE_FORMS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d")


@dataclass(frozen=True)
class RowCheck:
    """One check: `breaks` is true for the rows that break it. Only those that quarantine set rows aside."""

    name: str
    breaks: pl.Expr
    quarantines: bool = True
    rule: QualityRule | None = None


def typed_frame(frame: pl.LazyFrame, contract: DataContract) -> pl.LazyFrame:
    """Row number from 1, each declared column as delivered (`raw of <name>`) and typed (`<name>`).

    Undeclared columns are gone from here on; a declared column that is absent is all null.
    """
    schema = frame.collect_schema()
    raw = [
        (pl.col(c.name) if c.name in schema else pl.lit(None, dtype=pl.String)).alias(RAW + c.name)
        for c in contract.columns
    ]
    typed = [
        (typed_value(c, schema[c.name]) if c.name in schema else pl.lit(None, dtype=polars_type(c))).alias(
            c.name
        )
        for c in contract.columns
    ]
    return frame.with_row_index(ROW, offset=1).select(ROW, *raw, *typed)


def polars_type(column: Column) -> pl.DataType:
    """The type of the column in a snapshot."""
    kinds: Mapping[str, pl.DataType] = {
        "number": pl.Float64(),
        "integer": pl.Int64(),
        "boolean": pl.Boolean(),
        "timestamp": UTC_TIME,
    }
    return kinds.get(column.kind, pl.String())


def typed_value(column: Column, delivered: pl.DataType) -> pl.Expr:
    """The value as the declared type, null where it is not one."""
    value, wanted = pl.col(column.name), polars_type(column)
    is_text = delivered in (pl.String, pl.Categorical, pl.Enum)
    if is_text:
        value = value.cast(pl.String)
    if column.kind in ("category", "text"):
        return value if is_text else pl.lit(None, dtype=pl.String)
    if column.kind == "boolean":
        if delivered == pl.Boolean:
            return value
        words = value.str.to_lowercase().replace_strict(
            {"true": True, "false": False}, default=None, return_dtype=pl.Boolean
        )
        return words if is_text else pl.lit(None, dtype=pl.Boolean)
    if column.kind == "timestamp":
        return _typed_time(value, delivered, is_text=is_text)
    if not (is_text or delivered.is_numeric()):
        return pl.lit(None, dtype=wanted)
    number = value.cast(pl.Float64, strict=False)
    whole = value.cast(pl.Int64, strict=False)
    if column.kind == "number":
        return pl.when(number.is_finite()).then(number)
    return pl.when(number.is_finite() & (number == number.floor())).then(whole)


def _typed_time(value: pl.Expr, delivered: pl.DataType, *, is_text: bool) -> pl.Expr:
    if is_text:
        aware = value.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", strict=False)
        naive = [value.str.to_datetime(form, time_unit="us", strict=False) for form in _NAIVE_FORMS]
        return pl.coalesce(aware, *[moment.dt.replace_time_zone("UTC") for moment in naive])
    if isinstance(delivered, pl.Datetime):
        aware = value if delivered.time_zone else value.dt.replace_time_zone("UTC")
        return aware.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    if delivered == pl.Date:
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.lit(None, dtype=UTC_TIME)


def row_checks(contract: DataContract) -> tuple[RowCheck, ...]:
    """Every check that looks at values, in the order of the contract: the columns' own, then the quality rules."""
    ruled = {rule.columns[0] for rule in contract.rules if rule.valid_values}
    checks = [
        check for column in contract.columns for check in _column_checks(column, by_rule=column.name in ruled)
    ]
    for rule in contract.rules:
        breaks = _rule_breaks(rule)
        if breaks is not None:
            checks.append(RowCheck(rule.name, breaks.fill_null(value=False), rule.quarantines, rule))
    return tuple(checks)


def _column_checks(column: Column, *, by_rule: bool) -> list[RowCheck]:
    """The checks of one column; `by_rule`: its values are checked by a quality rule already."""
    name, value, raw = column.name, pl.col(column.name), pl.col(RAW + column.name)
    found = {"type": raw.is_not_null() & value.is_null()}
    if column.required:
        found["required"] = raw.is_null()
    low, high = (_limit(column, bound) for bound in (column.minimum, column.maximum))
    if low is not None or high is not None:
        below = value < low if low is not None else pl.lit(value=False)
        above = value > high if high is not None else pl.lit(value=False)
        found["range"] = below | above
    if column.kind == "category" and not by_rule:
        found["values"] = ~value.is_in(list(column.categories or ()))
    if column.pattern is not None:
        found["pattern"] = ~matches(value, column.pattern)
    if column.min_length is not None or column.max_length is not None:
        length = value.str.len_chars()
        found["length"] = (length < (column.min_length or 0)) | (length > (column.max_length or 2**31))
    if column.unique:
        found["unique"] = value.is_not_null() & value.is_duplicated()
    return [RowCheck(f"{name}.{what}", breaks.fill_null(value=False)) for what, breaks in found.items()]


def _limit(column: Column, bound: float | None) -> pl.Expr | float | None:
    if bound is None or column.kind != "timestamp":
        return bound
    return pl.lit(int(bound * 1_000_000)).cast(UTC_TIME)


def matches(value: pl.Expr, pattern: str) -> pl.Expr:
    """Whether the whole text matches."""
    return value.str.contains(f"^(?:{pattern})$")


def _rule_breaks(rule: QualityRule) -> pl.Expr | None:
    """Rows that a quality rule counts; None for one that judges the delivery as a whole."""
    if rule.metric in ("rowCount", "sql"):
        return None
    if rule.metric == "duplicateValues":
        return pl.struct(*rule.columns).is_duplicated() if len(rule.columns) > 1 else _twice(rule.columns[0])
    value, raw = pl.col(rule.columns[0]), pl.col(RAW + rule.columns[0])
    if rule.metric == "nullValues":
        return raw.is_null()
    if rule.metric == "missingValues":
        stand_ins = [v for v in rule.missing_values if v is not None]
        is_stand_in = raw.cast(pl.String, strict=False).is_in(stand_ins)
        return is_stand_in | raw.is_null() if None in rule.missing_values else is_stand_in
    invalid = ~value.is_in(list(rule.valid_values)) if rule.valid_values else pl.lit(value=False)
    return invalid | ~matches(value, rule.pattern) if rule.pattern is not None else invalid


def _twice(name: str) -> pl.Expr:
    return pl.col(name).is_not_null() & pl.col(name).is_duplicated()
