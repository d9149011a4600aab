"""How a rollout's state, its pending steps and an order's verdict stand on record.

Pure; plain JSON-safe values. Must never import anything that acts.
"""

from __future__ import annotations

from policies.rollout.rollout import Action, IllegalTransition, RolloutState, Step
from policies.rollout.verdict import Decision, ReasonCode, Verdict
from services.store.json_text import JsonObject


def verdict_of_order(verb: str, stage: str, detail: str, now: float) -> Verdict:
    """The verdict on a stage that a person's promote, abort or kill ended."""
    reasons = {
        "promote": (Decision.ADVANCE, ReasonCode.APPROVED),
        "abort": (Decision.ROLLBACK, ReasonCode.ABORTED),
        "kill": (Decision.ROLLBACK, ReasonCode.KILLED),
    }
    decision, reason = reasons[verb]
    return Verdict(stage=stage, decision=decision, reason=reason, detail=detail, gates=(), at=now)


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
