"""Outcomes from a file: CSV, Parquet or JSON lines, checked whole before any of it is recorded.

Columns: `outcome`, `at` (epoch s, or ISO 8601 with its offset), and `decision_id` or `unit` (a row with both goes by
its decision_id); and, on rows by decision_id, the measured amounts that utility.yaml names. Recording is idempotent, so
a file may be imported again: after a crash, or when decisions that were too new have been shipped.
Must never import: sqlalchemy, flows.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import TypeVar

import polars as pl

from policies.language.yaml_mistakes import did_you_mean
from services.store.database import Database
from services.store.measurements import Measurement, record_measurements
from services.store.outcomes import Outcome, OutcomeReceipt, UnitOutcome, match_units, record_outcomes

ROWS_AT_ONCE = 5_000
_SHOWN = 20
Row = TypeVar("Row", Outcome, UnitOutcome, Measurement)
MOST_CHARACTERS = 200  # of an id, as over HTTP
_KINDS = ".csv, .csv.gz, .parquet, .jsonl or .ndjson"


class OutcomeFileError(ValueError):
    """The file cannot be imported; one line for each mistake, the first 20 of them."""


@dataclass(frozen=True)
class OutcomeRows:
    """What a file says, by decision and by unit."""

    named: tuple[Outcome, ...]
    of_units: tuple[UnitOutcome, ...]
    measured: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Imported:
    """What came of a file. `receipt` counts decisions; `unmatched` and `too_early` count rows by unit: those about no
    decision, and those newer than what is shipped, which a later import takes up."""

    receipt: OutcomeReceipt
    unmatched: int
    too_early: int


def read_outcomes(
    path: Path,
    *,
    outcomes: Collection[str],
    within_s: float | None,
    now: float,
    amounts: Collection[str] = (),
) -> OutcomeRows:
    """All rows of the file. outcomes, amounts: those of the service's utility spec; within_s: how long before the
    outcome its unit was decided at most, needed for rows without a decision_id. Raises OutcomeFileError."""
    frame = _read(path)
    missing = {"outcome", "at"} - set(frame.columns)
    if missing or not {"decision_id", "unit"} & set(frame.columns):
        lacks = ", ".join(sorted(missing)) or "decision_id or unit"
        raise OutcomeFileError(f"'{path}' must have the column {lacks}; it has {', '.join(frame.columns)}")
    for name in ("decision_id", "unit", "outcome", "at", *amounts):
        if f"{name}_duplicated_0" in frame.columns:  # what polars calls the second of two
            raise OutcomeFileError(f"'{path}' must have the column {name} once: it stands there twice")
    named: list[Outcome] = []
    of_units: list[UnitOutcome] = []
    measured: list[Measurement] = []
    mistakes: list[str] = []
    for number, row in enumerate(frame.iter_rows(named=True), start=1):
        outcome, decision_id, unit = (_text(row.get(name)) for name in ("outcome", "decision_id", "unit"))
        wrong = _mistakes(outcome, row["at"], outcomes=outcomes, now=now)
        wrong += [
            f"'{name}' must be a text of at most {MOST_CHARACTERS} printable characters: {said[:40]!r}"
            for name, said in (("decision_id", decision_id), ("unit", unit))
            if said and (len(said) > MOST_CHARACTERS or not said.isprintable())
        ]
        if not decision_id and not unit:
            wrong.append("'decision_id' or 'unit' must not be empty")
        elif not decision_id and within_s is None:
            wrong.append("'--within' must say how long before its outcome a unit was decided at most")
        there = {name: row.get(name) for name in amounts if _text(row.get(name))}
        wrong += [
            f"'{name}' must be a number: {str(value)!r}"
            for name, value in there.items()
            if _number(value) is None
        ]
        if there and not decision_id:
            wrong.append(f"'{min(there)}' must go with a decision_id: a unit may have several decisions")
        mistakes += [f"row {number}: {one}" for one in wrong]
        if wrong:
            continue
        at = instant(row["at"]) or 0.0
        if decision_id:
            named.append(Outcome(decision_id, outcome, at))
            measured += [
                Measurement(decision_id, name, _number(value) or 0.0, at) for name, value in there.items()
            ]
        else:
            of_units.append(UnitOutcome(unit, outcome, at, within_s or 0.0))
    if mistakes:
        more = [f"and {len(mistakes) - _SHOWN} more"] if len(mistakes) > _SHOWN else []
        raise OutcomeFileError("\n".join([f"'{path}' is not imported:", *mistakes[:_SHOWN], *more]))
    return OutcomeRows(tuple(named), tuple(of_units), tuple(measured))


def import_outcomes(db: Database, rows: OutcomeRows, *, received_at: float) -> Imported:
    """Record them, some at a time; killed in between, the same import again finishes it. Raises StoreError."""
    unmatched = too_early = 0
    receipts = [record_outcomes(db, some, received_at=received_at) for some in _chunks(rows.named)]
    for amounts in _chunks(rows.measured):
        record_measurements(db, amounts, received_at=received_at)
    for units in _chunks(rows.of_units):
        found = match_units(db, units)
        unmatched, too_early = unmatched + len(found.unmatched), too_early + len(found.too_early)
        receipts.append(record_outcomes(db, found.outcomes, received_at=received_at))
    names = ("new", "duplicates", "conflicts", "unknown", "late")
    total = OutcomeReceipt(*(sum(getattr(one, name) for one in receipts) for name in names))
    return Imported(total, unmatched, too_early)


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise OutcomeFileError(f"there is no file {str(path)!r}")
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        if path.suffix in (".jsonl", ".ndjson"):
            return pl.read_ndjson(path, infer_schema_length=None)
        if path.name.endswith((".csv", ".csv.gz")):
            return pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise OutcomeFileError(f"{str(path)!r} cannot be read: {error}") from error
    raise OutcomeFileError(f"'file' must be {_KINDS}: {str(path)!r}")


def _mistakes(outcome: str, at: object, *, outcomes: Collection[str], now: float) -> list[str]:
    wrong = []
    if outcome not in outcomes:
        known = ", ".join(outcomes)
        wrong.append(f"'outcome' must be one of {known}: {outcome!r}{did_you_mean(outcome, tuple(outcomes))}")
    happened = instant(at)
    if happened is None:
        wrong.append(f"'at' must be epoch seconds, or ISO 8601 with its offset from UTC: {str(at)!r}")
    elif not 0 <= happened <= now:
        wrong.append(f"'at' must be in the past: {str(at)!r}")
    return wrong


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool):
        return None
    text = str(value)
    try:
        number = float(text)
    except ValueError:
        return None
    if "_" in text:  # Python reads 1_000, nobody else does
        return None
    return number if isfinite(number) else None


def instant(value: object) -> float | None:
    """Epoch seconds; None for what is no instant. A Parquet timestamp without a zone is UTC."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    number = _number(value)
    if number is not None:
        return number
    try:
        moment = datetime.fromisoformat(str(value).strip())
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None


def _chunks(rows: tuple[Row, ...]) -> Iterator[tuple[Row, ...]]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]
