"""Promises of `when`: true passes, false fails, and what cannot be known never passes."""

import math
import sys
from pathlib import Path

import pytest

from policies.gates.evidence import Measured
from policies.gates.gates import judge_measured
from policies.language.yaml_source import PolicyError
from policies.rollout.condition import INSTALL, _compiled, condition_mistakes, judge_condition
from policies.rollout.metrics import measured_beside
from policies.rollout.rollout_policy import load_rollout
from policies.rollout.verdict import Decision, GateStatus, ReasonCode

TEXT = Path(__file__).parents[1].joinpath("every_key.yaml").read_text(encoding="utf-8")
WHEN = "when: metrics.calibration_error.upper <= 0.1 && metrics.validation_utility > 0.0"
KNOWN = measured_beside("calibration_error")


def refused(condition: str) -> str:
    assert WHEN in TEXT
    with pytest.raises(PolicyError) as caught:
        load_rollout(TEXT.replace(WHEN, f"when: {condition}"), "r.yaml")
    return str(caught.value.issues[0])


def judged(condition: str, *, min_samples: int = 0, **measured: Measured) -> tuple[GateStatus, str]:
    return judge_condition(condition, measured, known=KNOWN, min_samples=min_samples)


@pytest.mark.parametrize(
    ("condition", "measured", "status", "says"),
    [
        ("metrics.calibration_error <= 0.1", {"calibration_error": Measured(0.05)}, "pass", "= 0.05"),
        ("metrics.calibration_error <= 0.1", {"calibration_error": Measured(0.2)}, "fail", "must hold: "),
        ("metrics.calibration_error.upper <= 0.1", {"calibration_error": Measured(0.05)}, "no_data", "upper"),
        ("metrics.calibration_error <= 0.1", {}, "no_data", "'calibration_error' was not measured"),
        (
            "metrics.calibration_error <= 0.1 || metrics.validation_utility > 0.0",
            {"calibration_error": Measured(0.05)},
            "no_data",
            "'validation_utility' was not measured",
        ),
        ("!(metrics.calibration_error > 0.1)", {"calibration_error": Measured(math.nan)}, "error", "finite"),
        ("metrics.calibration_error < 9.0", {"calibration_error": Measured(math.inf)}, "error", "finite"),
        ("metrics.calibration_error < 0.1 || 1 / 0 == 1", {"calibration_error": Measured(0.05)}, "error", "point"),
        ("metrics.calibration_error / 0.0 > 1.0", {"calibration_error": Measured(0.05)}, "error", "divide"),
        (
            "metrics.calibration_error < 0.1 || metrics.`validation_utility` > 0.0",
            {"calibration_error": Measured(0.05)},
            "error",
            "backtick",
        ),
        ("metrics.rows > 1.0 || metrics.calibration_error < 0.1", {"rows": Measured(9.0)}, "no_data", "'rows'"),
    ],
)  # fmt: skip
def test_only_true_passes(condition: str, measured: dict[str, Measured], status: str, says: str) -> None:
    """True passes, false fails; a missing name is no data even beside a true one; NaN and CEL's errors are errors."""
    found, detail = judged(condition, **measured)
    assert found.value == status
    assert says in detail


def test_too_few_rows_are_no_data() -> None:
    """minSamples counts for every metric that the condition names."""
    status, detail = judged(
        "metrics.calibration_error < 0.1", min_samples=100, calibration_error=Measured(0.05, n=99)
    )
    assert (status, detail) == (GateStatus.NO_DATA, "'calibration_error' rests on 99 rows, fewer than 100")


def test_a_condition_decides_its_stage() -> None:
    """In the policy: met, the stage advances; not met, the release is refused with the condition in the reason."""
    stage = load_rollout(TEXT, "r.yaml").stage("training")
    good = {
        "calibration_error": Measured(0.05, 0.04, 0.06, 900),
        "validation_utility": Measured(0.2, 0.1, 0.3, 900),
    }
    assert judge_measured(stage, good, at=1.0).decision is Decision.ADVANCE
    bad = judge_measured(stage, {**good, "validation_utility": Measured(-0.1, -0.2, 0.1, 900)}, at=1.0)
    assert (bad.decision, bad.reason) == (Decision.ROLLBACK, ReasonCode.BOUND_EXCEEDED)
    assert "metrics.validation_utility > 0.0; with calibration_error.upper = 0.06" in bad.detail


LINE = next(n for n, line in enumerate(TEXT.splitlines(), 1) if WHEN in line)


