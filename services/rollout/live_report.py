"""The report of a live stage: the stage's decisions as frames, candidate against stable, handed to services/reports.

Read-only and descriptive; a failure is a ReportError and changes no verdict. Must never import Prefect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import orjson
import pandas as pd  # type: ignore[import-untyped]

from policies.rollout.rollout_policy import Stage, load_rollout
from policies.rollout.verdict import Verdict
from policies.utility.constraints import Constraint
from policies.utility.utility import UtilityError, UtilitySpec
from services.reports.gap_panels import WatchedGap
from services.reports.stage_report import Kind, ReportError, write_stage_report
from services.rollout.stage import StageContext, write_report
from services.store.evidence import DecidedUnit
from services.store.measurements import measured_values
from services.store.rollouts import RolloutRecord
from services.store.stage_decisions import StageDecision, decisions_between
from services.telemetry.disagreement import Disagreement, DisagreementError
from services.telemetry.measured_payoffs import Amounts
from services.telemetry.realised import price_each

MOST_ROWS = 6_000
SPILL_S = 1.0  # decisions logged this long after the verdict still belong to the stage


class LiveReports:
    """Writes the reports of a rollout one after the other in the background, so that no poll waits for one."""

    def __init__(self, utility: UtilitySpec) -> None:
        self._utility = utility
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stage-report")
        self._waiting: list[Future[None]] = []

    def submit(
        self, context: StageContext, record: RolloutRecord, stage: Stage, verdict: Verdict, since: float
    ) -> None:
        """Have the report of this verdict written; returns at once."""

        def write() -> None:
            write_report(
                context, verdict, lambda final: self._write(context, record, stage, final, since=since)
            )

        self._waiting.append(self._pool.submit(write))

    def finish(self) -> tuple[str, ...]:
        """Wait for all of them; what went wrong beyond a ReportError (which is on the ledger), in words, never raised:
        a report must not replace the rollout's own result."""
        self._pool.shutdown()
        errors = [waiting.exception() for waiting in self._waiting]
        return tuple(f"{type(error).__name__}: {error}" for error in errors if error is not None)

    def _write(
        self, context: StageContext, record: RolloutRecord, stage: Stage, verdict: Verdict, *, since: float
    ) -> None:
        decided = decisions_between(context.db, start=since, stop=verdict.at + SPILL_S, limit=MOST_ROWS)
        candidate, stable = split_arms(decided, stage, record.candidate)
        mature_at = verdict.at - load_rollout(record.policy_text, f"{record.id}/rollout.yaml").maturity_s
        if not candidate:
            raise ReportError(f"the candidate decided nothing in stage {stage.name}")
        hidden = self._utility.hidden
        amounts = measured_values(context.db, [one.decision_id for one in decided], names=hidden)
        frames = [
            arm_frame(arm, self._utility, mature_at=mature_at, amounts=amounts)
            for arm in (candidate, stable)
            if arm
        ]
        if any(gate.where == "disagreement" for gate in stage.gates):
            releases = Disagreement(
                context.home.releases, champion=record.champion, candidate=record.candidate
            )
            add_agreement(frames, (candidate, stable), releases)
        write_stage_report(
            context.home,
            service=context.service,
            release=context.release,
            stage=stage.name,
            verdict=verdict,
            kind=cast(Kind, stage.kind),
            current=frames[0],
            reference=frames[1] if stable else None,
            at=verdict.at,
            unit=self._utility.unit,
            gaps=watched_gaps(self._utility),
        )


def split_arms(
    decided: Sequence[StageDecision], stage: Stage, candidate: str
) -> tuple[list[StageDecision], list[StageDecision]]:
    """The candidate's decisions and stable's: by shadow mark, by assignment, or by the release that answered."""
    if stage.kind == "shadow":
        return [d for d in decided if d.shadow], [d for d in decided if not d.shadow]
    live = [d for d in decided if not d.shadow]
    if stage.kind == "canary":
        return [d for d in live if d.assigned == "canary"], [d for d in live if d.assigned == "stable"]
    return [d for d in live if d.release == candidate], [d for d in live if d.release != candidate]


