"""Promises of verdicts and gate results: closed reasons, the worst wins, nothing that JSON cannot carry."""

import json
import math
from dataclasses import replace

import pytest

from policies.rollout.verdict import (
    Decision,
    GateResult,
    GateStatus,
    ReasonCode,
    Verdict,
    VerdictError,
    worst,
)

RESULT = GateResult(
    gate="utility",
    metric="utility",
    status=GateStatus.INCONCLUSIVE,
    observed=-0.0213,
    bound=-0.3,
    n=1240,
    window="canary-25, 12 s",
    log_e=1.234,
    log_limit=2.996,
    detail="needs about 120 more canary units (3 s)",
    interval=(-0.4, 0.36),
    rollback_log_e=-0.5,
    rollback_log_limit=5.52,
)
VERDICT = Verdict(
    "canary-25", Decision.HOLD, ReasonCode.MORE_EVIDENCE, "holds: utility wants more", (RESULT,), 1000.5, 3.0
)


def test_worst_wins() -> None:
    """The worst status wins; no gate at all is no data, never a pass."""
    assert worst([GateStatus.PASS, GateStatus.NO_DATA, GateStatus.INCONCLUSIVE]) is GateStatus.NO_DATA
    assert worst([GateStatus.ERROR, GateStatus.FAIL]) is GateStatus.FAIL
    assert worst([GateStatus.PASS]) is GateStatus.PASS
    assert worst([]) is GateStatus.NO_DATA


def test_verdict_survives_json() -> None:
    """A verdict read back from JSON text equals what was written."""
    text = json.dumps(VERDICT.to_json(), allow_nan=False)
    assert Verdict.from_json(json.loads(text)) == VERDICT


@pytest.mark.parametrize("name", ["observed", "bound", "log_e", "rollback_log_e"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_that_is_not_finite(name: str, value: float) -> None:
    """A gate result refuses NaN and infinity and names the field."""
    with pytest.raises(VerdictError, match=f"'{name}' of gate 'utility' must be finite"):
        replace(RESULT, **{name: value})


def test_stored_form_must_be_whole() -> None:
    """A stored verdict with an unknown reason, or without one, is refused."""
    stored = VERDICT.to_json()
    with pytest.raises(VerdictError, match="because"):
        Verdict.from_json({**stored, "reason": "because"})
    del stored["decision"]
    with pytest.raises(VerdictError, match="decision"):
        Verdict.from_json(stored)


def test_sentence_says_value_bound_n_and_evidence() -> None:
    """The one-line form holds status, observed value and bound, n, evidence against its limit, and what it wants."""
    assert RESULT.sentence() == (
        "utility inconclusive; utility -0.0213 [-0.4000, 0.3600] against -0.3000; n 1,240; "
        "log E 1.23 of 3.00; against it -0.50 of 5.52; needs about 120 more canary units (3 s)"
    )
    assert VERDICT.sentence() == "canary-25: HOLD (more_evidence) holds: utility wants more"


def test_status_of_a_verdict_counts_required_gates_only() -> None:
    """A gate that the stage does not require never makes its verdict better or worse."""
    passed = replace(RESULT, status=GateStatus.PASS)
    watched = replace(RESULT, status=GateStatus.NO_DATA, required=False)
    assert replace(VERDICT, gates=(passed, watched)).status is GateStatus.PASS
    assert replace(VERDICT, gates=(watched,)).status is GateStatus.INCONCLUSIVE
