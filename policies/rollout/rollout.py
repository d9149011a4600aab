"""The rollout as a transition table: which phase may follow which, on what, and the steps that get there.

Rule 1: `step` and `order` are pure; an illegal transition raises `IllegalTransition` and changes nothing.
Rule 2: only one stage is ever passed at a time; no verdict and no order skips a stage.
Rule 3: hold pauses advancing (and the bake clock), never a rollback on evidence. Kill freezes at weight 0;
        only abort, or a person's resume, leaves frozen. Where there is no weight left to cut (full,
        probation), kill swaps the old release back in and ends the rollout. A promotion is final once the old
        release has left stable; until then kill and abort call it back.
Rule 4: steps are idempotent effects, in order; each is read back before the next, and the whole list is in
        the ledger as an intent before the first one.
Source: design.md sections 6 and 7; the form is h11's. Must never import: anything that acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from policies.rollout.rollout_policy import RolloutPolicy, Stage
from policies.rollout.verdict import Decision, ReasonCode, Verdict


class IllegalTransition(ValueError):
    """What was asked is not in the table; nothing changed."""


class Phase(StrEnum):
    """Where a rollout is; the canary phase has several stages."""

    SHADOW = "shadow"
    CANARY = "canary"
    FULL = "full"
    PROBATION = "probation"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


class Event(StrEnum):
    """What moves a rollout: the three verdicts and a person's five verbs."""

    ADVANCE = "advance"
    WAIT = "wait"
    ROLLBACK = "rollback"
    PROMOTE = "promote"
    HOLD = "hold"
    RESUME = "resume"
    ABORT = "abort"
    KILL = "kill"


class Action(StrEnum):
    """One effect on the world; the conductor carries it out and reads it back."""

    START_CANDIDATE = "start_candidate"  # run the candidate and wait until it is ready
    POINT_CANARY = "point_canary"  # the endpoints of `canary` (and `shadow`) become the candidate
    NEW_SALT = "new_salt"  # this rollout's own assignment of units
    MIRROR_ON = "mirror_on"
    MIRROR_OFF = "mirror_off"
    SET_WEIGHT = "set_weight"  # grant the weight, read it back at the proxy
    AWAIT_READY = "await_ready"  # the candidate answers and can take all traffic
    REPOINT_STABLE = (
        "repoint_stable"  # stable: priority 0 candidate, priority 1 old release; old one's requests stop
    )
    UNDO_REPOINT = "undo_repoint"  # stable: priority 0 old release again
    CLEAR_CANARY = "clear_canary"  # no endpoints behind `canary` and `shadow`
    DROP_OLD = "drop_old"  # the old release leaves stable, is drained and stopped
    STOP_CANDIDATE = "stop_candidate"
    REVOKE_GRANT = "revoke_grant"


@dataclass(frozen=True)
class Step:
    """One action; weight_pct for `set_weight`, stage where the action belongs to one."""

    action: Action
    weight_pct: float | None = None
    stage: str | None = None


