"""Finds the prices under which the best action of each row keeps all constraints at once, and no price is too high.

Each constraint has one multiplier: the price, in the spec's unit, of what it bounds. Given the others, a multiplier is
the least that keeps its bound with its margin (bisection: the higher the price, the less of what is priced); this is
repeated over the constraints until nothing moves. At such a point a price is above 0 only where its bound binds, which
for calibrated probabilities is the condition of the best rule under the bounds (Karush-Kuhn-Tucker); for one bound it
is `act iff p a >= (1 - p)(b + lambda)`. Bounds that pull against each other can need prices far above the payoffs: then
all are raised together, up to MOST_SPANS times the payoffs' range, before they count as impossible. The search runs on
thinned samples first and is finished on all rows.
Must never import: anything but numpy, scipy and policies; no clock, no I/O, no randomness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.operating.margins import Tally, group_shares, margin, signed_gap
from policies.operating.scored_rows import Prices, ScoredRows
from policies.utility.constraints import Constraint

SAMPLE, LARGE_SAMPLE = 10_000, 300_000
MOST_SPANS = 1e4
_SWEEPS, _RAISES, _LEAP = 8, 4, 30.0
_COARSE, _FINE = (
    1e-2,
    1e-3,
)  # relative; a price is an amount of money, and the bound is kept on the safe side of it


@dataclass(frozen=True)
class Multipliers:
    """By constraint name; `are_kept`: whether every bound is kept with its margin at these prices."""

    values: Mapping[str, float]
    are_kept: bool


def find(rows: ScoredRows, constraints: Sequence[Constraint], *, easing: float = 0.0) -> Multipliers:
    """The least multipliers that keep every constraint, which must be steerable, with bounds eased by `easing`."""
    found = find_roughly(rows, constraints, easing=easing)
    if not found.are_kept or len(rows) <= SAMPLE:
        return found
    return finish(rows, constraints, found, easing=easing)


def finish(
    rows: ScoredRows, constraints: Sequence[Constraint], found: Multipliers, *, easing: float = 0.0
) -> Multipliers:
    """On all rows, from prices that were found on a sample of them or with more easing; by way of a larger sample."""
    values = dict(found.values)
    if len(rows) > 3 * LARGE_SAMPLE:
        sample, times = _thinned(rows, LARGE_SAMPLE)
        values = dict(
            _Search(sample, constraints, easing, _FINE, scale=times, first_step=1.02)
            .settle(values, sweeps=4)
            .values
        )
        return _Search(rows, constraints, easing, _FINE, first_step=1.004).settle(values, sweeps=3)
    return _Search(rows, constraints, easing, _FINE, first_step=1.02).settle(values, sweeps=3)


def _thinned(rows: ScoredRows, most: int) -> tuple[ScoredRows, float]:
    """At most so many rows, evenly over their order, and how many rows each stands for."""
    if len(rows) <= most:
        return rows, 1.0
    return rows.some(np.linspace(0, len(rows) - 1, most).astype(np.intp)), len(rows) / most


def find_roughly(rows: ScoredRows, constraints: Sequence[Constraint], *, easing: float = 0.0) -> Multipliers:
    """As `find`, on a sample where rows are many; margins are then as for all rows."""
    sample, times = _thinned(rows, SAMPLE)
    return _Search(sample, constraints, easing, _FINE if sample is rows else _COARSE, scale=times).solve()


class _Search:
    """`scale`: how many rows each row of the sample stands for."""

    def __init__(
        self,
        rows: ScoredRows,
        constraints: Sequence[Constraint],
        easing: float,
        precision: float,
        *,
        scale: float = 1.0,
        first_step: float = 2.0,
    ) -> None:
        self._rows, self._constraints, self._easing = rows, tuple(constraints), easing
        self._precision, self._scale, self._first_step = precision, scale, first_step
        self._most = MOST_SPANS * rows.span
        self._shares = _group_shares(rows, constraints)
        self._rounding = 2e-6 if rows.probabilities.dtype == np.float32 else 0.0

    def solve(self) -> Multipliers:
        """From no prices: sweep, and where bounds fight, raise all prices together and sweep again."""
        values = {one.name: 0.0 for one in self._constraints}
        while True:
            found = self.settle(values, sweeps=_SWEEPS)
            if found.are_kept or len(values) < 2 or max(map(abs, values.values())) >= self._most:
                return found
            values = {name: value * _LEAP for name, value in values.items()}

    def settle(self, values: dict[str, float], *, sweeps: int) -> Multipliers:
        """Sweep `values` until they stay; what is left of an excess is then taken by raising only."""
        for _ in range(sweeps):
            before = dict(values)
            for one in self._constraints:
                values[one.name] = self._least(one, values)
            if self._is_still(before, values):
                break
        for _ in range(_RAISES):
            broken = self._broken(values)
            if not broken:
                return Multipliers(values, True)
            for one in broken:
                raised = self._least(one, values)
                values[one.name] = raised if abs(raised) > abs(values[one.name]) else values[one.name]
        return Multipliers(values, not self._broken(values))

    def _least(self, one: Constraint, values: Mapping[str, float]) -> float:
        """The least multiplier that keeps this bound, given the others; the most there is where none does."""

        free = self._tally({**values, one.name: 0.0}, (one,))
        if self._excess(one, free) <= 0.0:
            return 0.0
        sign, side = 1.0, 0.0
        if (
            one.group_field is not None
        ):  # a price turns the gap over: only the side on which it is now falls steadily
            sign = side = float(np.sign(signed_gap(one, free))) or 1.0

        def excess(price: float) -> float:
            return self._excess(one, self._tally({**values, one.name: sign * price}, (one,)), side=side)

        start = min(abs(values[one.name]) or 0.01 * self._rows.span, self._most)
        return sign * self._root(excess, start)

    def _root(self, excess: Callable[[float], float], start: float) -> float:
        """The least price > 0 without excess, to the search's precision, on the side that keeps the bound."""
        at = {"low": (0.0, 1.0), "high": (self._most, 0.0)}
        step, price = self._first_step, start
        while True:
            found = excess(price)
            side = "low" if found > 0 else "high"
            at[side] = price, found
            if at["low"][0] > 0 and at["high"][0] < self._most:
                break
            if price >= self._most or price <= 1e-9 * self._rows.span:
                return price
            price = min(price * step, self._most) if found > 0 else price / step
            step *= step
        return self._narrow(excess, *at["low"], *at["high"])

    def _narrow(
        self, excess: Callable[[float], float], low: float, above: float, high: float, below: float
    ) -> float:
        """Between `low`, with excess `above` > 0, and `high`, with excess `below` <= 0: secants in the logarithm of the
        price, aimed a little beyond the root on one side and then the other, every third time the middle."""
        turn = 0
        while high > low * (1 + self._precision):
            share = 0.5 if turn % 3 == 2 else above / (above - below)
            aim = low * (high / low) ** min(max(share, 0.02), 0.98)
            aim *= (1 + self._precision / 3) if turn % 2 == 0 else 1 / (1 + self._precision / 3)
            if not low < aim < high:
                aim = (low * high) ** 0.5
            found = excess(aim)
            if found > 0:
                low, above = aim, found
            else:
                high, below = aim, found
            turn += 1
        return high

    def _is_still(self, before: Mapping[str, float], after: Mapping[str, float]) -> bool:
        return all(
            abs(after[name] - value) <= 2 * self._precision * max(abs(value), 1e-6 * self._rows.span)
            for name, value in before.items()
        )

    def _broken(self, values: Mapping[str, float]) -> list[Constraint]:
        tally = self._tally(values, self._constraints)
        return [one for one in self._constraints if self._excess(one, tally) > 0.0]

    def _excess(self, one: Constraint, tally: Tally, *, side: float = 0.0) -> float:
        found = margin(one, tally, easing=self._easing, span=self._rows.span, side=side)
        return found.excess + self._rounding

    def _tally(self, values: Mapping[str, float], measured: Sequence[Constraint]) -> Tally:
        means = {one.stakeholder for one in measured if one.stakeholder is not None}
        tally = self._rows.tally(_prices(self._rows, self._constraints, values, self._shares), means=means)
        if self._scale == 1.0:
            return tally
        return tally.scaled(self._scale)


