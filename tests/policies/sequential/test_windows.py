"""Promises of windows: polls wait and are judged as one block, nothing that waits is lost, a new stage drops it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.gates.evidence import (
    CountBlock,
    EvidenceError,
    GapArmsBlock,
    GapBlock,
    RatioBlock,
    UtilityBlock,
)
from policies.gates.gate_evidence import GateEvidence
from policies.rollout.rollout_policy import load_rollout
from policies.sequential.disagreement import Savings
from policies.sequential.windows import Window, joined

YAML = Path(__file__).parents[3] / "policies" / "telemarketing" / "rollout.yaml"
ERRORS = load_rollout(YAML.read_text(encoding="utf-8"), "rollout.yaml").live_gates[0]


def test_polls_wait_until_the_window_is_over() -> None:
    """A window of 60 s with polls each 20 s: the first four polls are one block, then each three; saved, it goes on."""
    window, blocks = Window(60.0), []
    for poll in range(10):
        copy = Window(60.0)
        copy.restore(json.loads(json.dumps(window.to_json())))
        window = copy
        blocks.append(window.add(CountBlock(1, 10, 2, 30), 1000.0 + 20 * poll))
    closed = [(poll, block) for poll, block in enumerate(blocks) if block is not None]
    assert closed == [
        (3, CountBlock(4, 40, 8, 120)),
        (6, CountBlock(3, 30, 6, 90)),
        (9, CountBlock(3, 30, 6, 90)),
    ]


def test_without_a_window_every_poll_is_a_block() -> None:
    """Length 0 hands each block on at once and keeps nothing."""
    window, block = Window(0.0), CountBlock(1, 10)
    assert window.add(block, 5.0) is block
    assert window.to_json() == {"opened_at": None, "waiting": None}


def test_every_kind_of_block_joins() -> None:
    """Counts are added arm by arm; payoffs and pairs follow each other in time, full payoffs beside masked ones."""
    gap = GapBlock(1, 2, 3, 4)
    assert joined(gap, gap) == GapBlock(2, 4, 6, 8)
    assert joined(GapArmsBlock(gap, gap), GapArmsBlock(gap, gap)) == GapArmsBlock(*[GapBlock(2, 4, 6, 8)] * 2)
    masked = UtilityBlock(np.array([0.0]), np.array([1.0]), UtilityBlock(np.array([5.0]), np.array([6.0])))
    both = joined(masked, masked)
    assert isinstance(both, UtilityBlock)
    assert both.plain is not None
    assert (both.stable.tolist(), both.plain.canary.tolist()) == ([1.0, 1.0], [5.0, 5.0])
    pairs = joined(RatioBlock(np.ones((1, 2)), np.empty(0)), RatioBlock(np.zeros((2, 2)), np.empty(0)))
    assert isinstance(pairs, RatioBlock)
    assert pairs.canary.tolist() == [[1, 1], [0, 0], [0, 0]]
    with pytest.raises(EvidenceError, match="cannot follow"):
        joined(gap, CountBlock(1, 2))


def test_a_new_stage_drops_what_waits_and_no_evidence_counts_before_its_window() -> None:
    """A gate with a window has no n before it closes; entering the next stage starts its window anew."""
    evidence = GateEvidence(replace(ERRORS, window_s=60.0), 0.01, 0.05, 3, (-1.0, 29.8))
    evidence.enter_stage(25.0)
    evidence.observe(CountBlock(9, 10), at=0.0)
    assert (evidence.tally.canary_n, evidence.rollback_log_e) == (0, 0.0)
    assert evidence.notes() == ["its window of 60 s is not over"]
    evidence.leave_stage()
    evidence.enter_stage(50.0)
    evidence.observe(CountBlock(0, 100), at=70.0)
    evidence.observe(CountBlock(0, 100), at=130.0)
    assert (evidence.tally.canary_n, evidence.tally.canary_events) == (200, 0)


def test_units_saved_are_what_the_variances_say() -> None:
    """1 − Var_masked/Var_plain of a paired difference; nothing is said under 100 units or without full payoffs."""
    generator = np.random.default_rng(1)
    canary, stable = generator.normal(size=5000), generator.normal(size=15_000)
    mask_c, mask_s = generator.random(5000) < 0.4, generator.random(15_000) < 0.4
    block = UtilityBlock(canary * mask_c, stable * mask_s, UtilityBlock(canary, stable))
    savings = Savings()
    savings.update(UtilityBlock(canary, stable))
    assert savings.share((1, 3)) is None
    savings.update(block)
    restored = Savings()
    restored.restore(json.loads(json.dumps(savings.to_json())))
    masked = np.var(canary * mask_c) + np.var(stable * mask_s) / 3
    expected = 1 - masked / (np.var(canary) + np.var(stable) / 3)
    assert restored.share((1, 3)) == pytest.approx(expected, rel=1e-9)
    assert 0.55 < expected < 0.65
