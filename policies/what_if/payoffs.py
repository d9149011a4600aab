"""Utility in a simulation: polls of paired differences drawn beforehand, and betting that moves poll by poll.

A unit's payoff is drawn from an empirical sample, or from the Beta distribution on the payoff range that has the
assumed mean and standard deviation. Units of both arms are paired exactly as the gate pairs them; a few thousand
polls' worth of differences make a library, and each simulated poll is one of its polls, drawn with replacement. The
library's mean is moved to be the assumed difference, exactly.
The bet is λ as aGRAPA has it when the poll begins and stays there for the poll; what the poll then adds to log E,
Σ ln(1 + λ·y), is read off a table by λ, linear between 33 values. The gate itself moves λ after every difference.
What this costs, measured by tests/policies/what_if/test_what_if_utility.py with 3,000 runs of 60 polls: decided by
units against by polls 96.2 / 96.7 %, 93.7 / 95.1 % and 34.7 / 33.0 %, after 23 / 23, 32 / 32 and 18.5 / 16 polls
at the median; Monte-Carlo's own standard error of such a difference is 0.5 to 1.2 points.
Source: gates.md F4; policies/sequential/betting.py. Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.sequential.betting import BettingTest, Pairing
from policies.what_if.paths import FloatArray, IntArray, RunSums

LIBRARY_POLLS = 2048
LARGEST_PART = 200  # differences of a poll that are drawn together; a larger poll is a sum of parts
_DRAWS = 4_000_000  # payoffs drawn for one library, about
_STAKES = 33


class AssumptionError(ValueError):
    """Effects that cannot be: a rate outside [0, 1], payoffs that no distribution on the range can have."""


@dataclass(frozen=True, eq=False)
class Payoffs:
    """What is assumed of the units' payoffs, in the utility spec's unit; higher is better.

    difference: canary's mean minus stable's, per unit, over all units. sd: of one unit's payoff. mean: stable's.
    low, high: the utility spec's range, inclusive. disagreement: share of units on which the releases act differently,
    and so of the variance that is left: gates with `where: disagreement` see 0 for the others. sample: payoffs (n,) to
    draw from in place of the Beta distribution; `sd` and `mean` are then its own. Raises AssumptionError.
    """

    difference: float
    sd: float
    low: float
    high: float
    mean: float | None = None
    disagreement: float = 1.0
    sample: FloatArray | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not self.low < self.high:
            raise AssumptionError(f"'high' must be > 'low': {self.low} and {self.high}")
        if not 0 < self.disagreement <= 1:
            raise AssumptionError(f"'disagreement' must be in (0, 1]: {self.disagreement}")
        if not (self.sd > 0 and math.isfinite(self.difference)):
            raise AssumptionError(f"'sd' must be > 0 and 'difference' finite: {self.sd}, {self.difference}")
        if self.sample is not None and (
            len(self.sample) < 2
            or self.sample.min() < self.low - 1e-9
            or self.sample.max() > self.high + 1e-9
        ):
            raise AssumptionError(f"'sample' must be 2 or more payoffs in [{self.low:g}, {self.high:g}]")
        if self.sample is None and self._room(self.centre) <= self.sd**2:
            widest = math.sqrt(max(self._room(self.centre), 0.0))
            raise AssumptionError(
                f"'sd' must be < {widest:.3g} for payoffs in [{self.low:g}, {self.high:g}] with mean "
                f"{self.centre:g}: {self.sd:g}"
            )

    @property
    def centre(self) -> float:
        """Stable's mean: as assumed, else 0 where payoffs of that mean can have the sd, else the range's middle."""
        if self.mean is not None:
            return self.mean
        return 0.0 if self._room(0.0) > self.sd**2 else (self.low + self.high) / 2

    def _room(self, mean: float) -> float:
        """The largest variance that payoffs of this mean can have."""
        return (self.high - mean) * (mean - self.low)

    def draw(self, generator: np.random.Generator, n: int) -> FloatArray:
        """Payoffs (n,) of stable's distribution."""
        if self.sample is not None:
            return generator.choice(self.sample, n)
        share = (self.centre - self.low) / (self.high - self.low)
        size = self._room(self.centre) / self.sd**2 - 1
        return self.low + (self.high - self.low) * generator.beta(share * size, (1 - share) * size, n)


