"""Rows with outcomes to recalibrate on: from the store's decisions, or from a file; in time order.

An outcome counts only after an action that reveals it (`outcomeKnownAfter` in utility.yaml); the rows of all other
decisions are kept without one, because rates of acting are over all decisions. Outcomes are read up to where the
feed is complete, so that slow ones are not taken for none.
Must never import Prefect, sqlalchemy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from policies.language.digest import canonical_sha256
from policies.utility.utility import UtilitySpec
from services.data.checks import check
from services.data.splits import by_event_time, to_arrays
from services.rollout.policy_set import PolicySet
from services.serving.row_check import RowCheck
from services.store import decisions as store
from services.store.database import Database
from services.store.evidence import DecidedUnit, delivered_decisions
from services.store.measurements import measured_values
from services.training.known_rows import known_rows
from services.training.predicted_fields import is_needed
from services.training.preprocessing import Columns
from services.training.time_slices import UNLABELLED

MOST_DECISIONS = 200_000
UNREADABLE = "rows that today's contract refuses"
UNSETTLED = "acted on, but no known outcome recorded, or no amount to price it by"
YOUNG = "no outcome in the file, or nothing to price it by"
OLD = "not later than the rows that the release was made of"


class RecalibrationError(RuntimeError):
    """There is nothing that a release could be recalibrated on; the text says what there is."""


@dataclass(frozen=True)
class OutcomeRows:
    """`columns` (n,) each, `outcomes` (n,) indices or UNLABELLED where nobody saw one, `times` (n,) epoch s, rising.

    `left_out`: how many rows are not among them, by reason; `digest` names their content; `later_than`: epoch s that
    all of them are later than, None where nobody knows up to when the release was made of rows.
    """

    columns: Columns
    outcomes: NDArray[np.int64]
    times: NDArray[np.float64]
    source: str
    digest: str
    left_out: Mapping[str, int]
    later_than: float | None = None

    def __len__(self) -> int:
        return len(self.outcomes)

    @property
    def is_seen(self) -> NDArray[np.bool_]:
        """(n,) whether the outcome is known."""
        seen: NDArray[np.bool_] = self.outcomes != UNLABELLED
        return seen

    def part(self, which: slice) -> OutcomeRows:
        """Some of the rows."""
        columns = {name: values[which] for name, values in self.columns.items()}
        return replace(self, columns=columns, outcomes=self.outcomes[which], times=self.times[which])


def rows_of_store(db: Database, policies: PolicySet, *, since: float, now: float) -> OutcomeRows:
    """The service's delivered decisions from `since` on, old enough for their outcomes; the newest 200,000.

    Raises RecalibrationError without a decision, where the feed has never said how far it is complete, and where the
    log hides what the release reads of a row.
    """
    contract, utility = policies.contract, policies.utility
    known = set(utility.fields) - set(utility.hidden)
    if hidden := contract.hidden_in_log(known):
        raise RecalibrationError(
            f"the contract hides {', '.join(hidden)} in the decision log, and without it no row of it can be scored: "
            "name a file of rows"
        )
    watermark = store.watermark(db)
    if watermark is None:
        raise RecalibrationError(
            "the outcome feed has never posted a watermark: nobody knows which outcomes are complete"
        )
    through = min(now, watermark) - policies.rollout.maturity_s
    found = delivered_decisions(db, since=since, through=through, limit=MOST_DECISIONS)
    decided = [one for one in found if one.release.rpartition("-")[0] == policies.service]
    amounts = measured_values(db, [one.decision_id for one in decided], names=utility.hidden)
    accepts = RowCheck(contract.columns, payoff_fields=known)
    kept: list[DecidedUnit] = []
    rows: list[dict[str, object]] = []
    outcomes: list[int] = []
    left_out = {UNREADABLE: 0, UNSETTLED: 0}
    for one in decided:
        row = orjson.loads(one.row)
        reveals = one.action in utility.outcome_known_after
        if not accepts.takes(row):
            left_out[UNREADABLE] += 1
        elif reveals and not _is_settled(one, utility, amounts.get(one.decision_id, {})):
            left_out[UNSETTLED] += 1
        else:
            kept.append(one)
            rows.append(row)
            outcomes.append(utility.outcomes.index(str(one.outcome)) if reveals else UNLABELLED)
    if not kept:
        raise RecalibrationError(
            f"no decision of {policies.service} to recalibrate on: {len(decided):,} taken since then and old enough; "
            + ", ".join(f"{count:,} {why}" for why, count in left_out.items())
        )
    later = {
        name: np.array([amounts.get(one.decision_id, {}).get(name, np.nan) for one in kept])
        for name in utility.hidden
    }
    return OutcomeRows(
        columns={**accepts.to_columns(rows), **later},
        outcomes=np.array(outcomes, dtype=np.int64),
        times=np.array([one.at for one in kept]),
        source="decisions of the store",
        digest=canonical_sha256([[one.decision_id, seen] for one, seen in zip(kept, outcomes, strict=True)]),
        left_out=left_out,
        later_than=since,
    )


def _is_settled(one: DecidedUnit, utility: UtilitySpec, amounts: Mapping[str, float]) -> bool:
    """Whether the outcome is known, and every amount that the payoffs of this outcome read."""
    if one.outcome not in utility.outcomes:
        return False
    came = utility.outcomes.index(one.outcome)
    return all(name in amounts for name in utility.hidden if is_needed(utility, name)[came])


def rows_of_file(
    delivered: pl.DataFrame, policies: PolicySet, *, folder: Path, source: str, later_than: float | None
) -> OutcomeRows:
    """The rows that keep the contract, have an outcome, and happened after `later_than` (epoch s; None: any).

    Snapshot and quarantine are written to `folder`.
    Raises RecalibrationError where the file as a whole breaks the contract, TrainingError without an outcome.
    """
    contract, utility = policies.contract, policies.utility
    report = check(
        delivered, contract, quarantine=folder / "quarantine.parquet", snapshot=folder / "snapshot.parquet"
    )
    if report.failed:
        raise RecalibrationError("; ".join(rule.sentence() for rule in report.failed))
    ordered = by_event_time(pl.read_parquet(report.snapshot), contract, start=0.0, stop=1.0)
    columns = to_arrays(ordered, contract)
    times = np.asarray(columns[contract.event_time], dtype=np.float64)
    is_later = times > (-np.inf if later_than is None else later_than)
    if not is_later.any():
        raise RecalibrationError(f"no row of {source} is later than those that the release was made of")
    columns = {name: values[is_later] for name, values in columns.items()}
    known, outcomes = known_rows(columns, contract, utility)
    return OutcomeRows(
        columns=known,
        outcomes=outcomes,
        times=np.asarray(known[contract.event_time], dtype=np.float64),
        source=source,
        digest=report.snapshot_digest,
        left_out={
            UNREADABLE: report.quarantined,
            OLD: int((~is_later).sum()),
            YOUNG: int(is_later.sum()) - len(outcomes),
        },
        later_than=later_than,
    )
