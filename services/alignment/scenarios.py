"""Apply the scenarios to the evaluation rows, and measure what each says: seeded, so that a run can be repeated.

What a rule reads may be disturbed; what is earned rests on the rows as they were. numpy only: must never import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from policies.constraints import measure_constraints
from policies.evidence import Measured
from policies.operating_point import OperatingPoint
from policies.scenarios import (
    CovariateShift,
    DelayedLabels,
    DemandSpike,
    MissingFields,
    Noise,
    Nudges,
    PriorShift,
    Scenario,
    ScenarioSet,
    Shape,
    Slice,
)
from policies.utility import Columns, UtilitySpec, realised_utility
from services.data.contract import DataContract

METRIC = "failed_scenarios"
LEAST_ROWS = 30

Floats: TypeAlias = NDArray[np.float64]
Actions: TypeAlias = NDArray[np.intp]
Score: TypeAlias = Callable[[Columns], Floats]


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

    `score` gives calibrated probabilities (n, O) of columns; `times` (n,) are epoch seconds; `fields` what may be sent.
    """

    utility: UtilitySpec
    columns: Columns
    outcomes: NDArray[np.int64]
    times: Floats
    probabilities: Floats
    operating_point: OperatingPoint
    score: Score
    fields: Mapping[str, ServedField]


@dataclass(frozen=True)
class ScenarioResult:
    """One scenario on `n` rows: the value under it and as things stand, None where there is nothing to measure."""

    scenario: Scenario
    value: float | None
    stands: float | None
    bound: str
    is_held: bool
    n: int

    def sentence(self) -> str:
        """`young_campaign: utility 0.31 must be >= 0 (0.33 as things stand, n = 2034): held`."""
        shown, stands = ("no data" if x is None else f"{x:.4g}" for x in (self.value, self.stands))
        verdict = "held" if self.is_held else "failed"
        dry = ", dry run" if self.scenario.dry_run else ""
        return (
            f"{self.scenario.name}: {self.scenario.measure} {shown} must be {self.bound} "
            f"({stands} as things stand, n = {self.n}{dry}): {verdict}"
        )


@dataclass(frozen=True)
class ScenarioReport:
    """All scenarios; those on a dry run are judged and shown, and do not count."""

    results: tuple[ScenarioResult, ...]
    n: int

    @property
    def failed(self) -> tuple[ScenarioResult, ...]:
        """Those that count and did not hold."""
        return tuple(one for one in self.results if not one.is_held and not one.scenario.dry_run)

    def measured(self) -> dict[str, Measured]:
        """The metric of the gate."""
        return {METRIC: Measured(float(len(self.failed)), n=self.n)}

    def record(self) -> list[dict[str, object]]:
        """What the ledger keeps."""
        return [
            {
                "name": one.scenario.name,
                "value": one.value,
                "stands": one.stands,
                "bound": one.bound,
                "held": one.is_held,
                "dry_run": one.scenario.dry_run,
                "n": one.n,
            }
            for one in self.results
        ]


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


def run_scenarios(found: ScenarioSet, bench: Bench, *, seed: int) -> ScenarioReport:
    """Every scenario on the same rows, each with a generator of its own.

    Raises UtilityError where a row as it is cannot be priced.
    """
    case = _Case.of(bench)
    results = []
    for one in found.scenarios:
        generator = np.random.default_rng([seed, *one.name.encode()])
        under = _apply(one.shape, case, bench, generator)
        value = None if len(under.outcomes) < LEAST_ROWS else _measure(one, under, case, bench)
        bound, is_held = _judge(one, value, bench.utility)
        stands = None if one.measure == "flipped" else _measure(one, case, case, bench)
        results.append(ScenarioResult(one, value, stands, bound, is_held, len(under.outcomes)))
    return ScenarioReport(tuple(results), len(bench.outcomes))


@dataclass(frozen=True)
class _Case:
    """Rows by index into the bench, what they are worth `(n, A, O)`, what is done and how surely `(n,)`."""

    rows: NDArray[np.intp]
    payoffs: Floats
    outcomes: NDArray[np.int64]
    expected: Floats
    actions: Actions

    @classmethod
    def of(cls, bench: Bench) -> _Case:
        payoffs = bench.utility.payoffs(bench.columns)
        expected, actions = _decide(bench, bench.columns, bench.probabilities)
        return cls(np.arange(len(bench.outcomes)), payoffs, bench.outcomes, expected, actions)

    def some(self, rows: NDArray[np.intp]) -> _Case:
        return _Case(
            self.rows[rows], self.payoffs[rows], self.outcomes[rows], self.expected[rows], self.actions[rows]
        )


