"""Conducts a rollout for a person to watch: sole conductor, background reports, shown in Prefect where that is wanted.

The same function serves the main job, `trimtab rollout start`, a resumed rollout and the drills.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from rich.markup import escape

from flows.show_progress import ProgressView
from flows.shown_in_prefect import Ended, ShownInPrefect, StageEntered, StageLeft
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
from services.store.database import StoreError
from services.store.rollouts import RolloutRecord, StaleRollout

OnVerdict = Callable[[Verdict, str], None]
STORE_PATIENCE_S = 600.0
"""How long a store that does not answer is waited for; the canary has no traffic meanwhile."""
RETRY_S = 5.0
STEADY_S = 30.0
"""Conducting that went on for so long before the store failed again: another outage, not the same one."""


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
    will come. A store that does not answer is waited for, and the rollout then taken up where the record stands, as
    after a death. Raises ConductorBusy, EffectFailed, StaleRollout, and StoreError after `STORE_PATIENCE_S`.
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
        give_up_at = world.timer() + STORE_PATIENCE_S
        try:
            while True:
                began = world.timer()
                try:
                    conductor = make(world, record, watch=watch, report=reports.submit)
                    conductor.settle()
                    if rehearsal is not None:
                        rehearsal.start()
                    return _run(conductor, view, on_verdict, with_prefect=with_prefect)
                except StaleRollout:
                    raise  # another conductor has it, on another machine: this one must stop
                except StoreError as error:
                    now = world.timer()
                    if now - began > STEADY_S:
                        give_up_at = now + STORE_PATIENCE_S
                    view.say(f"{escape(str(error))}; the canary has no traffic until the rollout can go on")
                    record, make = _read_again(world, record.id, error, until=give_up_at), Conductor.resume
        finally:
            view.close_panel()
            for text in reports.finish():
                view.say(f"a stage report could not be written: {escape(text)}")


def _read_again(world: World, rollout_id: str, error: StoreError, *, until: float) -> RolloutRecord:
    """The record, as soon as the store gives it. Raises: `error`, when it does not in time."""
    while world.timer() < until:
        world.sleep(RETRY_S)
        try:
            return rollouts.load(world.db, rollout_id)
        except StoreError:
            continue
    raise error


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
    record = conductor.record
    shown = ShownInPrefect(record.id, record.candidate, view.say) if with_prefect else None
    with shown or nullcontext():
        tell = (lambda _: None) if shown is None else shown.tell
        while not conductor.ended:
            stage = conductor.policy.stage(conductor.state.stage)
            view.enter(stage.name)
            tell(StageEntered(stage.name, stage.kind))
            verdict = conductor.run_stage()
            on_verdict(verdict, conductor.report_of(verdict))
            tell(StageLeft(verdict, conductor.report_of(verdict)))
        for verdict in conductor.sudden_verdicts():
            on_verdict(verdict, conductor.report_of(verdict))
        phase = conductor.state.phase.value
        tell(Ended(phase))
    return phase
