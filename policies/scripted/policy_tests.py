"""The tests of a rollout policy, read from `tests.yaml` and checked against the policy that they are about.

Every name in the file must name something: a stage, a metric that a gate of that stage looks at, a gate of it, a time
that is a poll. What matches nothing is an error with its place, because a test of nothing always passes.
Must never import: anything that reads a file or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from policies.gates.evidence import Alarm, Measured
from policies.language.yaml_mistakes import did_you_mean
from policies.language.yaml_source import Document, Issue, PolicyError, load_document, parse
from policies.rollout.metrics import METRICS
from policies.rollout.rollout_policy import RolloutPolicy, Stage
from policies.rollout.verdict import Decision, GateStatus, ReasonCode
from policies.scripted.policy_test_file import (
    CaseFile,
    EvidenceFile,
    ExpectFile,
    GivenFile,
    StageCaseFile,
    TestsFile,
)
from policies.scripted.series import Form, Series, SeriesError, Spread, parse_series

SAMPLE_RATIO_GATE = "sample-ratio"
Path = tuple[str | int, ...]
_FORMS: Mapping[str, Form] = {
    "proportion": "counts",
    "gap": "groups",
    "utility": "payoffs",
    "ratio": "pairs",
}


@dataclass(frozen=True)
class Expectation:
    """One expected verdict. poll: counted from 1, None in offline stages; is_by: that poll or an earlier one."""

    poll: int | None
    is_by: bool
    decision: Decision
    reason: ReasonCode | None
    gates: Mapping[str, GateStatus]
    detail_contains: str | None


@dataclass(frozen=True)
class StageCase:
    """One stage of a case. series: canary and stable by metric; measured: offline; alarms: by poll, from 1."""

    stage: Stage
    series: Mapping[str, tuple[Series, Series | None]]
    measured: Mapping[str, Measured]
    units: Series | None
    alarms: tuple[tuple[int, Alarm], ...]
    expect: tuple[Expectation, ...]

    @property
    def polls(self) -> int:
        """How many polls the expectations look at."""
        return max((one.poll or 0 for one in self.expect), default=0)


@dataclass(frozen=True)
class Case:
    """One test; line: where it stands in its file."""

    name: str
    line: int
    first_release: bool
    stages: tuple[StageCase, ...]


@dataclass(frozen=True)
class PolicyTests:
    """All tests of one policy. payoff_range: the utility spec's."""

    policy: RolloutPolicy
    payoff_range: tuple[float, float]
    cases: tuple[Case, ...]


def load_policy_tests(
    text: str, source: str, *, policy: RolloutPolicy, payoff_range: tuple[float, float]
) -> PolicyTests:
    """Read the tests of a policy. Raises PolicyError with every mistake, each with its file, line and column."""
    document = load_document(text, source)
    file = parse(document, TestsFile)
    reader = _Reader(document, policy, payoff_range)
    cases = reader.read(file)
    if reader.issues:
        raise PolicyError(tuple(sorted(reader.issues, key=lambda issue: (issue.line, issue.column))))
    return PolicyTests(policy, payoff_range, cases)


