"""Promises of a poll's evidence: what cannot be is refused, and the stored form gives every block back exactly."""

import json
import math

import numpy as np
import pytest

from policies.gates.evidence import (
    SAMPLE_RATIO,
    Alarm,
    AssignmentBlock,
    CountBlock,
    EvidenceError,
    GapArmsBlock,
    GapBlock,
    PollEvidence,
    RatioBlock,
    UtilityBlock,
)
from policies.rollout.verdict import ReasonCode

PAYOFFS = np.array([0.1, -1.0, 1 / 3, math.nan, math.inf, -math.inf])


def test_every_block_comes_back_exactly() -> None:
    """Through JSON text each kind of block, what is missing and the alarms are what they were, to the last bit."""
    masked = UtilityBlock(np.zeros(6), np.zeros(2), UtilityBlock(PAYOFFS, PAYOFFS[:2]))
    poll = PollEvidence(
        at=1234.5678901234,
        weight_pct=5.0,
        blocks={
            "canary_errors": CountBlock(np.int64(3), 50, 1, 950),  # type: ignore[arg-type]
            "utility": masked,
            "utility_per_action": RatioBlock(PAYOFFS.reshape(3, 2), np.empty(0)),
            "call_rate_gap": GapArmsBlock(GapBlock(1, 2, 3, 4), GapBlock(5, 6, 7, 8)),
            "gap_of_one_arm": GapBlock(1, 2, 3, 4),
            SAMPLE_RATIO: AssignmentBlock(10, 190, 5.0),
        },
        missing={"action_rate": "no log"},
        alarms=(Alarm(ReasonCode.CANARY_EJECTED, "ejected for 3 s"),),
    )
    back = PollEvidence.from_json(json.loads(json.dumps(poll.to_json(), allow_nan=False)))
    assert (back.at, back.weight_pct, back.missing, back.alarms) == (
        poll.at,
        poll.weight_pct,
        poll.missing,
        poll.alarms,
    )
    for name in ("canary_errors", "call_rate_gap", "gap_of_one_arm", SAMPLE_RATIO):
        assert back.blocks[name] == poll.blocks[name]
    utility, ratio = back.blocks["utility"], back.blocks["utility_per_action"]
    assert isinstance(utility, UtilityBlock)
    assert utility.plain is not None
    assert np.array_equal(utility.plain.canary, PAYOFFS, equal_nan=True)
    assert utility.stable.tolist() == [0.0, 0.0]
    assert isinstance(ratio, RatioBlock)
    assert np.array_equal(ratio.canary, PAYOFFS.reshape(3, 2), equal_nan=True)
    assert ratio.stable.shape == (0, 2)


def test_evidence_refuses_what_cannot_be() -> None:
    """More events than trials, negative units, wrong shapes, another number of full payoffs: errors when made."""
    for make in (
        lambda: CountBlock(3, 2),
        lambda: GapBlock(1, 2, -1, 3),
        lambda: AssignmentBlock(-1, 2, 5.0),
        lambda: UtilityBlock(np.zeros((2, 2)), np.empty(0)),
        lambda: UtilityBlock(np.zeros(2), np.zeros(3), UtilityBlock(np.zeros(3), np.zeros(2))),
        lambda: RatioBlock(np.zeros(4), np.zeros((2, 2))),
    ):
        with pytest.raises(EvidenceError):
            make()


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"at": 1, "weight_pct": 5, "blocks": {"errors": {"kind": "histogram"}}, "missing": {}, "alarms": []},
        {"at": 1, "weight_pct": 5, "blocks": {"errors": {"kind": "counts"}}, "missing": {}, "alarms": []},
        {"at": 1, "weight_pct": 5, "blocks": [], "missing": {}, "alarms": []},
    ],
)
def test_a_foreign_form_is_refused(stored: dict[str, object]) -> None:
    """What `to_json` did not write is an EvidenceError, never a poll without evidence."""
    with pytest.raises(EvidenceError):
        PollEvidence.from_json(stored)
