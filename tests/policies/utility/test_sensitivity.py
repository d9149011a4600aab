"""Promises of the sensitivity study: what it says of other numbers is what a spec with those numbers would do."""

from __future__ import annotations

import numpy as np
import pytest

from policies.operating.operating_point import OperatingPoint
from policies.utility.sensitivity import sensitivity
from policies.utility.sensitivity_result import Sensitivity
from policies.utility.utility import UtilitySpec, load_utility, realised_utility
from policies.utility.varied_payoffs import VariedPayoffs, parameters_of

TEXT = """
service: toy
version: 1
owner: Test
reviewBy: 2027-06-30
unit: EUR
actions: [leave, call]
outcomes: [no_sale, sale]
defaultAction: leave
outcomeKnownAfter: [call]
range: {low: -10, high: 30}
quantities:
  - {name: cost, value: 1, unit: EUR, why: Test., sensitivity: {low: 0.5, high: 3}}
  - {name: rate, value: 0.5, unit: EUR, why: Test.}
stakeholders:
  - name: shop
    weight: 1
    why: Test.
    payoffs:
      leave: {no_sale: 0, sale: 0}
      call: {no_sale: "-cost", sale: "rate * clip(size, 0, 20) - cost"}
    sensitivity:
      payoffs:
        - {action: call, outcome: sale, factor: {low: 0.5, high: 1.5}}
        - {action: call, outcome: no_sale, amount: {low: -2, high: 0.4}}
  - name: customer
    weight: 0
    why: Test.
    payoffs:
      leave: {no_sale: 0, sale: 0}
      call: {no_sale: -2, sale: 0}
    sensitivity: {weight: {low: 0, high: 1}}
domains: []
constraints: []
changelog:
  - {version: 1, date: 2026-01-01, who: Test, why: Test.}
"""
BAYES = OperatingPoint((0.0, 0.0))
DRAW = np.random.default_rng(3)
N = 2000
COLUMNS = {"size": DRAW.uniform(0, 25, N)}
SALE = DRAW.beta(2, 6, N)
CHANCES = np.column_stack([1 - SALE, SALE])
OUTCOMES = (DRAW.random(N) < SALE).astype(np.int64)
CHAMPION = (SALE > 0.2).astype(np.intp)


def spec(*changes: tuple[str, str]) -> UtilitySpec:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return load_utility(text, "utility.yaml")


def study(
    utility: UtilitySpec, *, point: OperatingPoint = BAYES, points: int = 16, seed: int = 1
) -> Sensitivity:
    found = sensitivity(
        utility,
        COLUMNS,
        probabilities=CHANCES,
        outcomes=OUTCOMES,
        point=point,
        champion=CHAMPION,
        seed=seed,
        points=points,
    )
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "end", "old", "new"),
    [
        ("cost", "high", "value: 1,", "value: 3,"),
        ("weight of customer", "high", "weight: 0\n", "weight: 1\n"),
        (
            "shop: call x sale (factor)",
            "low",
            "clip(size, 0, 20) - cost",
            "clip(size, 0, 20) * 0.5 - 0.5 * cost",
        ),
        ("shop: call x no_sale (amount)", "low", '"-cost"', '"-cost - 2"'),
    ],
)
@pytest.mark.parametrize("point", [BAYES, OperatingPoint((0.0, 0.7))])
def test_an_end_of_a_range_is_the_spec_with_that_number(
    name: str, end: str, old: str, new: str, point: OperatingPoint
) -> None:
    """Flips, utility, losses and threshold equal those of a spec that is written with the number, and decides by it."""
    found = study(spec(), point=point)
    (swing,) = [one for one in found.swings if one.parameter.name == name]
    at = swing.low if end == "low" else swing.high
    stated, truth = spec().payoffs(COLUMNS), spec((old, new)).payoffs(COLUMNS)
    decided, right = point.choose(stated, CHANCES), point.choose(truth, CHANCES)
    utility = realised_utility(truth, decided, OUTCOMES).mean()
    assert at.flipped == pytest.approx((decided != right).mean(), abs=1e-12)
    assert at.utility == pytest.approx(utility)
    assert at.realised_loss == pytest.approx(
        realised_utility(truth, right, OUTCOMES).mean() - utility, abs=1e-12
    )
    expected = np.einsum("nao,no->na", truth, CHANCES)
    rows = np.arange(N)
    assert at.loss == pytest.approx((expected[rows, right] - expected[rows, decided]).mean(), abs=1e-12)
    thresholds = point.threshold(truth)
    assert at.threshold == pytest.approx(np.median(thresholds[(thresholds > 0) & (thresholds < 1)]))


