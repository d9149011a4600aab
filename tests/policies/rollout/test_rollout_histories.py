"""The transition table through long random histories: verdicts, orders, effects that fail, conductors that die.

A model world obeys the steps and refuses those that would leave a user without a release; after every event the
invariants of design.md sections 6 and 7 hold, between two steps as well as at rest.
"""

from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from policies.rollout.rollout import (
    Action,
    IllegalTransition,
    Phase,
    RolloutState,
    Step,
    call_back,
    initial,
    order,
    step,
)
from policies.rollout.rollout_policy import RolloutPolicy, load_rollout
from policies.rollout.verdict import Decision, ReasonCode, Verdict

YAML = (Path(__file__).parents[3] / "policies" / "telemarketing" / "rollout.yaml").read_text(encoding="utf-8")
POLICIES = tuple(
    load_rollout(text, "rollout.yaml") for text in (YAML, YAML.replace("approval: false", "approval: true"))
)
OLD, NEW = "old", "new"
VERBS = ("promote", "hold", "resume", "abort", "kill")
WEIGHTLESS = (Phase.SHADOW, Phase.FULL, Phase.PROBATION, Phase.PROMOTED, Phase.ROLLED_BACK)
REASONS = {
    Decision.ADVANCE: (ReasonCode.GATES_PASSED, ReasonCode.BAKED),
    Decision.HOLD: (ReasonCode.MORE_EVIDENCE, ReasonCode.EXTENDED),
    Decision.ROLLBACK: (ReasonCode.REGRESSION, ReasonCode.INCONCLUSIVE, ReasonCode.NO_DATA),
}


class ModelWorld:
    """Who runs, who serves, and the canary's weight; `do` is one effect, idempotent as the real ones are."""

    def __init__(self) -> None:
        self.runs = {OLD}
        self.stable = [OLD]
        self.canary: str | None = None
        self.mirrors = self.is_revoked = self.has_new_salt = False
        self.weight_pct = 0.0

    def do(self, one: Step) -> None:
        getattr(self, one.action.value)(one)

    def start_candidate(self, one: Step) -> None:
        self.runs.add(NEW)

    def await_ready(self, one: Step) -> None:
        assert NEW in self.runs, "waits for a release that nobody started"

    def point_canary(self, one: Step) -> None:
        assert NEW in self.runs
        assert self.weight_pct == 0, "a canary that has weight is exchanged"
        self.canary = NEW

    def new_salt(self, one: Step) -> None:
        assert self.weight_pct == 0, "units change sides while the canary has weight"
        self.has_new_salt = True

    def mirror_on(self, one: Step) -> None:
        assert self.canary == NEW
        self.mirrors = True

    def mirror_off(self, one: Step) -> None:
        self.mirrors = False

    def set_weight(self, one: Step) -> None:
        if one.weight_pct:
            assert not self.is_revoked, "a killed rollout is given weight"
            assert self.canary == NEW
            assert self.has_new_salt
        self.weight_pct = one.weight_pct or 0.0

    def repoint_stable(self, one: Step) -> None:
        assert NEW in self.runs
        self.stable = [NEW, OLD]

    def undo_repoint(self, one: Step) -> None:
        assert OLD in self.runs, "there is nobody to go back to"
        self.stable = [OLD, NEW]

    def clear_canary(self, one: Step) -> None:
        assert self.weight_pct == 0, "a canary that has weight is taken away"
        self.canary, self.mirrors = None, False

    def drop_old(self, one: Step) -> None:
        assert self.stable[0] == NEW
        self.stable = [NEW]
        self.runs.discard(OLD)

    def stop_candidate(self, one: Step) -> None:
        assert self.stable[0] == OLD
        self.stable, self.canary, self.mirrors = [OLD], None, False
        self.runs.discard(NEW)

    def revoke_grant(self, one: Step) -> None:
        self.is_revoked = True


