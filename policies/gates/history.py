"""Judges a recorded rollout again, poll by poll, in its own time: by the policy that ran, or by another one.

Rule 1: `replay` is exact. The policy that ran gives the verdicts that were given, word for word; `mismatches` is empty.
Rule 2: `rehearse` asks what another policy would have said while the traffic stayed as it was: its stages are matched
by name, else by kind and weight; their clocks are the logged ones; it ends where that policy rolls back. A stage that
it would have left earlier is judged on, to the moment when the traffic really moved.
Rule 3: what the record cannot tell the other policy (`unknown`) is missing evidence, which never passes.
Source: gates.md semantics 1 to 10. Must never import: anything that does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from policies.gates.evidence import GapBlock, PollEvidence
from policies.gates.gates import GateBook
from policies.rollout.metrics import METRICS
from policies.rollout.rollout import Phase, RolloutState, step
from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage
from policies.rollout.verdict import Decision, ReasonCode, Verdict

PayoffRange = tuple[float, float] | None
Progress = Callable[[float], object]


def _nobody_watches(_: float) -> None:
    """Where no progress is shown."""


class HistoryError(ValueError):
    """A history that cannot be: a stage that its policy does not have, polls out of order."""


@dataclass(frozen=True, eq=False)
class LoggedPoll:
    """One poll on record. entered_at: epoch s of the stage's start; decision and reason: what the gates said, if known.

    extended and held: as they stood when it was judged.
    """

    stage: str
    entered_at: float
    evidence: PollEvidence
    extended: bool = False
    held: bool = False
    decision: Decision | None = None
    reason: ReasonCode | None = None

    @property
    def at(self) -> float:
        """Epoch seconds of the poll."""
        return self.evidence.at


@dataclass(frozen=True, eq=False)
class Said:
    """What a policy says at one poll. moves: whether the rollout would leave its stage on it (a hold forbids it).

    poll: without its blocks, which have done their work.
    """

    poll: LoggedPoll
    verdict: Verdict
    moves: bool

    @property
    def after_s(self) -> float:
        """Seconds since the stage began."""
        return max(self.poll.at - self.poll.entered_at, 0.0)

    @property
    def is_as_recorded(self) -> bool:
        """Whether decision and reason are those on record."""
        return (self.verdict.decision, self.verdict.reason) == (self.poll.decision, self.poll.reason)


@dataclass(frozen=True, eq=False)
class Timeline:
    """All that one policy says over a history. book: its gates as they stand at the end.

    unknown: stage → metric → why the record cannot tell it.
    """

    policy: RolloutPolicy
    said: tuple[Said, ...]
    book: GateBook
    unknown: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def changes(self) -> tuple[Said, ...]:
        """The verdicts at which stage, decision or reason is another than at the poll before."""
        found: list[Said] = []
        for one in self.said:
            if not found or _kind_of(found[-1].verdict) != _kind_of(one.verdict):
                found.append(one)
        return tuple(found)

    def stories(self) -> tuple[Story, ...]:
        """One per logged stage, in order."""
        grouped = groupby(self.said, key=lambda one: one.poll.stage)
        return tuple(_story(logged, tuple(said)) for logged, said in grouped)


@dataclass(frozen=True, eq=False)
class Story:
    """What a policy made of one logged stage. first: the verdict that would have moved it on, else the last one."""

    logged_stage: str
    first: Said
    last: Said

    def is_like(self, other: Story) -> bool:
        """Whether both say the same at the same time."""
        mine, theirs = self.first, other.first
        return (mine.poll.at, mine.verdict.decision, mine.verdict.reason) == (
            theirs.poll.at,
            theirs.verdict.decision,
            theirs.verdict.reason,
        )


@dataclass(frozen=True, eq=False)
class SideBySide:
    """One logged stage in the eyes of two policies; None: that policy had ended, or has no such stage."""

    logged_stage: str
    one: Story | None
    other: Story | None

    @property
    def differs(self) -> bool:
        """Whether they do not say the same at the same time."""
        if self.one is None or self.other is None:
            return self.one is not self.other
        return not self.one.is_like(self.other)


def replay(
    policy: RolloutPolicy,
    polls: Collection[LoggedPoll],
    payoff_range: PayoffRange = None,
    *,
    progress: Progress = _nobody_watches,
) -> Timeline:
    """What the policy that ran says at every poll: exactly what it said then.

    payoff_range: the utility spec's. progress: is told the share of polls done. Raises HistoryError for a stage that
    the policy does not have.
    """
    book = GateBook.start(policy, payoff_range)
    said = []
    count = len(polls)
    for index, poll in enumerate(polls):
        progress(index / count)
        _walk_to(book, policy, poll.stage)
        verdict = _judge(book, poll, poll.evidence, stage=poll.stage, extended=poll.extended)
        said.append(_said(policy, poll, verdict, extended=poll.extended))
    return Timeline(policy, tuple(said), book)


def mismatches(timeline: Timeline) -> tuple[Said, ...]:
    """The polls whose verdict is not the one on record; empty for an honest record."""
    return tuple(one for one in timeline.said if not one.is_as_recorded)


def rehearse(
    policy: RolloutPolicy,
    polls: Collection[LoggedPoll],
    payoff_range: PayoffRange = None,
    *,
    recorded_by: RolloutPolicy,
    progress: Progress = _nobody_watches,
) -> Timeline:
    """What `policy` would have said over a history that `recorded_by` gathered; see the module's rules 2 and 3."""
    book = GateBook.start(policy, payoff_range)
    said: list[Said] = []
    unknown: dict[str, dict[str, str]] = {}
    extended, before, count = False, None, len(polls)
    for index, poll in enumerate(polls):
        progress(index / count)
        stage = _like(policy, recorded_by.stage(poll.stage))
        if stage is None or not _is_ahead(book, policy, stage.name):
            continue
        if before is None or before.stage != poll.stage or (before.held and not poll.held):
            extended = False
        before = poll
        book.enter_stage(stage.name)
        lacking = _unknown(stage, recorded_by.stage(poll.stage), policy, recorded_by)
        evidence, more = _without(poll.evidence, lacking, stage)
        if more:
            unknown.setdefault(stage.name, {}).update(more)
        verdict = _judge(book, poll, evidence, stage=stage.name, extended=extended)
        said.append(_said(policy, poll, verdict, extended=extended))
        extended = extended or verdict.reason is ReasonCode.EXTENDED
        if verdict.decision is Decision.ROLLBACK and said[-1].moves:
            break
    return Timeline(policy, tuple(said), book, unknown)


