"""Promises: whatever the gate's kind, looking at every poll errs no more than alpha, within Monte-Carlo error.

Each run is one stage of 30 polls of 400 units at 25 %, judged after every poll through the gate's real evidence.
Rollback is judged with the canary exactly at the tolerance, advance with it exactly at niMargin: where alpha binds.
"""

import math
import zlib

import numpy as np

from policies.gates.gate_evidence import GateEvidence

RUNS, POLLS, ALPHA, WEIGHT_PCT = 150, 30, 0.05, 25.0
ALLOWED = RUNS * ALPHA + 3 * math.sqrt(RUNS * ALPHA * (1 - ALPHA))
RANGE = (-1.0, 29.8)
WORLDS = {"equal": (1.0, 1.0), "incident": (3.0, 1.0), "bursty": (1.0, 2.0)}
"""Factor on both arms' rates for a third of the polls; variance of a poll's events over the binomial one."""


def wrong(kind, make_world, at: str, world: str) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """Runs that rolled back, and runs that passed, at some poll."""
    generator = np.random.default_rng(zlib.crc32(f"{kind.gate}{at}{world}".encode()))
    factor, spread = WORLDS[world]
    if kind.gate.metric.startswith("utility"):
        factor = 1 / factor**0.3  # fewer sales, in both arms
    rolled_back = passed = 0
    for _ in range(RUNS):
        evidence = GateEvidence(kind.gate, ALPHA, ALPHA, planned_stages=1, payoff_range=RANGE)
        evidence.enter_stage(WEIGHT_PCT)
        has_failed = has_passed = False
        for poll in range(POLLS):
            shared = factor if POLLS // 3 <= poll < 2 * POLLS // 3 else 1.0
            evidence.observe(kind.draw(make_world(generator, WEIGHT_PCT, shared, spread), at, kind.gate))
            has_failed |= evidence.rollback_log_e >= evidence.rollback_limit
            has_passed |= evidence.advance_log_e >= evidence.advance_limit
        assert evidence.error is None
        rolled_back += has_failed
        passed += has_passed
    return rolled_back, passed


def test_a_canary_at_the_tolerance_is_hardly_ever_rolled_back(null, make_world) -> None:  # type: ignore[no-untyped-def]
    """Rollback ≤ α with the effect on the tolerance: also through an incident that both arms share, and in bursts."""
    kind, world = null
    assert wrong(kind, make_world, "tolerance", world)[0] <= ALLOWED


def test_a_canary_worse_by_the_margin_hardly_ever_passes(null, make_world) -> None:  # type: ignore[no-untyped-def]
    """Advance ≤ α with the effect on niMargin (or the bound): also through a shared incident, and in bursts."""
    kind, world = null
    assert wrong(kind, make_world, "margin", world)[1] <= ALLOWED


def test_gates_still_see(champion_kind, make_world) -> None:  # type: ignore[no-untyped-def]
    """Holding its error rate is no feat for a gate that sees nothing: most equal canaries pass within the 30 polls."""
    rolled_back, passed = wrong(champion_kind, make_world, "equal", "equal")
    assert passed >= 0.6 * RUNS
    assert rolled_back <= ALLOWED
