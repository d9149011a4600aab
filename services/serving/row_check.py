"""Checks a request's rows against the data contract, turns them into columns; names the first fault.

What passes here is what the model may see: nothing is coerced, nothing unknown is dropped in silence.
Accepted are the fields that exist at decision time (features, audit fields, entity, event time); the label
and what is known only afterwards are refused by name. Missing values are allowed where the contract does
not require the field, except where a payoff needs it. Source: design.md §4. Must never import bentoml,
torch or polars.
"""

import math
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

MAX_ROWS = 1000
MANY_ROWS = 8  # from so many on, going by columns is cheaper than going by rows
SERVED_ROLES = ("feature", "audit", "entity", "event_time")
Columns = dict[str, NDArray[Any]]
Fault = Callable[[object], tuple[str, object] | None]  # None, or ("must be …", the bound)

_ROW = frozenset((dict,))
_TYPES: Mapping[str, frozenset[type]] = {
    "number": frozenset((int, float)),
    "integer": frozenset((int,)),
    "boolean": frozenset((bool,)),
}


class RowRefused(ValueError):
    """A request breaks the contract: which field, which row (0-based), what was sent and what is allowed."""

    def __init__(
        self,
        field: str | None,
        message: str,
        *,
        row: int | None = None,
        value: object = None,
        bound: object = None,
    ):
        super().__init__(message)
        self.field = field
        self.row = row
        self.value = shown(value)
        self.bound = bound

    def to_json(self) -> dict[str, object]:
        """The body of the 400 answer."""
        return {
            "error": str(self),
            "field": self.field,
            "row": self.row,
            "value": self.value,
            "bound": self.bound,
        }


