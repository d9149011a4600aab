"""Retention of one home: old rows go from the store to the archive, old logs go, and old days of the archive go.

Whole UTC days only, and never a day that an open rollout has seen: its evidence is counted from its creation on. The
ledger, the rollouts and the evidence of their polls stay for ever; the ledger gets an entry of what was taken,
and of what is to be erased before it is.
Killed anywhere, the next run goes on; two runs at once wait for each other. Must never import: sqlalchemy, flows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from filelock import FileLock

from services.home import Home
from services.ledger.ledger import append
from services.retention.archive import DAY_S, add_rows, archived_days, day_of, erase_before, start_of
from services.retention.old_logs import begin_access_log, delete_old_logs
from services.store import decisions as store
from services.store import rollouts
from services.store.database import Database
from services.store.retained import RETAINED, RetainedTable, count_between, delete_rows, oldest, rows_between

ROWS_A_PART = 100_000
LOCK_WAIT_S = 600.0


@dataclass(frozen=True)
class Kept:
    """How long things are kept, s: rows in the store, shipped logs, and days of the archive (None: for ever)."""

    store_s: float
    logs_s: float
    archive_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("store_s", "logs_s"):
            if getattr(self, name) < DAY_S:
                raise ValueError(f"'{name}' must be >= {DAY_S:g}: {getattr(self, name):g}")
        if self.archive_s is not None and self.archive_s <= self.store_s:
            raise ValueError(f"'archive_s' must be > store_s = {self.store_s:g}: {self.archive_s:g}")


@dataclass
class Done:
    """What one run did: rows archived and deleted by table, logs deleted, days erased; `before`: the first day that
    stays in the store; `held_by`: the open rollout that keeps it from being later."""

    before: date
    held_by: str | None
    archived: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    logs: int = 0
    log_bytes: int = 0
    logs_kept: dict[str, str] = field(default_factory=dict)
    erased_days: int = 0
    erased_rows: int = 0
    access_log: Path | None = None

    def to_json(self) -> dict[str, object]:
        access_log = None if self.access_log is None else self.access_log.name
        return {**vars(self), "before": self.before.isoformat(), "access_log": access_log}

    @property
    def is_nothing(self) -> bool:
        return not (any(self.deleted.values()) or self.logs or self.erased_days)


def run_retention(
    home: Home,
    db: Database,
    kept: Kept,
    *,
    now: float,
    by: str,
    is_dry: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Done:
    """Do it; with `is_dry` only count. Raises StoreError, OSError; filelock.Timeout after ten minutes' waiting."""
    home.archive.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(home.archive / ".retention.lock", timeout=LOCK_WAIT_S):
        before, held_by = _first_day_kept(db, now - kept.store_s)
        done = Done(before, held_by)
        for table in RETAINED:
            if is_dry:
                done.deleted[table.name] = count_between(db, table, before=start_of(before))
            else:
                _archive(home.archive, db, table, done, say)
        shipped = {one.file_id: one for one in store.checkpoints(db)}
        if not is_dry:
            done.access_log = begin_access_log(home, now=now)
        logs = delete_old_logs(home, shipped, before=now - kept.logs_s, is_dry=is_dry)
        done.logs, done.log_bytes, done.logs_kept = len(logs.deleted), logs.bytes, dict(logs.kept)
        if is_dry:
            return done
        store.forget_checkpoints(db, logs.file_ids)
        if kept.archive_s is not None:
            last_kept = day_of(now - kept.archive_s)
            if any(one.day < last_kept for one in archived_days(home.archive)):
                intent = {"by": by, "before": last_kept.isoformat()}  # on record first: it cannot be undone
                append(db, "retention_erases", intent, service="*", rollout_id=None, at=now)
            erased = erase_before(home.archive, last_kept)
            done.erased_days, done.erased_rows = len(erased), sum(one.rows for one in erased)
        if not done.is_nothing:
            append(db, "retention", {"by": by, **done.to_json()}, service="*", rollout_id=None, at=now)
    return done


def _first_day_kept(db: Database, wanted: float) -> tuple[date, str | None]:
    """The first UTC day that stays: that of `wanted`, or of the oldest open rollout where that is earlier."""
    day, held_by = day_of(wanted), None
    for record in rollouts.all_active(db):
        if day_of(record.created_at) < day:
            day, held_by = day_of(record.created_at), record.id
    return day, held_by


def _archive(
    archive: Path, db: Database, table: RetainedTable, done: Done, say: Callable[[str], None]
) -> None:
    end, cursor = start_of(done.before), 0.0
    done.archived[table.name] = done.deleted[table.name] = 0
    while (found := oldest(db, table, since=cursor, before=end)) is not None:
        day = day_of(found)
        cursor = start_of(day + timedelta(days=1))
        while rows := rows_between(db, table, start=start_of(day), stop=cursor, limit=ROWS_A_PART):
            done.archived[table.name] += add_rows(archive, table, day, rows)
            done.deleted[table.name] += delete_rows(db, table, rows)
        say(f"{table.name} of {day.isoformat()}: {done.deleted[table.name]} rows so far")
