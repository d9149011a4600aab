"""Apply the scenarios to the evaluation rows, and measure what each says: seeded, so that a run can be repeated.

numpy only: must never import torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.gates.evidence import Measured
from policies.utility.constraints import measure_constraints
from policies.utility.scenarios import Scenario, ScenarioSet
from policies.utility.utility import UtilitySpec, realised_utility
from services.alignment.scenario_rows import Bench, Case, Floats, apply_shape

METRIC = "failed_scenarios"
LEAST_ROWS = 30


@dataclass(frozen=True)
class ScenarioResult:
    """One scenario on `n` different rows: the value under it and as things stand, None where nothing is measured."""

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


def run_scenarios(found: ScenarioSet, bench: Bench, *, seed: int) -> ScenarioReport:
    """Every scenario on the same rows; the same change of them gives the same rows under every hypothesis.

    Raises UtilityError where a row as it is cannot be priced.
    """
    case = Case.of(bench)
    results = []
    for one in found.scenarios:
        generator = np.random.default_rng([seed, *str(one.shape).encode()])  # one change, one set of rows
        under = apply_shape(one.shape, case, bench, generator)
        seen = len(np.unique(under.rows))
        value = None if seen < LEAST_ROWS else _measure(one, under, case, bench)
        bound, is_held = _judge(one, value, bench.utility)
        stands = _measure(one, case, case, bench)
        results.append(ScenarioResult(one, value, stands, bound, is_held, seen))
    return ScenarioReport(tuple(results), len(bench.outcomes))


def _measure(one: Scenario, under: Case, case: Case, bench: Bench) -> float | None:
    if one.measure == "flipped":
        return float((under.actions != case.actions).mean())
    earned = realised_utility(under.payoffs, under.actions, under.outcomes)
    if one.measure == "utility":
        return float(earned.mean())
    realised = under.payoffs[np.arange(len(earned)), :, under.outcomes]
    if one.measure == "gain_over_trivial":
        return float((earned - realised[:, realised.mean(axis=0).argmax()]).mean())
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