def arm_frame(
    decided: Sequence[StageDecision],
    utility: UtilitySpec,
    *,
    mature_at: float,
    amounts: Amounts | None = None,
) -> pd.DataFrame:
    """One row a decision, with the columns that services/reports/live_panels.py names.

    `amounts`: what was measured of fields hidden when deciding.
    `utility` is NaN, and `outcome` missing, for a decision later than `mature_at` (epoch s), whatever its action: one
    whose outcome is known at once must not mature earlier (gates.md, semantic 7).
    """
    rows: list[dict[str, Any]] = [orjson.loads(d.row) for d in decided]
    frame = pd.DataFrame(
        {
            "request_id": [d.request_id for d in decided],
            "at": [d.at for d in decided],
            "action": [d.action for d in decided],
            "score": [np.nan if d.score is None else d.score for d in decided],
            "took_ms": [d.took_ms for d in decided],
            "release": [d.release for d in decided],
        }
    )
    frame["utility"] = np.where(frame["at"] <= mature_at, _utilities(decided, utility, amounts), np.nan)
    frame["outcome"] = [d.outcome if d.at <= mature_at else None for d in decided]
    for gap in watched_gaps(utility):
        (constraint,) = (one for one in utility.constraints if one.name == gap.name)
        frame[gap.column] = [_in_group_a(row, constraint) for row in rows]
    return frame


def watched_gaps(utility: UtilitySpec) -> tuple[WatchedGap, ...]:
    """The bounded gaps, each with why live decisions cannot tell it where they cannot."""
    return tuple(
        WatchedGap(
            one.name,
            f"group of {one.name}",
            one.action,
            one.group_names,
            one.at_most,
            among=one.among,
            outcome=one.outcome,
            unseen=_unseen(one, utility),
        )
        for one in utility.constraints
        if one.group_field is not None and one.action is not None and one.at_most is not None
    )


def _unseen(gap: Constraint, utility: UtilitySpec) -> str:
    """A rate among an outcome needs it after every action, a precision after its own; else it is of the seen alone."""
    needed = utility.actions if gap.among is not None else (gap.action,) if gap.outcome is not None else ()
    missing = [one for one in needed if one not in utility.outcome_known_after]
    return f"no outcome is known after {', '.join(map(repr, missing))}" if missing else ""


def _in_group_a(row: Mapping[str, Any], constraint: Constraint) -> bool | None:
    """Whether the row is of group a; None where it does not say (a field may be missing, or hidden in the log)."""
    try:
        value = np.array([row[str(constraint.group_field)]], dtype=object)
        return bool(constraint.in_group_a({str(constraint.group_field): value})[0])
    except (KeyError, ValueError, TypeError):
        return None


def _utilities(
    decided: Sequence[StageDecision], utility: UtilitySpec, amounts: Amounts | None
) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        return price_each(_units(decided), utility, amounts=amounts)
    except UtilityError as error:
        raise ReportError(f"a decision cannot be priced: {error}") from error


def add_agreement(
    frames: Sequence[pd.DataFrame], arms: Sequence[Sequence[StageDecision]], releases: Disagreement
) -> None:
    """Say of each decision whether both releases would take the same action, where that can be recomputed."""
    try:
        for frame, arm in zip(frames, (arm for arm in arms if arm), strict=True):
            frame["agrees"] = releases.compare(_units(arm)).agrees
    except DisagreementError:
        return  # the gate says so, and why; the report shows the full payoffs alone


def _units(decided: Sequence[StageDecision]) -> list[DecidedUnit]:
    return [
        DecidedUnit(d.decision_id, d.at, d.assigned, d.release, d.action, d.row, d.outcome, d.gated)
        for d in decided
    ]
