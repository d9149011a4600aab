"""Promises of the scenarios on rows: each kind does what it says, and what is earned rests on the true rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.operating.operating_point import OperatingPoint
from policies.utility.scenarios import ScenarioSet, load_scenarios
from policies.utility.utility import UtilitySpec, load_utility, realised_utility
from services.alignment.scenario_rows import Bench, ServedField
from services.alignment.scenarios import ScenarioResult, run_scenarios

UTILITY = """
service: toy
version: 1
owner: Test
reviewBy: 2027-06-30
unit: EUR
actions: [leave, call]
outcomes: [no_sale, sale]
defaultAction: leave
outcomeKnownAfter: [call]
range: {low: -1, high: 9}
stakeholders:
  - name: shop
    weight: 1
    why: Test.
    payoffs:
      leave: {no_sale: 0, sale: 0}
      call: {no_sale: -1, sale: "clip(size, 0, 10) - 1"}
domains:
  - {name: safety, owner: Test}
constraints:
  - {name: calls, kind: action_rate, domain: safety, action: call, atMost: 0.6, rationale: Test.}
changelog:
  - {version: 1, date: 2026-01-01, who: Test, why: Test.}
"""
N = 4000
DRAW = np.random.default_rng(5)
SIZE = DRAW.uniform(0, 10, N)
SHOWN = DRAW.uniform(0, 1, N)  # what the model reads
KIND = np.where(DRAW.random(N) < 0.5, "a", "b").astype(object)
SALE = (DRAW.random(N) < SHOWN * 0.5).astype(np.int64)
FIELDS = {
    "size": ServedField(is_number=True, is_needed=True, minimum=0.0, maximum=10.0),
    "shown": ServedField(is_number=True, is_needed=False),
    "kind": ServedField(is_number=False, is_needed=False),
}


def score(columns: Any) -> NDArray[np.float64]:
    """A model that reads `shown`, and takes 0.4 where it is missing."""
    chance = np.nan_to_num(np.asarray(columns["shown"], dtype=np.float64), nan=0.4) * 0.5
    chance = np.clip(chance, 0.0, 1.0)
    return np.column_stack([1 - chance, chance])


@pytest.fixture(scope="module")
def utility() -> UtilitySpec:
    return load_utility(UTILITY, "utility.yaml")


@pytest.fixture(scope="module")
def bench(utility: UtilitySpec) -> Bench:
    columns = {"size": SIZE, "shown": SHOWN, "kind": KIND}
    return Bench(
        utility=utility,
        columns=columns,
        outcomes=SALE,
        times=np.arange(N) * 3600.0,
        probabilities=score(columns),
        operating_point=OperatingPoint((0.0, 0.0)),
        score=score,
        fields=FIELDS,
    )


def scenarios(*parts: str) -> ScenarioSet:
    entries = "".join(
        f"  - {{name: s{at}, hypothesis: Test., owner: Test, {part}}}\n" for at, part in enumerate(parts)
    )
    return load_scenarios(f"service: toy\nversion: 1\nowner: Test\nscenarios:\n{entries}", "scenarios.yaml")


def result(bench: Bench, part: str, *, seed: int = 1) -> ScenarioResult:
    return run_scenarios(scenarios(part), bench, seed=seed).results[0]


def value(bench: Bench, part: str) -> float:
    found = result(bench, part).value
    assert found is not None
    return found


def earned(bench: Bench) -> NDArray[np.float64]:
    payoffs = bench.utility.payoffs(bench.columns)
    actions = bench.operating_point.choose(payoffs, bench.probabilities)
    return realised_utility(payoffs, actions, bench.outcomes)


def test_shifted_rows_have_the_mean_of_reweighted_rows(bench: Bench) -> None:
    """Rows three times as often, an outcome half as often: exactly the weighted mean."""
    own = earned(bench)
    for part, weights in (
        ("kind: covariate_shift, rows: {field: kind, value: a}, times: 3", np.where(KIND == "a", 3.0, 1.0)),
        ("kind: prior_shift, outcome: sale, times: 0.5", np.where(SALE == 1, 0.5, 1.0)),
    ):
        assert value(bench, f"{part}, measure: utility, atLeast: 0") == pytest.approx(
            np.average(own, weights=weights)
        )


def test_a_slice_and_later_rows_are_exactly_those_rows(bench: Bench) -> None:
    """The mean over the rows of the slice, and over those after the delay; too few rows are no data and do not hold."""
    own = earned(bench)
    part = "kind: slice, rows: {field: size, from: 8}, measure: utility, atLeast: -10"
    assert value(bench, part) == pytest.approx(own[SIZE >= 8].mean())
    part = "kind: delayed_labels, by: 100h, measure: utility, atLeast: -10"
    assert value(bench, part) == pytest.approx(own[100:].mean())
    none = result(bench, "kind: slice, rows: {field: size, from: 11}, measure: utility, atLeast: -10")
    assert (none.value, none.is_held, none.n) == (None, False, 0)


def test_noise_flips_decisions_and_is_earned_on_true_rows(bench: Bench) -> None:
    """More noise flips more; payoffs stay those of the true size; noise in what nobody reads flips nothing."""
    flips = [
        value(bench, f"kind: noise, fields: [shown], size: {size}, measure: flipped, atMost: 1")
        for size in (0.01, 0.1, 1)
    ]
    assert 0 < flips[0] < flips[1] < flips[2] < 0.6
    noisy = value(bench, "kind: noise, fields: [size], size: 2, measure: utility, atLeast: 0")
    assert noisy < earned(bench).mean()
    unread = value(bench, "kind: noise, fields: [kind], size: 0.5, measure: flipped, atMost: 0")
    assert unread == 0.0


def test_a_row_without_a_needed_field_is_left_alone(bench: Bench) -> None:
    """A request that the service refuses gets the default action; where the model bears a gap, it decides."""
    own = earned(bench)
    half = value(bench, "kind: missing_fields, fields: [size], share: 0.5, measure: utility, atLeast: 0")
    assert half == pytest.approx(own.mean() / 2, abs=4 * own.std() / np.sqrt(N))
    gap = value(
        bench, "kind: missing_fields, fields: [shown], share: 1, measure: constraint, constraint: calls"
    )
    payoffs = bench.utility.payoffs(bench.columns)
    probabilities = score({"shown": np.full(N, np.nan)})
    assert gap == pytest.approx(OperatingPoint((0.0, 0.0)).choose(payoffs, probabilities).mean())


def test_a_spike_serves_the_first_who_come(bench: Bench) -> None:
    """In a crowd of 200 the first 60 due calls are made; with capacity for all, nothing changes."""
    payoffs = bench.utility.payoffs(bench.columns)
    actions = bench.operating_point.choose(payoffs, bench.probabilities)
    served = 0
    for start in range(0, N, 200):
        served += min(60, int(actions[start : start + 200].sum()))
    spike = "kind: demand_spike, action: call, decisions: 100, times: 2"
    rate = value(bench, f"{spike}, capacity: 60, measure: constraint, constraint: calls")
    assert rate == pytest.approx(served / N)
    assert value(bench, f"{spike}, capacity: 200, measure: flipped, atMost: 0") == 0.0


def test_an_adversary_never_helps_and_wider_bounds_never_cost_less(bench: Bench) -> None:
    """Each row bent to what earns least: at most what is earned as things stand, and less with more room."""
    nudge = "kind: adversarial, measure: utility, atLeast: -10, nudges: [{{field: shown, amount: {}}}]"
    found = [value(bench, nudge.format(amount)) for amount in (0.01, 0.1, 0.5)]
    assert earned(bench).mean() >= found[0] >= found[1] >= found[2]
    assert found[0] > found[2]


def test_regret_is_against_the_best_point_and_gain_against_the_best_trivial(bench: Bench) -> None:
    """A rule shifted too far regrets what the best share of calls earns; brute force over shares is the oracle."""
    timid = replace(bench, operating_point=OperatingPoint((0.0, -1.0)))
    payoffs = bench.utility.payoffs(bench.columns)
    lead = payoffs[:, 1, 0] * bench.probabilities[:, 0] + payoffs[:, 1, 1] * bench.probabilities[:, 1]
    realised = payoffs[np.arange(N), 1, SALE][np.argsort(-lead, kind="stable")]
    best = max(0.0, max(realised[:k].sum() for k in range(1, N + 1))) / N
    part = "kind: slice, rows: {field: size, from: 0}, measure: regret, atMost: 0"
    found = result(timid, part)
    assert found.value == pytest.approx(1000 * (best - earned(timid).mean()))
    assert not found.is_held
    part = part.replace("measure: regret, atMost: 0", "measure: gain_over_trivial, atLeast: 0")
    trivial = max(0.0, payoffs[np.arange(N), 1, SALE].mean())
    assert value(timid, part) == pytest.approx(earned(timid).mean() - trivial)


def test_what_fails_is_counted_and_a_dry_run_is_not(bench: Bench) -> None:
    """Two impossible bounds, one on a dry run: one failed scenario, both on record."""
    part = "kind: prior_shift, outcome: sale, times: 0.5, measure: utility, atLeast: 100"
    found = scenarios(part, f"{part}, dryRun: true", part.replace("atLeast: 100", "atLeast: -100"))
    report = run_scenarios(found, bench, seed=3)
    assert report.measured()["failed_scenarios"].value == 1.0
    assert [one.scenario.name for one in report.failed] == ["s0"]
    assert [one["held"] for one in report.record()] == [False, False, True]
    assert "dry run" in report.results[1].sentence()


def test_the_seed_fixes_what_is_drawn_and_one_change_is_one_change(bench: Bench) -> None:
    """The same seed gives the same numbers, another one other noise; two hypotheses on one change see the same rows."""
    part = "kind: noise, fields: [shown], size: 0.3, measure: utility, atLeast: 0"
    found = scenarios(part, part)
    report = run_scenarios(found, bench, seed=3)
    assert report == run_scenarios(found, bench, seed=3)
    assert report.results[0].value == report.results[1].value
    assert report.results[0].value != run_scenarios(found, bench, seed=4).results[0].value
