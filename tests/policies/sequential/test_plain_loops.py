"""Promises of F4 and F3 against plain loops written from the formulas, with their own arithmetic: to 1e-12.

The loops share nothing with the modules but the printed formula (gates.md F3, F4; betting.py's header for how bets are
shrunk): exact to the last factor, so that a bet from the wrong moment, or a rate from the present poll, shows.
"""

import math

import numpy as np
import pytest

from policies.sequential.betting import BettingTest
from policies.sequential.proportions import WORSE, WORSE_WEIGHTS, TwoByTwoTest

WIDTH = 2.0
CASES = [("above", -0.3), ("above", 0.0), ("above", 0.4), ("below", -0.3), ("below", 0.0), ("below", 0.4)]


def bets(x: list[float], *, null: float, side: str, planned: float, planned_n: int) -> list[float]:
    """K's factors 1 ± λ·(x − null), one after the other: λ from the differences before, at most ½ of what ruins."""
    factors, seen = [], list[float]()
    for value in x:
        direction = 1 if side == "above" else -1
        gains = [direction * (one - null) for one in seen]
        hoped = direction * (planned - null)
        wide = hoped**2 + (WIDTH / 20) ** 2
        over = sum(gains) + planned_n * hoped
        under = sum(gain**2 for gain in gains) + planned_n * wide
        # the worst gain: a difference at the end of [−width, width] that speaks against the side
        worst = min(direction * (end - null) for end in (-WIDTH, WIDTH))
        stake = min(max(over / under, 0.0), 0.5 / abs(worst))
        factors.append(1 + stake * direction * (value - null))
        seen.append(value)
    return factors


def differences(seed: int, n: int = 120) -> list[float]:
    """Heavy-tailed, in [−width, width], the ends included."""
    generator = np.random.default_rng(seed)
    x = np.clip(generator.standard_t(2, n) * 0.3 + generator.choice([-0.4, 0.5]), -WIDTH, WIDTH)
    return [float(one) for one in x]


@pytest.mark.parametrize(("side", "null"), CASES)
@pytest.mark.parametrize("planned_n", [1, 20, 200])
def test_betting_is_its_formula(side: str, null: float, planned_n: int) -> None:
    """F4 is the plain product of its bets, both sides, whatever the null, in whatever chunks, to 1e-12."""
    planned = null + (0.2 if side == "above" else -0.2)
    for seed in range(4):
        x = differences(seed)
        test = BettingTest(null, side, WIDTH, planned, planned_n)
        for chunk in np.split(np.array(x), [1, 2, 30, 90]):
            test.update(chunk)
        factors = bets(x, null=null, side=side, planned=planned, planned_n=planned_n)
        assert min(factors) > 0
        assert test.log_e == pytest.approx(math.fsum(map(math.log, factors)), rel=1e-12, abs=1e-12)


def steps(x: list[float], *, null: float, side: str) -> np.ndarray:
    """What each difference adds to log E."""
    test, logs = BettingTest(null, side, WIDTH, null, 5), [0.0]
    for one in x:
        test.update(np.array([one]))
        logs.append(test.log_e)
    return np.diff(logs)


@pytest.mark.parametrize(("side", "null"), CASES)
def test_a_difference_changes_its_own_factor_and_later_bets_only(side: str, null: float) -> None:
    """No bet knows the difference it is laid on: changing the n-th leaves the factors before it, and the n-th stays
    linear in it, which it would not be if the stake moved with it."""
    x = differences(7, 40)
    before = steps(x, null=null, side=side)
    factors = []
    for value in (-1.0, 0.0, 1.0):
        changed = steps([*x[:20], value, *x[21:]], null=null, side=side)
        assert np.array_equal(changed[:20], before[:20])
        factors.append(math.exp(changed[20]))
    assert factors[2] - factors[1] == pytest.approx(factors[1] - factors[0], abs=1e-12)


@pytest.mark.parametrize(("side", "null"), CASES)
def test_no_difference_can_take_more_than_half_of_what_is_at_stake(side: str, null: float) -> None:
    """The worst difference of all halves E after any luck, and no more: the stake reaches ½/deepest and no further."""
    sign = 1.0 if side == "above" else -1.0
    test = BettingTest(null, side, WIDTH, planned=null, planned_n=1)
    small = 0.25 * sign
    test.update(np.full(500, null + small))  # certain small gains: the bet would be large
    before = test.log_e
    test.update(np.array([-sign * WIDTH]))
    assert test.log_e - before == pytest.approx(math.log(0.5), abs=1e-12)


def likelihoods(polls: list[tuple[int, int, int, int]]) -> float:
    """F3 of (canary events, n, stable events, n): θs from the polls before, never from the poll it is used on."""
    total = 0.0
    for ratio, weight in zip(WORSE, WORSE_WEIGHTS, strict=True):
        e, events, trials = weight, 0, 0
        for ec, nc, es, ns in polls:
            if trials:
                ts = (events + 0.5) / (trials + 1)
                tc = min(ratio * ts, (1 + ts) / 2)
                t0 = (nc * tc + ns * ts) / (nc + ns)
                e *= (tc / t0) ** ec * ((1 - tc) / (1 - t0)) ** (nc - ec)
                e *= (ts / t0) ** es * ((1 - ts) / (1 - t0)) ** (ns - es)
            events, trials = events + es, trials + ns
        total += e
    return math.log(total)


@pytest.mark.parametrize(("rate_c", "rate_s"), [(0.02, 0.02), (0.08, 0.02), (0.0, 0.3), (0.5, 0.4)])
def test_the_two_by_two_test_is_its_formula(rate_c: float, rate_s: float) -> None:
    """F3 is the plain product of its likelihood ratios with stable's rate of earlier polls, poll by poll, to 1e-12."""
    generator = np.random.default_rng(5)
    test, polls = TwoByTwoTest(), list[tuple[int, int, int, int]]()
    for _ in range(12):
        nc, ns = int(generator.integers(1, 20)), int(generator.integers(1, 60))
        poll = int(generator.binomial(nc, rate_c)), nc, int(generator.binomial(ns, rate_s)), ns
        polls.append(poll)
        test.update(poll[0], nc, stable_events=poll[2], stable_n=ns)
        assert test.log_e == pytest.approx(likelihoods(polls), rel=1e-12, abs=1e-12)


def test_the_first_poll_of_the_two_by_two_test_only_teaches() -> None:
    """There are no earlier polls to know stable's rate from: whatever the first one shows, log E is 0."""
    test = TwoByTwoTest()
    test.update(50, 50, stable_events=0, stable_n=100)
    assert test.log_e == 0.0