@dataclass(frozen=True)
class RolloutState:
    """Where the rollout stands. entered_at: epoch seconds of entering the stage (or of its resumption)."""

    phase: Phase
    stage: str
    entered_at: float
    extended: bool = False
    frozen: bool = False
    held: bool = False

    @property
    def is_live(self) -> bool:
        """Whether anything can still happen."""
        return self.phase not in ENDED

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe values."""
        return {
            "phase": self.phase.value,
            "stage": self.stage,
            "entered_at": self.entered_at,
            "extended": self.extended,
            "frozen": self.frozen,
            "held": self.held,
        }

    @classmethod
    def from_json(cls, obj: Mapping[str, object]) -> RolloutState:
        """Read back what `to_json` wrote. Raises IllegalTransition where it is no state."""
        try:
            return cls(
                phase=Phase(str(obj["phase"])),
                stage=str(obj["stage"]),
                entered_at=float(str(obj["entered_at"])),
                extended=obj["extended"] is True,
                frozen=obj["frozen"] is True,
                held=obj["held"] is True,
            )
        except (KeyError, ValueError) as error:
            raise IllegalTransition(f"not a stored rollout state: {error}") from error


ENDED = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK})

# phase -> event -> phases that may follow (the next stage of the policy picks among them).
TRANSITIONS: Mapping[Phase, Mapping[Event, tuple[Phase, ...]]] = {
    Phase.SHADOW: {
        Event.ADVANCE: (Phase.CANARY,),
        Event.PROMOTE: (Phase.CANARY,),
        Event.WAIT: (Phase.SHADOW,),
        Event.HOLD: (Phase.SHADOW,),
        Event.RESUME: (Phase.SHADOW,),
        Event.KILL: (Phase.SHADOW,),
        Event.ROLLBACK: (Phase.ROLLED_BACK,),
        Event.ABORT: (Phase.ROLLED_BACK,),
    },
    Phase.CANARY: {
        Event.ADVANCE: (Phase.CANARY, Phase.FULL),
        Event.PROMOTE: (Phase.CANARY, Phase.FULL),
        Event.WAIT: (Phase.CANARY,),
        Event.HOLD: (Phase.CANARY,),
        Event.RESUME: (Phase.CANARY,),
        Event.KILL: (Phase.CANARY,),
        Event.ROLLBACK: (Phase.ROLLED_BACK,),
        Event.ABORT: (Phase.ROLLED_BACK,),
    },
    Phase.FULL: {
        Event.ADVANCE: (Phase.PROBATION,),
        Event.PROMOTE: (Phase.PROBATION,),
        Event.WAIT: (Phase.FULL,),
        Event.HOLD: (Phase.FULL,),
        Event.RESUME: (Phase.FULL,),
        Event.KILL: (Phase.ROLLED_BACK,),
        Event.ROLLBACK: (Phase.ROLLED_BACK,),
        Event.ABORT: (Phase.ROLLED_BACK,),
    },
    Phase.PROBATION: {
        Event.ADVANCE: (Phase.PROMOTED,),
        Event.PROMOTE: (Phase.PROMOTED,),
        Event.WAIT: (Phase.PROBATION,),
        Event.HOLD: (Phase.PROBATION,),
        Event.RESUME: (Phase.PROBATION,),
        Event.KILL: (Phase.ROLLED_BACK,),
        Event.ROLLBACK: (Phase.ROLLED_BACK,),
        Event.ABORT: (Phase.ROLLED_BACK,),
    },
    Phase.PROMOTED: {},
    Phase.ROLLED_BACK: {},
}

# (from, to) -> what is done on the way, in this order. `set_weight` takes the weight of where it leads.
_UNDO_PROMOTION = (Action.UNDO_REPOINT, Action.SET_WEIGHT, Action.CLEAR_CANARY, Action.STOP_CANDIDATE)
ON_THE_WAY: Mapping[tuple[Phase, Phase], tuple[Action, ...]] = {
    (Phase.SHADOW, Phase.CANARY): (Action.MIRROR_OFF, Action.SET_WEIGHT),
    (Phase.CANARY, Phase.CANARY): (Action.SET_WEIGHT,),
    (Phase.CANARY, Phase.FULL): (
        Action.AWAIT_READY,
        Action.REPOINT_STABLE,
        Action.SET_WEIGHT,
        Action.CLEAR_CANARY,
    ),
    (Phase.FULL, Phase.PROBATION): (),
    (Phase.PROBATION, Phase.PROMOTED): (Action.DROP_OLD,),
    (Phase.SHADOW, Phase.ROLLED_BACK): (
        Action.MIRROR_OFF,
        Action.SET_WEIGHT,
        Action.CLEAR_CANARY,
        Action.STOP_CANDIDATE,
    ),
    (Phase.CANARY, Phase.ROLLED_BACK): (Action.SET_WEIGHT, Action.CLEAR_CANARY, Action.STOP_CANDIDATE),
    (Phase.FULL, Phase.ROLLED_BACK): _UNDO_PROMOTION,
    (Phase.PROBATION, Phase.ROLLED_BACK): _UNDO_PROMOTION,
}
_BEGIN = (Action.SET_WEIGHT, Action.START_CANDIDATE, Action.POINT_CANARY, Action.NEW_SALT, Action.MIRROR_ON)
_VERDICT_EVENTS = {
    Decision.ADVANCE: Event.ADVANCE,
    Decision.HOLD: Event.WAIT,
    Decision.ROLLBACK: Event.ROLLBACK,
}
_ORDER_EVENTS = {
    event.value: event for event in (Event.PROMOTE, Event.HOLD, Event.RESUME, Event.ABORT, Event.KILL)
}
# Rollbacks that the bake clock demands, not evidence; a held rollout's clock stands still.
_WAITED_TOO_LONG = frozenset({ReasonCode.INCONCLUSIVE, ReasonCode.NO_DATA, ReasonCode.MISSING_EVIDENCE})
Moved = tuple[RolloutState, tuple[Step, ...]]


def initial(policy: RolloutPolicy, now: float) -> Moved:
    """The first state and its steps: weight 0, candidate ready, its endpoints, a new salt, the mirror."""
    stage = policy.live_stages[0]
    return RolloutState(Phase.SHADOW, stage.name, entered_at=now), _steps(_BEGIN, stage)


def step(policy: RolloutPolicy, state: RolloutState, verdict: Verdict, now: float) -> Moved:
    """Apply a verdict on the current stage.

    Held or frozen rollouts do not advance; a frozen one does not move at all (its weight is 0 already); a
    held one still rolls back on evidence, but not for having waited too long. Raises IllegalTransition.
    """
    event = _VERDICT_EVENTS[verdict.decision]
    _look_up(state, event)
    if verdict.stage != state.stage:
        raise IllegalTransition(f"'verdict.stage' must be {state.stage!r}: {verdict.stage!r}")
    if state.frozen:
        return state, ()
    if event is Event.ROLLBACK:
        if state.held and verdict.reason in _WAITED_TOO_LONG:
            return state, ()
        return _move(policy, state, event, now)
    if state.held:
        return state, ()
    if event is Event.WAIT:
        return (replace(state, extended=True) if verdict.reason is ReasonCode.EXTENDED else state), ()
    if policy.stage(state.stage).approval:
        raise IllegalTransition(f"stage {state.stage!r} wants a person's approval; only `promote` passes it")
    return _move(policy, state, event, now)


def order(policy: RolloutPolicy, state: RolloutState, verb: str, now: float) -> Moved:
    """Apply a person's order: promote | hold | resume | abort | kill. Raises IllegalTransition."""
    if verb not in _ORDER_EVENTS:
        raise IllegalTransition(f"'verb' must be one of {', '.join(sorted(_ORDER_EVENTS))}: {verb!r}")
    event = _ORDER_EVENTS[verb]
    _look_up(state, event)
    if event is Event.PROMOTE:
        if state.held or state.frozen:
            raise IllegalTransition("a held or frozen rollout must be resumed before it is promoted")
        return _move(policy, state, event, now)
    if event is Event.ABORT:
        return _move(policy, state, event, now)
    if event is Event.HOLD:
        if state.held or state.frozen:
            raise IllegalTransition(f"the rollout is already {'frozen' if state.frozen else 'held'}")
        return replace(state, held=True), ()
    if event is Event.RESUME:
        return _resume(policy, state, now)
    return _kill(policy, state, now)