class ServedColumn(Protocol):
    """The properties of a contract column that a request is checked against."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def required(self) -> bool: ...
    @property
    def role(self) -> str: ...
    @property
    def minimum(self) -> float | None: ...
    @property
    def maximum(self) -> float | None: ...
    @property
    def categories(self) -> tuple[str, ...] | None: ...
    @property
    def available_at_s(self) -> float: ...
    @property
    def pattern(self) -> str | None: ...
    @property
    def min_length(self) -> int | None: ...
    @property
    def max_length(self) -> int | None: ...


def shown(value: object) -> object:
    """A value as an error may repeat it: short, and never a nested structure."""
    if isinstance(value, str):
        return value if len(value) <= 80 else value[:77] + "..."
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        return str(value)[:80]
    if value is None or isinstance(value, bool | int | float):
        return value
    return "an object" if isinstance(value, dict) else "a list"


@dataclass(frozen=True)
class _FieldCheck:
    """One field: `fault` judges a value in full; `kinds` are the types, `known` the values that it may have at all."""

    name: str
    is_needed: bool
    fault: Fault
    is_number: bool
    low: float
    high: float
    kinds: frozenset[type] | None
    known: frozenset[object] | None

    @classmethod
    def of(cls, column: ServedColumn, *, is_needed: bool) -> "_FieldCheck":
        """The check of one served column of the contract."""
        is_number = column.kind in _TYPES
        kinds, known = _TYPES.get(column.kind), None
        if column.kind == "category" and column.categories is not None:
            known = frozenset((*column.categories, *(() if is_needed else (None,))))
        if kinds is not None and not is_needed:
            kinds |= {type(None)}
        is_bounded = column.kind in ("number", "integer")
        low = column.minimum if is_bounded else None
        high = column.maximum if is_bounded else None
        return cls(
            column.name,
            is_needed,
            _fault_of(column),
            is_number,
            -sys.float_info.max if low is None else low,
            sys.float_info.max if high is None else high,
            kinds,
            known,
        )

    def passes(self, values: Sequence[Any]) -> bool:
        """Whether the values of a column are all allowed, but for the range of numbers; False is only a suspicion."""
        if self.kinds is not None:
            return self.kinds.issuperset(map(type, values))
        if self.known is not None:
            try:
                return self.known.issuperset(values)
            except TypeError:  # a list or an object: it cannot be looked up
                return False
        sent = [value for value in values if value is not None]
        return not (self.is_needed and len(sent) < len(values)) and not any(map(self.fault, sent))


class RowCheck:
    """The contract of one release, compiled for requests."""

    def __init__(self, columns: Sequence[ServedColumn], *, payoff_fields: Collection[str]) -> None:
        served = [c for c in columns if c.role in SERVED_ROLES and c.available_at_s <= 0]
        self._checks = tuple(
            _FieldCheck.of(
                column,
                is_needed=(column.required and column.role == "feature") or column.name in payoff_fields,
            )
            for column in served
        )
        numbers = tuple(check for check in self._checks if check.is_number)
        self._by_kind = (*numbers, *(check for check in self._checks if not check.is_number))
        self._numbers = len(numbers)
        self._names = tuple(check.name for check in self._by_kind)
        self._low = np.array([[check.low] for check in numbers])
        self._high = np.array([[check.high] for check in numbers])
        self.accepted = frozenset(check.name for check in self._checks)
        self._refused = {c.name: _why_refused(c) for c in columns if c.name not in self.accepted}
        if "rows" in self.accepted:
            raise ValueError("a contract field must not be called 'rows': it is the name of a batch")

    def check(self, rows: Sequence[Any]) -> None:
        """Raises: RowRefused for the first fault of the rows (n, at most 1000), in row order."""
        self._checked(rows)

    def columns(self, rows: Sequence[Any]) -> Columns:
        """The rows (n, at most 1000) as columns of n values: numbers and booleans float64 with NaN for missing, the
        rest objects with None. Raises: RowRefused as `check` does.
        """
        found = self._checked(rows)
        return self.to_columns(rows) if found is None else found

    def _checked(self, rows: Sequence[Any]) -> Columns | None:
        """The columns, where the rows were checked by them. Raises: RowRefused."""
        if not 1 <= len(rows) <= MAX_ROWS:
            raise RowRefused(
                "rows",
                f"'rows' must hold between 1 and {MAX_ROWS} rows: {len(rows)}",
                value=len(rows),
                bound=MAX_ROWS,
            )
        if len(rows) >= MANY_ROWS and (columns := self._passing(rows)) is not None:
            return columns
        for index, row in enumerate(rows):
            self._check_row(row, index)
        return None

    def to_columns(self, rows: Sequence[Mapping[str, object]]) -> Columns:
        """As `columns`, of rows that are known to keep the contract: nothing is checked."""
        values = self._values_of_alike(rows) or self._values(rows)
        return self._named(values, np.array(values[: self._numbers], dtype=np.float64))  # None becomes NaN

    def _passing(self, rows: Sequence[Any]) -> Columns | None:
        """The columns, if every row keeps the contract, told by whole columns, which is cheap; None is a suspicion."""
        if not _ROW.issuperset(map(type, rows)):
            return None
        values = self._values_of_alike(rows)
        if values is None:
            if not all(map(self.accepted.issuperset, rows)):
                return None
            values = self._values(rows)
        if not all(check.passes(column) for check, column in zip(self._by_kind, values, strict=True)):
            return None
        numbers = np.array(values[: self._numbers], dtype=np.float64)
        if ((numbers < self._low) | (numbers > self._high)).any():  # of a missing number, neither is true
            return None
        missing = sum(column.count(None) for column in values[: self._numbers])
        return self._named(values, numbers) if int(np.isnan(numbers).sum()) == missing else None

    def _values(self, rows: Sequence[Mapping[str, object]]) -> list[Sequence[object]]:
        """The n values of each field, numbers first; None for a field that a row does not have."""
        return [[row.get(name) for row in rows] for name in self._names]

    def _values_of_alike(self, rows: Sequence[Mapping[str, object]]) -> list[Sequence[object]] | None:
        """As `_values`, where all rows have the same fields and no unknown one, as nearly always; None elsewhere."""
        names = [name for name in self._names if name in rows[0]]
        if len(names) < 2 or not len(names) == len(rows[0]) == sum(map(len, rows)) / len(rows):
            return None
        try:  # who has every one of them, and all together no more, has no other
            found = dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))
        except KeyError:
            return None
        missing = (None,) * len(rows)
        return [found.get(name, missing) for name in self._names]

    def _named(self, values: Sequence[Sequence[object]], numbers: NDArray[np.float64]) -> Columns:
        others = (np.fromiter(column, object, len(column)) for column in values[self._numbers :])
        return dict(zip(self._names, (*numbers, *others), strict=True))

    def takes(self, row: object) -> bool:
        """Whether `columns` would take this row."""
        try:
            self._check_row(row, 0)
        except RowRefused:
            return False
        return True

    def _check_row(self, row: object, index: int) -> None:
        if not isinstance(row, dict):
            raise RowRefused(
                None, f"a row must be an object: {shown(row)}", row=index, value=row, bound="an object"
            )
        if not row.keys() <= self.accepted:
            raise self._unknown(row, index)
        for check in self._checks:
            value = row.get(check.name)
            if value is None:
                if check.is_needed:
                    what = "must be present" if check.name not in row else "must not be null"
                    raise RowRefused(check.name, f"'{check.name}' {what}", row=index, bound="required")
                continue
            fault = check.fault(value)
            if fault is not None:
                what, bound = fault
                message = f"'{check.name}' {what}: {shown(value)!r}"
                raise RowRefused(check.name, message, row=index, value=value, bound=bound)

    def _unknown(self, row: dict[str, object], index: int) -> RowRefused:
        name = min(row.keys() - self.accepted)
        why = self._refused.get(name, "is not a field of the contract")
        return RowRefused(
            name[:80],
            f"'{name[:80]}' {why}; accepted: {', '.join(sorted(self.accepted))}",
            row=index,
            value=row[name],
            bound=sorted(self.accepted),
        )


def _why_refused(column: ServedColumn) -> str:
    if column.available_at_s > 0 or column.role == "label":
        return f"must not be sent: it is known only after the decision ({column.available_at_s:g} s later)"
    return f"must not be sent: its role in the contract is {column.role!r}"


def _fault_of(column: ServedColumn) -> Fault:
    if column.kind in ("number", "integer"):
        return _number_fault(column, is_integer=column.kind == "integer")
    if column.kind == "boolean":
        return lambda value: None if isinstance(value, bool) else ("must be true or false", "boolean")
    if column.kind == "timestamp":
        return _timestamp_fault(column)
    if column.categories is None:
        return _text_fault(column)
    allowed = column.categories
    known = frozenset(allowed)

    def category_fault(value: object) -> tuple[str, object] | None:
        if isinstance(value, str) and value in known:
            return None
        return f"must be one of {', '.join(allowed)}", list(allowed)

    return category_fault


def _text_fault(column: ServedColumn) -> Fault:
    least = column.min_length or 0
    most = column.max_length
    pattern = None if column.pattern is None else re.compile(column.pattern)

    def text_fault(value: object) -> tuple[str, object] | None:
        if not isinstance(value, str):
            return "must be text", "text"
        if len(value) < least:
            return f"must have at least {least} characters", least
        if most is not None and len(value) > most:
            return f"must have at most {most} characters", most
        if pattern is not None and pattern.search(value) is None:
            return f"must match {pattern.pattern}", pattern.pattern
        return None

    return text_fault


def _timestamp_fault(column: ServedColumn) -> Fault:
    in_range = _number_fault(column, is_integer=False)

    def timestamp_fault(value: object) -> tuple[str, object] | None:
        if not isinstance(value, str):
            return "must be an ISO 8601 text", "ISO 8601"
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return "must be an ISO 8601 text", "ISO 8601"
        return in_range(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())

    return timestamp_fault


def _number_fault(column: ServedColumn, *, is_integer: bool) -> Fault:
    low = -math.inf if column.minimum is None else column.minimum
    high = math.inf if column.maximum is None else column.maximum
    types, noun = ((int,), "an integer") if is_integer else ((int, float), "a number")

    def number_fault(value: object) -> tuple[str, object] | None:
        if type(value) not in types and not (is_integer and type(value) is float and value.is_integer()):
            return f"must be {noun}", noun  # type, not isinstance: true is not a number; to JSON, 3.0 is 3
        assert isinstance(value, int | float)  # noqa: S101  # for the type checker only
        if not math.isfinite(value):
            return "must be finite", "finite"
        if value < low:
            return f"must be >= {low:g}", low
        if value > high:
            return f"must be <= {high:g}", high
        return None

    return number_fault