class Histories(RuleBasedStateMachine):
    """A rollout, conducted by rule: a poll or an order only at rest, a stop at rest or before the next step."""

    @initialize(policy=st.sampled_from(POLICIES), passed=st.integers(0, 7))
    def begin(self, policy: RolloutPolicy, passed: int) -> None:
        """passed: so many stages are passed before anything else happens, or few histories would come far."""
        self.policy, self.is_killed = policy, False
        self.stages = [stage.name for stage in policy.live_stages]
        self.world, self.now = ModelWorld(), 0.0
        self.state, self.pending = initial(policy, self.now)
        self.most_pct = 0.0
        for _ in range(passed):
            self.carry_out(len(self.pending))
            self.move(*order(policy, self.state, "promote", self.now))

    @property
    def is_live(self) -> bool:
        return self.state.is_live

    def move(self, state: RolloutState, steps: tuple[Step, ...]) -> None:
        before, after = self.stages.index(self.state.stage), self.stages.index(state.stage)
        assert after - before in (0, 1), f"from {self.state.stage} to {state.stage}"
        assert self.state.is_live or self.state.phase is Phase.PROMOTED, "an ended rollout moves"
        self.state, self.pending = state, steps
        self.most_pct = max([self.world.weight_pct, *(one.weight_pct or 0.0 for one in steps)])

    @precondition(lambda self: self.pending)
    @rule(n=st.integers(1, 5))
    def carry_out(self, n: int) -> None:
        """So many steps are done; then the conductor may die, or another event come."""
        for one in self.pending[:n]:
            self.world.do(one)
        self.pending = self.pending[n:]

    @precondition(lambda self: self.pending)
    @rule()
    def die_after_a_step(self) -> None:
        """The step was done, its record not: whoever takes the rollout up does it again."""
        self.world.do(self.pending[0])

    @precondition(lambda self: self.pending and self.is_live and not self.state.frozen)
    @rule()
    def fail(self) -> None:
        """The next step cannot be read back: rolled back, whatever a person holds."""
        verdict = Verdict(
            self.state.stage, Decision.ROLLBACK, ReasonCode.RELEASE_UNAVAILABLE, "", (), self.now
        )
        self.move(*step(self.policy, replace(self.state, held=False), verdict, self.now))

    @precondition(lambda self: not self.pending and self.is_live and not self.state.frozen)
    @rule()
    def take_up(self) -> None:
        """A conductor died at rest, the lease lapsed; the next one sets the weight again."""
        self.world.weight_pct = 0.0
        if self.state.phase is Phase.CANARY:
            stage = self.policy.stage(self.state.stage)
            self.move(self.state, (Step(Action.SET_WEIGHT, stage.weight_pct, stage.name),))

    @precondition(lambda self: not self.pending)
    @rule(decision=st.sampled_from(Decision), which=st.integers(0, 2))
    def judge(self, decision: Decision, which: int) -> None:
        reasons = REASONS[decision]
        verdict = Verdict(self.state.stage, decision, reasons[which % len(reasons)], "", (), self.now)
        self.now += 1.0
        try:
            state, steps = step(self.policy, self.state, verdict, self.now)
        except IllegalTransition:
            waits = decision is Decision.ADVANCE and self.policy.stage(self.state.stage).approval
            assert waits or not self.is_live
            return
        if self.state.held or self.state.frozen:
            assert state.phase in (self.state.phase, Phase.ROLLED_BACK)
            assert state.stage == self.state.stage
        self.move(state, steps)

    @rule(verb=st.sampled_from(VERBS))
    def obey(self, verb: str) -> None:
        """At rest any order is taken; before a step only those that stop."""
        if self.pending and verb not in ("abort", "kill"):
            return
        self.now += 1.0
        try:
            if self.is_live:
                self.move(*order(self.policy, self.state, verb, self.now))
            else:
                warm = self.pending if OLD in self.world.stable else ()
                self.move(*call_back(self.state, warm, verb, self.now))
            self.is_killed |= verb == "kill"
        except IllegalTransition:
            assert not (verb == "abort" and self.is_live), "abort must always be possible"
            assert not (verb == "kill" and self.is_live), "kill must always be possible"
            assert not (verb == "promote" and self.is_live and not self.state.held and not self.state.frozen)

    @invariant()
    def users_always_have_a_release(self) -> None:
        assert self.world.stable[0] in self.world.runs

    @invariant()
    def nobody_who_serves_is_stopped(self) -> None:
        named = {*self.world.stable, *([self.world.canary] if self.world.canary else [])}
        assert named <= self.world.runs

    @invariant()
    def weight_is_what_the_state_allows(self) -> None:
        """At rest exactly the stage's; on the way never more than before it or after it."""
        if self.pending:
            assert 0 <= self.world.weight_pct <= self.most_pct
        elif self.state.phase in WEIGHTLESS or self.state.frozen:
            assert self.world.weight_pct == 0
        else:
            stage_pct = self.policy.stage(self.state.stage).weight_pct
            assert self.world.weight_pct in (stage_pct, 0.0)

    @invariant()
    def only_shadow_mirrors(self) -> None:
        if not self.pending:
            assert self.world.mirrors is (self.state.phase is Phase.SHADOW and not self.state.frozen)

    @invariant()
    def the_way_back_is_open(self) -> None:
        """Until a promotion is done, the old release stands in stable."""
        if self.state.phase is not Phase.PROMOTED:
            assert OLD in self.world.stable

    @invariant()
    def the_candidate_serves_all_only_when_it_may(self) -> None:
        leads = self.world.stable[0] == NEW
        coming_back = any(one.action is Action.UNDO_REPOINT for one in self.pending)
        assert not leads or coming_back or self.state.phase in (Phase.FULL, Phase.PROBATION, Phase.PROMOTED)

    @invariant()
    def an_end_is_clean(self) -> None:
        if self.pending or self.is_live:
            return
        winner = NEW if self.state.phase is Phase.PROMOTED else OLD
        world = self.world
        assert (world.stable, world.runs, world.canary, world.mirrors) == ([winner], {winner}, None, False)

    @invariant()
    def a_killed_rollout_stays_killed(self) -> None:
        if self.is_killed and not self.pending:
            assert self.world.is_revoked
            assert self.state.frozen or self.state.phase is Phase.ROLLED_BACK


def test_random_histories_keep_the_invariants() -> None:
    """120 histories of up to 40 events, each event followed by every invariant."""
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=120,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