def call_back(state: RolloutState, pending: tuple[Step, ...], verb: str, now: float) -> Moved:
    """Apply kill or abort to a promotion whose old release still stands behind the new one (its drop is pending).

    Raises IllegalTransition for any other order, and when there is nothing left to call back.
    """
    is_open = state.phase is Phase.PROMOTED and any(one.action is Action.DROP_OLD for one in pending)
    if verb not in (Event.ABORT, Event.KILL) or not is_open:
        raise IllegalTransition(f"'{verb}' comes too late: the rollout has ended, {state.phase.value}")
    steps = _steps(_UNDO_PROMOTION, None)
    revoked = (Step(Action.REVOKE_GRANT),) if verb == Event.KILL else ()
    return replace(state, phase=Phase.ROLLED_BACK, entered_at=now), (*revoked, *steps)


def _resume(policy: RolloutPolicy, state: RolloutState, now: float) -> Moved:
    if state.frozen:
        raise IllegalTransition("a killed rollout cannot be resumed, its grant is revoked; abort it")
    if not state.held:
        raise IllegalTransition("'resume' needs a held rollout")
    return replace(state, entered_at=now, extended=False, held=False), ()


def _kill(policy: RolloutPolicy, state: RolloutState, now: float) -> Moved:
    cut = (Step(Action.REVOKE_GRANT), Step(Action.SET_WEIGHT, weight_pct=0.0))
    if TRANSITIONS[state.phase][Event.KILL] == (Phase.ROLLED_BACK,):
        after, steps = _move(policy, state, Event.KILL, now)
        return after, (cut[0], *steps)
    if state.phase is Phase.SHADOW:
        cut = (*cut[:1], Step(Action.MIRROR_OFF), *cut[1:])  # type: ignore[assignment]
    return replace(state, frozen=True), cut


def _look_up(state: RolloutState, event: Event) -> tuple[Phase, ...]:
    targets = TRANSITIONS[state.phase].get(event)
    if targets is None:
        known = ", ".join(TRANSITIONS[state.phase]) or "nothing; the rollout has ended"
        raise IllegalTransition(
            f"'{event}' is not possible in phase {state.phase.value!r}; possible: {known}"
        )
    return targets


def _move(policy: RolloutPolicy, state: RolloutState, event: Event, now: float) -> Moved:
    targets = _look_up(state, event)
    if targets == (Phase.ROLLED_BACK,):
        after = replace(state, phase=Phase.ROLLED_BACK, entered_at=now, held=False, frozen=False)
        return after, _steps(ON_THE_WAY[state.phase, Phase.ROLLED_BACK], None)
    following = policy.stage_after(state.stage)
    phase = Phase.PROMOTED if following is None else Phase(following.kind)
    if phase not in targets:
        raise IllegalTransition(
            f"{phase.value!r} cannot follow {state.phase.value!r} (stage {state.stage!r})"
        )
    name = state.stage if following is None else following.name
    return RolloutState(phase, name, entered_at=now), _steps(ON_THE_WAY[state.phase, phase], following)


def _steps(actions: tuple[Action, ...], stage: Stage | None) -> tuple[Step, ...]:
    weight_pct = stage.weight_pct or 0.0 if stage is not None else 0.0
    name = None if stage is None else stage.name
    return tuple(
        Step(action, weight_pct if action is Action.SET_WEIGHT else None, name) for action in actions
    )


def diagram() -> str:
    """The table as a Mermaid state diagram (GitHub renders it)."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.SHADOW.value}"]
    for phase, events in TRANSITIONS.items():
        for target in Phase:
            labels = [event.value for event, targets in events.items() if target in targets]
            if labels:
                lines.append(f"    {phase.value} --> {target.value}: {', '.join(labels)}")
        if not events:
            lines.append(f"    {phase.value} --> [*]")
    return "\n".join(lines) + "\n"
