"""From which probability on an action pays: of one row, of typical rows, and over the range of a field.

With two outcomes a row's best action changes at a few probabilities of the second one: the crossings of the actions'
expected payoffs. With more outcomes there is no such number.
Source: Elkan, "The Foundations of Cost-Sensitive Learning", IJCAI 2001.
Must never import: anything but numpy, scipy and policies; no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from policies.utility.utility import Floats, UtilitySpec, highest
from policies.utility.varied_payoffs import VariedPayoffs

BAND = (0.05, 0.95)
_CHANCES = 201
_BAND_POINTS = 128


@dataclass(frozen=True)
class Typical:
    """A field's usual values: 10, 50 and 90 of 100 rows lie at or below; `least` and `most`: 1 and 99 of 100."""

    field: str
    low: float
    median: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, field: str, values: NDArray[np.float64]) -> Typical:
        """From (n,) values; those that are missing are left out. Raises ValueError where none is there."""
        there = np.asarray(values, dtype=np.float64)
        there = there[np.isfinite(there)]
        if not len(there):
            raise ValueError(f"field '{field}' must have a value in one row at least")
        least, low, median, high, most = np.quantile(there, (0.01, 0.1, 0.5, 0.9, 0.99))
        return cls(field, float(low), float(median), float(high), float(least), float(most))


@dataclass(frozen=True)
class Region:
    """Probabilities of the second outcome from `start` to the next region's start: there `action` is the best."""

    start: float
    action: str


@dataclass(frozen=True)
class TypicalRow:
    """A row of usual values, its payoffs `[action][outcome]`, and its regions (none with three outcomes or more)."""

    values: Mapping[str, float]
    payoffs: tuple[tuple[float, ...], ...]
    regions: tuple[Region, ...]

    @property
    def name(self) -> str:
        """`balance 448`, or `every row` where no payoff reads a field."""
        return ", ".join(f"{field} {number(value)}" for field, value in self.values.items()) or "every row"


@dataclass(frozen=True)
class ThresholdMap:
    """The best action over a field (m,) and the second outcome's probability (q,): `best` (m, q), an index.

    `threshold` (m,) and the band (m,) of it over the numbers in doubt, 5 to 95 %, stand for two actions only; infinite
    where no probability changes the action.
    """

    field: str
    values: Floats
    chances: Floats
    best: NDArray[np.intp]
    threshold: Floats | None
    band_low: Floats | None
    band_high: Floats | None


def number(value: float) -> str:
    """`448`, `0.3625`, `10,510`: four digits, and never a power of ten where people read it."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"


def typical_rows(utility: UtilitySpec, typical: Sequence[Typical]) -> tuple[TypicalRow, ...]:
    """Each field low, median and high, the others at their medians; the row of all medians once.

    Raises UtilityError where such a row has no payoff.
    """
    medians = {one.field: one.median for one in typical}
    rows = [{**medians, one.field: value} for one in typical for value in (one.low, one.median, one.high)]
    unique = list({tuple(row.items()): row for row in rows}.values()) or [{}]
    columns = _columns(unique)
    payoffs = utility.payoffs(columns)
    return tuple(
        TypicalRow(
            row,
            tuple(tuple(float(x) for x in cells) for cells in table),
            regions(table, utility) if len(utility.outcomes) == 2 else (),
        )
        for row, table in zip(unique, payoffs, strict=True)
    )


def regions(payoffs: Floats, utility: UtilitySpec) -> tuple[Region, ...]:
    """The best action by the probability of the second outcome, from payoffs (A, 2), in rising order from 0."""
    slope = payoffs[:, 1] - payoffs[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = (payoffs[None, :, 0] - payoffs[:, None, 0]) / (slope[:, None] - slope[None, :])
    inside = np.unique(crossings[np.isfinite(crossings) & (crossings > 0) & (crossings < 1)])
    edges = np.concatenate([[0.0], inside, [1.0]])
    middle = (edges[:-1] + edges[1:]) / 2
    expected = payoffs[:, 0] + middle[:, None] * slope
    best = highest(expected, default_action=utility.default_index)
    return tuple(
        Region(float(edges[i]), utility.actions[action])
        for i, action in enumerate(best)
        if i == 0 or action != best[i - 1]
    )


def threshold_map(utility: UtilitySpec, typical: Sequence[Typical], field: str, *, seed: int) -> ThresholdMap:
    """Over `field` from its least to its most, the others at their medians; for two outcomes.

    Raises UtilityError where the spec has more, or a payoff has no finite value there.
    """
    (own,) = (one for one in typical if one.field == field)
    values = np.linspace(own.least, own.most, 241)
    columns = {one.field: np.full(len(values), one.median) for one in typical} | {field: values}
    varied = VariedPayoffs(utility, columns)
    payoffs = varied.at(varied.stated)
    chances = np.linspace(0.0, 1.0, _CHANCES)
    expected = payoffs[:, None, :, 0] * (1 - chances)[:, None] + payoffs[:, None, :, 1] * chances[:, None]
    best = highest(expected.reshape(-1, len(utility.actions)), default_action=utility.default_index)
    threshold = low = high = None
    if len(utility.actions) == 2:
        threshold = _threshold(payoffs)
        if varied.parameters:
            low, high = _band(varied, seed=seed)
    return ThresholdMap(field, values, chances, best.reshape(len(values), -1), threshold, low, high)


def _threshold(payoffs: Floats) -> Floats:
    """Where the two actions are equal, from payoffs (m, 2, 2); infinite where none in (0, 1) makes them so."""
    gain = payoffs[:, 1, :] - payoffs[:, 0, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = gain[:, 0] / (gain[:, 0] - gain[:, 1])
    return np.where((found > 0) & (found <= 1), found, np.inf)


def _band(varied: VariedPayoffs, *, seed: int) -> tuple[Floats, Floats]:
    ends = np.array([(one.low, one.high) for one in varied.parameters])
    unit = qmc.LatinHypercube(len(ends), rng=np.random.default_rng(seed)).random(_BAND_POINTS)
    found = np.array(
        [_threshold(varied.at(ends[:, 0] + point * (ends[:, 1] - ends[:, 0]))) for point in unit]
    )
    found.sort(axis=0)
    low, high = (found[round(q * (len(found) - 1))] for q in BAND)
    return low, high


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, Floats]:
    fields = rows[0]
    return {field: np.array([row[field] for row in rows]) for field in fields} or {"": np.zeros(len(rows))}
