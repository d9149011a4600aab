"""The evaluation rows as a scenario makes them: repeated, left out, read wrongly, bent, or turned away.

What a rule reads may be disturbed; what is earned rests on the rows as they were. numpy only: must never import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from policies.operating.operating_point import OperatingPoint
from policies.utility.scenarios import (
    CovariateShift,
    DelayedLabels,
    DemandSpike,
    MissingFields,
    Noise,
    Nudges,
    PriorShift,
    Shape,
    Slice,
)
from policies.utility.utility import Columns, UtilitySpec, realised_utility
from services.data.contract import DataContract

Floats: TypeAlias = NDArray[np.float64]
Actions: TypeAlias = NDArray[np.intp]
Score: TypeAlias = Callable[[Columns], Floats]
Sees: TypeAlias = Callable[[Columns], Columns]


def as_they_are(columns: Columns) -> Columns:
    """What a decision sees where nothing that payoffs read is known only later."""
    return columns


@dataclass(frozen=True)
class ServedField:
    """What the contract allows a field to be: bounds of a number, and whether a request without it is refused."""

    is_number: bool
    is_needed: bool
    minimum: float = -np.inf
    maximum: float = np.inf


@dataclass(frozen=True)
class Bench:
    """What every scenario starts from: n evaluation rows in time order, their outcomes (n,), a release's rule.

    `score` gives calibrated probabilities (n, O) of columns, `sees` the columns as a decision sees them; `times` (n,)
    are epoch seconds; `fields` what may be sent.
    """

    utility: UtilitySpec
    columns: Columns
    outcomes: NDArray[np.int64]
    times: Floats
    probabilities: Floats
    operating_point: OperatingPoint
    score: Score
    fields: Mapping[str, ServedField]
    sees: Sees = as_they_are


def served_fields(contract: DataContract, utility: UtilitySpec) -> dict[str, ServedField]:
    """The fields of a request. Source of what is needed: services/serving/row_check.py."""
    return {
        column.name: ServedField(
            is_number=column.kind in ("number", "integer", "boolean"),
            is_needed=(column.required and column.role == "feature") or column.name in utility.fields,
            minimum=-np.inf if column.minimum is None else column.minimum,
            maximum=np.inf if column.maximum is None else column.maximum,
        )
        for column in contract.decision_columns
    }


@dataclass(frozen=True)
class Case:
    """Rows by index into the bench, what they are worth `(n, A, O)`, what is done and how surely `(n,)`."""

    rows: NDArray[np.intp]
    payoffs: Floats
    outcomes: NDArray[np.int64]
    expected: Floats
    actions: Actions

    @classmethod
    def of(cls, bench: Bench) -> Case:
        payoffs = bench.utility.payoffs(bench.columns)
        expected, actions = _decide(bench, bench.columns, bench.probabilities)
        return cls(np.arange(len(bench.outcomes)), payoffs, bench.outcomes, expected, actions)

    def some(self, rows: NDArray[np.intp]) -> Case:
        return Case(
            self.rows[rows], self.payoffs[rows], self.outcomes[rows], self.expected[rows], self.actions[rows]
        )


def _decide(bench: Bench, columns: Columns, probabilities: Floats) -> tuple[Floats, Actions]:
    """Expected payoffs (n, A) and actions (n,) by what the rule reads."""
    columns = bench.sees(columns)
    payoffs = bench.utility.payoffs(columns)
    actions = bench.operating_point.choose(payoffs, probabilities, utility=bench.utility, columns=columns)
    return np.einsum("nao,no->na", payoffs, probabilities), actions


def apply_shape(shape: Shape, case: Case, bench: Bench, generator: np.random.Generator) -> Case:
    """The case under this shape; `generator` is all the chance there is."""
    match shape:
        case CovariateShift(rows, times):
            return _repeated(case, rows.among(bench.columns), times)
        case PriorShift(outcome, times):
            return _repeated(case, case.outcomes == bench.utility.outcomes.index(outcome), times)
        case Slice(rows):
            return case.some(np.flatnonzero(rows.among(bench.columns)))
        case DelayedLabels(by_s):
            return case.some(np.flatnonzero(bench.times >= bench.times.min() + by_s))
        case DemandSpike():
            return replace(case, actions=_served(shape, case.actions, bench.utility))
        case Noise():
            return _disturbed(case, bench, _noisy(shape, bench, generator))
        case MissingFields():
            return _without(shape, case, bench, generator)
        case Nudges():
            return _bent(shape, case, bench)


def _repeated(case: Case, chosen: NDArray[np.bool_], times: float) -> Case:
    """The chosen rows `times` as often as the others, by whole repetitions: exact for the nearest simple fraction."""
    ratio = Fraction(times).limit_denominator(10) if times >= 0.1 else Fraction(1, round(1 / times))
    counts = np.where(chosen, ratio.numerator, ratio.denominator)
    return case.some(np.repeat(np.arange(len(counts)), counts))


def _served(spike: DemandSpike, actions: Actions, utility: UtilitySpec) -> Actions:
    """In each crowded period the first who are due get the action, the others the default."""
    wanted = actions == utility.actions.index(spike.action)
    crowd = round(spike.decisions * spike.times)
    served = wanted.copy()
    for start in range(0, len(actions), crowd):
        part = slice(start, start + crowd)
        served[part] &= np.cumsum(wanted[part]) <= spike.capacity
    return np.where(wanted & ~served, utility.default_index, actions).astype(np.intp)


def _noisy(noise: Noise, bench: Bench, generator: np.random.Generator) -> Columns:
    columns = dict(bench.columns)
    for name in noise.fields:
        allowed, values = bench.fields[name], columns[name]
        if allowed.is_number:
            numbers = np.asarray(values, dtype=np.float64)
            error = generator.normal(0.0, noise.size * float(np.nanstd(numbers)), len(numbers))
            columns[name] = np.clip(numbers + error, allowed.minimum, allowed.maximum)
        else:
            swapped = generator.random(len(values)) < noise.size
            columns[name] = np.where(swapped, generator.permutation(values), values)
    return columns


def _disturbed(case: Case, bench: Bench, columns: Columns) -> Case:
    """Decided by these columns; worth what the true ones say."""
    expected, actions = _decide(bench, columns, bench.score(columns))
    return replace(case, expected=expected, actions=actions)


def _without(missing: MissingFields, case: Case, bench: Bench, generator: np.random.Generator) -> Case:
    gone = generator.random(len(case.outcomes)) < missing.share
    if any(bench.fields[name].is_needed for name in missing.fields):
        default = bench.utility.default_index
        return replace(case, actions=np.where(gone, default, case.actions).astype(np.intp))
    columns = dict(bench.columns)
    for name in missing.fields:
        lost: Any = np.nan if bench.fields[name].is_number else None
        columns[name] = np.where(gone, lost, columns[name])
    return _disturbed(case, bench, columns)


def _bent(nudges: Nudges, case: Case, bench: Bench) -> Case:
    """Of all ways to bend each field by nothing, up or down: the one that earns least, row by row."""
    worst, earned = case, realised_utility(case.payoffs, case.actions, case.outcomes)
    for signs in product((0.0, -1.0, 1.0), repeat=len(nudges.amounts)):
        if not any(signs):
            continue
        columns = dict(bench.columns)
        for sign, (name, amount) in zip(signs, nudges.amounts, strict=True):
            allowed = bench.fields[name]
            moved = np.asarray(columns[name], dtype=np.float64) + sign * amount
            columns[name] = np.clip(moved, allowed.minimum, allowed.maximum)
        bent = _disturbed(case, bench, columns)
        under = realised_utility(case.payoffs, bent.actions, case.outcomes)
        less = under < earned
        earned = np.where(less, under, earned)
        worst = replace(
            worst,
            expected=np.where(less[:, None], bent.expected, worst.expected),
            actions=np.where(less, bent.actions, worst.actions),
        )
    return worst
