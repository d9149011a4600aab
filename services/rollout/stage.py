"""What every stage does, once: gather evidence → judge it by the policy → ledger → act → stage report.

Rule 1: nothing is acted upon before its verdict stands in the ledger.
Rule 2: the ledger entry names the report before it is written; the report itself comes last, because a rollback must
never wait for a picture (infra/decisions/0003).
Rule 3: a report that cannot be written is said in the ledger and changes no verdict.
Source: design.md section 3. Must never import Prefect: traffic safety does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from policies.rollout.verdict import Verdict
from services.home import Home
from services.ledger.ledger import append, latest
from services.reports.stage_report import ReportError, ReportLink, report_link
from services.store.database import Database

Evidence = TypeVar("Evidence")


@dataclass(frozen=True)
class StageContext:
    """Where, and which release of which service is judged; rollout_id is None before there is a rollout."""

    home: Home
    db: Database
    service: str
    release: str
    rollout_id: str | None = None

    def link(self, verdict: Verdict) -> ReportLink:
        """Where the report of this verdict stands or will stand."""
        return report_link(
            self.home, service=self.service, release=self.release, stage=verdict.stage, at=verdict.at
        )


def conclude_stage(
    context: StageContext,
    verdict: Verdict,
    *,
    act: Callable[[Verdict], None],
    report: Callable[[Verdict], None],
    since: float | None = None,
) -> Verdict:
    """Record the verdict, act on it, then report on it, in that order. since: when the stage began, epoch s.

    A verdict that the rollout's last entry of this kind states already (its conductor died over it) is not said again.
    """
    said = None if context.rollout_id is None else latest(context.db, context.rollout_id, "verdict")
    if said is None or said.body["verdict"] != verdict.to_json():
        _record(context, verdict, since)
    act(verdict)
    write_report(context, verdict, report)
    return verdict


def _record(context: StageContext, verdict: Verdict, since: float | None) -> None:
    link = context.link(verdict)
    append(
        context.db,
        "verdict",
        {
            "release": context.release,
            "verdict": verdict.to_json(),
            "report": str(link.path.relative_to(context.home.root)),
            "report_run": str(link.run_id),
            "since": since,
        },
        service=context.service,
        rollout_id=context.rollout_id,
        at=verdict.at,
    )


def write_report(context: StageContext, verdict: Verdict, report: Callable[[Verdict], None]) -> None:
    """Write a stage report; what goes wrong is put on the ledger, and nothing else happens."""
    try:
        report(verdict)
    except ReportError as error:
        append(
            context.db,
            "report_failed",
            {"stage": verdict.stage, "why": str(error)},
            service=context.service,
            rollout_id=context.rollout_id,
            at=verdict.at,
        )


def pass_stage(
    context: StageContext,
    *,
    gather: Callable[[], Evidence],
    judge: Callable[[Evidence], Verdict],
    act: Callable[[Verdict], None],
    report: Callable[[Verdict, Evidence], None],
) -> tuple[Verdict, Evidence]:
    """Run an offline stage: its evidence is gathered once and its verdict is final."""
    evidence = gather()
    verdict = judge(evidence)
    conclude_stage(context, verdict, act=act, report=lambda final: report(final, evidence))
    return verdict, evidence
