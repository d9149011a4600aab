"""The parts of a utility spec: stakeholders, quantities, hypotheses and the rest, as the engine holds them.

Must never import: anything but policies; no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Literal

from policies.language.expression import Expression, compile_expression
from policies.utility.utility_file import (
    PayoffSensitivityFile,
    QuantityFile,
    RangeFile,
    SensitivityFile,
    StakeholderFile,
    UtilityFile,
)


@dataclass(frozen=True)
class Measure:
    """The measured amount that tells a quantity, summed over the decisions that carry it, per the sum of `per`."""

    amount: str
    per: Expression | None


@dataclass(frozen=True)
class Quantity:
    """A number that payoffs read by its name; `range`: how far it may be off, inclusive (None: not in doubt).

    `measured`: what tells it afterwards; None where nothing does.
    """

    name: str
    value: float
    unit: str
    why: str
    range: tuple[float, float] | None
    measured: Measure | None = None


@dataclass(frozen=True)
class PayoffRange:
    """How far one payoff may be off, inclusive: multiplied by a `factor`, or with an `amount` added in its unit."""

    action: str
    outcome: str
    by: Literal["factor", "amount"]
    low: float
    high: float


@dataclass(frozen=True)
class Stakeholder:
    """Someone who bears the consequences: weight >= 0 (0: heard, not priced), payoffs `[action][outcome]`.

    Payoffs are in `unit`; the weight turns them into the spec's unit. `weight_range` (None: not in doubt) and
    `payoff_ranges` say how far the numbers may be off; they hold the numbers as they are.
    """

    name: str
    weight: float
    why: str
    payoffs: tuple[tuple[Expression, ...], ...]
    unit: str = ""
    weight_range: tuple[float, float] | None = None
    payoff_ranges: tuple[PayoffRange, ...] = ()


@dataclass(frozen=True)
class Hypothesis:
    """What somebody expects of a metric, registered before it is evaluated; the bound is inclusive."""

    name: str
    statement: str
    metric: str
    at_least: float | None
    at_most: float | None
    owner: str
    registered: date


@dataclass(frozen=True)
class Satisfaction:
    """How satisfied users are: a metric that is measured elsewhere, where, and which direction is better."""

    metric: str
    source: str
    unit: str
    better: Literal["higher", "lower"]
    owner: str


@dataclass(frozen=True)
class Abstention:
    """Rows whose best action is uncertain get `action`, at most this share of decisions."""

    action: str
    at_most: float
    rationale: str


@dataclass(frozen=True)
class Domain:
    """Who answers for the bounds of a domain, and the chance that any of them is broken though said to hold."""

    owner: str
    error_budget: float


@dataclass(frozen=True)
class Change:
    """One entry of the changelog, newest first."""

    version: int
    date: date
    who: str
    why: str


def quantity_of(one: QuantityFile, file: UtilityFile) -> Quantity:
    """The quantity as the engine holds it; `file` knows the others, which its measure may read."""
    found, told = one.sensitivity, one.measured
    measured = None
    if told is not None:
        constants = {other.name: other.value for other in file.quantities}
        measured = Measure(told.amount, None if told.per is None else compile_expression(told.per, constants))
    interval = None if found is None else (found.low, found.high)
    return Quantity(one.name, one.value, one.unit, one.why, interval, measured)


def stakeholder_of(one: StakeholderFile, file: UtilityFile) -> Stakeholder:
    """The stakeholder as the engine holds it, payoffs compiled with the quantities of `file`."""
    constants = {quantity.name: quantity.value for quantity in file.quantities}
    payoffs = tuple(
        tuple(compile_expression(str(one.payoffs[action][outcome]), constants) for outcome in file.outcomes)
        for action in file.actions
    )
    sensitivity = one.sensitivity or SensitivityFile()
    ranges = [
        PayoffRange(cell.action, cell.outcome, by, found.low, found.high)
        for cell in sensitivity.payoffs
        for by, found in _forms(cell)
    ]
    weight = sensitivity.weight
    return Stakeholder(
        name=one.name,
        weight=one.weight,
        why=one.why,
        payoffs=payoffs,
        unit=one.unit or file.unit,
        weight_range=None if weight is None else (weight.low, weight.high),
        payoff_ranges=tuple(ranges),
    )


def _forms(cell: PayoffSensitivityFile) -> Iterator[tuple[Literal["factor", "amount"], RangeFile]]:
    if cell.factor is not None:
        yield "factor", cell.factor
    if cell.amount is not None:
        yield "amount", cell.amount
