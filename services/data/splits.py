"""Splits by event time, and labels that are old enough to be known.

A random split lets a model see the future of its test rows; here everything before a cut is earlier than
everything after it. Source: design.md §4. Must never import: torch, prefect, bentoml.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from services.data.contract import DataContract


class SplitError(ValueError):
    """Rows that cannot be put in the order of time, or a split that is no part of the whole."""


def by_event_time(frame: pl.DataFrame, contract: DataContract, *, start: float, stop: float) -> pl.DataFrame:
    """The rows from fraction `start` (inclusive) to `stop` (exclusive) of the whole, in the order of event time.

    Fractions lie in [0, 1]; a cut stands at row floor(fraction · n), moved back so that rows of one instant
    stay together. Neighbouring splits that share a cut share no row and no instant. Raises SplitError.
    """
    if not 0.0 <= start < stop <= 1.0:
        raise SplitError(f"a split must have 0 <= start < stop <= 1: {start}, {stop}")
    times = frame.get_column(contract.event_time)
    if times.null_count():
        raise SplitError(
            f"'{contract.event_time}' must not be null in a split: {times.null_count()} rows are"
        )
    ordered = frame.sort(contract.event_time, contract.entity_key, maintain_order=True)
    first, last = (_cut(ordered.get_column(contract.event_time), fraction) for fraction in (start, stop))
    return ordered.slice(first, last - first)


def _cut(times: pl.Series, fraction: float) -> int:
    index = int(np.floor(fraction * len(times) + 1e-9))
    if index >= len(times):
        return len(times)
    return int(times.search_sorted(times[index], side="left"))


def mature(frame: pl.DataFrame, contract: DataContract, as_of: float) -> pl.DataFrame:
    """The frame with the label null where it cannot be known yet at `as_of` (epoch seconds, UTC).

    A label is known when event time + label delay <= as_of; a younger one is unlabelled, never negative.
    """
    moment = datetime.fromtimestamp(as_of, UTC)
    delay = timedelta(seconds=contract.label_delay_s)
    is_known = pl.col(contract.event_time) + delay <= pl.lit(moment)
    return frame.with_columns(pl.when(is_known).then(pl.col(contract.label)).alias(contract.label))


def to_arrays(frame: pl.DataFrame, contract: DataContract) -> dict[str, NDArray[np.generic]]:
    """Each declared column of the frame as an array (n,).

    Numbers, integers and booleans: float64, NaN for null. Timestamps: float64 epoch seconds. Categories and
    texts: object, None for null.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    for column in contract.columns:
        if column.name not in frame.columns:
            continue
        series = frame.get_column(column.name)
        if column.kind in ("category", "text"):
            arrays[column.name] = np.array(series.to_list(), dtype=object)
        elif column.kind == "timestamp":
            micros = series.dt.epoch("us").cast(pl.Float64).to_numpy()
            arrays[column.name] = micros / 1e6
        else:
            arrays[column.name] = series.cast(pl.Float64).to_numpy()
    return arrays
