"""Conducts one rollout: poll evidence → judge → ledger → act and read back, until it is promoted or rolled back.

Rule 1: what is decided is pure (policies); this file only asks, records, and carries out.
Rule 2: state, gates, evidence cursors and the poll's evidence itself are saved in one transaction, so each poll's
evidence counts exactly once, and what was judged can be judged again (policies/gates/history.py).
Rule 3: the steps of a transition are saved before the first is done (the intent) and struck off one by one, each read
back; a conductor killed at any instant is resumed from there by `Conductor.resume` (left_undone.py).
Rule 4: while the canary has weight, every poll renews the grant; a conductor that dies or hangs loses it.
Source: design.md sections 6 to 8. Must never import Prefect (infra/decisions/0002).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from policies.gates.evidence import PollEvidence
from policies.gates.gates import GateBook
from policies.rollout.rollout import (
    Action,
    IllegalTransition,
    Phase,
    RolloutState,
    Step,
    call_back,
    order,
    step,
)
from policies.rollout.rollout_policy import Stage, load_rollout
from policies.rollout.verdict import Decision, ReasonCode, Verdict
from policies.utility.utility import load_utility
from services.rollout.effects import EffectFailed, Effects, World
from services.rollout.journal import Journal
from services.rollout.left_undone import missing_reports, unfinished_rollback
from services.rollout.new_rollout import note_start
from services.rollout.poll_times import PollTimes
from services.rollout.record_forms import (
    judged_poll,
    read_state,
    step_json,
    too_late,
    verdict_of_order,
)
from services.rollout.stage import StageContext, conclude_stage
from services.rollout.standing_orders import StopOrdered, let_orders_stop
from services.store import orders as order_store
from services.store.grants import GrantRevoked
from services.store.json_text import JsonObject
from services.store.orders import Order
from services.store.poll_evidence import JudgedPoll
from services.store.rollouts import RolloutRecord
from services.telemetry.disagreement import Disagreement
from services.telemetry.evidence import gather
from services.telemetry.shadow import gather_shadow


@dataclass(frozen=True)
class Progress:
    """What one poll came to, for whoever watches."""

    rollout_id: str
    state: RolloutState
    stage: Stage
    weight_pct: float
    verdict: Verdict
    at: float


Watch = Callable[[Progress], None]
Report = Callable[[StageContext, RolloutRecord, Stage, Verdict, float], None]


class Conductor:
    """One rollout, conducted. Make it under `sole_conductor`; it starts where the record stands."""

    def __init__(self, world: World, record: RolloutRecord, *, watch: Watch, report: Report) -> None:
        self._world = world
        self._watch = watch
        self._report = report
        self.policy = load_rollout(record.policy_text, f"{record.id}/rollout.yaml")
        self._utility = load_utility(record.utility_text, f"{record.id}/utility.yaml")
        self._journal = Journal(world, record)
        self.state, self._pending = read_state(record.state)
        self._book = GateBook.from_json(self.policy, record.gates)
        self._effects = Effects(world, record, lease_s=self.policy.lease_s)
        self._releases = Disagreement(
            world.home.releases, champion=record.champion, candidate=record.candidate
        )
        self._times = PollTimes(self.policy.lease_s)
        self._sudden: list[Verdict] = []

    @classmethod
    def resume(cls, world: World, record: RolloutRecord, *, watch: Watch, report: Report) -> Conductor:
        """Take up a rollout whose conductor died: its lease may have lapsed, so the stage's weight is set again and its
        bake starts again; the evidence gathered so far is kept, what happened in between is not evidence."""
        conductor = cls(world, record, watch=watch, report=report)
        state, now, context = conductor.state, world.clock(), conductor._context()
        note_start(world, record)
        can_move = state.is_live and not state.frozen
        rollback = unfinished_rollback(context, state.stage) if can_move else None
        body: JsonObject = {"stage": state.stage, "phase": state.phase.value}
        conductor._journal.enter("rollout_resumed", body, now)
        for missing in missing_reports(context):
            stage = conductor.policy.stage(missing.verdict.stage)
            report(context, record, stage, missing.verdict, missing.since)
        if rollback is not None:
            conductor._pending = ()
            conductor._save(
                *step(conductor.policy, replace(state, held=False), rollback, now), record.cursors
            )
        elif can_move and not conductor._pending:
            conductor._bake_again(now)
        return conductor

    @property
    def record(self) -> RolloutRecord:
        """The rollout as last saved."""
        return self._journal.record

    def _bake_again(self, now: float) -> None:
        """Start the stage's clock anew; in a canary stage the weight is set and read back first."""
        steps: tuple[Step, ...] = ()
        if self.state.phase is Phase.CANARY:
            stage = self.policy.stage(self.state.stage)
            steps = (Step(Action.SET_WEIGHT, stage.weight_pct, stage.name),)
        self._save(replace(self.state, entered_at=now), steps, self.record.cursors)

    @property
    def ended(self) -> bool:
        """Whether the rollout is promoted or rolled back, with nothing left to do, its end on record too."""
        return not self.state.is_live and not self._pending and self.record.ended_at is not None

    def run_stage(self) -> Verdict:
        """Poll until the current stage is left (or the rollout has ended); returns the verdict that left it."""
        name, verdict = self.state.stage, None
        self.settle()
        while self.state.is_live and self.state.stage == name:
            began = self._world.timer()
            verdict = self._poll()
            self.settle()
            self._world.sleep(max(0.0, self.policy.poll_s - (self._world.timer() - began)))
        self.settle()
        if verdict is not None:
            return verdict
        if self._sudden:
            return self._sudden.pop()
        raise IllegalTransition(f"rollout {self.record.id} has ended: {self.state.phase.value}")

    def sudden_verdicts(self) -> tuple[Verdict, ...]:
        """Rollbacks that no poll decided, because an effect failed; each is told once."""
        told, self._sudden = tuple(self._sudden), []
        return told

    def _poll(self) -> Verdict:
        """One look: orders first, then evidence, then the verdict and what follows from it."""
        now = self._world.clock()
        self._journal.mind_the_rules(now)
        ordered = self._take_orders(now)
        if ordered is not None:
            return ordered
        self._mind_the_time(now)
        if not self.state.is_live:
            return self._sudden.pop()
        stage = self.policy.stage(self.state.stage)
        if self.state.frozen:
            return self._stand_still(stage, now)
        if self.state.phase is Phase.CANARY:
            try:
                self._effects.grant(self.record.weight_pct)
            except GrantRevoked as error:
                return self._freeze(str(error))
        evidence, cursors = self._gather(stage, now)
        self._book.observe(evidence)
        verdict = self._book.judge(
            stage.name, at=now, entered_at=self.state.entered_at, extended=self.state.extended
        )
        self._apply(stage, verdict, cursors, judged_poll(self.state, evidence, verdict))
        return verdict

    def _mind_the_time(self, now: float) -> None:
        """Start the stage again where the time since the last poll cannot be counted on."""
        is_live = self.state.is_live and not self.state.frozen
        has_weight = is_live and self.state.phase is Phase.CANARY
        lost = self._times.lost(now, self._world.timer(), has_weight=has_weight)
        if is_live and lost is not None:
            kind, body = lost
            self._journal.enter(kind, {"stage": self.state.stage, **body}, now)
            self._bake_again(now)
            self.settle()

    def _gather(self, stage: Stage, now: float) -> tuple[PollEvidence, JsonObject]:
        is_shadow = self.state.phase is Phase.SHADOW
        source = gather_shadow if is_shadow else partial(gather, disagreement=self._releases)
        # A stage that was entered before the rollout was created: the clock was set back in between.
        since = min(self.record.created_at, self.state.entered_at)
        return source(
            self._world.db,
            self._world.admin,
            record=replace(self.record, created_at=since),
            policy=self.policy,
            utility=self._utility,
            stage=stage,
            settled_at=self.state.entered_at,
            now=now,
        )

    def _apply(self, stage: Stage, verdict: Verdict, cursors: JsonObject, poll: JudgedPoll) -> None:
        state, steps = step(self.policy, self.state, verdict, verdict.at)
        moved = state.phase is not self.state.phase or state.stage != self.state.stage
        if moved:
            # The evidence first: no verdict stands on the ledger whose evidence is not on record.
            self._save(self.state, self._pending, cursors, poll=poll)
            self._conclude(stage, verdict, lambda _: self._move(state, steps, cursors))
        else:
            if verdict.decision is Decision.ADVANCE:
                detail = f"holds: a person said hold; else it {verdict.detail}"
                verdict = replace(verdict, decision=Decision.HOLD, reason=ReasonCode.HELD, detail=detail)
            self._journal.note(verdict)
            self._save(state, self._pending, cursors, poll=poll)
        weight = self.record.weight_pct
        self._watch(Progress(self.record.id, self.state, stage, weight, verdict, verdict.at))

    def _stand_still(self, stage: Stage, now: float) -> Verdict:
        """Killed: nothing is judged any more, only orders are waited for."""
        detail = "holds: killed, the canary has no weight; `trimtab abort` ends it"
        verdict = Verdict(stage.name, Decision.HOLD, ReasonCode.FROZEN, detail, (), now)
        self._journal.note(verdict)
        self._watch(Progress(self.record.id, self.state, stage, self.record.weight_pct, verdict, now))
        return verdict

    def report_of(self, verdict: Verdict) -> str:
        """Where the report of a stage's verdict stands or will stand."""
        return str(self._context().link(verdict).path)

    def _context(self) -> StageContext:
        record, world = self.record, self._world
        return StageContext(world.home, world.db, record.service, record.candidate, record.id)

    def _conclude(self, stage: Stage, verdict: Verdict, act: Callable[[Verdict], None]) -> None:
        since, record, context, world = self.state.entered_at, self.record, self._context(), self._world
        said = f"{self._journal.where} ledger conclusion"

        def act_on(final: Verdict) -> None:
            world.tell(f"after {said}")
            act(final)

        world.tell(f"before {said}")
        conclude_stage(
            context,
            verdict,
            act=act_on,
            report=lambda final: self._report(context, record, stage, final, since),
            since=since,
        )

    def _move(
        self,
        state: RolloutState,
        steps: tuple[Step, ...],
        cursors: JsonObject,
        *,
        taken_order: int | None = None,
    ) -> None:
        if state.is_live and state.stage != self.state.stage:
            self._book.enter_stage(state.stage)
        self._save(state, steps, cursors, taken_order=taken_order)
        self.settle()

    def _take_orders(self, now: float) -> Verdict | None:
        """Carry out what people ordered. A verdict is returned where the order ended the stage."""
        for given in order_store.open_orders(self._world.db, self.record.id):
            verdict = self._carry_out_order(given, now)
            if verdict is not None:
                return verdict
        return None

    def _carry_out_order(self, given: Order, now: float) -> Verdict | None:
        """An order is taken in the transaction that saves what it leads to: it is carried out once, whoever dies."""
        try:
            state, steps = self._ordered(given.verb, now)
        except IllegalTransition as error:
            self._refuse(given, str(error), now)
            return None
        said_at = self._journal.enter_order("order", given, now)
        if state.phase is self.state.phase and state.stage == self.state.stage:
            self._save(state, steps, self.record.cursors, taken_order=given.id)
            self.settle()
            return None
        stage = self.policy.stage(self.state.stage)
        verdict = verdict_of_order(given.verb, stage.name, f"{given.by}: {given.reason}", said_at)
        self._conclude(
            stage,
            verdict,
            lambda _: self._move(state, steps, self.record.cursors, taken_order=given.id),
        )
        return verdict

    def _ordered(self, verb: str, now: float) -> tuple[RolloutState, tuple[Step, ...]]:
        """Where an order leads; a promotion can be called back until the old release has left stable."""
        if self.state.is_live:
            return order(self.policy, self.state, verb, now)
        slots = self._world.traffic.read_slots()
        is_warm = slots is not None and self.record.champion in slots.stable
        return call_back(self.state, self._pending if is_warm else (), verb, now)

    def _refuse(self, given: Order, why: str, now: float) -> None:
        self._journal.enter_order("order_refused", given, now, why=why)
        order_store.take(self._world.db, given.id, at=now)

    def _freeze(self, why: str) -> Verdict:
        """The grant is revoked: that is the kill, whether or not the order for it has been seen yet."""
        now = self._world.clock()
        state, steps = order(self.policy, self.state, "kill", now)
        self._journal.enter("frozen", {"why": why}, now)
        self._save(state, steps, self.record.cursors)
        self.settle()
        return Verdict(
            stage=state.stage,
            decision=Decision.HOLD,
            reason=ReasonCode.FROZEN,
            detail=f"the grant is revoked: {why}",
            gates=(),
            at=now,
        )

    def settle(self) -> None:
        """Carry out the pending steps, each read back; then the stage's clock starts."""
        if not self._pending and (self.state.is_live or self.record.ended_at is not None):
            return
        try:
            self._carry_out_pending()
        except StopOrdered as stop:
            verdict = self._carry_out_order(stop.given, self._world.clock())
            if verdict is not None:
                self._sudden.append(verdict)
            self.settle()
        except GrantRevoked as error:
            self._freeze(str(error))
        except EffectFailed as error:
            self._journal.enter("effect_failed", {"why": str(error)}, self._world.clock())
            if not self.state.is_live or self.state.frozen:
                raise  # nothing safer is left; the steps stay on record for whoever takes the rollout up
            self._roll_back(str(error))

    def _carry_out_pending(self) -> None:
        if self._pending:
            steps = [step_json(step) for step in self._pending]
            self._journal.enter("intent", {"steps": steps}, self._world.clock())
        while self._pending:
            following = self._pending[0]
            let_orders_stop(self._world.db, self.record.id, following)
            seen = self._effects.carry_out(following)
            body: JsonObject = {"action": following.action.value, "read_back": seen}
            self._journal.enter("effect", body, self._world.clock())
            if following.action is Action.SET_WEIGHT:
                self._journal.weigh(following.weight_pct or 0.0)
            self._save(self.state, self._pending[1:], self.record.cursors)
        settled_at = self._world.clock()
        if self.state.is_live:
            self._save(replace(self.state, entered_at=settled_at), (), self.record.cursors)
        else:
            self._journal.enter_end(self.state.phase.value, settled_at)
            self._save(self.state, (), self.record.cursors, ended_at=settled_at)
            for given in order_store.open_orders(self._world.db, self.record.id):
                self._refuse(given, too_late(self.record, self.state.phase), settled_at)

    def _roll_back(self, why: str) -> None:
        now, stage = self._world.clock(), self.policy.stage(self.state.stage)
        verdict = Verdict(
            stage=stage.name,
            decision=Decision.ROLLBACK,
            reason=ReasonCode.RELEASE_UNAVAILABLE,
            detail=why,
            gates=(),
            at=now,
        )
        self._pending = ()
        state, steps = step(self.policy, replace(self.state, held=False), verdict, now)
        self._sudden.append(verdict)
        self._conclude(stage, verdict, lambda _: self._move(state, steps, self.record.cursors))

    def _save(
        self,
        state: RolloutState,
        pending: tuple[Step, ...],
        cursors: JsonObject,
        *,
        ended_at: float | None = None,
        poll: JudgedPoll | None = None,
        taken_order: int | None = None,
    ) -> None:
        self._journal.save(
            state, pending, self._book, cursors, ended_at=ended_at, poll=poll, taken_order=taken_order
        )
        self.state, self._pending = state, pending
