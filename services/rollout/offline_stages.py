"""The stages before live traffic: contract, training, alignment; and packing what passed them into a release.

Each gathers its evidence through the room that measures it and hands it to `ReleaseJob.pass_stage`, which judges,
records and reports. Rows are cut in the order of time; alignment sees rows later than training and calibration saw.
Must never import Prefect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from policies.gates.evidence import Measured
from policies.operating.operating_point import OperatingPoint
from policies.operating.point_search import check_point, search_point
from services.alignment.scenario_rows import Bench, Score, Sees, as_they_are, served_fields
from services.alignment.study import AlignmentStudy, study
from services.data.checks import ContractReport, check
from services.data.splits import by_event_time, to_arrays
from services.ledger.ledger import append
from services.reports.offline_panels import alignment_panels, training_panels
from services.reports.panels import Panel, Table
from services.reports.scenario_panels import study_panels
from services.reports.stage_report import write_stage_report
from services.rollout.made_of import made_of
from services.rollout.release_job import ReleaseJob
from services.rollout.stage import StageContext
from services.serving.build import sources_digest
from services.serving.release import Release, write_release
from services.serving.scorer import Scorer
from services.signing.release_signature import sign_in_home
from services.training.known_rows import known_rows
from services.training.predicted_fields import settled
from services.training.preprocessing import Columns
from services.training.time_slices import TimePlan, TimeSlices, time_slices
from services.training.train import Training, train

if TYPE_CHECKING:
    import polars as pl

    from policies.rollout.verdict import Verdict

REPORTED_ROWS = 20_000


@dataclass(frozen=True)
class CheckedRows:
    """The rows that kept the contract, those of the job's span of time, and what the check found."""

    rows: pl.DataFrame
    report: ContractReport

    def measured(self) -> dict[str, Measured]:
        """The metrics of the contract gates."""
        return self.report.measured()


def check_contract(job: ReleaseJob, delivered: pl.DataFrame) -> CheckedRows:
    """Contract stage: the rows delivered up to the job's end keep the contract. Raises StageRefused."""
    contract, folder = job.policies.contract, job.home.snapshots / job.name

    def gather() -> CheckedRows:
        span = by_event_time(delivered, contract, start=job.start, stop=job.stop)
        report = check(
            span, contract, quarantine=folder / "quarantine.parquet", snapshot=folder / "snapshot.parquet"
        )
        import polars as pl

        for sentence in report.sentences():
            job.watcher.say(f"  {sentence}")
        return CheckedRows(pl.read_parquet(report.snapshot), report)

    def report(context: StageContext, verdict: Verdict, seen: CheckedRows) -> None:
        half = len(seen.rows) // 2
        sample = seen.rows.select(contract.feature_names)
        write_stage_report(
            job.home,
            service=context.service,
            release=context.release,
            stage="contract",
            verdict=verdict,
            kind="contract",
            current=sample.slice(half).to_pandas(),
            reference=sample.slice(0, half).to_pandas(),
            at=verdict.at,
            panels=(_rules_panel(seen.report),),
            unit=job.policies.utility.unit,
        )

    return job.pass_stage(
        "contract",
        gather=gather,
        report=report,
    )


def train_candidates(job: ReleaseJob, checked: CheckedRows) -> tuple[Training, TimeSlices]:
    """Training stage: fit, calibrate and compare the candidates of this release. Raises StageRefused."""
    policies = job.policies
    slices = time_slices(to_arrays(checked.rows, policies.contract), TimePlan())

    def gather() -> Training:
        return train(
            slices.fit,
            slices.validation,
            slices.calibration,
            contract=policies.contract,
            utility=policies.utility,
            seed=job.seed,
            plan=policies.training,
            on_progress=job.watcher.epoch,
        )

    def report(context: StageContext, verdict: Verdict, training: Training) -> None:
        write_stage_report(
            job.home,
            service=context.service,
            release=context.release,
            stage="training",
            verdict=verdict,
            kind="training",
            current=None,
            reference=None,
            at=verdict.at,
            panels=training_panels(training, unit=policies.utility.unit),
            unit=policies.utility.unit,
        )

    training = job.pass_stage(
        "training",
        gather=gather,
        report=report,
    )
    append(
        job.db,
        "trained",
        {"job": job.name, **training.record()},
        service=policies.service,
        rollout_id=None,
        at=job.clock(),
    )
    return training, slices


def align_thresholds(job: ReleaseJob, training: Training, slices: TimeSlices) -> OperatingPoint:
    """Alignment stage: the operating point, priced on later rows, against every simpler rule and the champion.

    Raises StageRefused.
    """
    columns, outcomes = _known(slices.test, training, job)
    return judge_point(
        job,
        _operating_point(job, training, slices),
        columns,
        outcomes=outcomes,
        times=np.asarray(columns[job.policies.contract.event_time], dtype=np.float64),
        score=training.chosen.probabilities,
        sees=training.chosen.decided_on,
    )


