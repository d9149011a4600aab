"""The archive of a home: old rows of the store as Parquet files, one folder a day (UTC), each row once.

`<archive>/<table>/day=2026-11-22/part-0001.parquet`, zstd, mode 0600; JSON columns stay JSON text. A part is written
whole, synced and renamed before anybody deletes what it holds; a row that is in the day's parts already is not written
again, so a run that was killed anywhere is finished by the next one. Read it with polars or DuckDB (README.md).
Must never import: sqlalchemy, policies, flows.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl

from services.store.retained import RetainedTable

DAY_S = 86_400.0
_KINDS: dict[type, pl.DataType] = {
    str: pl.String(),
    float: pl.Float64(),
    int: pl.Int64(),
    bool: pl.Boolean(),
}


@dataclass(frozen=True)
class ArchivedDay:
    """What is kept of one table and day."""

    table: str
    day: date
    rows: int
    bytes: int


def day_of(at: float) -> date:
    """The UTC day of an instant (epoch s)."""
    return datetime.fromtimestamp(at, UTC).date()


def start_of(day: date) -> float:
    """When a UTC day begins, epoch s."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def add_rows(archive: Path, table: RetainedTable, day: date, rows: Sequence[dict[str, object]]) -> int:
    """Have the archive hold these rows of one day, durably; how many it did not hold before. Raises OSError."""
    folder = archive / table.name / f"day={day.isoformat()}"
    schema = {name: _KINDS[kind] for name, kind in table.columns.items()}
    frame = pl.from_dicts(rows, schema=schema)
    keys = list(table.keys)
    parts = sorted(folder.glob("part-*.parquet"))
    for part in parts:
        frame = frame.join(pl.read_parquet(part, columns=keys), on=keys, how="anti")
    if frame.is_empty():
        return 0
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    number = 1 + max((int(part.stem.removeprefix("part-")) for part in parts), default=0)
    target = folder / f"part-{number:04d}.parquet"
    staged = folder / f".{target.name}.{os.getpid()}"
    descriptor = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        frame.sort(table.at, maintain_order=True).write_parquet(stream, compression="zstd")
        stream.flush()
        os.fsync(stream.fileno())
    written = pl.scan_parquet(staged).select(pl.len()).collect().item()
    if written != frame.height:
        raise OSError(f"{staged} must hold {frame.height} rows: {written}")
    os.replace(staged, target)
    for changed in (folder, folder.parent, archive):
        _sync_folder(changed)
    return frame.height


def archived_days(archive: Path) -> Iterator[ArchivedDay]:
    """Every table and day that the archive holds, in order."""
    for folder in sorted(archive.glob("*/day=*")):
        parts = sorted(folder.glob("part-*.parquet"))
        if parts:
            rows = pl.scan_parquet(parts).select(pl.len()).collect().item()
            size = sum(part.stat().st_size for part in parts)
            yield ArchivedDay(folder.parent.name, date.fromisoformat(folder.name[4:]), rows, size)


def erase_before(archive: Path, day: date) -> tuple[ArchivedDay, ...]:
    """Delete what the archive holds of the days before this one, for good; what it was."""
    gone = tuple(one for one in archived_days(archive) if one.day < day)
    for one in gone:
        shutil.rmtree(archive / one.table / f"day={one.day.isoformat()}")
    return gone


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
