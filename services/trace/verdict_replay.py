"""Recomputes every verdict of a rollout from the evidence on record, and says where the record does not agree.

What is recomputed: each poll's verdict, from its stored evidence, by the frozen policy (policies/gates/history.py);
the gates as they stood at the end; each verdict of the gates on the ledger, word for word; and the offline verdicts of
the candidate, from what its stages measured. A verdict that people or a failed effect gave is not computed: it must
follow from the entry that says so. A verdict that a conductor died over is void, and must be followed by the entry of
the one that took up. The ledger's chain is checked beside all this.
Must never import: sqlalchemy, Prefect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from policies.gates.history import Said, Timeline, replay
from policies.rollout.rollout_policy import RolloutPolicy
from policies.rollout.verdict import Decision, ReasonCode, Verdict
from services.ledger.ledger import LedgerEntry, entries, verify
from services.rollout.recorded import RecordedRollout, recorded_rollout
from services.store.database import Database
from services.trace.offline_verdicts import OfflineVerdict, offline_verdicts

_BY_ORDER = {
    ReasonCode.APPROVED: ("promote",),
    ReasonCode.ABORTED: ("abort",),
    ReasonCode.KILLED: ("kill",),
}
_VERDICT, _RESUMED = "verdict", "rollout_resumed"


@dataclass(frozen=True)
class Differs:
    """One place where the record is not what its evidence gives. `at`: epoch s, None for what has no time."""

    where: str
    at: float | None
    recorded: str
    again: str

    def sentence(self) -> str:
        """One line."""
        return f"{self.where}: on record {self.recorded}; from the evidence {self.again}"


@dataclass(frozen=True)
class Replayed:
    """What a replay came to.

    polls, on_ledger, offline: verdicts that were recomputed and compared; by_people: verdicts that orders, a kill or a
    failed effect gave, traced to their entry; void: verdicts that a conductor died over; silent: what could not be
    recomputed, and why; differs: in the order of the record, empty when all agrees.
    """

    rollout_id: str
    polls: int
    on_ledger: int
    offline: int
    by_people: int
    void: int
    silent: tuple[str, ...]
    differs: tuple[Differs, ...]

    @property
    def agrees(self) -> bool:
        return not self.differs


def replay_verdicts(db: Database, rollout_id: str) -> Replayed:
    """Judge a rollout again. Raises UnknownRollout, and PolicyError where this version no longer reads its policy."""
    rollout = recorded_rollout(db, rollout_id)
    timeline = replay(rollout.policy, rollout.polls, rollout.utility.range)
    own = entries(db, rollout_id)
    ledger = [_judged(entry, own, timeline) for entry in own if entry.kind == _VERDICT]
    offline = offline_verdicts(db, candidate=rollout.record.candidate, policy=rollout.policy)
    differs = [
        *_chain(db),
        *(_offline_differs(one) for one in offline if one.again is not None and one.again != one.recorded),
        *_polls(timeline),
        *(found for _, found in ledger if found is not None),
        *_unsaid(timeline, own),
        *_gates(rollout, timeline),
    ]
    kinds = [kind for kind, _ in ledger]
    return Replayed(
        rollout_id=rollout_id,
        polls=len(timeline.said),
        on_ledger=kinds.count("gates"),
        offline=sum(one.again is not None for one in offline),
        by_people=kinds.count("people"),
        void=kinds.count("void"),
        silent=tuple(one.silent for one in offline if one.again is None),
        differs=tuple(differs),
    )


def _chain(db: Database) -> list[Differs]:
    check = verify(db)
    if check.ok:
        return []
    return [Differs(f"ledger entry {check.first_bad}", None, "changed after it was written", check.why)]


def _offline_differs(one: OfflineVerdict) -> Differs:
    again = "" if one.again is None else one.again.sentence()
    where = f"ledger entry {one.entry}, {one.recorded.stage}"
    return Differs(where, one.recorded.at, one.recorded.sentence(), again)


def _polls(timeline: Timeline) -> list[Differs]:
    """The polls whose decision and reason on record are not the ones that their evidence gives."""
    found = []
    for number, said in enumerate(timeline.said, start=1):
        if not said.is_as_recorded:
            poll = said.poll
            recorded = f"{_word(poll.decision)} ({_word(poll.reason)})"
            where = f"poll {number} of {len(timeline.said)}, {poll.stage}"
            found.append(Differs(where, poll.at, recorded, said.verdict.sentence()))
    return found


def _judged(entry: LedgerEntry, own: Sequence[LedgerEntry], timeline: Timeline) -> tuple[str, Differs | None]:
    """Whose verdict a ledger entry is (`gates`, `people`, `void`), and where it differs."""
    recorded = _verdict(entry)
    where = f"ledger entry {entry.seq}, {recorded.stage}"
    if (because := _BECAUSE.get(recorded.reason)) is not None:
        if because(recorded, [one for one in own if one.seq < entry.seq]):
            return "people", None
        return "people", Differs(where, recorded.at, recorded.sentence(), "no entry before it that says so")
    said = next((one for one in timeline.said if (one.poll.at, one.poll.stage) == _key(recorded)), None)
    if said is None:
        later = next((one for one in own if one.seq > entry.seq), None)
        if later is not None and later.kind == _RESUMED:
            return "void", None
        return "gates", Differs(where, recorded.at, recorded.sentence(), "no poll of that time")
    again = _as_told(said)
    if again == recorded:
        return "gates", None
    return "gates", Differs(where, recorded.at, *_where_apart(recorded, again))


def _as_told(said: Said) -> Verdict:
    """The gates' verdict as the conductor says it: an advance that a person's hold keeps back is a hold."""
    verdict = said.verdict
    if said.poll.held and verdict.decision is Decision.ADVANCE and not said.moves:
        detail = f"holds: a person said hold; else it {verdict.detail}"
        return replace(verdict, decision=Decision.HOLD, reason=ReasonCode.HELD, detail=detail)
    return verdict


def _where_apart(recorded: Verdict, again: Verdict) -> tuple[str, str]:
    """Both in words, with the first gate that differs where the sentences are alike."""
    if recorded.sentence() != again.sentence():
        return recorded.sentence(), again.sentence()
    for mine, theirs in zip(recorded.gates, again.gates, strict=False):
        if mine != theirs:
            return str(mine.to_json()), str(theirs.to_json())
    return str(recorded.to_json()), str(again.to_json())


def _unsaid(timeline: Timeline, own: Sequence[LedgerEntry]) -> list[Differs]:
    """Polls that moved the rollout on, and of which the ledger says nothing; void where the conductor died over it."""
    told = {_key(_verdict(entry)) for entry in own if entry.kind == _VERDICT}
    found = []
    for said in timeline.said:
        if not said.moves or _key(said.verdict) in told:
            continue
        following = next((entry for entry in own if entry.at >= said.poll.at), None)
        if following is None or following.kind != _RESUMED:
            where = f"ledger, {said.poll.stage}"
            found.append(Differs(where, said.poll.at, "nothing", said.verdict.sentence()))
    return found


def _gates(rollout: RecordedRollout, timeline: Timeline) -> list[Differs]:
    """Whether the gates at the end are the stored ones; a stage that was passed by order may have had no poll."""
    stored = rollout.record.gates
    for name in _stages_to(rollout.policy, timeline.book.stage_name, stored.get("stage")):
        timeline.book.enter_stage(name)
    again = timeline.book.to_json()
    if again == stored:
        return []
    apart = sorted(key for key in {*again, *stored} if again.get(key) != stored.get(key))
    words = ", ".join(apart)
    return [
        Differs(
            "the gates at the end", None, f"other in {words}", f"{ {key: again.get(key) for key in apart} }"
        )
    ]


def _stages_to(policy: RolloutPolicy, here: str | None, there: object) -> list[str]:
    """The live stages after `here` up to `there`, in order."""
    names = [stage.name for stage in policy.live_stages]
    if there not in names:
        return []
    return names[names.index(here) + 1 if here in names else 0 : names.index(str(there)) + 1]


def _is_ordered(recorded: Verdict, before: Sequence[LedgerEntry]) -> bool:
    verbs = _BY_ORDER[recorded.reason]
    return any(
        entry.kind == "order"
        and entry.body.get("verb") in verbs
        and entry.at == recorded.at
        and recorded.detail == f"{entry.body.get('by')}: {entry.body.get('reason')}"
        for entry in before
    )


def _is_killed(_: Verdict, before: Sequence[LedgerEntry]) -> bool:
    return any(
        entry.kind in ("kill", "frozen") or (entry.kind == "order" and entry.body.get("verb") == "kill")
        for entry in before
    )


def _has_failed(recorded: Verdict, before: Sequence[LedgerEntry]) -> bool:
    return any(entry.kind == "effect_failed" and entry.body.get("why") == recorded.detail for entry in before)


_BECAUSE: dict[ReasonCode, Callable[[Verdict, Sequence[LedgerEntry]], bool]] = {
    **dict.fromkeys(_BY_ORDER, _is_ordered),
    ReasonCode.FROZEN: _is_killed,
    ReasonCode.RELEASE_UNAVAILABLE: _has_failed,
}


def _verdict(entry: LedgerEntry) -> Verdict:
    stored = entry.body.get("verdict")
    return Verdict.from_json(stored if isinstance(stored, dict) else {})


def _key(verdict: Verdict) -> tuple[float, str]:
    return verdict.at, verdict.stage


def _word(value: Decision | ReasonCode | None) -> str:
    return "nothing" if value is None else value.value
