"""Runs the tests of a policy: each poll's evidence is built, the real engine judges it, and is held to its word.

The engine is the one that judges rollouts: `judge_measured` offline; `GateBook` and `rollout.step` live, from a fresh
book, so that what another stage would have left behind is not there. Coverage counts a gate's result where a met
expectation looked at it. Must never import: anything that does I/O or reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policies.gates.evidence import (
    SAMPLE_RATIO,
    AssignmentBlock,
    Block,
    CountBlock,
    FloatArray,
    GapArmsBlock,
    GapBlock,
    PollEvidence,
    RatioBlock,
    UtilityBlock,
)
from policies.gates.gates import GateBook, judge_measured
from policies.rollout.metrics import METRICS
from policies.rollout.rollout import Phase, RolloutState, step
from policies.rollout.rollout_policy import RolloutPolicy
from policies.rollout.verdict import Decision, GateStatus, ReasonCode, Verdict
from policies.scripted.policy_tests import SAMPLE_RATIO_GATE, Case, Expectation, PolicyTests, StageCase
from policies.scripted.series import Counts, Groups, Item, Missing, Nothing, Payoffs, Rate, Spread

MUST_BE_SEEN = (GateStatus.PASS, GateStatus.FAIL)


@dataclass(frozen=True)
class Failure:
    """An expectation that was not met: what was expected, what came, and the gates' own sentences on it."""

    stage: str
    expected: str
    got: str
    gates: tuple[str, ...]


@dataclass(frozen=True)
class CaseResult:
    """What a test came to. line: where it stands in its file; polls: how many were judged."""

    name: str
    line: int
    failures: tuple[Failure, ...]
    polls: int

    @property
    def ok(self) -> bool:
        """Whether every expectation was met."""
        return not self.failures


@dataclass(frozen=True)
class Coverage:
    """Which results of a gate the tests have looked at."""

    gate: str
    seen: tuple[GateStatus, ...]

    @property
    def unseen(self) -> tuple[GateStatus, ...]:
        """What is wanting: a passing and a failing case. The sample ratio is no gate of the file: nothing is asked."""
        if self.gate == SAMPLE_RATIO_GATE:
            return ()
        return tuple(status for status in MUST_BE_SEEN if status not in self.seen)


@dataclass(frozen=True)
class TestReport:
    """All tests of a policy, and what they cover."""

    __test__ = False  # no class of tests, whatever pytest makes of its name

    cases: tuple[CaseResult, ...]
    coverage: tuple[Coverage, ...]

    @property
    def ok(self) -> bool:
        """Whether every test is met and every gate has a passing and a failing case."""
        return all(case.ok for case in self.cases) and not any(one.unseen for one in self.coverage)


@dataclass(frozen=True)
class _Poll:
    """One judged poll, and its time in the stage."""

    after_s: float
    verdict: Verdict


def run_policy_tests(tests: PolicyTests) -> TestReport:
    """Run every test. Seconds for hundreds of them; the same tests give the same report."""
    seen: dict[str, set[GateStatus]] = {
        gate.name: set() for stage in tests.policy.stages for gate in stage.gates
    }
    seen[SAMPLE_RATIO_GATE] = set()
    results = []
    for case in tests.cases:
        result, looked_at = _run(case, tests)
        results.append(result)
        for verdict in looked_at:
            for gate in verdict.gates:
                seen[gate.gate].add(gate.status)
    coverage = tuple(
        Coverage(name, tuple(one for one in GateStatus if one in statuses)) for name, statuses in seen.items()
    )
    return TestReport(tuple(results), coverage)


