"""The rollout flow: one Prefect flow for the rollout, one inside it for every live stage it passes.

Order and artifacts only; the conductor decides and acts, and would without Prefect. A killed flow run is taken up by
`trimtab rollout resume` (or the same deployment): the conductor starts where the record stands.
"""

from __future__ import annotations

from collections.abc import Callable

from prefect import flow

from flows.verdict_artifacts import publish_verdict
from policies.rollout.verdict import Verdict
from services.rollout.conductor import Conductor

OnVerdict = Callable[[Verdict], None]


@flow(name="roll-out", flow_run_name="{rollout_id}", validate_parameters=False, persist_result=False)
def roll_out(
    rollout_id: str,
    candidate: str,
    conductor: Conductor,
    on_stage: Callable[[str], None],
    on_verdict: OnVerdict,
) -> str:
    """Conduct the rollout to its end, a stage flow each; returns `promoted` or `rolled_back`."""
    while not conductor.ended:
        stage = conductor.policy.stage(conductor.state.stage)
        on_stage(stage.name)
        pass_live_stage.with_options(name=f"{stage.kind}-stage")(
            rollout_id, stage.name, candidate, conductor, on_verdict
        )
    return conductor.state.phase.value


@flow(flow_run_name="{rollout_id} {stage}", validate_parameters=False, persist_result=False)
def pass_live_stage(
    rollout_id: str, stage: str, candidate: str, conductor: Conductor, on_verdict: OnVerdict
) -> Verdict:
    """Poll one live stage until the policy moves the rollout on or back; told before Prefect is asked for anything."""
    verdict = conductor.run_stage()
    on_verdict(verdict)
    publish_verdict(verdict, release=candidate, report=conductor.report_of(verdict))
    return verdict
