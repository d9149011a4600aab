"""Quantities as policy files write them, each with its unit in the value: `15m`, `5%`, `200/s`.

A bare number is refused: nobody should have to remember whether 10 means seconds, minutes or per cent.
Must never import: anything that does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"(?:[0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")
_PERCENTAGE = re.compile(rf"({_NUMBER})%")
_RATE = re.compile(rf"({_NUMBER})/(s|m|h|d)")
_LONGEST = 24  # characters


def seconds_of(text: object) -> float:
    """Seconds of a duration like `500ms`, `4s`, `15m`, `1h` or `7d`. Raises ValueError."""
    found = _matched(_DURATION, text)
    if found is None:
        raise ValueError(_refusal("a duration with its unit, like 500ms, 4s, 15m, 1h or 7d", text, "s"))
    return float(found[1]) * SECONDS[found[2]]


def percents_of(text: object) -> float:
    """Per cent of a percentage like `5%`. Raises ValueError, also above 100 %."""
    found = _matched(_PERCENTAGE, text)
    if found is None:
        raise ValueError(_refusal("a percentage with its sign, like 5% or 0.5%", text, "%"))
    if float(found[1]) > 100:
        raise ValueError(f"must be at most 100%: {text}")
    return float(found[1])


def per_second_of(text: object) -> float:
    """Events a second of a rate like `200/s`, `30/m`, `5000/h` or `10000/d`. Raises ValueError."""
    found = _matched(_RATE, text)
    if found is None:
        raise ValueError(_refusal("a rate with its unit, like 200/s, 30/m, 5000/h or 10000/d", text, "/s"))
    return float(found[1]) / SECONDS[found[2]]


def duration_text(seconds: float) -> str:
    """A duration as the file would write it, in the largest unit in which it is a whole number: `90s`, `2h`."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 or seconds == 0 else f"{seconds * 1000:g}ms"


def about(seconds: float) -> str:
    """A duration in words, rounded: `9 days`, `3 hours`, `12 minutes`, `40 s`."""
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {name}"
    return f"{seconds:.0f} s" if seconds >= 1 else "1 s"


def _matched(pattern: re.Pattern[str], text: object) -> re.Match[str] | None:
    return pattern.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST else None


def _refusal(wanted: str, value: object, unit: str) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"must be {wanted}: {value:g}; write {value:g}{unit} if that was meant"
    shown = repr(value)
    return f"must be {wanted}: {shown if len(shown) <= 40 else shown[:39] + '…'}"


def _above_zero(read: Callable[[object], float]) -> Callable[[object], float]:
    def positive(text: object) -> float:
        value = read(text)
        if value <= 0:
            raise ValueError(f"must be more than nothing: {text}")
        return value

    return positive


def _schema(pattern: re.Pattern[str], *examples: str) -> WithJsonSchema:
    return WithJsonSchema(
        {"type": "string", "pattern": f"^{pattern.pattern.replace('(?:', '(')}$", "examples": list(examples)}
    )


_DURATIONS = _schema(_DURATION, "500ms", "4s", "15m", "1h", "7d")
Duration = Annotated[float, BeforeValidator(seconds_of), _DURATIONS]
"""Seconds, 0 or more."""
Span = Annotated[float, BeforeValidator(_above_zero(seconds_of)), _DURATIONS]
"""Seconds, more than 0."""
Percentage = Annotated[float, BeforeValidator(percents_of), _schema(_PERCENTAGE, "5%", "0.5%")]
"""Per cent, from 0 to 100."""
Traffic = Annotated[
    float, BeforeValidator(_above_zero(per_second_of)), _schema(_RATE, "200/s", "30/m", "5000/h", "10000/d")
]
"""Events a second, more than 0."""
