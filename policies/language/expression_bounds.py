"""Where a payoff expression can have no finite value, and between which numbers it lies, told before any row comes.

Interval arithmetic over the bounds that the contract sets for fields (Moore, "Interval Analysis", 1966): what it lets
through is safe for every row that keeps them. What it doubts may still never happen, as it takes fields that move
together for independent; so a doubt warns, and only what is certain, because no field is read, is a mistake.
Must never import: anything but numpy and the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from policies.language.expression import Expression

UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True)
class Fault:
    """A place (character from 1) without a finite value: for every row if `is_certain`, else for some."""

    message: str
    column: int
    is_certain: bool


@dataclass(frozen=True)
class Bounds:
    """The least and the greatest value, inclusive, infinite where nothing bounds it; and the faults found."""

    low: float
    high: float
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class _Interval:
    low: float
    high: float
    reads: bool  # a field


def bounds_of(expression: Expression, fields: Mapping[str, tuple[float, float]]) -> Bounds:
    """Over all rows whose `fields` lie within their ends, inclusive; one that is not named may be any number."""
    faults: list[Fault] = []

    def call(name: str, parts: Sequence[_Interval], column: int) -> _Interval:
        reads = any(part.reads for part in parts)
        refused = _refused(name, parts)
        if refused:
            faults.append(Fault(f"'{name}' has no finite value where {refused}", column, not reads))
        low, high = _applied(name, parts)
        if not reads and not refused and not (math.isfinite(low) and math.isfinite(high)):
            faults.append(Fault(f"'{name}' has no finite value: it is too large", column, is_certain=True))
        return _Interval(low, high, reads)

    found = expression.fold(
        number=lambda value: _Interval(value, value, reads=False),
        field=lambda name: _Interval(*fields.get(name, UNBOUNDED), reads=True),
        call=call,
    )
    return Bounds(found.low, found.high, tuple(faults))


def _refused(name: str, parts: Sequence[_Interval]) -> str:
    """What these arguments may be that the operation has no value for."""
    if name == "/" and parts[1].low <= 0 <= parts[1].high:
        return "its divisor is 0"
    if name == "log" and parts[0].low <= 0:
        return "its argument is not above 0"
    return ""


def _applied(name: str, parts: Sequence[_Interval]) -> tuple[float, float]:
    one, *rest = parts
    match name:
        case "neg":
            return -one.high, -one.low
        case "+":
            return one.low + rest[0].low, one.high + rest[0].high
        case "-":
            return one.low - rest[0].high, one.high - rest[0].low
        case "*":
            return _spanned(x * y for x in (one.low, one.high) for y in (rest[0].low, rest[0].high))
        case "/":
            if rest[0].low <= 0 <= rest[0].high:
                return UNBOUNDED
            return _spanned(x / y for x in (one.low, one.high) for y in (rest[0].low, rest[0].high))
        case "min":
            return min(part.low for part in parts), min(part.high for part in parts)
        case "max":
            return max(part.low for part in parts), max(part.high for part in parts)
        case "clip":
            least, most = rest
            return min(max(one.low, least.low), most.low), min(max(one.high, least.high), most.high)
        case "abs":
            inside = one.low <= 0 <= one.high
            return 0.0 if inside else min(abs(one.low), abs(one.high)), max(abs(one.low), abs(one.high))
        case _:  # log
            return math.log(one.low) if one.low > 0 else -math.inf, _log(one.high)


def _spanned(values: Iterable[float]) -> tuple[float, float]:
    ends = [0.0 if math.isnan(value) else value for value in values]  # 0 * inf: the bound is 0
    return min(ends), max(ends)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
