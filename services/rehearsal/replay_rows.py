"""Recorded rows as requests: which fields a caller may send, and the outcome that acting on a row would reveal.

Must never import: polars, pandas, torch (the columns come as plain sequences).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np

from services.data.contract import DataContract

Scalar = str | float | int | bool | None


class ReplayError(ValueError):
    """Rows that cannot be replayed: a column is missing, or a label has no outcome."""


@dataclass(frozen=True)
class ReplayRow:
    """One request to send: its unit, its serving fields, and the outcome that acting on it would reveal."""

    unit: str
    fields: Mapping[str, Scalar]
    outcome: str


def serving_fields(contract: DataContract) -> tuple[str, ...]:
    """What a caller may know when it asks: features and audit attributes, nothing known only afterwards."""
    return tuple(
        column.name
        for column in contract.columns
        if column.role in ("feature", "audit") and column.available_at_s <= 0
    )


def rows_of(columns: Mapping[str, Sequence[object]], contract: DataContract) -> list[ReplayRow]:
    """Replay rows from columns (n,) in time order, by the contract's entity key, fields and label.

    Raises ReplayError naming a missing column, or a label the contract gives no outcome for.
    """
    names = serving_fields(contract)
    missing = [name for name in (contract.entity_key, contract.label, *names) if name not in columns]
    if missing:
        raise ReplayError(f"rows to replay lack {', '.join(missing)}; there are {', '.join(columns)}")
    outcomes = contract.label_outcomes
    rows = []
    for position, (unit, label) in enumerate(
        zip(columns[contract.entity_key], columns[contract.label], strict=True)
    ):
        if str(label) not in outcomes:
            raise ReplayError(
                f"row {position}: label {label!r} is not an outcome of the contract: {', '.join(outcomes)}"
            )
        fields = {name: _scalar(columns[name][position]) for name in names}
        rows.append(ReplayRow(str(unit), fields, outcomes[str(label)]))
    return rows


def _scalar(value: object) -> Scalar:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)
