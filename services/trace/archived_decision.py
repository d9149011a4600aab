"""A decision that retention has taken out of the store, read back from the archive with all that belongs to it.

What came of it may have been archived later than the decision, or may still be in the store.

Must never import: sqlalchemy, Prefect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from services.store.decisions import DecisionRow, RequestRow
from services.store.traced_decision import StoredDecision, ToldOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = TypeVar("Row", DecisionRow, RequestRow, ToldOutcome)


def archived_decision(archive: Path, decision_id: str) -> StoredDecision | None:
    """The decision, its request, the request's other decisions and its outcome; None where the archive lacks it."""
    found = _rows(archive, "decisions", "decision_id", decision_id)
    if not found:
        return None
    row = _read(DecisionRow, found[0])
    same = _rows(archive, "decisions", "request_id", row.request_id)
    requests = _rows(archive, "requests", "request_id", row.request_id)
    told = sorted(_rows(archive, "outcomes", "decision_id", decision_id), key=lambda one: float(one["at"]))
    return StoredDecision(
        row,
        _read(RequestRow, requests[0]) if requests else None,
        tuple(_read(DecisionRow, one) for one in same if one["decision_id"] != decision_id),
        _read(ToldOutcome, told[-1]) if told else None,
    )


def archived_amounts(archive: Path, decision_id: str) -> dict[str, float]:
    """What was measured of what became of it, by name; of several statements the latest stands."""
    found = _rows(archive, "measurements", "decision_id", decision_id)
    return {str(one["name"]): float(one["value"]) for one in sorted(found, key=lambda one: float(one["at"]))}


def _rows(archive: Path, table: str, column: str, value: str) -> Sequence[Mapping[str, Any]]:
    parts = sorted((archive / table).glob("day=*/part-*.parquet"))
    if not parts:
        return []
    import polars as pl

    return pl.scan_parquet(parts).filter(pl.col(column) == value).collect().to_dicts()


def _read(kind: type[Row], found: Mapping[str, Any]) -> Row:
    return kind(**{field.name: found[field.name] for field in fields(kind)})