def _decide(bench: Bench, columns: Columns, probabilities: Floats) -> tuple[Floats, Actions]:
    """Expected payoffs (n, A) and actions (n,) by what the rule reads."""
    payoffs = bench.utility.payoffs(columns)
    actions = bench.operating_point.choose(payoffs, probabilities, utility=bench.utility, columns=columns)
    return np.einsum("nao,no->na", payoffs, probabilities), actions


def _apply(shape: Shape, case: _Case, bench: Bench, generator: np.random.Generator) -> _Case:
    match shape:
        case CovariateShift(rows, times):
            return _resampled(case, np.where(rows.among(bench.columns), times, 1.0), generator)
        case PriorShift(outcome, times):
            hit = case.outcomes == bench.utility.outcomes.index(outcome)
            return _resampled(case, np.where(hit, times, 1.0), generator)
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


def _resampled(case: _Case, weights: Floats, generator: np.random.Generator) -> _Case:
    chances = weights / weights.sum()
    return case.some(generator.choice(len(chances), size=len(chances), p=chances).astype(np.intp))


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


def _disturbed(case: _Case, bench: Bench, columns: Columns) -> _Case:
    """Decided by these columns; worth what the true ones say."""
    expected, actions = _decide(bench, columns, bench.score(columns))
    return replace(case, expected=expected, actions=actions)


def _without(missing: MissingFields, case: _Case, bench: Bench, generator: np.random.Generator) -> _Case:
    gone = generator.random(len(case.outcomes)) < missing.share
    if any(bench.fields[name].is_needed for name in missing.fields):
        default = bench.utility.default_index
        return replace(case, actions=np.where(gone, default, case.actions).astype(np.intp))
    columns = dict(bench.columns)
    for name in missing.fields:
        lost: Any = np.nan if bench.fields[name].is_number else None
        columns[name] = np.where(gone, lost, columns[name])
    return _disturbed(case, bench, columns)


def _bent(nudges: Nudges, case: _Case, bench: Bench) -> _Case:
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


def _measure(one: Scenario, under: _Case, case: _Case, bench: Bench) -> float | None:
    if one.measure == "flipped":
        return float((under.actions != case.actions).mean())
    earned = realised_utility(under.payoffs, under.actions, under.outcomes)
    if one.measure == "utility":
        return float(earned.mean())
    realised = under.payoffs[np.arange(len(earned)), :, under.outcomes]
    if one.measure == "gain_over_trivial":
        return float(earned.mean() - realised.mean(axis=0).max())
    if one.measure == "regret":
        best = _best(under.expected, realised, bench.utility.default_index)
        return 1000 * max(0.0, best - float(earned.mean()))
    columns = {name: values[under.rows] for name, values in bench.columns.items()}
    own = bench.utility.stakeholder_payoffs(columns)
    results = measure_constraints(
        [c for c in bench.utility.constraints if c.name == one.constraint],
        columns,
        actions=under.actions,
        action_names=bench.utility.actions,
        outcomes=under.outcomes,
        outcome_names=bench.utility.outcomes,
        utilities=earned,
        stakeholder_utilities={
            name: realised_utility(theirs, under.actions, under.outcomes) for name, theirs in own.items()
        },
    )
    found = results[0].value
    return None if found is None else float(found)


def _best(expected: Floats, realised: Floats, default: int) -> float:
    """The mean of the best point: the best other action of the rows that gain most by it, the default of the rest."""
    rows = np.arange(len(expected))
    others = expected.copy()
    others[:, default] = -np.inf
    other = others.argmax(axis=1)
    order = np.argsort(expected[:, default] - others[rows, other], kind="stable")
    gains = (realised[rows, other] - realised[:, default])[order]
    return float((realised[:, default].sum() + max(0.0, np.cumsum(gains).max())) / len(rows))


def _judge(one: Scenario, value: float | None, utility: UtilitySpec) -> tuple[str, bool]:
    """The bound in words, and whether the value keeps it."""
    if one.constraint is not None:
        (constraint,) = (c for c in utility.constraints if c.name == one.constraint)
        return constraint.bound_text, bool(constraint.is_held(value))
    bound = f">= {one.at_least:g}" if one.at_least is not None else f"<= {one.at_most:g}"
    return bound, one.is_held(value)