def test_the_order_turns_where_the_lead_is_zero() -> None:
    """The lead over `always leave` falls by the call rate for each EUR of cost: the root is known in closed form."""
    found = study(spec())
    stated = BAYES.choose(spec().payoffs(COLUMNS), CHANCES)
    earned = realised_utility(spec().payoffs(COLUMNS), stated, OUTCOMES).mean()
    root = 1 + earned / (stated == 1).mean()
    (cost,) = [one for one in found.swings if one.parameter.name == "cost"]
    turns = {turn.rival: turn.value for turn in cost.turns}
    assert 0.5 < root < 3
    assert turns["always leave"] == pytest.approx(root, abs=1e-4)
    assert found.leads["always leave"] == pytest.approx(earned)
    narrow = study(spec(("low: 0.5, high: 3}", "low: 0.5, high: 1.2}")))
    (cost,) = [one for one in narrow.swings if one.parameter.name == "cost"]
    assert dict((turn.rival, turn.value) for turn in cost.turns)["always leave"] is None


def test_losses_are_never_negative_and_the_greatest_comes_first() -> None:
    """Deciding by the truth cannot lose by the model's own probabilities; the table is sorted by the greater loss."""
    found = study(spec())
    assert all(end.loss >= -1e-12 for one in found.swings for end in (one.low, one.high))
    losses = [one.worst_loss for one in found.swings]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 0
    assert 0 <= found.joint.flipped[0] <= found.joint.flipped[1] <= found.joint.flipped[2] <= 1
    assert found.joint.loss[2] > losses[0]  # all at once is worse than the worst alone


def test_the_same_seed_gives_the_same_points() -> None:
    """The joint study depends on its seed alone."""
    assert study(spec()).to_json() == study(spec()).to_json()
    assert study(spec()).joint != study(spec(), seed=2).joint


def test_a_few_per_cent_that_flip_decisions_are_brittle() -> None:
    """A cell of rows just beside their threshold: five per cent of the cost flips them; far from it, nothing is."""
    columns = {"size": np.full(100, 20.0)}  # call iff p > 0.1
    near = np.linspace(0.0961, 0.1039, 100)
    for chances, is_brittle in ((near, True), (np.repeat([0.02, 0.4], 50), False)):
        found = sensitivity(
            spec(),
            columns,
            probabilities=np.column_stack([1 - chances, chances]),
            outcomes=np.tile([0, 0, 0, 1], 25),
            point=BAYES,
            seed=1,
            points=4,
        )
        assert found is not None
        names = [one.parameter.name for one in found.brittle]
        assert ("cost" in names) is is_brittle
        (cost,) = [one for one in found.swings if one.parameter.name == "cost"]
        assert cost.near_flipped == pytest.approx(0.5 if is_brittle else 0.0, abs=0.15)


def test_nothing_in_doubt_is_no_study() -> None:
    """A spec without ranges has nothing to vary; one number without a range stays as it is."""
    assert [one.name for one in parameters_of(spec())] == [
        "cost",
        "shop: call x sale (factor)",
        "shop: call x no_sale (amount)",
        "weight of customer",
    ]
    start, stop = TEXT.index("    sensitivity:\n"), TEXT.index("  - name: customer")
    text = TEXT[:start] + TEXT[stop:]
    text = text.replace(", sensitivity: {low: 0.5, high: 3}", "").replace(
        "    sensitivity: {weight: {low: 0, high: 1}}\n", ""
    )
    plain = load_utility(text, "utility.yaml")
    found = sensitivity(plain, COLUMNS, probabilities=CHANCES, outcomes=OUTCOMES, point=BAYES, seed=1)
    assert found is None


def test_varied_payoffs_at_the_stated_numbers_are_the_payoffs() -> None:
    """To the last digit: the study starts from what the release decides by."""
    varied = VariedPayoffs(spec(), COLUMNS)
    np.testing.assert_array_equal(varied.at(varied.stated), spec().payoffs(COLUMNS))
