"""Promises of the dispersion guard: how often it sees bursts that are none, that it finds real ones, what it does."""

import math

import numpy as np
import pytest

from policies.gates.evidence import CountBlock
from policies.gates.gate_tests import CountProcess, guarded
from policies.sequential.dispersion import Dispersion, PollScoreTest
from policies.sequential.proportions import WORSE, WORSE_WEIGHTS, ShareTest

LIMIT = math.log(20)
POLLS, N = 180, 1900


def bursts(generator: np.random.Generator, mean: float, spread: float, size: tuple[int, int]) -> np.ndarray:
    """Events per poll, of variance `spread` times the mean: Poisson, or negative binomial."""
    if spread == 1:
        return generator.poisson(mean, size)
    return generator.poisson(generator.gamma(mean / (spread - 1), spread - 1, size))


def first_flag(events: np.ndarray) -> int | None:
    """The poll at which stable counts as bursty."""
    dispersion = Dispersion()
    for poll, e in enumerate(events, start=1):
        dispersion.update(int(e), N)
        if dispersion.is_bursty:
            return poll
    return None


@pytest.mark.parametrize("mean", [0.5, 4.0, 19.0])
def test_a_stable_without_bursts_is_seldom_flagged(mean: float) -> None:
    """Poisson events over 180 polls, judged at each: flagged in about 10 % (8 to 11 in 4,000 runs), here of 300."""
    runs = bursts(np.random.default_rng(1), mean, 1.0, (300, POLLS))
    flagged = sum(first_flag(run) is not None for run in runs)
    assert flagged <= 300 * 0.114 + 3 * math.sqrt(300 * 0.114 * 0.886)


def test_bursts_are_found_soon() -> None:
    """Of 100 runs with twice the variance of chance all are flagged, the median one within 16 polls."""
    runs = bursts(np.random.default_rng(2), 19.0, 2.0, (100, POLLS))
    polls = [first_flag(run) for run in runs]
    assert None not in polls
    assert np.median([poll for poll in polls if poll is not None]) <= 16


def test_a_rate_that_changes_between_stages_is_no_burst() -> None:
    """Stages are strata: ten times the rate in the next stage does not flag; within a stage it would."""
    generator = np.random.default_rng(3)
    split, whole = Dispersion(), Dispersion()
    for stage, mean in enumerate((5.0, 50.0)):
        if stage:
            split.begin_stage()
        for e in generator.poisson(mean, 30):
            split.update(int(e), N)
            whole.update(int(e), N)
    assert not split.is_bursty
    assert whole.is_bursty


def process(dispersion: Dispersion) -> CountProcess:
    found = guarded(ShareTest(1.0, WORSE, WORSE_WEIGHTS), alpha=0.05, dispersion=dispersion)
    assert isinstance(found, CountProcess)
    return found


def rolled_back(canary: np.ndarray, stable: np.ndarray, *, is_guarded: bool) -> bool:
    """Whether F2 at 5 % of the traffic crosses at some poll."""
    dispersion = Dispersion()
    one = process(dispersion)
    for e_c, e_s in zip(canary, stable, strict=True):
        block = CountBlock(int(e_c), 100, int(e_s), N)
        dispersion.update(block.stable_events, block.stable_n)
        one.update(block)
        if (one.log_e if is_guarded else one.test.log_e) >= LIMIT:
            return True
    return False


@pytest.mark.parametrize(("spread", "alone"), [(1.6, 0.06), (3.0, 0.2)])
def test_the_guard_holds_alpha_in_bursts(spread: float, alone: float) -> None:
    """Bursty A/A at α .05, 150 runs: F2 alone errs in far more, guarded it holds α within Monte-Carlo error."""
    generator = np.random.default_rng(4)
    canary, stable = (bursts(generator, mean, spread, (150, POLLS)) for mean in (1.0, 19.0))
    wrong = {
        is_guarded: sum(rolled_back(c, s, is_guarded=is_guarded) for c, s in zip(canary, stable, strict=True))
        for is_guarded in (False, True)
    }
    assert wrong[False] >= 150 * alone
    assert wrong[True] <= 150 * 0.05 + 3 * math.sqrt(150 * 0.05 * 0.95)


def test_the_guard_only_ever_takes_evidence_away() -> None:
    """The guarded log E is never above the count test's own, at any poll of a bursty run."""
    generator, dispersion = np.random.default_rng(6), Dispersion()
    one = process(dispersion)
    for e_c, e_s in zip(*(bursts(generator, mean, 4.0, (1, 60))[0] for mean in (2.0, 19.0)), strict=True):
        dispersion.update(int(e_s), N)
        one.update(CountBlock(int(e_c), 100, int(e_s), N))
        assert one.log_e <= one.test.log_e
    assert dispersion.is_bursty
    assert one.log_e == min(one.test.log_e, one.polls.log_e)


def test_poll_scores_are_silent_at_first_and_then_see() -> None:
    """F1 on polls says nothing before ten polls and ten expected events, and then finds a tripled rate."""
    test = PollScoreTest(1, 0.05)
    for poll in range(30):
        test.add_share(9, 57, r0=1.0, w=0.05)
        if poll < 8:
            assert test.log_e == 0
    assert test.log_e > LIMIT
