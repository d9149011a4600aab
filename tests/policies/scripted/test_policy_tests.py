"""`trimtab policy test`: the shipped tests hold, are quick, cover every gate; what is not met or not seen is told."""

import time
from pathlib import Path

import pytest

from policies.language.yaml_source import PolicyError
from policies.rollout.rollout_policy import load_rollout
from policies.rollout.verdict import GateStatus
from policies.scripted.policy_test_run import TestReport, run_policy_tests, summary
from policies.scripted.policy_tests import PolicyTests, load_policy_tests
from policies.utility.utility import load_utility

FOLDER = Path(__file__).parents[3] / "policies" / "telemarketing"
POLICY = load_rollout((FOLDER / "rollout.yaml").read_text(encoding="utf-8"), "rollout.yaml")
RANGE = load_utility((FOLDER / "utility.yaml").read_text(encoding="utf-8"), "utility.yaml").range
SHIPPED = (FOLDER / "tests.yaml").read_text(encoding="utf-8")
HEAD = "service: telemarketing\ntests:\n"
CANARY_5 = HEAD + "  - name: one\n    stage: canary-5\n"


def read(text: str) -> PolicyTests:
    return load_policy_tests(text, "tests.yaml", policy=POLICY, payoff_range=RANGE)


def run(text: str) -> TestReport:
    return run_policy_tests(read(text))