@pytest.mark.parametrize(
    ("condition", "column", "says"),
    [
        (
            "metrics.calibration_eror < 0.1",
            18,
            "unknown metric 'calibration_eror'; did you mean 'calibration_error'?",
        ),
        (
            '"metrics.calibration_eror < 0.1"',
            19,
            "(measured in this stage: validation_utility, calibration_error)",
        ),
        ("metrics.calibration_error < 1", 39, "write numbers with a point: 1.0"),
        (
            "metrics.calibration_error / metrics.validation_utility < 1.0",
            37,
            "must divide by a written number that is not 0",
        ),
        ("metrics.calibration_error / 0.0 > 1.0", 37, "must divide by a written number that is not 0"),
        ("metrics.calibration_error / 1e-320 > 1.0", 37, "must divide by a written number that is not 0"),
        ("metrics.calibration_error > 1e999", 39, "must not be above 1e+15: 1e999"),
        ("metrics.calibration_error % 2.0 > 1.0", 37, "'%' has no place here"),
        (
            "metrics.calibration_error < 0.1 || metrics.`validation_utility` > 0.0",
            54,
            "a backtick has no place here",
        ),
        ("metrics.calibration_error < 0.1 || [1.0][5] > 1.0", 46, "'[' has no place here"),
        ("metrics.calibration_error < double('NaN')", 39, "'double' has no place here"),
        ("metrics.calibration_error <= 1.0", 11, "can never fail: it holds whatever is measured"),
        ("metrics.calibration_error > 0.1 || true", 11, "can never fail"),
        ("metrics.calibration_error.lower <= metrics.calibration_error.upper", 11, "can never fail"),
        ("metrics.calibration_error + 0.5 >= 0.5", 11, "can never fail"),
        ("metrics.calibration_error.uper < 1.0", 36, "unknown end 'uper' of a metric (known: lower, upper)"),
        ("metrics.calibration_error <", 38, "Syntax error"),
        ("metrics.calibration_error", 11, "must be a condition, true or false: it is a double"),
        (
            "metrics.validation_utility > 0.0",
            11,
            "must name the gate's own metric: metrics.calibration_error",
        ),
        ("metrics.rows > 1.0 && metrics.calibration_error < 1.0", 18, "unknown metric 'rows'"),
    ],
)
def test_mistakes_are_found_at_load_with_their_place(condition: str, column: int, says: str) -> None:
    """Types and names are checked when the file is read; the error points into the expression."""
    issue = refused(condition)
    assert issue.startswith(f"r.yaml:{LINE}:{column}: 'gates[1].when' ")
    assert says in issue


def test_a_mistake_in_a_block_of_lines_says_its_place() -> None:
    """In a block scalar the error stands at the key's value and names line and column of the text."""
    issue = refused("|\n      metrics.calibration_error < 0.1 &&\n      metrics.acu > 1.0")
    assert f"r.yaml:{LINE}:11: " in issue
    assert "(its line 2, column 8)" in issue


def test_a_comment_hides_no_name() -> None:
    """In a block of lines a comment inside a name is refused at its place; what follows it would not be read."""
    issue = refused(
        "|\n      metrics.calibration_error < 0.1 || metrics. // so\n      validation_utility > 0.0"
    )
    assert "(its line 1, column 45)" in issue
    assert "a comment has no place here" in issue


@pytest.mark.parametrize(
    "condition",
    [
        "metrics.validation_utility / 2.0 > 0.1",
        "metrics.validation_utility > 0.3 || metrics.validation_utility < 0.2",
        "metrics.validation_utility != 0.25",
        "metrics.validation_utility - 10.0 * metrics.calibration_error.upper > 0.0",
        "metrics.calibration_error < 0.5 ? metrics.validation_utility > 0.0 : metrics.validation_utility > 1.0",
        "metrics.validation_utility > -.5e1",
    ],
)
def test_what_can_fail_is_let_in(condition: str) -> None:
    """Arithmetic, both ways of a choice, and a gap in the middle of a range are conditions that can fail."""
    known = ("validation_utility", "calibration_error")
    assert condition_mistakes(condition, metric="validation_utility", known=known) == ()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CEL is not installed a policy that uses it is refused, and a stored one never passes."""
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    _compiled.cache_clear()
    assert INSTALL in refused("metrics.calibration_error < 0.1")
    assert judged("metrics.calibration_error < 0.1", calibration_error=Measured(0.05)) == (
        GateStatus.ERROR,
        INSTALL,
    )


def test_a_live_gate_has_no_condition() -> None:
    """A condition on a live metric is refused: it would be a peek at every poll."""
    with pytest.raises(PolicyError) as caught:
        load_rollout(TEXT.replace("    max: 0.02\n    runsIn", "    when: x < 1.0\n    runsIn"), "r.yaml")
    assert "'gates[4].when' belongs to offline gates only" in str(caught.value)
    assert "a peek at every poll" in str(caught.value)


def test_a_condition_is_compiled_once() -> None:
    """Judging the same text again does not compile it again."""
    assert _compiled("metrics.rows > 1.0", ("metrics.rows",)) is _compiled(
        "metrics.rows > 1.0", ("metrics.rows",)
    )
