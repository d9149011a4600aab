"""The rollout flow: one Prefect flow for the rollout, one inside it for every live stage it passes.

They show what the conductor tells (flows/shown_in_prefect.py): names and artifacts only. A killed rollout is taken up
by `trimtab rollout resume` (or the same deployment), in a flow run of its own.
"""

from __future__ import annotations

from prefect import flow

from flows.shown_in_prefect import Ended, StageEntered, StageLeft, Told
from flows.verdict_artifacts import publish_verdict
from policies.rollout.verdict import Verdict


class ConductingStopped(RuntimeError):
    """The rollout is not conducted any more and has not ended; the text says why."""


@flow(name="roll-out", flow_run_name="{rollout_id}", validate_parameters=False, persist_result=False)
def roll_out(rollout_id: str, candidate: str, told: Told) -> str:
    """Follow the rollout to its end, a stage flow each; returns `promoted` or `rolled_back`."""
    while True:
        now = told.get()
        if isinstance(now, Ended):
            return _phase(now)
        if isinstance(now, StageEntered):
            pass_live_stage.with_options(name=f"{now.kind}-stage")(rollout_id, now.stage, candidate, told)


@flow(flow_run_name="{rollout_id} {stage}", validate_parameters=False, persist_result=False)
def pass_live_stage(rollout_id: str, stage: str, candidate: str, told: Told) -> Verdict | None:
    """Follow one live stage until the policy moves the rollout on or back; the verdict becomes an artifact."""
    now = told.get()
    if isinstance(now, StageLeft):
        publish_verdict(now.verdict, release=candidate, report=now.report)
        return now.verdict
    if isinstance(now, Ended):
        told.put(now)  # the flow around this one ends by it, too
        _phase(now)
    return None


def _phase(ended: Ended) -> str:
    if ended.why:
        raise ConductingStopped(ended.why)
    return ended.phase
