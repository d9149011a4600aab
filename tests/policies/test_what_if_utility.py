"""Promises of simulated utility: polls of differences bet like the units they stand for, and what that costs."""

from dataclasses import dataclass

import numpy as np
import pytest

from policies.betting import BettingTest, Pairing
from policies.what_if_payoffs import BettingPath, Payoffs, make_library

RUNS, POLLS, UNITS = 300, 60, 200
LOW, HIGH, LIMIT = -1.0, 0.25, float(np.log(20))


@dataclass(frozen=True)
class Lives:
    """Of many runs: the share whose log E reached ln 20 in 60 polls, and the median poll at which it did."""

    share: float
    median: float


def lives(log_e: np.ndarray) -> Lives:
    """log_e (runs, polls)."""
    has = (log_e >= LIMIT).any(axis=1)
    polls = np.argmax(log_e >= LIMIT, axis=1)[has] + 1
    return Lives(float(has.mean()), float(np.median(polls)) if len(polls) else np.inf)


def by_units(payoffs: Payoffs, test: tuple[float, str, float], *, weight_pct: float, seed: int) -> np.ndarray:
    """Log E (runs, polls) as the gate comes to it: λ moves after every difference."""
    generator, w = np.random.default_rng(seed), weight_pct / 100
    found = np.zeros((RUNS, POLLS))
    null, side, planned = test
    for run in range(RUNS):
        betting, pairing = BettingTest(null, side, HIGH - LOW, planned), Pairing(weight_pct)
        for poll in range(POLLS):
            canary, stable = generator.poisson((UNITS * w, UNITS * (1 - w)))
            betting.update(
                pairing.pair(payoffs.draw(generator, canary), payoffs.draw(generator, stable))
                + payoffs.difference
            )
            found[run, poll] = betting.log_e
    return found


def by_polls(payoffs: Payoffs, test: tuple[float, str, float], *, weight_pct: float, seed: int) -> np.ndarray:
    """Log E (runs, polls) as the simulation comes to it."""
    generator = np.random.default_rng(seed)
    library = make_library(
        payoffs, weight_pct=weight_pct, units_per_poll=UNITS, masked=False, generator=generator
    )
    path = BettingPath(BettingTest(test[0], test[1], HIGH - LOW, test[2]), RUNS)
    return path.extend(np.arange(RUNS), library, generator.integers(library.polls, size=(RUNS, POLLS)))


@pytest.mark.parametrize(
    ("weight_pct", "difference", "test"),
    [
        (5.0, 0.0, (-0.04, "above", 0.0)),  # passes: not worse by the margin
        (5.0, -0.03, (0.0, "below", -0.04)),  # fails: worse by nearly the margin
        (50.0, -0.01, (0.0, "below", -0.04)),  # worse by a quarter of it
    ],
)
def test_polls_bet_like_units(difference: float, test: tuple[float, str, float], weight_pct: float) -> None:
    """Against the process that bets unit by unit: shares of decisions within 4 standard errors, median time within a
    tenth or two polls. What it costs is printed."""
    payoffs = Payoffs(difference, sd=0.2, low=LOW, high=HIGH, mean=0.2)
    units = lives(by_units(payoffs, test, weight_pct=weight_pct, seed=1))
    polls = lives(by_polls(payoffs, test, weight_pct=weight_pct, seed=2))
    print(f"{weight_pct:g} % {difference:+g} {test}: units {units}, polls {polls}")
    pooled = (units.share + polls.share) / 2
    error = max(np.sqrt(2 * pooled * (1 - pooled) / RUNS), 1 / RUNS)
    assert abs(units.share - polls.share) <= 4 * error
    if units.share > 0.5:
        assert abs(units.median - polls.median) <= max(2, 0.1 * units.median)
