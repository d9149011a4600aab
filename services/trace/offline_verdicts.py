"""The verdicts of the offline stages that a release came from, judged again from what those stages measured.

A release's stages stand on the ledger under the name of the job that made it; `release_packed` ties the two.
Must never import: sqlalchemy, Prefect.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.gates.offline_gates import judge_measured
from policies.rollout.rollout_policy import RolloutPolicy
from policies.rollout.verdict import Verdict
from services.ledger.ledger import LedgerEntry, entries
from services.rollout.measured_record import MEASURED, read_measured
from services.store.database import Database


@dataclass(frozen=True)
class OfflineVerdict:
    """One stage's verdict on record; `again`: the one that its measurements give, None where they are not on record,
    and `silent` says so. `entry`: of the ledger; `report`: where its report stands, in the home."""

    entry: int
    recorded: Verdict
    report: str | None
    again: Verdict | None
    silent: str = ""


def offline_verdicts(db: Database, *, candidate: str, policy: RolloutPolicy) -> tuple[OfflineVerdict, ...]:
    """The candidate's offline verdicts, in order; none for a release that no job on this ledger made."""
    every = [entry for entry in entries(db) if entry.rollout_id is None]
    packed = next(
        (one for one in every if one.kind == "release_packed" and one.body.get("release") == candidate), None
    )
    if packed is None:
        return ()
    job = packed.body.get("job")
    names = [stage.name for stage in policy.stages if stage.kind == "offline"]
    found = []
    for name in names:
        verdict = _last(every, "verdict", before=packed.seq, job=job, stage=name)
        if verdict is not None:
            measured = _last(every, MEASURED, before=verdict.seq, job=job, stage=name)
            found.append(_judged(verdict, measured, policy))
    return tuple(found)


def _judged(entry: LedgerEntry, measured: LedgerEntry | None, policy: RolloutPolicy) -> OfflineVerdict:
    stored, report = entry.body["verdict"], entry.body.get("report")
    recorded = Verdict.from_json(stored if isinstance(stored, dict) else {})
    place = None if report is None else str(report)
    if measured is None or measured.body.get("policy") != policy.digest:
        what = "nothing" if measured is None else "another policy's measurements"
        silent = f"ledger entry {entry.seq}, {recorded.stage}: {what} on record to judge it by"
        return OfflineVerdict(entry.seq, recorded, place, None, silent)
    again = judge_measured(
        policy.stage(recorded.stage),
        read_measured(measured.body),
        at=recorded.at,
        first_release=bool(measured.body["first_release"]),
    )
    return OfflineVerdict(entry.seq, recorded, place, again)


def _last(every: list[LedgerEntry], kind: str, *, before: int, job: object, stage: str) -> LedgerEntry | None:
    """The last entry of a kind about this stage of this job."""

    def is_it(entry: LedgerEntry) -> bool:
        if entry.kind != kind or entry.seq >= before:
            return False
        if kind == MEASURED:
            return (entry.body.get("job"), entry.body.get("stage")) == (job, stage)
        verdict = entry.body.get("verdict")
        return entry.body.get("release") == job and isinstance(verdict, dict) and verdict["stage"] == stage

    return next((entry for entry in reversed(every) if is_it(entry)), None)