def mistakes(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        read(text)
    return [str(issue) for issue in caught.value.issues]


def test_the_shipped_policy_keeps_its_promises() -> None:
    """Every test in tests.yaml is met, every gate is seen to pass and to fail, in seconds."""
    began = time.perf_counter()
    report = run(SHIPPED)
    assert [(case.name, case.failures) for case in report.cases if not case.ok] == []
    assert [one.gate for one in report.coverage if one.unseen] == []
    assert report.ok
    assert time.perf_counter() - began < 5


def test_every_kind_of_result_is_exercised() -> None:
    """The shipped tests look at passes, failures, open gates, missing data and errors."""
    seen = {status for one in run(SHIPPED).coverage for status in one.seen}
    assert seen == set(GateStatus)


def test_an_unmet_expectation_tells_what_came_instead() -> None:
    """Expected an advance at 10 s, came a hold: both are told, with the gate's own sentence."""
    (case,) = run(
        CANARY_5 + "    given:\n      canary_errors: {canary: 0/5}\n"
        "    expect:\n      - {at: 10s, decision: ADVANCE, gates: {errors: pass}}\n"
    ).cases
    (failure,) = case.failures
    assert (failure.stage, failure.expected) == ("canary-5", "10 s: ADVANCE, errors pass")
    assert failure.got.startswith("10 s: canary-5: HOLD (baking) holds: bake 10 s of 15 s")
    assert failure.gates[0].startswith("errors pass; canary_errors 0.0000")
    assert "log E" in failure.gates[0]


def test_a_verdict_that_came_too_early_is_told_with_its_time() -> None:
    """Expected at exactly 20 s, advanced at 15 s: not met, and the time is told."""
    (case,) = run(
        CANARY_5
        + "    given:\n      canary_errors: {canary: 0/5}\n    expect:\n      - {at: 20s, decision: ADVANCE}\n"
    ).cases
    assert case.failures[0].got.startswith("that verdict already at 15 s")


def test_by_means_then_or_earlier() -> None:
    """`by: 20s` is met by an advance at 15 s, not by one after it."""
    given = "    given:\n      canary_errors: {canary: 0/5}\n    expect:\n"
    assert run(CANARY_5 + given + "      - {by: 20s, decision: ADVANCE}\n").cases[0].ok
    assert not run(CANARY_5 + given + "      - {by: 14.5s, decision: ADVANCE}\n").cases[0].ok


def test_a_gate_without_a_failing_case_fails_the_run() -> None:
    """All tests met, and still not ok: the gate `errors` was only ever seen to pass; `slow` never at all."""
    report = run(
        CANARY_5
        + "    given:\n      canary_errors: {canary: 0/5}\n    expect:\n      - {at: 15s, decision: ADVANCE}\n"
    )
    assert report.cases[0].ok
    assert not report.ok
    wanting = {one.gate: one.unseen for one in report.coverage}
    assert wanting["errors"] == (GateStatus.FAIL,)
    assert wanting["slow"] == (GateStatus.PASS, GateStatus.FAIL)


def test_a_result_that_no_met_expectation_looked_at_does_not_count() -> None:
    """The gate fails in the test's evidence, but the test expects something else: that is no failing case."""
    report = run(
        CANARY_5
        + "    given:\n      canary_errors: {canary: 5/5}\n    expect:\n      - {at: 1s, decision: ADVANCE}\n"
    )
    assert GateStatus.FAIL not in next(one.seen for one in report.coverage if one.gate == "errors")


def test_a_stage_that_is_not_reached_fails() -> None:
    """The second stage is expected, the first one holds: told, not passed over."""
    part = "        given:\n          canary_errors: {canary: 0/5}\n        expect:\n"
    (case,) = run(
        HEAD + "  - name: one\n    stages:\n"
        f"      - stage: canary-1\n{part.replace('0/5', '0/1')}          - {{at: 5s, decision: HOLD}}\n"
        f"      - stage: canary-5\n{part}          - {{at: 5s, decision: HOLD}}\n"
    ).cases
    assert (case.failures[0].stage, case.failures[0].expected) == ("canary-5", "the stage to be entered")


def test_the_report_is_plain_json() -> None:
    """The summary holds plain values only, and says what the printed report says."""
    found = summary(run(SHIPPED))
    assert found["ok"] is True
    assert found["coverage"]["utility"]["wanting"] == []  # type: ignore[index]


EXPECT = "    expect:\n      - {at: 5s, decision: HOLD}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            CANARY_5.replace("canary-5", "canary-6") + EXPECT,
            "tests.yaml:4:12: 'tests[0].stage' must be a stage of the policy: 'canary-6'; did you mean 'canary-5'?",
        ),
        (
            CANARY_5.replace("telemarketing", "credit") + EXPECT,
            "tests.yaml:1:10: 'service' must be the policy's service 'telemarketing': 'credit'",
        ),
        (
            CANARY_5 + "    given: {canary_error: {canary: 0/5}}\n" + EXPECT,
            "tests.yaml:5:13: 'tests[0].given.canary_error' is no metric; did you mean 'canary_errors'?",
        ),
        (
            CANARY_5 + "    given: {call_rate_gap: {canary: 0/5 | 1/5}}\n" + EXPECT,
            "is looked at by no gate of stage 'canary-5'; gates there look at",
        ),
        (
            CANARY_5 + "    given: {canary_errors: {stable: 0/5}}\n" + EXPECT,
            "tests.yaml:5:13: 'tests[0].given.canary_errors.canary' is missing",
        ),
        (
            CANARY_5 + "    given: {canary_errors: {canary: 0/5, value: 1}}\n" + EXPECT,
            "is for offline stages; write `canary` and `stable`",
        ),
        (
            CANARY_5 + '    given: {utility: {canary: "[1]"}}\n' + EXPECT,
            "is missing: gate 'utility' compares with it",
        ),
        (
            CANARY_5 + "    given: {canary_errors: {canary: 0/5 for 3s}}\n" + EXPECT,
            "tells of 3 s, the test looks until 5 s",
        ),
        (
            CANARY_5 + "    given: {canary_errors: {canary: 6/5}}\n" + EXPECT,
            "tests.yaml:5:37: 'tests[0].given.canary_errors.canary' '6/5' has more events than units",
        ),
        (
            CANARY_5 + '    given: {utility: {canary: mean 0 sd 50 n 5, stable: "[1]"}}\n' + EXPECT,
            "have a standard deviation of at most",
        ),
        (
            CANARY_5 + "    expect:\n      - {at: 5.2s, decision: HOLD}\n",
            "must be a poll, a multiple of 0.5 s: 5.2 s",
        ),
        (
            CANARY_5 + "    expect:\n      - {decision: HOLD}\n",
            "must have either 'at' (exactly then) or 'by'",
        ),
        (
            CANARY_5 + "    expect:\n      - {at: 5s, by: 6s, decision: HOLD}\n",
            "must have either 'at' (exactly then) or 'by'",
        ),
        (CANARY_5 + "    expect:\n      - {at: 5, decision: HOLD}\n", "write 5s if that was meant"),
        (CANARY_5 + "    expect:\n      - {at: 5s, decision: Hold}\n", "did you mean 'HOLD'?"),
        (
            CANARY_5 + "    expect:\n      - {at: 5s, decision: HOLD, reason: bakin}\n",
            "did you mean 'baking'?",
        ),
        (
            CANARY_5 + "    expect:\n      - {at: 5s, decision: HOLD, gates: {error: pass}}\n",
            "is no gate of stage 'canary-5'; did you mean 'errors'?",
        ),
        (
            CANARY_5 + "    expect:\n      - {at: 5s, decision: HOLD, gates: {errors: passed}}\n",
            "did you mean 'pass'?",
        ),
        (CANARY_5 + "    expect: []\n", "'tests[0].expect' is missing"),
        (
            CANARY_5.replace("canary-5", "shadow") + "    units: 5/100\n" + EXPECT,
            "is for canary stages; 'shadow' is shadow",
        ),
        (
            CANARY_5 + EXPECT + "    stages: [{stage: canary-5, expect: [{at: 5s, decision: HOLD}]}]\n",
            "must have either 'stage'",
        ),
        (
            CANARY_5 + EXPECT + "  - {name: one, stage: shadow, expect: [{at: 5s, decision: HOLD}]}\n",
            "must be unique; 'one' stands on line 3 too",
        ),
        (
            CANARY_5 + "    firstRelease: true\n" + EXPECT,
            "is for offline stages: a first release is never live",
        ),
        (
            HEAD
            + "  - name: one\n    stages:\n"
            + "      - {stage: canary-1, expect: [{at: 5s, decision: HOLD}]}\n"
            + "      - {stage: canary-25, expect: [{at: 5s, decision: HOLD}]}\n",
            "must be what follows 'canary-1', 'canary-5': 'canary-25'",
        ),
        (
            HEAD
            + "  - name: one\n    stage: contract\n    given: {rows: {canary: 0/5}}\n    expect: [{decision: HOLD}]\n",
            "is for live stages; write `value`",
        ),
        (
            HEAD + "  - name: one\n    stage: contract\n    expect: [{at: 5s, decision: HOLD}]\n",
            "an offline stage is judged once",
        ),
        (
            HEAD
            + "  - name: one\n    stage: contract\n    alarms: [{at: 5s, reason: canary_ejected}]\n"
            + "    expect: [{decision: HOLD}]\n",
            "is for live stages; 'contract' is offline",
        ),
    ],
)
def test_what_matches_nothing_is_an_error_with_its_place(text: str, message: str) -> None:
    """A test of nothing always passes: every name, time and form that is none is refused, with file, line, column."""
    found = mistakes(text)
    assert any(message in one for one in found), found
    assert all(one.startswith("tests.yaml:") for one in found)
