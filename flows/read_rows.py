"""Reads the rows that a run is about: the rehearsal's calls, or a file of one's own, in the contract's columns.

What the rows must be is the contract's business and checked there; here only what is needed to put them in order.
Must never import: prefect, torch.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from services.data.contract import DataContract
from services.data.row_checks import typed_value
from services.rehearsal.bank_marketing import read_calls


class RowsError(ValueError):
    """The file is none that rows can be read from; the text says what it must be."""


def read_rows(rows: Path | None, contract: DataContract) -> pl.DataFrame:
    """The delivered rows as they are, but the event time as UTC instants; None: the bank's calls.

    Parquet, or CSV with a header, comma-separated, gzipped or not. Raises RowsError.
    """
    if rows is None:
        return read_calls()
    if not rows.is_file():
        raise RowsError(f"there is no file {str(rows)!r}")
    try:
        if rows.suffix == ".parquet":
            frame = pl.read_parquet(rows)
        elif rows.name.endswith((".csv", ".csv.gz")):
            frame = pl.read_csv(rows, infer_schema_length=None)
        else:
            raise RowsError(f"'rows' must be .parquet, .csv or .csv.gz: {str(rows)!r}")
    except pl.exceptions.PolarsError as error:
        raise RowsError(f"{str(rows)!r} cannot be read: {error}") from error
    needed = (contract.entity_key, contract.event_time, contract.label)
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        there = ", ".join(frame.columns)
        raise RowsError(f"{str(rows)!r} lacks {', '.join(missing)}, which the contract names; it has {there}")
    (moment,) = (column for column in contract.columns if column.name == contract.event_time)
    return frame.with_columns(typed_value(moment, frame.schema[contract.event_time]).alias(moment.name))