def _run(case: Case, tests: PolicyTests) -> tuple[CaseResult, list[Verdict]]:
    if case.stages[0].stage.kind == "offline":
        return _run_offline(case)
    policy = tests.policy
    book = GateBook.start(policy, tests.payoff_range)
    failures: list[Failure] = []
    looked_at: list[Verdict] = []
    polls, now = 0, 0.0
    for index, part in enumerate(case.stages):
        judged, moved = _live_polls(part, book, tests, since=now)
        polls += len(judged)
        now += math.ceil(judged[-1].after_s)
        for expected in part.expect:
            found = _compare(expected, judged, policy)
            if isinstance(found, Verdict):
                looked_at.append(found)
            else:
                failures.append(replace(found, stage=part.stage.name))
        if index + 1 < len(case.stages) and moved is not Decision.ADVANCE:
            following = case.stages[index + 1].stage.name
            last = judged[-1].verdict
            failures.append(Failure(following, "the stage to be entered", last.sentence(), _sentences(last)))
            break
    return CaseResult(case.name, case.line, tuple(failures), polls), looked_at


def _run_offline(case: Case) -> tuple[CaseResult, list[Verdict]]:
    part = case.stages[0]
    verdict = judge_measured(part.stage, part.measured, at=0.0, first_release=case.first_release)
    failures = []
    for expected in part.expect:
        wrong = _differences(expected, verdict)
        if wrong:
            said = Failure(part.stage.name, _wanted(expected, None), verdict.sentence(), _sentences(verdict))
            failures.append(said)
    return CaseResult(case.name, case.line, tuple(failures), 1), [] if failures else [verdict]


def _live_polls(
    part: StageCase, book: GateBook, tests: PolicyTests, *, since: float
) -> tuple[list[_Poll], Decision | None]:
    """Judge poll after poll until the last look or until the stage is left; the decision that left it."""
    policy, stage = tests.policy, part.stage
    book.enter_stage(stage.name)
    state = RolloutState(Phase(stage.kind), stage.name, entered_at=since)
    judged: list[_Poll] = []
    for index in range(part.polls):
        after_s = (index + 1) * policy.poll_s
        at = since + after_s
        book.observe(_evidence(part, tests, index, at=at))
        verdict = book.judge(stage.name, at=at, entered_at=since, extended=state.extended)
        judged.append(_Poll(after_s, verdict))
        after, _ = step(policy, state, verdict, at)
        if (after.phase, after.stage) != (state.phase, state.stage):
            return judged, verdict.decision
        state = after
    return judged, None


def _evidence(part: StageCase, tests: PolicyTests, index: int, *, at: float) -> PollEvidence:
    """The evidence of one poll, counted from 0."""
    blocks: dict[str, Block] = {}
    missing: dict[str, str] = {}
    for metric, (canary, stable) in part.series.items():
        items = (canary.at(index), Nothing() if stable is None else stable.at(index))
        absent = [item.why for item in items if isinstance(item, Missing)]
        if absent:
            missing[metric] = "; ".join(dict.fromkeys(absent))
        else:  # nothing new is a block without any: the source has spoken
            blocks[metric] = _block(metric, items, index, tests.payoff_range, has_stable=stable is not None)
    weight_pct = part.stage.weight_pct or 0.0
    if part.stage.kind == "canary":
        units = _assigned(part, tests.policy, index)
        if isinstance(units, Missing):
            missing[SAMPLE_RATIO] = units.why
        else:
            split = _counts(units, index)
            blocks[SAMPLE_RATIO] = AssignmentBlock(split.events, split.n - split.events, weight_pct)
    alarms = tuple(alarm for poll, alarm in part.alarms if poll == index + 1)
    return PollEvidence(at, weight_pct, blocks, missing, alarms)


def _assigned(part: StageCase, policy: RolloutPolicy, index: int) -> Item:
    if part.units is not None:
        return part.units.at(index)
    n = max(round(policy.expected_requests_per_s * policy.poll_s), 1)
    return Rate((part.stage.weight_pct or 0.0) / 100, n)


