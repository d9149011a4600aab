"""What measured amounts say of the quantities in `utility.yaml`: an estimate with its interval, beside what is stated.

A quantity is what an amount comes to per unit of something: the sum of the amounts over the sum of `per`, over the
decisions that carry the amount. The ratio of sums, not the mean of ratios, because payoffs are sums. Its error is that
of the linearised ratio (Cochran, "Sampling Techniques", 1977, section 6.4) with Student's t. What is measured is what
came of decisions as they were made: of customers on whom nobody acted it says nothing.
Weights are no quantities: what a stakeholder counts is agreed by people and never estimated.
Must never import: anything that does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from policies.language.expression import ExpressionError
from policies.utility.spec_parts import Quantity
from policies.utility.utility import Columns, UtilityError, UtilitySpec

Floats: TypeAlias = NDArray[np.float64]
Finding: TypeAlias = Literal["agrees", "moved", "outside its range", "too few", "not measured"]

LEAST_MEASURED = 30
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Amounts:
    """One amount where it was measured: `values` (n,) and the rows' `columns` (n,) each, which `per` may read."""

    values: Floats
    columns: Columns


@dataclass(frozen=True)
class Estimate:
    """A quantity as measured on n decisions; `value`, `low` and `high` are None below LEAST_MEASURED.

    agrees: the stated number lies in the interval. moved: it does not, but the estimate lies in the range that the file
    allows it, or there is none. outside its range: the estimate leaves that range, too.
    """

    quantity: Quantity
    amount: str
    n: int
    value: float | None
    low: float | None
    high: float | None

    @property
    def finding(self) -> Finding:
        """In a word."""
        if self.value is None or self.low is None or self.high is None:
            return "too few" if self.n else "not measured"
        if self.low <= self.quantity.value <= self.high:
            return "agrees"
        allowed = self.quantity.range
        return "moved" if allowed is None or allowed[0] <= self.value <= allowed[1] else "outside its range"

    def to_json(self) -> dict[str, object]:
        """A plain dict, JSON-safe."""
        return {
            "quantity": self.quantity.name,
            "unit": self.quantity.unit,
            "stated": self.quantity.value,
            "range": self.quantity.range,
            "amount": self.amount,
            "n": self.n,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "finding": self.finding,
        }


def reestimate(utility: UtilitySpec, measured: Mapping[str, Amounts]) -> tuple[Estimate, ...]:
    """Each quantity that says what measures it, from the amounts by name; one without any is there, too.

    Raises UtilityError for an amount that is not finite, a `per` below 0 or without a value, or sums of nothing.
    """
    found = []
    for quantity in utility.quantities:
        if quantity.measured is None:
            continue
        name = quantity.measured.amount
        amounts = measured.get(name)
        n = 0 if amounts is None else len(amounts.values)
        if amounts is None or n < LEAST_MEASURED:
            found.append(Estimate(quantity, name, n, None, None, None))
            continue
        value, low, high = _ratio(amounts.values, _per(quantity, amounts), what=quantity.name)
        found.append(Estimate(quantity, name, n, value, low, high))
    return tuple(found)


def _per(quantity: Quantity, amounts: Amounts) -> Floats:
    per = None if quantity.measured is None else quantity.measured.per
    if per is None:
        return np.ones(len(amounts.values))
    try:
        values = per.evaluate(amounts.columns or {"": np.zeros(len(amounts.values))})
    except ExpressionError as error:
        raise UtilityError(f"quantity '{quantity.name}', per `{per.text}`: {error}") from error
    if (values < 0).any():
        row = int(np.flatnonzero(values < 0)[0])
        raise UtilityError(
            f"quantity '{quantity.name}', per `{per.text}` must be >= 0: {values[row]:g} in row {row}"
        )
    return values


def _ratio(amounts: Floats, per: Floats, *, what: str) -> tuple[float, float, float]:
    """Sum over sum, and the ends of its interval."""
    if not np.isfinite(amounts).all():
        row = int(np.flatnonzero(~np.isfinite(amounts))[0])
        raise UtilityError(f"quantity '{what}': its amount must be finite: {amounts[row]} in row {row}")
    n, whole = len(amounts), float(per.sum())
    if not whole > 0:
        raise UtilityError(f"quantity '{what}': `per` sums to nothing over {n:,} decisions")
    from scipy.stats import t

    value = float(amounts.sum()) / whole
    apart = amounts - value * per
    error = float(np.sqrt(n / (n - 1) * (apart**2).sum())) / whole
    half = float(t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * error
    return value, value - half, value + half
