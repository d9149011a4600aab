"""Turns one log line into a row of the store; a line that is not one raises BadLine, which says why.

The decision log's format is services/serving/decision_log.py's (version 1), the access log's is
services/traffic's. Must never import: sqlalchemy, services.serving, flows.
"""

from datetime import datetime
from math import isfinite

import orjson

from services.store.decisions import DecisionRow, LogGap, RequestRow

VARIANTS = ("stable", "canary", "none")
MOST_COUNT = 2**31 - 1
LATEST = 253_402_300_800.0
"""The end of the year 9999, epoch s. What is further away is damage, and no store or calendar takes it."""


class BadLine(ValueError):
    """The line is no record; it is counted and skipped."""


def decision_or_gap(line: bytes) -> DecisionRow | LogGap:
    """A line of the decision log: a decision, or how many could not be logged before it. Raises BadLine."""
    record = _object(line)
    if record.get("v") != 1:
        raise BadLine(f"'v' must be 1: {record.get('v')!r}")
    if "gap_id" not in record:
        return _decision(record)
    return LogGap(
        gap_id=_text(record, "gap_id"),
        release=_text(record, "release"),
        since=_instant(record, "since"),
        until=_instant(record, "until"),
        decisions=_count(record, "decisions"),
    )


def _decision(record: dict[str, object]) -> DecisionRow:
    assigned = _text(record, "assigned")
    if assigned not in VARIANTS:
        raise BadLine(f"'assigned' must be one of {', '.join(VARIANTS)}: {assigned!r}")
    shadow = record.get("shadow")
    if not isinstance(shadow, bool):
        raise BadLine(f"'shadow' must be true or false: {shadow!r}")
    row = record.get("row")
    if not isinstance(row, dict):
        raise BadLine("'row' must be an object")
    gated = record.get("gated")
    if gated is not None and not isinstance(gated, dict):
        raise BadLine("'gated' must be an object, or null")
    unit = record.get("unit")
    return DecisionRow(
        decision_id=_text(record, "decision_id"),
        request_id=_text(record, "request_id"),
        attempt=_count(record, "attempt"),
        at=_instant(record, "at"),
        unit=unit if isinstance(unit, str) and unit else None,
        assigned=assigned,
        shadow=shadow,
        release=_text(record, "release"),
        action=_text(record, "action"),
        score=None if record.get("score") is None else _number(record, "score"),
        took_ms=_number(record, "took_ms"),
        expected_utility=orjson.dumps(record.get("expected_utility")).decode(),
        probabilities=orjson.dumps(record.get("probabilities")).decode(),
        row=orjson.dumps(row).decode(),
        gated=None if gated is None else orjson.dumps(gated).decode(),
    )


def request_row(line: bytes) -> RequestRow:
    """A request from an access log line; Envoy writes null or "-" for what a request has not. Raises
    BadLine."""
    record = _object(line)
    assigned = record.get("assigned")
    unit = record.get("unit")
    flags = record.get("flags")
    attempts = record.get("attempts")
    return RequestRow(
        request_id=_text(record, "request_id"),
        unit=unit if isinstance(unit, str) and unit not in ("", "-") else None,
        assigned=assigned if assigned in ("stable", "canary") else "none",
        at=_instant(record, "at"),
        status=_count(record, "status"),
        duration_ms=_number(record, "duration_ms"),
        attempts=1 if attempts in (None, "-", "") else _count(record, "attempts"),
        flags=flags if isinstance(flags, str) and flags != "-" else "",
    )


def _object(line: bytes) -> dict[str, object]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadLine(f"not JSON: {error.msg}") from error
    if not isinstance(found, dict):
        raise BadLine("not a JSON object")
    return found


def _text(record: dict[str, object], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value or value == "-":
        raise BadLine(f"'{name}' must be a text that is not empty")
    if "\0" in value:  # PostgreSQL takes none
        raise BadLine(f"'{name}' must not hold a NUL")
    return value


def _number(record: dict[str, object], name: str) -> float:
    value = record.get(name)
    if isinstance(value, str):  # Envoy writes headers as text, numbers or not
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise BadLine(f"'{name}' must be a finite number")
    return float(value)


def _count(record: dict[str, object], name: str) -> int:
    value = _number(record, name)
    if not 0 <= value <= MOST_COUNT:
        raise BadLine(f"'{name}' must be >= 0 and <= {MOST_COUNT}: {value:g}")
    return int(value)


def _instant(record: dict[str, object], name: str) -> float:
    """Epoch seconds, from a number or an ISO 8601 text with its offset."""
    value = record.get(name)
    if isinstance(value, str) and "T" in value:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise BadLine(f"'{name}' must be a time: {error}") from error
        if moment.tzinfo is None:
            raise BadLine(f"'{name}' must carry its offset from UTC")
        return moment.timestamp()
    at = _number(record, name)
    if not abs(at) < LATEST:
        raise BadLine(f"'{name}' must be epoch seconds, < {LATEST:g}: {at:g}")
    return at