def prices_for(rows: ScoredRows, constraints: Sequence[Constraint], values: Mapping[str, float]) -> Prices:
    """The prices that multipliers put on actions, outcomes, stakeholders and groups."""
    return _prices(rows, constraints, values, _group_shares(rows, constraints))


def _group_shares(rows: ScoredRows, constraints: Sequence[Constraint]) -> dict[str, tuple[float, float]]:
    grouped = [one for one in constraints if one.group_field is not None]
    if not grouped:
        return {}
    tally = rows.tally(Prices(np.zeros((len(rows.actions), len(rows.outcome_names)))), means=())
    return {one.name: group_shares(one, tally) for one in grouped}


def _prices(
    rows: ScoredRows,
    constraints: Sequence[Constraint],
    values: Mapping[str, float],
    shares: Mapping[str, tuple[float, float]],
) -> Prices:
    actions, outcomes = rows.actions, rows.outcome_names
    prices = Prices(np.zeros((len(actions), len(outcomes))))
    for one in constraints:
        price = values[one.name]
        if not price:
            continue
        if one.stakeholder is not None:
            prices.stakeholders[one.stakeholder] = prices.stakeholders.get(one.stakeholder, 0.0) + price
            continue
        what = np.zeros_like(prices.cells)
        what[actions.index(str(one.action)), :] = 1.0
        if one.among is not None:
            what[:, [outcome != one.among for outcome in outcomes]] = 0.0
        if one.outcome is not None:
            what *= np.array([float(outcome == one.outcome) for outcome in outcomes]) - float(
                one.at_least or 0.0
            )
        if one.group_field is not None:
            share_a, share_b = shares[one.name]
            prices.groups[one.name] = (-price / share_a * what, price / share_b * what)
        else:
            prices.cells += what * (price if one.at_least is not None else -price)
    return prices
