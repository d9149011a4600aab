"""Families of rules over one number, priced in one pass: a threshold for everybody, a price on one action, a shift of
every row's own threshold.

In each family a row changes its action once as the number grows, so that the row's place among the numbers says all:
utilities are summed by place and accumulated. A family of any size costs one pass over the rows. Sums are kept per
block of neighbouring rows, which is what the bootstrap resamples (services/alignment/bootstrap.py). numpy only.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policies.operating.operating_point import threshold_of
from policies.utility.utility import UtilityError, UtilitySpec, expected_utility, highest

CURVE_POINTS = 81
OFF_POINTS = 41

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Family:
    """Rules over `setting` (m,) rising: `sums` (B, m) of utility per block, `action_rate` (m,) not left to default."""

    kind: Literal["threshold", "shifted", "misplaced"]
    names: tuple[str, ...]
    setting: Floats
    sums: Floats
    action_rate: Floats


@dataclass(frozen=True)
class JudgedRows:
    """Payoffs (n, A, O), probabilities (n, O) and known outcomes (n,), with the rows' block starts (B,);
    `believed` are the payoffs as a decision saw them, where that differs."""

    payoffs: Floats
    probabilities: Floats
    outcomes: NDArray[np.int64]
    starts: NDArray[np.int64]
    utility: UtilitySpec
    believed: Floats | None = None

    def realised(self, action: int) -> Floats:
        """What `action` would have earned in each row, (n,)."""
        return np.asarray(self.payoffs[np.arange(len(self.outcomes)), action, self.outcomes])


def constant_thresholds(rows: JudgedRows) -> Family:
    """Action 1 iff P(outcome 1) > t, at quantiles of the rows' own scores; two actions and two outcomes only."""
    score, utility = rows.probabilities[:, 1], rows.utility
    quantiles = np.quantile(score, np.linspace(0.0, 1.0, CURVE_POINTS))
    grid = np.unique(np.append(np.ceil(quantiles * 1e6) / 1e6, 0.0))  # rounded up: the last one calls nobody
    names = [f"{utility.actions[1]} iff P({utility.outcomes[1]}) > {t:.6f}" for t in grid]
    return _falling("threshold", names, grid, score, rows)


def shifts(rows: JudgedRows) -> tuple[Family, ...]:
    """The best action of each row with one action, the default aside, dearer or cheaper by a shift in the unit."""
    believed = rows.payoffs if rows.believed is None else rows.believed
    expected = expected_utility(believed, rows.probabilities)
    utility, found = rows.utility, []
    for action, name in enumerate(utility.actions):
        if action == utility.default_index:
            continue
        deficit, other = _deficit(expected, action, utility.default_index)
        quantiles = np.quantile(deficit, np.linspace(0.0, 1.0, CURVE_POINTS // 2))
        grid = np.unique(np.append(np.floor(quantiles * 1e4) / 1e4, np.ceil(deficit.max() * 1e4 + 1) / 1e4))
        names = [f"{name} shifted by {shift:+.4f} {utility.unit}" for shift in grid]
        found.append(_rising("shifted", names, grid, deficit, action, other, rows))
    return tuple(found)


def misplaced(rows: JudgedRows, priced: Floats) -> Family | None:
    """The operating point with its decision off by so much, from `priced` payoffs (n, A, O).

    Two actions and two outcomes: every row's threshold higher by the number. Else the default action dearer to leave,
    in the unit. Most of the rows lie within the numbers. None where action 1 is worth more under outcome 0.
    """
    if priced.shape[1:] == (2, 2):
        try:
            threshold = threshold_of(priced)
        except UtilityError:
            return None
        with np.errstate(invalid="ignore"):
            margin = rows.probabilities[:, 1] - threshold
        grid = _off_by(margin)
        return _falling("misplaced", [f"threshold off by {x:+.6f}" for x in grid], grid, margin, rows)
    default = rows.utility.default_index
    deficit, other = _deficit(expected_utility(priced, rows.probabilities), default, default)
    grid = _off_by(deficit)
    names = [f"{rows.utility.default_action} off by {x:+.6f} {rows.utility.unit}" for x in grid]
    return _rising("misplaced", names, grid, deficit, default, other, rows)


def _off_by(margin: Floats) -> Floats:
    """As far to both sides as four in five rows are from their thresholds, closer together near 0, which is one."""
    within = np.abs(margin[np.isfinite(margin)])
    most = float(np.quantile(within, 0.8)) if len(within) else 0.0
    share = np.linspace(-1, 1, OFF_POINTS)
    return share * np.abs(share) * (most or 1.0)


def _deficit(expected: Floats, action: int, default: int) -> tuple[Floats, NDArray[np.intp]]:
    """How much `action` lacks to the best other (n,), and which that is (n,)."""
    others = expected.copy()
    others[:, action] = -np.inf
    first = default if action != default else int(action == 0)
    best = highest(others, default_action=first)
    return others[np.arange(len(best)), best] - expected[:, action], best


def _falling(
    kind: Literal["threshold", "misplaced"], names: list[str], grid: Floats, score: Floats, rows: JudgedRows
) -> Family:
    """Action 1 where `score` > the setting: the row is in for all settings below its score."""
    place = len(grid) - np.searchsorted(grid, score, side="left")
    other = np.zeros(len(score), dtype=np.intp)
    turned = _accumulated(kind, names, grid, place, 1, other, rows)
    return Family(kind, turned.names, grid, turned.sums[:, ::-1], turned.action_rate[::-1])


def _rising(
    kind: Literal["shifted", "misplaced"],
    names: list[str],
    grid: Floats,
    deficit: Floats,
    action: int,
    other: NDArray[np.intp],
    rows: JudgedRows,
) -> Family:
    """`action` where the setting > `deficit`, else the `other`."""
    return _accumulated(kind, names, grid, np.searchsorted(grid, deficit, side="right"), action, other, rows)


def _accumulated(
    kind: Literal["threshold", "shifted", "misplaced"],
    names: list[str],
    grid: Floats,
    place: NDArray[np.intp],
    action: int,
    other: NDArray[np.intp],
    rows: JudgedRows,
) -> Family:
    """Sums over the rows whose `place` (n,) among the m settings is at most the setting's: they take `action`."""
    n, m, blocks = len(place), len(grid), len(rows.starts)
    base = rows.payoffs[np.arange(n), other, rows.outcomes]
    gain = rows.realised(action) - base
    block = np.repeat(np.arange(blocks), np.diff(np.append(rows.starts, n)))
    by_place = np.bincount(block * (m + 1) + place, weights=gain, minlength=blocks * (m + 1))
    sums = np.add.reduceat(base, rows.starts)[:, None] + by_place.reshape(blocks, m + 1)[:, :m].cumsum(axis=1)
    default = rows.utility.default_index
    acts = (other != default).astype(np.float64)
    change = np.bincount(place, weights=float(action != default) - acts, minlength=m + 1)[:m]
    return Family(kind, tuple(names), grid, sums, (acts.sum() + change.cumsum()) / n)
