"""Utility in [−1, 0.25]: one canary unit against the mean of 19 stable ones; betting against Welch's z at every poll.

Loss rates: a unit pays −1 with this chance, else 0.25. Bets move unit by unit, as the gate's do, for many runs at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from canary_traffic import CANARY_N, POLL_S, POLLS, Score
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
LOW, HIGH, PER_STABLE = -1.0, 0.25, 19
WIDTH, STABLE_LOSS = HIGH - LOW, 0.02
LOSSES = (0.02, 0.025, 0.03, 0.04, 0.06)
LIMIT = math.log(20)
Tell = Callable[[float], None]


class Betting:
    """`policies.sequential.betting.BettingTest` against "not worse than stable", for many runs: log E, unit by unit."""

    def __init__(self, runs: int, planned: float = -0.0125, planned_n: int = 200) -> None:
        self.planned, self.planned_n = -planned, planned_n
        self.total, self.squares, self.log_e = np.zeros(runs), np.zeros(runs), np.zeros(runs)

    def update(self, differences: Floats) -> Floats:
        """Differences canary − stable (runs, n) of one poll; log E after it."""
        y = -differences
        total = self.total[:, None] + np.cumsum(y, axis=1)
        squares = self.squares[:, None] + np.cumsum(y * y, axis=1)
        second = squares - y * y + self.planned_n * (self.planned**2 + (WIDTH / 20) ** 2)
        stake = np.clip((total - y + self.planned_n * self.planned) / second, 0.0, 0.5 / WIDTH)
        self.log_e += np.log1p(stake * y).sum(axis=1)
        self.total, self.squares = total[:, -1], squares[:, -1]
        return self.log_e


class Portfolio:
    """A mixture over fixed stakes, of which the best is known only afterwards: E is the mean of their products.

    Its stakes go up to `most` of what is possible, twice what a single bet is clipped to. Source: Cover's universal
    portfolios; Waudby-Smith & Ramdas, JRSS B 2024, section 5 (mixtures of bets).
    """

    def __init__(
        self, runs: int, stakes: tuple[float, ...], weights: tuple[float, ...] | None = None
    ) -> None:
        self.stakes = np.array(stakes) / WIDTH
        self.weights = np.full(len(stakes), 1 / len(stakes)) if weights is None else np.array(weights)
        self.logs = np.zeros((len(stakes), runs))

    def update(self, differences: Floats) -> Floats:
        """As `Betting.update`."""
        for row, stake in enumerate(self.stakes):
            self.logs[row] += np.log1p(-stake * differences).sum(axis=1)
        top = self.logs.max(axis=0)
        log_e: Floats = top + np.log(self.weights @ np.exp(self.logs - top))
        return log_e


class Welch:
    """One-sided z at .05 on both arms' means, at every poll."""

    def __init__(self, runs: int) -> None:
        self.sums = np.zeros((4, runs))
        self.polls = 0

    def update_arms(self, canary: Floats, stable: Floats) -> Floats:
        """Payoffs (runs, n) and means of 19 (runs, n); ln 20 where it would roll back, else 0."""
        self.polls += 1
        self.sums += [
            canary.sum(axis=1),
            (canary**2).sum(axis=1),
            stable.sum(axis=1),
            (stable**2).sum(axis=1),
        ]
        n = self.polls * canary.shape[1]
        means, squares = self.sums[::2] / n, self.sums[1::2] / n
        error = np.sqrt((squares - means**2).sum(axis=0) / n)
        return np.where((means[1] - means[0]) > norm.ppf(0.95) * error, LIMIT, 0.0)


def lives(loss: float, runs: int, seed: int, tell: Tell) -> dict[str, Score]:
    """Every method over the same units, for half an hour."""
    generator = np.random.default_rng(seed)
    betting, welch = Betting(runs), Welch(runs)
    mixed = Portfolio(runs, (0.02, 0.05, 0.1, 0.2, 0.35, 0.6))
    first = {
        name: np.zeros(runs) for name in ("betting (F4)", "mixture of six bets", "Welch z at every poll")
    }
    for poll in range(1, POLLS + 1):
        canary = np.where(generator.random((runs, CANARY_N)) < loss, LOW, HIGH)
        losses = generator.binomial(PER_STABLE, STABLE_LOSS, (runs, CANARY_N))
        stable = HIGH - WIDTH * losses / PER_STABLE
        logs = (
            betting.update(canary - stable),
            mixed.update(canary - stable),
            welch.update_arms(canary, stable),
        )
        for name, log_e in zip(first, logs, strict=True):
            first[name][(first[name] == 0) & (log_e >= LIMIT)] = poll
        tell(poll / POLLS)
    return {name: _score(polls) for name, polls in first.items()}


def _score(polls: Floats) -> Score:
    found = polls > 0
    if found.mean() < 0.5:
        return Score(float(found.mean()), None, None)
    median = float(np.median(polls[found]))
    return Score(float(found.mean()), median * POLL_S, median * CANARY_N)
