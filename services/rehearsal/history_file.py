"""Reads a flat history of decisions, CSV or Parquet, for people who have no rollout on record yet.

One row a decision. Needed: `at` (epoch seconds or ISO 8601; UTC where no offset is said), `unit` (who was decided
about), `assigned` (stable or canary). Optional, and then complete: `failed` (0/1: the release failed, whoever answered
then), `duration_ms` (as the user felt it), `acted` (0/1: not the default action), `differs` (0/1: the two releases act
differently here), `weight_pct` (the canary's weight in force). Optional, where known: `payoff` (realised, in the unit
of the utility spec), `outcome_at` (when it became known; left out: in time). A unit counts once, by its first decision.
Must never import: prefect, bentoml, torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.exceptions import PolarsError

from policies.language.yaml_mistakes import did_you_mean

NEEDED = ("at", "unit", "assigned")
COMPLETE = ("failed", "duration_ms", "acted", "differs", "weight_pct")
WHERE_KNOWN = ("payoff", "outcome_at")
COLUMNS = (*NEEDED, *COMPLETE, *WHERE_KNOWN)
VARIANTS = ("stable", "canary")
_TIMES, _FLAGS = ("at", "outcome_at"), ("failed", "acted", "differs")
_SHOWN = 10

Floats = NDArray[np.float64]


class HistoryFileError(ValueError):
    """A history file that cannot be used: each mistake with its file, row, field and value."""


@dataclass(frozen=True, eq=False)
class History:
    """First decisions of n units in time order. at: (n,) epoch s; is_canary: (n,) bool, by assignment.

    columns: the optional ones that are there, (n,) float each, NaN where a payoff or its time is not known.
    rows: how many rows the file has, repeats of units included; unused: columns that mean nothing here.
    """

    source: str
    at: Floats
    is_canary: NDArray[np.bool_]
    columns: Mapping[str, Floats]
    rows: int
    unused: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """The canary's share of the units."""
        return float(self.is_canary.mean())


def read_history(path: Path) -> History:
    """Read and check a history file. Raises HistoryFileError with up to ten mistakes."""
    frame = _read(path)
    unused = tuple(name for name in frame.columns if name not in COLUMNS)
    _check_columns(path, frame.columns)
    if frame.is_empty():
        raise HistoryFileError(f"{path}: has no rows")
    numbered = frame.select([name for name in COLUMNS if name in frame.columns]).with_row_index("_row")
    mistakes: list[str] = []
    parsed: dict[str, pl.Series] = {}
    for name in numbered.columns[1:]:
        parsed[name] = _column(numbered, name, mistakes, path)
    if mistakes:
        more = [f"… and {len(mistakes) - _SHOWN} more"] if len(mistakes) > _SHOWN else []
        raise HistoryFileError("\n".join([*mistakes[:_SHOWN], *more]))
    first = (
        pl.DataFrame(parsed).sort("at", maintain_order=True).unique("unit", keep="first", maintain_order=True)
    )
    return History(
        source=str(path),
        at=first["at"].to_numpy(),
        is_canary=(first["assigned"] == "canary").to_numpy(),
        columns={
            name: first[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            for name in (*COMPLETE, *WHERE_KNOWN)
            if name in parsed
        },
        rows=frame.height,
        unused=unused,
    )


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise HistoryFileError(f"no history file {path}")
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, infer_schema=False, null_values=[""])
    except (PolarsError, OSError) as error:
        raise HistoryFileError(f"{path}: cannot be read: {error}") from error


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """Refuse a file without what is needed, and a column that looks like a misspelled one."""
    absent = [name for name in COLUMNS if name not in names]
    for name in names:
        near = did_you_mean(name, absent) if name not in COLUMNS else ""
        if near:
            raise HistoryFileError(f"{path}: unknown column '{name}'{near} (known: {', '.join(COLUMNS)})")
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise HistoryFileError(
            f"{path}: lacks column '{missing[0]}'; it has {', '.join(names)}; needed are {', '.join(NEEDED)}"
        )


def _column(frame: pl.DataFrame, name: str, mistakes: list[str], path: Path) -> pl.Series:
    """The column as numbers (or text for unit and assigned); what it cannot be goes to `mistakes`."""
    raw = frame[name]
    if name == "unit":
        found, wanted = raw.cast(pl.String), "a name"
        good = found.is_not_null()
    elif name == "assigned":
        found, wanted = raw.cast(pl.String), "stable or canary"
        good = found.is_in(VARIANTS)
    elif name in _TIMES:
        found, wanted = _times(raw), "epoch seconds or an ISO 8601 time"
        good = found.is_finite()
    else:
        found, wanted = raw.cast(pl.Float64, strict=False), "a number"
        good = found.is_finite()
        if name in _FLAGS:
            good, wanted = good & found.is_in([0.0, 1.0]), "0 or 1"
        elif name == "weight_pct":
            good, wanted = good & (found > 0) & (found < 100), "a percentage above 0 and below 100"
        elif name == "duration_ms":
            good, wanted = good & (found >= 0), "milliseconds, 0 or more"
    good = good.fill_null(False)
    if name in WHERE_KNOWN:
        good = good | raw.is_null()
    for row in frame.filter(~good)["_row"].to_list():
        value = raw[row]
        shown = "nothing" if value is None else repr(value)
        line = "" if path.suffix == ".parquet" else f" (line {row + 2})"
        mistakes.append(f"{path}: row {row + 1}{line}: '{name}' must be {wanted}: {shown}")
    return found


def _times(raw: pl.Series) -> pl.Series:
    """Epoch seconds, null where it is no time."""
    if raw.dtype.is_temporal():
        return raw.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    numbers = raw.cast(pl.Float64, strict=False)
    if raw.dtype != pl.String or numbers.null_count() == raw.null_count():
        return numbers
    text = pl.col("at").str.replace(r"Z$", "+00:00").str.replace("T", " ", literal=True)
    has_offset = text.str.contains(r"[+-][0-9]{2}:?[0-9]{2}$")
    utc = pl.when(has_offset).then(text).otherwise(text + "+00:00")
    stamps = utc.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%z", time_unit="us", strict=False)
    seconds = stamps.dt.epoch("us").cast(pl.Float64) / 1e6
    return numbers.fill_null(raw.rename("at").to_frame().select(seconds).to_series())
