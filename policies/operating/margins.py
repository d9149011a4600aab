"""How sure it is that a constraint is kept: the value on n rows, its confidence limit, and what is in excess.

Rates have exact Clopper-Pearson limits. Where one price is tuned until a count is the greatest allowed, the limit is
also the exact chance that the tuned rule breaks the bound (the order statistic of Tong, Feng, Li, "Neyman-Pearson
classification algorithms and NP receiver operating characteristics", Science Advances 4, 2018); with several prices the
domain's error budget is split over its constraints (Bonferroni), and the limits are as good as rows that were tuned on
can make them: the test rows tell. Means of payoffs have normal limits. Gaps take both groups' limits, each at half.
Capacities count a period too: half of the error for the rate, half for the period's own scatter (binomial).
Must never import: anything but numpy, scipy and policies; no clock, no I/O.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik, betaincinv, ndtri

from policies.utility.constraints import Constraint

Counts = NDArray[np.int64]
METHODS = {"utility": "normal", "stakeholder_utility": "normal", "capacity": "Clopper-Pearson and binomial"}


@dataclass(frozen=True)
class MeanSums:
    """n values' sum and sum of squares."""

    n: int
    total: float
    squares: float


@dataclass
class Tally:
    """What a rule did on rows with known outcomes: `counts` (A, O), those of each constraint's group a, and payoffs.

    `in_a` and `means` are by constraint and stakeholder name; the weighted utility stands under `""`.
    """

    actions: tuple[str, ...]
    outcomes: tuple[str, ...]
    counts: Counts
    in_a: dict[str, Counts] = field(default_factory=dict)
    means: dict[str, MeanSums] = field(default_factory=dict)

    def scaled(self, times: float) -> Tally:
        """The tally as if each row stood for so many: a sample's rates with the margins of all rows."""
        return Tally(
            self.actions,
            self.outcomes,
            np.rint(self.counts * times).astype(np.int64),
            {name: np.rint(counts * times).astype(np.int64) for name, counts in self.in_a.items()},
            {
                name: MeanSums(round(m.n * times), m.total * times, m.squares * times)
                for name, m in self.means.items()
            },
        )


@dataclass(frozen=True)
class Margin:
    """`value` and its `limit` (None: nothing to measure on) over `rows`; `excess` > 0: the limit breaks the bound."""

    value: float | None
    limit: float | None
    rows: int
    excess: float


def clopper_pearson(events: int, rows: int, error: float) -> tuple[float, float]:
    """One-sided lower and upper limits of a rate, each wrong with at most `error`; 0 and 1 where nothing is known."""
    lower = float(betaincinv(events, rows - events + 1, error)) if events else 0.0
    upper = float(betaincinv(events + 1, rows - events, 1 - error)) if events < rows else 1.0
    return lower, upper


def margin(
    one: Constraint, tally: Tally, *, easing: float = 0.0, span: float = 1.0, side: float = 0.0
) -> Margin:
    """The constraint's margin in a tally.

    `easing` moves the bound out of the way by that share, or, for means of payoffs, by that share of `span`, the
    payoffs' range; `excess` is in the same measure. `side` looks at one side of a gap only: 1 for group a above b, -1
    for below. Raises ValueError for a constraint that rows cannot tell.
    """
    if one.kind in ("utility", "stakeholder_utility"):
        sums = tally.means[one.stakeholder or ""]
        mean = sums.total / sums.n
        error = ndtri(1 - one.error_budget) * _deviation(sums) / math.sqrt(sums.n)
        limit = mean - float(error)
        return Margin(mean, limit, sums.n, (_bound(one) - limit) / span - easing)
    part, whole = _part_and_whole(one, tally, tally.counts)
    if one.group_field is not None:
        return _gap(one, tally, easing, side)
    if one.kind == "capacity":
        return _capacity(one, part, whole, easing)
    lower, upper = clopper_pearson(part, whole, one.error_budget)
    value = part / whole if whole else None
    if one.at_most is not None:
        return Margin(value, upper, whole, upper - min(1.0, one.at_most + easing))
    return Margin(value, lower, whole, max(0.0, _bound(one) - easing) - lower)


def signed_gap(one: Constraint, tally: Tally) -> float:
    """Group a's rate less group b's; 0 where a group has nobody."""
    (part_a, whole_a), (part_b, whole_b) = _groups(one, tally)
    return part_a / whole_a - part_b / whole_b if whole_a and whole_b else 0.0


def group_shares(one: Constraint, tally: Tally) -> tuple[float, float]:
    """The share of all rows over which each group's rate is taken: what a price on it is divided by."""
    (_, whole_a), (_, whole_b) = _groups(one, tally)
    n = int(tally.counts.sum())
    return max(whole_a, 1) / n, max(whole_b, 1) / n


def _gap(one: Constraint, tally: Tally, easing: float, side: float) -> Margin:
    (part_a, whole_a), (part_b, whole_b) = _groups(one, tally)
    if not whole_a or not whole_b:
        return Margin(None, None, 0, 1.0)
    low_a, high_a = clopper_pearson(part_a, whole_a, one.error_budget / 2)
    low_b, high_b = clopper_pearson(part_b, whole_b, one.error_budget / 2)
    sides = {1.0: high_a - low_b, -1.0: high_b - low_a}
    limit = sides.get(side, max(sides.values()))
    value = abs(part_a / whole_a - part_b / whole_b)
    return Margin(value, limit, whole_a + whole_b, limit - min(1.0, float(one.at_most or 0.0) + easing))


def _capacity(one: Constraint, events: int, rows: int, easing: float) -> Margin:
    """The limit is the count that a period exceeds with at most half the error, at the rate's own upper limit."""
    decisions = int(one.decisions or 1)
    _, upper = clopper_pearson(events, rows, one.error_budget / 2)
    limit = 0.0
    if upper > 0:
        limit = math.ceil(float(bdtrik(1 - one.error_budget / 2, decisions, min(upper, 1 - 1e-15))))
    most = min(float(decisions), float(one.at_most or 0.0) + easing * decisions)
    # the excess in shares, smooth in the rate: the greatest rate whose periods stay within the count
    highest = (
        1.0
        if most >= decisions
        else float(betaincinv(math.floor(most) + 1, decisions - math.floor(most), one.error_budget / 2))
    )
    return Margin(decisions * events / rows if rows else None, limit, rows, upper - highest)


def _part_and_whole(one: Constraint, tally: Tally, counts: Counts) -> tuple[int, int]:
    taken = counts[tally.actions.index(str(one.action))]
    if one.among is not None:
        at = tally.outcomes.index(one.among)
        return int(taken[at]), int(counts[:, at].sum())
    if one.outcome is not None:
        return int(taken[tally.outcomes.index(one.outcome)]), int(taken.sum())
    return int(taken.sum()), int(counts.sum())


def _groups(one: Constraint, tally: Tally) -> tuple[tuple[int, int], tuple[int, int]]:
    in_a = tally.in_a[one.name]
    return _part_and_whole(one, tally, in_a), _part_and_whole(one, tally, tally.counts - in_a)


def _deviation(sums: MeanSums) -> float:
    mean = sums.total / sums.n
    return math.sqrt(max(0.0, sums.squares / sums.n - mean * mean))


def _bound(one: Constraint) -> float:
    if one.at_least is None:
        raise ValueError(f"constraint '{one.name}' has no lower bound")
    return one.at_least
