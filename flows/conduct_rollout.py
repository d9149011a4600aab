"""Conducts a rollout for a person to watch: sole conductor, background reports, Prefect flows where they are wanted.

The same function serves the main job, `trimtab rollout start`, a resumed rollout and the drills.
"""

from __future__ import annotations

from collections.abc import Callable

from flows.show_progress import ProgressView
from policies.rollout.verdict import Decision, Verdict
from policies.utility.utility import load_utility
from services.rehearsal.replay_process import ReplayProcess
from services.rollout.conductor import Conductor, Progress
from services.rollout.effects import World
from services.rollout.live_report import LiveReports
from services.rollout.sole_conductor import sole_conductor
from services.store import orders
from services.store.rollouts import RolloutRecord

OnVerdict = Callable[[Verdict, str], None]


def conduct(
    world: World,
    record: RolloutRecord,
    view: ProgressView,
    *,
    on_verdict: OnVerdict,
    rehearsal: ReplayProcess | None = None,
    resumed: bool = False,
    with_prefect: bool = True,
) -> str:
    """Conduct a rollout to its end; returns `promoted` or `rolled_back`.

    `on_verdict` hears each stage's final verdict and where its report is. A `rehearsal` is started when the candidate
    is in place; when its rows have run out before the policy has decided, the rollout is aborted, for nothing more
    will come. Raises ConductorBusy, EffectFailed, StaleRollout.
    """
    reports = LiveReports(load_utility(record.utility_text, f"{record.id}/utility.yaml"))

    def watch(progress: Progress) -> None:
        if rehearsal is not None:
            view.traffic(rehearsal.line())
            if progress.verdict.decision is Decision.HOLD and rehearsal.is_over(progress.at):
                _abort(world, progress)
        view.poll(progress)

    with sole_conductor(world.home, record.service):
        make = Conductor.resume if resumed else Conductor
        conductor = make(world, record, watch=watch, report=reports.submit)
        try:
            conductor.settle()
            if rehearsal is not None:
                rehearsal.start()
            return _run(conductor, view, on_verdict, with_prefect=with_prefect)
        finally:
            view.close_panel()
            for text in reports.finish():
                view.say(f"a stage report could not be written: {text}")


def _abort(world: World, progress: Progress) -> None:
    """Nothing more can be learned: an order on record, as a person would give it, once."""
    if not orders.open_orders(world.db, progress.rollout_id):
        reason = f"the replayed rows ran out while {progress.stage.name} held: {progress.verdict.detail}"
        orders.give(
            world.db,
            rollout_id=progress.rollout_id,
            verb="abort",
            by="rehearsal",
            reason=reason,
            at=progress.at,
        )


def _run(conductor: Conductor, view: ProgressView, on_verdict: OnVerdict, *, with_prefect: bool) -> str:
    def conclude(verdict: Verdict) -> None:
        on_verdict(verdict, conductor.report_of(verdict))

    if with_prefect:
        from flows.roll_out import roll_out

        phase = roll_out(conductor.record.id, conductor.record.candidate, conductor, view.enter, conclude)
    else:
        while not conductor.ended:
            view.enter(conductor.state.stage)
            conclude(conductor.run_stage())
        phase = conductor.state.phase.value
    for verdict in conductor.sudden_verdicts():
        conclude(verdict)
    return phase
