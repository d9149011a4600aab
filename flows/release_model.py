"""The release flow: contract → training → alignment → release, one Prefect flow for each stage, then the rollout.

Order, artifacts and nothing else: what each stage measures and decides is in services/rollout. With no stable release
yet, the new release is the first and serves at once; else it challenges the champion in a rollout (flows/roll_out.py).
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.verdict_artifacts import publish_verdict
from policies.operating.operating_point import OperatingPoint
from policies.rollout.verdict import Verdict
from services.rollout import offline_stages
from services.rollout.offline_stages import CheckedRows
from services.rollout.release_job import ReleaseJob
from services.serving.release import Release
from services.training.time_slices import TimeSlices
from services.training.train import Training

_IN_MEMORY: dict[str, Any] = {"validate_parameters": False, "persist_result": False}


@flow(name="release-model", flow_run_name="{name}", **_IN_MEMORY)
def release_model(name: str, job: ReleaseJob, delivered: Any) -> Release:
    """Make one release of the rows delivered; every stage must advance. Raises StageRefused with the verdict."""
    checked = contract_stage(name, job, delivered)
    training, slices = training_stage(name, job, checked)
    point = alignment_stage(name, job, training, slices)
    return release_stage(name, job, checked, training, point)


@flow(name="contract-stage", flow_run_name="{name} contract", **_IN_MEMORY)
def contract_stage(name: str, job: ReleaseJob, delivered: Any) -> CheckedRows:
    """The delivered rows keep the data contract."""
    return offline_stages.check_contract(_publishing(job), delivered)


@flow(name="training-stage", flow_run_name="{name} training", **_IN_MEMORY)
def training_stage(name: str, job: ReleaseJob, checked: CheckedRows) -> tuple[Training, TimeSlices]:
    """Two losses, calibrated, compared on validation utility; the better is kept."""
    return offline_stages.train_candidates(_publishing(job), checked)


@flow(name="alignment-stage", flow_run_name="{name} alignment", **_IN_MEMORY)
def alignment_stage(name: str, job: ReleaseJob, training: Training, slices: TimeSlices) -> OperatingPoint:
    """The operating point against trivial policies and the champion, on later rows."""
    return offline_stages.align_thresholds(_publishing(job), training, slices)


@flow(name="release-stage", flow_run_name="{name} release", **_IN_MEMORY)
def release_stage(
    name: str, job: ReleaseJob, checked: CheckedRows, training: Training, point: OperatingPoint
) -> Release:
    """The immutable folder that ships as one."""
    return offline_stages.pack_release(job, checked, training, point)


def _publishing(job: ReleaseJob) -> ReleaseJob:
    """The same job, whose verdicts also become artifacts of the running stage flow."""

    def conclude(verdict: Verdict, report: str) -> None:
        publish_verdict(verdict, release=job.name, report=report)
        job.watcher.conclude(verdict, report)

    return job.watched_by(conclude)