def side_by_side(one: Timeline, other: Timeline) -> tuple[SideBySide, ...]:
    """Both policies' stories, stage by logged stage, in the order of the history."""
    mine = {story.logged_stage: story for story in one.stories()}
    theirs = {story.logged_stage: story for story in other.stories()}
    names = [*mine, *(name for name in theirs if name not in mine)]
    return tuple(SideBySide(name, mine.get(name), theirs.get(name)) for name in names)


def _judge(
    book: GateBook, poll: LoggedPoll, evidence: PollEvidence, *, stage: str, extended: bool
) -> Verdict:
    book.observe(evidence)
    return book.judge(stage, at=poll.at, entered_at=poll.entered_at, extended=extended)


def _said(policy: RolloutPolicy, poll: LoggedPoll, verdict: Verdict, *, extended: bool) -> Said:
    """The verdict, and whether the rollout's own table leaves the stage on it; the evidence itself is let go."""
    kind = Phase(policy.stage(verdict.stage).kind)
    state = RolloutState(kind, verdict.stage, poll.entered_at, extended=extended, held=poll.held)
    after, _ = step(policy, state, verdict, poll.at)
    moves = (after.phase, after.stage) != (state.phase, state.stage)
    return Said(replace(poll, evidence=PollEvidence(poll.at, poll.evidence.weight_pct, {})), verdict, moves)


def _walk_to(book: GateBook, policy: RolloutPolicy, name: str) -> None:
    """Enter every stage on the way, as the rollout did: none is ever skipped."""
    names = [stage.name for stage in policy.live_stages]
    if name not in names or not _is_ahead(book, policy, name):
        raise HistoryError(f"'stage' must be {book.stage_name!r} or a later one of its policy: {name!r}")
    while book.stage_name != name:
        following = policy.stage_after(str(book.stage_name))
        book.enter_stage(name if following is None else following.name)


def _is_ahead(book: GateBook, policy: RolloutPolicy, name: str) -> bool:
    names = [stage.name for stage in policy.live_stages]
    return book.stage_name is None or names.index(name) >= names.index(book.stage_name)


def _like(policy: RolloutPolicy, logged: Stage) -> Stage | None:
    """The policy's stage that is the logged one: of its name and kind, else of its kind and weight."""
    same_kind = [stage for stage in policy.live_stages if stage.kind == logged.kind]
    for stage in same_kind:
        if stage.name == logged.name:
            return stage
    return next((stage for stage in same_kind if stage.weight_pct == logged.weight_pct), None)


def _unknown(
    stage: Stage, logged: Stage, policy: RolloutPolicy, recorded_by: RolloutPolicy
) -> dict[str, str]:
    """Metric → why what was recorded in the logged stage does not say what this stage's gates ask."""
    found = {}
    for gate in stage.gates:
        recorded = [one for one in logged.gates if one.metric == gate.metric]
        why = _why_unknown(gate, recorded)
        if (
            why is None
            and METRICS[gate.metric].needs_outcomes
            and policy.maturity_s != recorded_by.maturity_s
        ):
            why = f"was recorded at a maturity of {recorded_by.maturity_s:g} s, not {policy.maturity_s:g} s"
        if why is not None:
            found[gate.metric] = why
    return found


def _why_unknown(gate: Gate, recorded: Sequence[Gate]) -> str | None:
    if not recorded:
        return "was not recorded in this stage"
    budgets = [one.budget_ms for one in recorded]
    if gate.budget_ms not in budgets:
        return f"was recorded for a budget of {budgets[0]:g} ms, not {gate.budget_ms:g} ms"
    if gate.where == "disagreement" and all(one.where == "all" for one in recorded):
        return "was recorded without which units the releases decide differently"
    return None


def _without(
    evidence: PollEvidence, lacking: Mapping[str, str], stage: Stage
) -> tuple[PollEvidence, dict[str, str]]:
    """The evidence as another policy may use it, and what it lacks."""
    lacks = dict(lacking)
    for gate in stage.gates:
        is_one_arm = isinstance(evidence.blocks.get(gate.metric), GapBlock)
        if is_one_arm and gate.compare_to == "champion":
            lacks[gate.metric] = "was recorded for the candidate alone"
    if not lacks:
        return evidence, lacks
    blocks = {name: block for name, block in evidence.blocks.items() if name not in lacks}
    return replace(evidence, blocks=blocks, missing={**evidence.missing, **lacks}), lacks


def _story(logged_stage: str, said: tuple[Said, ...]) -> Story:
    first = next((one for one in said if one.moves), said[-1])
    return Story(logged_stage, first, said[-1])


def _kind_of(verdict: Verdict) -> tuple[str, Decision, ReasonCode]:
    return verdict.stage, verdict.decision, verdict.reason
