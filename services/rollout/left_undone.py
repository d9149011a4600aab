"""What a conductor that died had said but not done, read from the ledger: a rollback, stage reports.

Rule 1: a ROLLBACK on the ledger is carried out by whoever takes the rollout up, before the candidate gets any weight.
Rule 2: any other verdict that was not acted on is void: the stage bakes again and is judged anew.
Must never import Prefect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policies.rollout.verdict import Decision, Verdict
from services.ledger.ledger import LedgerEntry, entries
from services.rollout.stage import StageContext


@dataclass(frozen=True)
class MissingReport:
    """A stage's verdict whose report was announced and not written; since: when the stage began, epoch s."""

    verdict: Verdict
    since: float


def unfinished_rollback(context: StageContext, stage: str) -> Verdict | None:
    """The rollback of this stage that the rollout's last concluded verdict orders; None where it orders none.

    Call it for a rollout that is live: had the verdict been acted on, it would not be.
    """
    concluded = [verdict for _, verdict in _concluded(context)]
    last = concluded[-1] if concluded else None
    return last if last is not None and (last.stage, last.decision) == (stage, Decision.ROLLBACK) else None


def missing_reports(context: StageContext) -> tuple[MissingReport, ...]:
    """The reports that the ledger announces, that are not there, and of which nobody said why, in order."""
    failed = {
        (str(entry.body["stage"]), entry.at)
        for entry in entries(context.db, context.rollout_id, "report_failed")
    }
    return tuple(
        MissingReport(verdict, float(str(entry.body["since"])))
        for entry, verdict in _concluded(context)
        if (verdict.stage, verdict.at) not in failed
        and entry.body.get("since") is not None
        and not (context.home.root / str(entry.body["report"])).is_file()
    )


def _concluded(context: StageContext) -> list[tuple[LedgerEntry, Verdict]]:
    """The verdicts that were to end a stage; one that only holds announces no report."""
    return [
        (entry, Verdict.from_json(verdict))
        for entry in entries(context.db, context.rollout_id, "verdict")
        if "report" in entry.body and isinstance(verdict := entry.body["verdict"], Mapping)
    ]
