"""How a rollout's state, its pending steps and an order's verdict stand on record.

Pure; plain JSON-safe values. Must never import anything that acts.
"""

from __future__ import annotations

from policies.gates.evidence import PollEvidence
from policies.rollout.rollout import Action, IllegalTransition, Phase, RolloutState, Step
from policies.rollout.verdict import Decision, ReasonCode, Verdict
from services.store.json_text import JsonObject
from services.store.poll_evidence import JudgedPoll
from services.store.rollouts import RolloutRecord


def verdict_of_order(verb: str, stage: str, detail: str, now: float) -> Verdict:
    """The verdict on a stage that a person's promote, abort or kill ended."""
    reasons = {
        "promote": (Decision.ADVANCE, ReasonCode.APPROVED),
        "abort": (Decision.ROLLBACK, ReasonCode.ABORTED),
        "kill": (Decision.ROLLBACK, ReasonCode.KILLED),
    }
    decision, reason = reasons[verb]
    return Verdict(stage=stage, decision=decision, reason=reason, detail=detail, gates=(), at=now)


def judged_poll(state: RolloutState, evidence: PollEvidence, verdict: Verdict) -> JudgedPoll:
    """What a poll in this state looked at and came to."""
    return JudgedPoll(
        at=verdict.at,
        stage=state.stage,
        entered_at=state.entered_at,
        extended=state.extended,
        held=state.held,
        decision=verdict.decision.value,
        reason=verdict.reason.value,
        evidence=evidence.to_json(),
    )


def too_late(record: RolloutRecord, phase: Phase) -> str:
    """Why an order to a rollout that has ended is refused, and what can be done instead."""
    if phase is not Phase.PROMOTED:
        return f"it came too late: the rollout has ended, {phase.value}"
    return (
        f"it came too late: {record.candidate} is promoted and {record.champion} has left stable; to go back, "
        f"roll it out: `trimtab rollout start --release {record.champion}`"
    )


def step_json(step: Step) -> JsonObject:
    """One step, for the record and the ledger."""
    return {"action": step.action.value, "weight_pct": step.weight_pct, "stage": step.stage}


def state_json(state: RolloutState, pending: tuple[Step, ...]) -> JsonObject:
    """The state and the steps that are not done yet."""
    return {"state": state.to_json(), "pending": [step_json(step) for step in pending]}


def read_state(stored: JsonObject) -> tuple[RolloutState, tuple[Step, ...]]:
    """Read back what `state_json` wrote. Raises IllegalTransition where it is none."""
    state, pending = stored["state"], stored["pending"]
    if not isinstance(state, dict) or not isinstance(pending, list):
        raise IllegalTransition("not a stored rollout state")
    steps = tuple(Step(Action(str(item["action"])), item["weight_pct"], item["stage"]) for item in pending)
    return RolloutState.from_json(state), steps


def place_of_step(step: Step) -> str:
    """A step's name among the moments of a rollout: `canary-25 set_weight`; what belongs to no stage is the end's."""
    return f"{step.stage or 'end'} {step.action.value}"


def place_of(stored: JsonObject) -> str:
    """The place of what is done next: the first pending step, else the poll of the stage (`canary-25 poll`)."""
    state, pending = read_state(stored)
    if pending:
        return place_of_step(pending[0])
    return f"{state.stage} poll" if state.is_live else "end"
