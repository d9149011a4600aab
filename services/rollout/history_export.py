"""Writes a rollout's canary stages as a flat history file, the one that services/rehearsal/history_file.py reads.

One row per unit, its first delivered decision, by assignment, as the gates counted it; decisions taken between two
stages, while the weight changed, are left out. What one release failed and stable made good is `failed`.
Must never import Prefect, sqlalchemy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import polars as pl

from services.rollout.recorded import RecordedRollout, recorded_rollout
from services.store import evidence as queries
from services.store.database import Database
from services.store.decided_history import requests_of
from services.store.evidence import DecidedUnit
from services.store.measurements import measured_values
from services.telemetry.disagreement import Disagreement, DisagreementError
from services.telemetry.realised import price_each

MOST_UNITS = 5_000_000
_FAILED = 500


class NothingToExport(RuntimeError):
    """The rollout has no canary stage on record, or no decision in one; the text says which."""


@dataclass(frozen=True)
class Exported:
    """What was written: units in all, and by canary stage; lacks: columns that could not be told, and why."""

    path: Path
    units: int
    by_stage: dict[str, int]
    lacks: dict[str, str]


@dataclass(frozen=True)
class _Span:
    """While a canary stage had its weight: from settling it to the last poll. Epoch s, inclusive."""

    stage: str
    weight_pct: float
    start: float
    stop: float


def export_history(db: Database, rollout_id: str, path: Path, *, releases: Path) -> Exported:
    """Write `.csv` or `.parquet`. releases: where the releases' folders are, to tell where the two act differently.

    Raises UnknownRollout, NothingToExport.
    """
    rollout = recorded_rollout(db, rollout_id)
    spans = _spans(rollout)
    if not spans:
        raise NothingToExport(f"rollout {rollout_id} has no poll of a canary stage on record")
    began = rollout.record.created_at
    window = queries.first_decisions(
        db, since=began, settled_at=began, after=0.0, through=spans[-1].stop, limit=MOST_UNITS
    )
    kept = [(unit, span) for unit in window.rows if (span := _span_of(unit.at, spans)) is not None]
    if not kept:
        raise NothingToExport(f"rollout {rollout_id} has no decision in a canary stage on record")
    units = [unit for unit, _ in kept]
    frame, lacks = _frame(db, rollout, units, releases)
    frame = frame.with_columns(weight_pct=pl.Series([span.weight_pct for _, span in kept]))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    by_stage = {span.stage: sum(one.stage == span.stage for _, one in kept) for span in spans}
    return Exported(path, len(kept), by_stage, lacks)


def _frame(
    db: Database, rollout: RecordedRollout, units: Sequence[DecidedUnit], releases: Path
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Every column of the format that the store can tell; and why not, for the others."""
    requests = requests_of(db, [unit.decision_id for unit in units])
    beside = [requests[unit.decision_id] for unit in units]
    amounts = measured_values(db, [unit.decision_id for unit in units], names=rollout.utility.hidden)
    payoff = price_each(units, rollout.utility, amounts=amounts)
    default = rollout.utility.default_action
    columns: dict[str, object] = {
        "at": [unit.at for unit in units],
        "unit": [one.unit for one in beside],
        "assigned": [unit.assigned for unit in units],
        "acted": [int(unit.action != default) for unit in units],
        "payoff": [None if np.isnan(value) else value for value in payoff.tolist()],
        "outcome_at": [one.outcome_at for one in beside],
    }
    lacks: dict[str, str] = {}
    if all(one.status is not None for one in beside):
        columns["duration_ms"] = [one.duration_ms for one in beside]
        columns["failed"] = [int((one.attempts or 1) > 1 or (one.status or 0) >= _FAILED) for one in beside]
    else:
        lacks["failed, duration_ms"] = "the access log has no entry for some of the decisions"
    record = rollout.record
    try:
        compared = Disagreement(releases, champion=record.champion, candidate=record.candidate).compare(units)
        columns["differs"] = (~compared.agrees).astype(int).tolist()
    except DisagreementError as error:
        lacks["differs"] = str(error)
    return pl.DataFrame(columns), lacks


def _spans(rollout: RecordedRollout) -> tuple[_Span, ...]:
    found = []
    for (name, entered_at), polls in groupby(rollout.polls, key=lambda poll: (poll.stage, poll.entered_at)):
        stage = rollout.policy.stage(name)
        if stage.kind == "canary":
            found.append(_Span(name, stage.weight_pct or 0.0, entered_at, max(poll.at for poll in polls)))
    return tuple(found)


def _span_of(at: float, spans: Sequence[_Span]) -> _Span | None:
    return next((span for span in spans if span.start <= at <= span.stop), None)
