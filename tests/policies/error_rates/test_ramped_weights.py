"""Promise: over a whole rollout 5 → 25 → 50 % the book of all its gates rolls an equal canary back in at most alpha."""

import math
from dataclasses import replace

import numpy as np

from policies.gates.evidence import SAMPLE_RATIO, AssignmentBlock, PollEvidence
from policies.gates.gates import GateBook
from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage
from policies.rollout.verdict import Decision, ReasonCode

RUNS, POLLS, ALPHA = 60, 12, 0.05
ALLOWED = RUNS * ALPHA + 3 * math.sqrt(RUNS * ALPHA * (1 - ALPHA))
KINDS = ("ratio", "shift-absolute", "utility-disagreement", "per-action", "gap-shift")
SHARED = {5.0: 1.0, 25.0: 1.4, 50.0: 0.7}
"""What both arms share differs from stage to stage, while the weights do too: Simpson's paradox for pooled counts."""


def policy(gates: tuple[Gate, ...]) -> RolloutPolicy:
    """Three canary stages that run all gates."""
    stages = tuple(
        Stage(f"canary-{weight:g}", "canary", weight, 0.0, 1e9, "manual", "gates", False, "", gates)
        for weight in SHARED
    )
    return RolloutPolicy("tests", 1, "nobody", ALPHA, ALPHA, 0.0, 10.0, 60.0, 40.0, stages, "sha256:0")


def test_an_equal_canary_over_ramped_weights(kinds, make_world) -> None:  # type: ignore[no-untyped-def]
    """All gates together, at every poll of three weights, with another common rate at each: rolled back in ≤ α; the
    polls that span a change of weight are refused, and counted as evidence they would be a difference."""
    gates = tuple(replace(kinds[name].gate, name=name) for name in KINDS)
    rules, generator = policy(gates), np.random.default_rng(55)
    rolled_back = spanning = 0
    for _ in range(RUNS):
        book, before, ended = GateBook.start(rules, (-1.0, 29.8)), 0.0, False
        for stage in rules.stages:
            book.enter_stage(stage.name)
            for poll in range(POLLS):
                weight = stage.weight_pct or 0.0
                at_weight = (weight + before) / 2 if poll == 0 else weight
                world = make_world(generator, at_weight, SHARED[weight])
                blocks = {gate.metric: kinds[gate.name].draw(world, "tolerance", gate) for gate in gates}
                canary, stable = world.arms()
                blocks[SAMPLE_RATIO] = AssignmentBlock(canary, stable, at_weight)
                book.observe(PollEvidence(0.0, at_weight, blocks))
                verdict = book.judge(stage.name, at=10.0 * poll, entered_at=0.0, extended=False)
                spanning += verdict.reason is ReasonCode.MISSING_EVIDENCE and "was taken at" in verdict.detail
                ended |= verdict.decision is Decision.ROLLBACK
            before = weight
        rolled_back += ended
    assert rolled_back <= ALLOWED
    assert spanning >= RUNS * len(rules.stages) - rolled_back * len(rules.stages)
