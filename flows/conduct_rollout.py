"""Conducts a rollout for a person to watch: sole conductor, background reports, Prefect flows where they are wanted.

The same function serves the main job, `trimtab rollout start`, a resumed rollout and the drills.
"""

from __future__ import annotations

from collections.abc import Callable

from flows.show_progress import ProgressView
from policies.rollout.rollout_policy import load_rollout
from policies.rollout.verdict import Decision, Verdict
from policies.utility.utility import load_utility
from services.rehearsal.replay_process import ReplayProcess
from services.rollout.conductor import Conductor, Progress
from services.rollout.effects import World
from services.rollout.left_undone import missing_reports
from services.rollout.live_report import LiveReports
from services.rollout.sole_conductor import sole_conductor
from services.rollout.stage import StageContext
from services.store import orders, rollouts
from services.store.rollouts import RolloutRecord

OnVerdict = Callable[[Verdict, str], None]
PREFECTS = ("prefect", "httpx", "httpcore")
"""The packages whose errors are Prefect's own; the conductor uses none of them."""


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
        # As it stands now: between reading it and having the lock, another conductor may have lived and died.
        record = rollouts.load(world.db, record.id)
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


def write_missing_reports(world: World, record: RolloutRecord) -> tuple[str, ...]:
    """Write the stage reports of a rollout that has ended whose conductor died before it had; the stages.

    What goes wrong is put on the ledger. Raises ConductorBusy.
    """
    policy = load_rollout(record.policy_text, f"{record.id}/rollout.yaml")
    context = StageContext(world.home, world.db, record.service, record.candidate, record.id)
    with sole_conductor(world.home, record.service):
        reports = LiveReports(load_utility(record.utility_text, f"{record.id}/utility.yaml"))
        found = missing_reports(context)
        for one in found:
            reports.submit(context, record, policy.stage(one.verdict.stage), one.verdict, one.since)
        reports.finish()
    return tuple(one.verdict.stage for one in found)


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

    phase = _run_flow(conductor, view, conclude) if with_prefect else None
    if phase is None:
        while not conductor.ended:
            view.enter(conductor.state.stage)
            conclude(conductor.run_stage())
        phase = conductor.state.phase.value
    for verdict in conductor.sudden_verdicts():
        conclude(verdict)
    return phase


def _run_flow(conductor: Conductor, view: ProgressView, conclude: Callable[[Verdict], None]) -> str | None:
    """Conduct it as Prefect flows; None where Prefect gave up: the rollout goes on without it, from where it stands."""
    from flows.roll_out import roll_out

    try:
        return roll_out(conductor.record.id, conductor.record.candidate, conductor, view.enter, conclude)
    except Exception as error:
        if not _is_prefects(error):
            raise
        view.say(f"Prefect does not answer ({type(error).__name__}): the rollout goes on without it")
        return None


def _is_prefects(error: BaseException | None) -> bool:
    """Whether it is an error of Prefect's, or was raised for one."""
    if error is None:
        return False
    return type(error).__module__.partition(".")[0] in PREFECTS or _is_prefects(error.__cause__)
