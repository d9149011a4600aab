"""What a trace holds of one decision, and its JSON form. The unit's id stands in it hashed only.

Must never import: sqlalchemy, Prefect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from policies.rollout.verdict import Verdict
from services.control.switch import OffAction
from services.ledger.ledger import LedgerCheck
from services.serving.release import Release
from services.store.decisions import DecisionRow, RequestRow
from services.store.traced_decision import ToldOutcome
from services.trace.assignment import Assignment, WeightChange
from services.trace.recomputed import Recomputed


@dataclass(frozen=True)
class ActionValue:
    """One action of the spec: its expected utility as logged, and under the operating point's prices; in the unit."""

    action: str
    expected: float
    priced: float | None
    is_taken: bool
    is_off: bool


@dataclass(frozen=True)
class JudgedStage:
    """A verdict that ended a stage, or that a stage of the making came to. report: its file, absolute; `is_written`:
    whether it is there. at: epoch s."""

    verdict: Verdict
    entry: int
    report: str | None
    is_written: bool


@dataclass(frozen=True)
class PersonsWord:
    """What a person ordered: the ledger's entry in words. at: epoch s."""

    entry: int
    kind: str
    at: float
    by: str
    words: str


@dataclass(frozen=True)
class TracedRollout:
    """The rollout of which the decision was a part; stage: at that time, None after its last poll. Times: epoch s."""

    id: str
    champion: str | None
    candidate: str
    stage: str | None
    began_at: float
    ended_at: float | None
    phase: str
    policy_digest: str
    weights: tuple[WeightChange, ...]
    stages: tuple[JudgedStage, ...]
    people: tuple[PersonsWord, ...]


@dataclass(frozen=True)
class Realised:
    """What came of it. utility: in the unit, None where it is not known (why says so); by_stakeholder: their own."""

    told: ToldOutcome | None
    utility: float | None
    why: str
    by_stakeholder: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trace:
    """One decision and all behind it. The release is None where its folder is gone or altered: `release_trouble`;
    `signed`: whose key vouches for it, or why nobody's does."""

    decision: DecisionRow
    unit_hash: str | None
    request: RequestRow | None
    others: tuple[DecisionRow, ...]
    assignment: Assignment
    row: Mapping[str, object]
    unit: str
    outcomes: tuple[str, ...]
    actions: tuple[ActionValue, ...]
    recomputed: Recomputed | None
    not_recomputed: str
    release: Release | None
    release_trouble: str
    signed: str
    made_by: tuple[JudgedStage, ...]
    switched_off: tuple[OffAction, ...]
    rollout: TracedRollout | None
    came_by: TracedRollout | None
    realised: Realised
    ledger: LedgerCheck

    @property
    def gated(self) -> Mapping[str, object] | None:
        """What was switched off for everyone, and what would have been done otherwise."""
        return None if self.decision.gated is None else json.loads(self.decision.gated)

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe values; the unit stands in it hashed only."""
        decision = asdict(self.decision)
        for name in ("probabilities", "expected_utility", "gated"):
            decision[name] = None if decision[name] is None else json.loads(decision[name])
        decision["unit"], decision["row"] = self.unit_hash, dict(self.row)
        request = None if self.request is None else {**asdict(self.request), "unit": self.unit_hash}
        others = [
            {
                name: getattr(one, name)
                for name in ("decision_id", "attempt", "shadow", "release", "action", "at")
            }
            for one in self.others
        ]
        release = self.release
        return {
            "decision": decision,
            "request": request,
            "same_request": others,
            "assignment": asdict(self.assignment),
            "unit_of_utility": self.unit,
            "actions": [asdict(one) for one in self.actions],
            "recomputed": None if self.recomputed is None else _recomputed_json(self.recomputed),
            "not_recomputed": self.not_recomputed,
            "release": None
            if release is None
            else {
                "id": release.id,
                "content_digest": release.content_digest,
                "created_at": release.created_at,
                "files": dict(release.digests),
                "provenance": dict(release.provenance),
            },
            "release_trouble": self.release_trouble,
            "signed": self.signed,
            "made_by": [_stage_json(one) for one in self.made_by],
            "switched_off": [asdict(one) for one in self.switched_off],
            "rollout": _rollout_json(self.rollout),
            "came_by": _rollout_json(self.came_by),
            "realised": asdict(self.realised),
            "ledger": asdict(self.ledger),
        }


def _recomputed_json(found: Recomputed) -> dict[str, object]:
    return {**vars(found), "explanation": found.explanation.to_json()}


def _stage_json(one: JudgedStage) -> dict[str, object]:
    return {**vars(one), "verdict": one.verdict.to_json()}


def _rollout_json(found: TracedRollout | None) -> dict[str, object] | None:
    if found is None:
        return None
    return {
        **vars(found),
        "weights": [asdict(one) for one in found.weights],
        "stages": [_stage_json(one) for one in found.stages],
        "people": [asdict(one) for one in found.people],
    }