def _block(
    metric: str, items: tuple[Item, Item], index: int, payoff_range: tuple[float, float], *, has_stable: bool
) -> Block:
    kind = METRICS[metric].kind
    if kind == "gap":
        canary, stable = (_gap(item, index) for item in items)
        return GapArmsBlock(canary, stable) if has_stable else canary
    if kind in ("utility", "ratio"):
        mine, theirs = (_units(item, index, payoff_range, arm=arm) for arm, item in enumerate(items))
        return RatioBlock(mine, theirs) if kind == "ratio" else UtilityBlock(mine.ravel(), theirs.ravel())
    counts, rival = (_counts(item, index) for item in items)
    return CountBlock(counts.events, counts.n, rival.events, rival.n)


def _counts(item: Item, index: int) -> Counts:
    if isinstance(item, Rate):
        return item.at(index)
    return item if isinstance(item, Counts) else Counts(0, 0)


def _gap(item: Item, index: int) -> GapBlock:
    a, b = item.at(index) if isinstance(item, Groups) else (Counts(0, 0), Counts(0, 0))
    return GapBlock(a.events, a.n, b.events, b.n)


def _units(item: Item, index: int, payoff_range: tuple[float, float], *, arm: int) -> FloatArray:
    if isinstance(item, Payoffs):
        return np.array(item.units, dtype=np.float64)
    if isinstance(item, Spread):
        low, high = payoff_range
        return item.drawn(index, low=low, high=high, arm=arm)
    return np.zeros(0)


def _compare(expected: Expectation, judged: Sequence[_Poll], policy: RolloutPolicy) -> Verdict | Failure:
    """The verdict that meets the expectation, or what came instead."""
    poll = expected.poll or 1
    candidates = judged[:poll] if expected.is_by else judged[poll - 1 : poll]
    for one in candidates:
        if not _differences(expected, one.verdict):
            return one.verdict
    last = candidates[-1] if candidates else judged[-1]
    got = f"{_time(last.after_s)}: {last.verdict.sentence()}"
    wrong = _differences(expected, last.verdict)
    if not wrong:
        got = f"that verdict already at {got}"
    named = [gate.sentence() for gate in last.verdict.gates if gate.gate in expected.gates]
    return Failure("", _wanted(expected, policy.poll_s), got, tuple(named) or _sentences(last.verdict))


def _differences(expected: Expectation, verdict: Verdict) -> list[str]:
    """Which parts of the expectation the verdict does not meet."""
    results = {gate.gate: gate.status for gate in verdict.gates}
    wrong = []
    if verdict.decision is not expected.decision:
        wrong.append("decision")
    if expected.reason is not None and verdict.reason is not expected.reason:
        wrong.append("reason")
    wrong += [name for name, status in expected.gates.items() if results.get(name) is not status]
    if expected.detail_contains is not None and expected.detail_contains not in verdict.detail:
        wrong.append("detail")
    return wrong


def _wanted(expected: Expectation, poll_s: float | None) -> str:
    words = (
        [] if poll_s is None else [("by " if expected.is_by else "") + _time((expected.poll or 0) * poll_s)]
    )
    reason: ReasonCode | None = expected.reason
    words.append(expected.decision.value + ("" if reason is None else f" ({reason.value})"))
    words += [f"{name} {status.value}" for name, status in expected.gates.items()]
    if expected.detail_contains is not None:
        words.append(f"the words '{expected.detail_contains}'")
    return f"{words[0]}: {', '.join(words[1:])}" if poll_s is not None else ", ".join(words)


def _sentences(verdict: Verdict) -> tuple[str, ...]:
    return tuple(gate.sentence() for gate in verdict.gates)


def _time(seconds: float) -> str:
    return f"{seconds:g} s"


def summary(report: TestReport) -> Mapping[str, object]:
    """The report, JSON-safe."""
    return {
        "ok": report.ok,
        "tests": [
            {
                "name": case.name,
                "line": case.line,
                "ok": case.ok,
                "polls": case.polls,
                "failures": [{**vars(failure), "gates": list(failure.gates)} for failure in case.failures],
            }
            for case in report.cases
        ],
        "coverage": {
            one.gate: {
                "seen": [status.value for status in one.seen],
                "wanting": [status.value for status in one.unseen],
            }
            for one in report.coverage
        },
    }
