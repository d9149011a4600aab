"""Promise: matured cohorts hold the error rate where bad labels come sooner than good ones; "labels so far" do not."""

import math
from dataclasses import replace

import numpy as np
import pytest

from policies.gates.evidence import RatioBlock, UtilityBlock
from policies.gates.gate_evidence import GateEvidence

RUNS, POLLS, ALPHA, WEIGHT_PCT = 60, 36, 0.05, 25.0
EARLY, LATE, MATURE = 1, 14, 16
"""After how many polls a failed call, and a sale, is known; and when a decision counts as mature."""
ALLOWED = RUNS * ALPHA + 3 * math.sqrt(RUNS * ALPHA * (1 - ALPHA))


def cohort(generator: np.random.Generator, n: int) -> np.ndarray:
    """Payoffs of one poll's decisions of an arm: both arms call and sell alike."""
    gain = np.clip(0.616 * generator.lognormal(0.0, 1.3, n), 0, 30.8) - 1
    return np.where(generator.random(n) < 0.5, gain, -1.0)


def known_in(cohorts: list[np.ndarray], poll: int, *, matured: bool) -> np.ndarray:
    """The payoffs that become known in a poll; matured: of the cohort that is old enough, whatever its outcomes."""
    if matured:
        return cohorts[poll - MATURE] if poll >= MATURE else np.empty(0)
    early = cohorts[poll - EARLY] if poll >= EARLY else np.empty(0)
    late = cohorts[poll - LATE] if poll >= LATE else np.empty(0)
    return np.concatenate((early[early < 0], late[late >= 0]))


def rolled_back(gate, *, matured: bool) -> int:  # type: ignore[no-untyped-def]
    """Runs that roll an equal canary back. Stable has decided long before; the canary starts with the stage."""
    generator, wrong = np.random.default_rng(8), 0
    for _ in range(RUNS):
        evidence = GateEvidence(gate, ALPHA, ALPHA, planned_stages=1, payoff_range=(-1.0, 29.8))
        evidence.enter_stage(WEIGHT_PCT)
        history = [cohort(generator, 150) for _ in range(0 if matured else MATURE)]
        canaries = [np.empty(0) for _ in history]
        failed = False
        for _ in range(POLLS):
            canaries.append(cohort(generator, 50))
            history.append(cohort(generator, 150))
            arms = [known_in(one, len(history) - 1, matured=matured) for one in (canaries, history)]
            if gate.metric == "utility":
                evidence.observe(UtilityBlock(*arms))
            else:
                evidence.observe(RatioBlock(*(np.stack((one, np.ones(len(one))), axis=1) for one in arms)))
            failed |= evidence.rollback_log_e >= evidence.rollback_limit
        wrong += failed
    return wrong


@pytest.mark.parametrize("name", ["utility", "per-action"])
def test_matured_cohorts_and_labels_so_far(kinds, name: str) -> None:  # type: ignore[no-untyped-def]
    """An equal canary is rolled back in ≤ α; by labels so far in nearly every run: its sales are not known yet."""
    gate = replace(kinds[name].gate, where="all")
    assert rolled_back(gate, matured=True) <= ALLOWED
    assert rolled_back(gate, matured=False) >= 0.9 * RUNS