class _Reader:
    """Turns the file into cases and collects what matches nothing."""

    def __init__(self, document: Document, policy: RolloutPolicy, payoff_range: tuple[float, float]) -> None:
        self._document, self._policy, self._range = document, policy, payoff_range
        self.issues: list[Issue] = []

    def read(self, file: TestsFile) -> tuple[Case, ...]:
        if file.service != self._policy.service:
            self._wrong(
                ("service",), f"must be the policy's service '{self._policy.service}': '{file.service}'"
            )
        seen: dict[str, int] = {}
        cases = []
        for index, case in enumerate(file.tests):
            path = ("tests", index)
            if seen.setdefault(case.name, index) != index:
                first = self._document.position(("tests", seen[case.name], "name"))[0]
                self._wrong((*path, "name"), f"must be unique; '{case.name}' stands on line {first} too")
            stages = self._stages(case, path)
            cases.append(Case(case.name, self._document.position(path)[0], case.first_release, stages))
        return tuple(cases)

    def _wrong(self, path: Path, message: str, *, of_key: bool = False) -> None:
        self.issues.append(self._document.issue(path, message, of_key=of_key))

    def _stages(self, case: CaseFile, path: Path) -> tuple[StageCase, ...]:
        if (case.stage is None) == (not case.stages):
            self._wrong(path, "must have either 'stage' (with 'given' and 'expect') or 'stages'")
            return ()
        if case.stage is not None:
            if not case.expect:
                self._wrong((*path, "expect"), "is missing", of_key=True)
            one = self._stage(case, case.stage, case.expect, path)
            found: tuple[StageCase, ...] = () if one is None else (one,)
        else:
            for key in ("given", "units", "alarms", "expect"):
                if getattr(case, key):
                    self._wrong((*path, key), "belongs to an entry of 'stages' here", of_key=True)
            found = self._several(case.stages, (*path, "stages"))
        if case.first_release and any(one.stage.kind != "offline" for one in found):
            self._wrong(
                (*path, "firstRelease"), "is for offline stages: a first release is never live", of_key=True
            )
        return found

    def _several(self, files: Sequence[StageCaseFile], path: Path) -> tuple[StageCase, ...]:
        found: list[StageCase] = []
        for index, file in enumerate(files):
            here = (*path, index)
            one = self._stage(file, file.stage, file.expect, here)
            if one is None:
                continue
            if one.stage.kind == "offline":
                self._wrong(
                    (*here, "stage"), f"must be a live stage: '{file.stage}' is offline, a test of its own"
                )
            elif found and self._policy.stage_after(found[-1].stage.name) != one.stage:
                following = self._policy.stage_after(found[-1].stage.name)
                name = "nothing" if following is None else f"'{following.name}'"
                self._wrong(
                    (*here, "stage"), f"must be what follows '{found[-1].stage.name}', {name}: '{file.stage}'"
                )
            found.append(one)
        return tuple(found)

    def _stage(
        self, file: EvidenceFile, name: str, expect: Sequence[ExpectFile], path: Path
    ) -> StageCase | None:
        names = [stage.name for stage in self._policy.stages]
        if name not in names:
            known = ", ".join(names)
            self._wrong(
                (*path, "stage"),
                f"must be a stage of the policy: '{name}'{did_you_mean(name, names)} (known: {known})",
            )
            return None
        stage = self._policy.stage(name)
        before = len(self.issues)
        expectations = tuple(
            self._expectation(one, stage, (*path, "expect", index)) for index, one in enumerate(expect)
        )
        series: dict[str, tuple[Series, Series | None]] = {}
        measured: dict[str, Measured] = {}
        for metric, given in file.given.items():
            here = (*path, "given", metric)
            if not self._is_looked_at(metric, stage, here):
                continue
            if stage.kind == "offline":
                found = self._measured(given, here)
                if found is not None:
                    measured[metric] = found
            else:
                arms = self._arms(metric, given, stage, here)
                if arms is not None:
                    series[metric] = arms
        units = self._units(file.units, stage, (*path, "units"))
        case = StageCase(stage, series, measured, units, self._alarms(file, stage, path), expectations)
        if len(self.issues) == before:
            self._check_lengths(case, path)
        return case

    def _is_looked_at(self, metric: str, stage: Stage, path: Path) -> bool:
        looked_at = sorted({name for gate in stage.gates for name in _metrics_of(gate.metric, gate.when)})
        if metric in looked_at:
            return True
        if metric in METRICS:
            what = f"is looked at by no gate of stage '{stage.name}'"
        else:
            what = f"is no metric{did_you_mean(metric, looked_at)}"
        self._wrong(path, f"{what}; gates there look at {', '.join(looked_at) or 'nothing'}", of_key=True)
        return False

    def _measured(self, given: GivenFile, path: Path) -> Measured | None:
        for key in ("canary", "stable"):
            if getattr(given, key) is not None:
                self._wrong(
                    (*path, key), "is for live stages; write `value`, `lower`, `upper`, `n`", of_key=True
                )
        if given.value is None:
            self._wrong((*path, "value"), "is missing", of_key=True)
            return None
        return Measured(float(given.value), given.lower, given.upper, given.n or 0)

    def _arms(
        self, metric: str, given: GivenFile, stage: Stage, path: Path
    ) -> tuple[Series, Series | None] | None:
        for key in ("value", "lower", "upper", "n"):
            if getattr(given, key) is not None:
                self._wrong((*path, key), "is for offline stages; write `canary` and `stable`", of_key=True)
        rivals = [
            gate.name for gate in stage.gates if gate.metric == metric and gate.compare_to == "champion"
        ]
        if rivals and given.stable is None:
            self._wrong((*path, "stable"), f"is missing: gate '{rivals[0]}' compares with it", of_key=True)
        if given.canary is None:
            self._wrong((*path, "canary"), "is missing", of_key=True)
            return None
        form = _FORMS[METRICS[metric].kind]
        canary = self._series(given.canary, form, (*path, "canary"))
        stable = None if given.stable is None else self._series(given.stable, form, (*path, "stable"))
        return None if canary is None else (canary, stable)

    def _series(self, text: str, form: Form, path: Path) -> Series | None:
        try:
            series = parse_series(text, poll_s=self._policy.poll_s, form=form)
            for item, _ in series.items:
                if isinstance(item, Spread):
                    item.two_values(*self._range)
        except SeriesError as error:
            self._wrong(path, str(error))
            return None
        return series

    def _units(self, text: str | None, stage: Stage, path: Path) -> Series | None:
        if text is None:
            return None
        if stage.kind != "canary":
            self._wrong(path, f"is for canary stages; '{stage.name}' is {stage.kind}", of_key=True)
            return None
        return self._series(text, "counts", path)

    def _alarms(self, file: EvidenceFile, stage: Stage, path: Path) -> tuple[tuple[int, Alarm], ...]:
        found = []
        for index, alarm in enumerate(file.alarms):
            here = (*path, "alarms", index)
            if stage.kind == "offline":
                self._wrong(here, f"is for live stages; '{stage.name}' is offline")
                continue
            poll = self._poll_of(alarm.at, (*here, "at"))
            found.append((poll, Alarm(ReasonCode(alarm.reason), alarm.detail)))
        return tuple(found)

    def _expectation(self, expect: ExpectFile, stage: Stage, path: Path) -> Expectation:
        known = [gate.name for gate in stage.gates]
        if stage.kind == "canary":
            known.append(SAMPLE_RATIO_GATE)
        for name in expect.gates:
            if name not in known:
                self._wrong(
                    (*path, "gates", name),
                    f"is no gate of stage '{stage.name}'{did_you_mean(name, known)} (known: {', '.join(known)})",
                    of_key=True,
                )
        return Expectation(
            poll=self._look(expect, stage, path),
            is_by=expect.by is not None,
            decision=expect.decision,
            reason=expect.reason,
            gates=MappingProxyType(dict(expect.gates)),
            detail_contains=expect.detail_contains,
        )

    def _look(self, expect: ExpectFile, stage: Stage, path: Path) -> int | None:
        """The poll that the expectation is about."""
        if stage.kind == "offline":
            for key in ("at", "by"):
                if getattr(expect, key) is not None:
                    self._wrong(
                        (*path, key), "is for live stages; an offline stage is judged once", of_key=True
                    )
            return None
        times = {"at": expect.at, "by": expect.by}
        given = {key: seconds for key, seconds in times.items() if seconds is not None}
        if len(given) != 1:
            self._wrong(
                path, "must have either 'at' (exactly then) or 'by' (then or earlier), like `at: 40s`"
            )
            return None
        ((key, seconds),) = given.items()
        return self._poll_of(seconds, (*path, key))

    def _poll_of(self, seconds: float, path: Path) -> int:
        poll = round(seconds / self._policy.poll_s)
        if poll < 1 or not math.isclose(poll * self._policy.poll_s, seconds, rel_tol=1e-9):
            self._wrong(path, f"must be a poll, a multiple of {self._policy.poll_s:g} s: {seconds:g} s")
        return max(poll, 1)

    def _check_lengths(self, case: StageCase, path: Path) -> None:
        """Evidence that ends before the last look would be silence that nobody wrote."""
        places: list[tuple[Path, Series | None]] = [((*path, "units"), case.units)]
        for metric, (canary, stable) in case.series.items():
            here = (*path, "given", metric)
            places += [((*here, "canary"), canary), ((*here, "stable"), stable)]
        poll_s = self._policy.poll_s
        for place, series in places:
            if series is not None and series.polls < case.polls:
                self._wrong(
                    place,
                    f"tells of {series.polls * poll_s:g} s, the test looks until {case.polls * poll_s:g} s; "
                    "a last item without `x` goes on to the end, `_` says that nothing comes",
                )


def _metrics_of(metric: str, when: str | None) -> tuple[str, ...]:
    """What a gate looks at; a condition in CEL may name more metrics than its own."""
    if when is None:
        return (metric,)
    return (metric, *(name for name in METRICS if f"metrics.{name}" in when))