def judge_point(
    job: ReleaseJob,
    point: OperatingPoint,
    columns: Columns,
    *,
    outcomes: NDArray[np.int64],
    times: NDArray[np.float64],
    score: Score,
    sees: Sees = as_they_are,
    panels: tuple[Panel, ...] = (),
) -> OperatingPoint:
    """Alignment stage of `point` on these rows, outcomes and `times` (epoch s, rising) (n,); the point, proved there.

    `score` gives calibrated probabilities (n, O) of columns, `sees` the columns as a decision sees them; the
    report shows `panels` first. Raises StageRefused.
    """
    policies = job.policies
    utility = policies.utility
    probabilities, decided_on = score(columns), sees(columns)
    point = check_point(
        point, utility, columns, probabilities=probabilities, outcomes=outcomes, decided_on=decided_on
    )

    def gather() -> AlignmentStudy:
        for sentence in () if point.proof is None else point.proof.sentences():
            job.watcher.say(f"  {sentence}")
        champion = None
        if job.champion is not None:
            champion = Scorer.load(job.champion).decide(columns).actions
        bench = Bench(
            utility=utility,
            columns=columns,
            outcomes=outcomes,
            times=times,
            probabilities=probabilities,
            operating_point=point,
            score=score,
            fields=served_fields(policies.contract, utility),
            sees=sees,
        )
        found = study(bench, champion=champion, scenarios=policies.scenarios, seed=job.seed)
        for failed in () if found.scenarios is None else found.scenarios.failed:
            job.watcher.say(f"  {failed.sentence()}")
        return found

    def report(context: StageContext, verdict: Verdict, found: AlignmentStudy) -> None:
        import pandas as pd  # type: ignore[import-untyped]

        payoffs = utility.payoffs(decided_on)
        actions = point.choose(payoffs, probabilities, utility=utility, columns=decided_on)
        names = np.array(utility.outcomes)
        positive = len(utility.outcomes) - 1
        frame = pd.DataFrame(
            {
                "outcome": names[outcomes],
                "action": np.array(utility.actions)[actions],
                "score": probabilities[:, positive],
                "is_positive": outcomes == positive,
                "acted": actions != utility.default_index,
            }
        )
        write_stage_report(
            job.home,
            service=context.service,
            release=context.release,
            stage="alignment",
            verdict=verdict,
            kind="alignment",
            current=frame.head(REPORTED_ROWS),
            reference=None,
            at=verdict.at,
            panels=(
                *panels,
                *alignment_panels(found.report),
                *study_panels(found.sensitivity, found.scenarios),
            ),
            unit=utility.unit,
        )

    found = job.pass_stage(
        "alignment",
        gather=gather,
        report=report,
    )
    append(
        job.db,
        "aligned",
        {"job": job.name, "operating_point": point.to_json(), **found.record()},
        service=policies.service,
        rollout_id=None,
        at=job.clock(),
    )
    return point


def _operating_point(job: ReleaseJob, training: Training, slices: TimeSlices) -> OperatingPoint:
    """Found on the validation rows: the best action of each row, under every constraint at once."""
    columns, outcomes = _known(slices.validation, training, job)
    chosen = training.chosen
    return search_point(
        job.policies.utility,
        columns,
        probabilities=chosen.probabilities(columns),
        outcomes=outcomes,
        decided_on=chosen.decided_on(columns),
    )


def _known(part: Columns, training: Training, job: ReleaseJob) -> tuple[Columns, NDArray[np.int64]]:
    """The rows that have an outcome and can be priced, as they turned out; and the outcomes (n,)."""
    known, outcomes = known_rows(part, job.policies.contract, job.policies.utility)
    return settled(known, training.chosen.decided_on(known), job.policies.utility.hidden), outcomes


def pack_release(job: ReleaseJob, checked: CheckedRows, training: Training, point: OperatingPoint) -> Release:
    """Write the release folder: weights, preprocessing, calibration, operating point and every digest behind them."""
    policies = job.policies
    release = write_release(
        job.home.releases,
        service=policies.service,
        candidate=training.chosen,
        operating_point=point,
        policies=policies.texts,
        provenance={
            "job": job.name,
            "snapshot_digest": checked.report.snapshot_digest,
            "contract_digest": policies.contract.digest,
            "utility_digest": policies.utility.digest,
            "rollout_digest": policies.rollout.digest,
            "scenarios_digest": None if policies.scenarios is None else policies.scenarios.digest,
            "training_digest": policies.training.digest,
            "code_version": job.code_version,
            "sources_digest": sources_digest(),
            "loss": training.chosen.loss_name,
            "seed": job.seed,
            "span": [job.start, job.stop],
            "made_of": made_of(checked.rows, policies.contract, policies.utility),
        },
        created_at=job.clock(),
    )
    signed_by = sign_in_home(release, job.home)
    append(
        job.db,
        "release_packed",
        {
            "job": job.name,
            "release": release.id,
            "content_digest": release.content_digest,
            "signed_by": signed_by,
        },
        service=policies.service,
        rollout_id=None,
        at=job.clock(),
    )
    return release


def _rules_panel(report: ContractReport) -> Panel:
    rows = tuple(
        (rule.name, "passed" if rule.passed else "FAILED", f"{rule.violations:,}", rule.bound, rule.detail)
        for rule in report.rules
    )
    return Table(
        title="Rules of the contract",
        header=("rule", "", "violations", "bound", "detail"),
        rows=rows,
        value=float(report.quarantined),
        note=f"{report.rows:,} rows delivered, {report.kept:,} kept, {report.quarantined:,} in quarantine.",
    )