@dataclass(frozen=True, eq=False)
class PollLibrary:
    """Polls of differences: pairs, sums and sums of squares (polls,), and all differences of all parts."""

    pairs: FloatArray
    total: FloatArray
    squares: FloatArray
    parts: FloatArray
    starts: IntArray
    mix: NDArray[np.int64] | None

    @property
    def polls(self) -> int:
        """How many polls it holds."""
        return len(self.pairs)

    def log_growth(self, stakes: FloatArray, *, sign: float, null: float) -> FloatArray:
        """Σ ln(1 + λ·y) of every poll at every stake, (polls, stakes), with y = ±(difference − null)."""
        y = sign * (self.parts - null)
        columns = [_sums(np.log1p(stake * y), self.starts) for stake in stakes]
        table = np.stack(columns, axis=1)
        return table if self.mix is None else self.mix @ table


def make_library(
    payoffs: Payoffs,
    *,
    weight_pct: float,
    units_per_poll: float,
    masked: bool,
    generator: np.random.Generator,
) -> PollLibrary:
    """Draw the library of one stage. masked: units on which the releases agree count 0 on both sides."""
    w, width = weight_pct / 100, payoffs.high - payoffs.low
    k_canary, k_stable = Pairing(weight_pct).group_sizes
    per_poll = min(units_per_poll * w / k_canary, units_per_poll * (1 - w) / k_stable)
    parts_per_poll = max(1, math.ceil(per_poll / LARGEST_PART))
    units = units_per_poll / parts_per_poll
    parts = int(np.clip(_DRAWS / max(units, 1.0), 256, 2 * LIBRARY_POLLS))
    pairing, pieces = Pairing(weight_pct), []
    for canary_n, stable_n in generator.poisson((units * w, units * (1 - w)), (parts, 2)):
        arms = [payoffs.draw(generator, int(n)) for n in (canary_n, stable_n)]
        if masked:
            arms = [np.where(generator.random(len(arm)) < payoffs.disagreement, arm, 0.0) for arm in arms]
        pieces.append(pairing.pair(*arms))
    sizes = np.array([len(piece) for piece in pieces])
    differences = np.concatenate(pieces)
    if len(differences):
        differences = np.clip(differences + payoffs.difference - differences.mean(), -width, width)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    sums = [sizes.astype(float), _sums(differences, starts), _sums(differences**2, starts)]
    mix = None
    if parts_per_poll > 1:
        mix = generator.multinomial(parts_per_poll, np.full(parts, 1 / parts), LIBRARY_POLLS)
        sums = [mix @ one for one in sums]
    return PollLibrary(sums[0], sums[1], sums[2], differences, starts, mix)


def _sums(values: FloatArray, starts: IntArray) -> FloatArray:
    """Sums of the pieces that begin at `starts` (pieces + 1,); an empty piece is 0."""
    running = np.concatenate(([0.0], np.cumsum(values)))
    sums: FloatArray = running[starts[1:]] - running[starts[:-1]]
    return sums


class BettingPath:
    """F4 for many runs, by polls of a library. Source: `BettingTest`."""

    def __init__(self, test: BettingTest, runs: int) -> None:
        self.test = test
        self.sums = RunSums(3, runs)
        self.settle = self.sums.settle
        self._sign = 1.0 if test.side == "above" else -1.0
        self._most = 0.5 / (test.width + self._sign * test.null)
        self._of: PollLibrary | None = None

    def _take(self, library: PollLibrary) -> None:
        """Tabulate what each poll of the library adds to log E by the stake."""
        null, stakes = self.test.null, np.linspace(0.0, self._most, _STAKES)
        self._table = library.log_growth(stakes, sign=self._sign, null=null)
        self._y = self._sign * (library.total - library.pairs * null)
        self._yy = library.squares - 2 * null * library.total + library.pairs * null**2
        self._of = library

    def extend(self, rows: IntArray, library: PollLibrary, drawn: IntArray) -> FloatArray:
        """Log E of the runs `rows` after each poll of a chunk; `drawn` (rows, polls): the library's polls, −1 none."""
        if self._of is not library:
            self._take(library)
        test, there, polls = self.test, drawn >= 0, np.maximum(drawn, 0)
        y, yy = np.where(there, self._y[polls], 0.0), np.where(there, self._yy[polls], 0.0)
        self.sums.begin(rows)
        total, squares = self.sums.add(y) - y, self.sums.add(yy) - yy
        planned = self._sign * (test.planned - test.null)
        second = squares + test.planned_n * (planned**2 + (test.width / 20) ** 2)
        stake = np.clip((total + test.planned_n * planned) / second, 0.0, self._most)
        place = stake * ((_STAKES - 1) / self._most)
        low = np.minimum(place.astype(np.intp), _STAKES - 2)
        at_low, at_high = self._table[polls, low], self._table[polls, low + 1]
        return self.sums.add(np.where(there, at_low + (place - low) * (at_high - at_low), 0.0))
