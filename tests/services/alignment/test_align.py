"""Alignment: the operating point against every other way to decide, on the same rows."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.operating.operating_point import OperatingPoint
from policies.utility.utility import UtilitySpec, load_utility, realised_utility
from services.alignment.align import align
from services.alignment.errors import AlignmentError
from services.alignment.report import AlignmentReport

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
  - name: customer
    weight: 0
    why: Test.
    payoffs:
      leave: {no_sale: 0, sale: 0}
      call: {no_sale: -1, sale: 0}
domains:
  - {name: compliance, owner: Test}
constraints:
  - name: gap_by_age
    kind: action_rate_gap
    domain: compliance
    action: call
    groups: {field: age, upTo: 30}
    atMost: 0.5
    rationale: Test.
changelog:
  - {version: 1, date: 2026-01-01, who: Test, why: Test.}
"""
BAYES = OperatingPoint((0.0, 0.0))
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def utility() -> UtilitySpec:
    return load_utility(UTILITY, "toy.yaml")


def world(rows: int, *, seed: int) -> tuple[Floats, dict[str, NDArray[Any]], NDArray[np.int64]]:
    """True probabilities (n, 2), columns, and outcomes drawn from them."""
    draw = np.random.default_rng(seed)
    p = draw.beta(1.0, 4.0, size=rows)
    columns: dict[str, NDArray[Any]] = {
        "size": np.exp(draw.normal(1.2, 0.8, size=rows)),
        "age": draw.integers(18, 80, size=rows),
    }
    return np.column_stack([1 - p, p]), columns, (draw.random(rows) < p).astype(np.int64)


def judge(utility: UtilitySpec, rows: int = 4000, *, seed: int = 1, **changes: Any) -> AlignmentReport:
    probabilities, columns, outcomes = world(rows, seed=seed)
    given = {
        "probabilities": probabilities,
        "columns": columns,
        "outcomes": outcomes,
        "utility": utility,
        "operating_point": BAYES,
        "seed": 0,
        "resamples": 300,
    }
    return align(**(given | changes))


def test_the_gap_is_zero_exactly_when_the_point_in_force_is_the_best(utility: UtilitySpec) -> None:
    """With certainty as probabilities nothing can beat Bayes: gap 0, and the rule in force is called best."""
    _, _, outcomes = world(4000, seed=1)
    report = judge(utility, probabilities=np.eye(2)[outcomes])
    assert report.alignment_gap.value == 0.0
    assert report.alignment_gap.lower == 0.0
    assert report.best_rule == "in force"


@pytest.mark.parametrize("shift", [-3.0, -0.5, 0.0, 0.5, 3.0])
def test_the_gap_is_never_negative_and_its_interval_holds_it(utility: UtilitySpec, shift: float) -> None:
    """Whatever the operating point, 0 ≤ lower ≤ gap ≤ upper."""
    gap = judge(utility, operating_point=OperatingPoint((0.0, shift))).alignment_gap
    assert gap.lower is not None
    assert gap.upper is not None
    assert 0.0 <= gap.lower <= gap.value <= gap.upper


def test_a_misplaced_point_loses_what_a_direct_count_says(utility: UtilitySpec) -> None:
    """Calls made 3 EUR dearer than they are: the gap per 1,000 decisions is at least that to plain Bayes."""
    probabilities, columns, outcomes = world(4000, seed=1)
    payoffs, shifted = utility.payoffs(columns), OperatingPoint((0.0, -3.0))
    lost = [
        realised_utility(payoffs, p.choose(payoffs, probabilities), outcomes).mean() for p in (BAYES, shifted)
    ]
    report = judge(utility, operating_point=shifted)
    assert report.alignment_gap.value >= 1000 * (lost[0] - lost[1]) > 50
    assert report.alignment_gap.lower is not None
    assert report.alignment_gap.lower > 0
    assert judge(utility).alignment_gap.value < report.alignment_gap.value / 5


def test_trivial_policies_and_the_gain_over_the_best_of_them(utility: UtilitySpec) -> None:
    """`always leave` earns 0, `always call` the mean payoff; the gain is against the better of the two."""
    probabilities, columns, outcomes = world(4000, seed=1)
    payoffs = utility.payoffs(columns)
    report = judge(utility)
    always = {row.name: row for row in report.trivial}
    assert always["always leave"].utility.value == 0.0
    call = payoffs[np.arange(4000), 1, outcomes].mean()
    assert always["always call"].utility.value == pytest.approx(call)
    assert (always["always leave"].action_rate, always["always call"].action_rate) == (0.0, 1.0)
    ours = realised_utility(payoffs, BAYES.choose(payoffs, probabilities), outcomes).mean()
    assert report.gain_over_trivial.value == pytest.approx(ours - max(0.0, call))
    assert report.gain_over_trivial.lower is not None
    assert report.gain_over_trivial.lower > 0


def test_the_champion_itself_as_challenger_gains_exactly_zero(utility: UtilitySpec) -> None:
    """Same actions, same rows: gain 0 with an interval of width 0, and no disagreement."""
    probabilities, columns, _ = world(4000, seed=1)
    report = judge(utility, champion=BAYES.choose(utility.payoffs(columns), probabilities))
    gain = report.gain_over_champion
    assert gain is not None
    assert (gain.value, gain.lower, gain.upper) == (0.0, 0.0, 0.0)
    assert report.disagreement == 0.0


def test_pairing_sharpens_the_comparison_with_the_champion(utility: UtilitySpec) -> None:
    """A champion that differs in 1 % of the rows is compared far more sharply than the two means alone are."""
    probabilities, columns, _ = world(4000, seed=1)
    champion = BAYES.choose(utility.payoffs(columns), probabilities)
    champion[::100] = 1 - champion[::100]
    report = judge(utility, champion=champion)
    gain, alone = report.gain_over_champion, report.in_force.utility
    assert gain is not None
    assert gain.value > 0
    assert (gain.upper or 0) - (gain.lower or 0) < 0.4 * ((alone.upper or 0) - (alone.lower or 0))
    assert report.disagreement == pytest.approx(0.01)
    shop = report.stakeholders[0]
    assert shop.champion is not None
    assert shop.utility.value - shop.champion.value == pytest.approx(gain.value)


def test_groups_are_counted_as_the_constraint_says(utility: UtilitySpec) -> None:
    """Call rates up to 30 and above, their absolute gap inside its interval, and each group's utility."""
    probabilities, columns, outcomes = world(4000, seed=1)
    columns["size"] = np.where(columns["age"] <= 30, columns["size"], columns["size"] / 3)
    report = judge(utility, columns=columns)
    actions = BAYES.choose(utility.payoffs(columns), probabilities)
    young = columns["age"] <= 30
    rates = actions[young].mean(), actions[~young].mean()
    assert [g.action_rate for g in report.groups] == pytest.approx(rates)
    assert [g.rows for g in report.groups] == [young.sum(), (~young).sum()]
    earned = realised_utility(utility.payoffs(columns), actions, outcomes)
    assert report.groups[0].utility is not None
    assert report.groups[0].utility.value == pytest.approx(earned[young].mean())
    gap = report.measured()["group_call_rate_gap"]
    assert gap.value == pytest.approx(rates[0] - rates[1])
    assert (gap.lower or 0) < gap.value < (gap.upper or 0)
    assert report.constraints[0].value == pytest.approx(gap.value)


def test_a_group_without_rows_leaves_the_gap_unmeasured(utility: UtilitySpec) -> None:
    """No young customer: no gap among the metrics (the gate then has no data), and no invented zero."""
    _, columns, _ = world(4000, seed=1)
    report = judge(utility, columns=columns | {"age": np.full(4000, 50)})
    assert "group_call_rate_gap" not in report.measured()
    assert report.groups[0].utility is None
    json.dumps(report.record(), allow_nan=False)


def test_the_metrics_have_the_names_that_gates_use(utility: UtilitySpec) -> None:
    """Every metric of the registry that alignment can produce is there, finite, and JSON-safe."""
    report = judge(utility, champion=np.zeros(4000, dtype=np.intp))
    measured = report.measured()
    assert set(measured) == {
        "gain_over_trivial",
        "gain_over_champion",
        "alignment_gap",
        "group_call_rate_gap",
        "shop_utility",
        "customer_utility",
    }
    assert all(value.is_finite() for value in measured.values())
    assert measured["customer_utility"].value < 0
    assert "gain_over_champion" not in judge(utility).measured()
    json.dumps(report.record(), allow_nan=False)
    json.dumps([curve.to_json() for curve in report.curves], allow_nan=False)


def test_the_curves_end_at_the_trivial_policies(utility: UtilitySpec) -> None:
    """A threshold above every probability calls nobody; the curve's best point is the reported one."""
    report = judge(utility)
    threshold, shift = report.curves
    assert threshold.action_rate[-1] == 0.0
    assert threshold.utility[-1] == 0.0
    assert (threshold.action_rate[0], shift.action_rate[0], shift.action_rate[-1]) == (1.0, 0.0, 1.0)
    assert (np.diff(threshold.action_rate) <= 0).all()
    assert (np.diff(shift.action_rate) >= 0).all()
    assert report.best_constant_threshold is not None
    assert threshold.utility.max() == pytest.approx(report.best_constant_threshold.utility.value)
    assert (
        report.in_force.utility.value > threshold.utility.max()
    )  # payoffs differ by row, so thresholds must


def test_calibration_near_the_threshold_is_seen(utility: UtilitySpec) -> None:
    """True probabilities come out as predicted near each row's threshold; halved ones are shown too timid there."""
    probabilities, _, _ = world(20_000, seed=3)
    honest = judge(utility, 20_000, seed=3).near_threshold
    halved = np.column_stack([1 - probabilities[:, 1] / 2, probabilities[:, 1] / 2])
    timid = judge(utility, 20_000, seed=3, probabilities=halved).near_threshold
    assert honest is not None
    assert timid is not None
    assert (np.diff(honest.margin) > 0).all()
    assert (np.abs(honest.observed - honest.predicted) < 4 * honest.error).all()
    assert abs(honest.gap) < 0.02
    assert timid.gap > 0.1


def test_more_actions_and_outcomes_are_judged_the_same_way() -> None:
    """Three of each: gains, gap and advantage calibration; there is no single threshold, so no threshold curve."""
    text = UTILITY.replace("[leave, call]", "[leave, call, visit]").replace(
        "outcomes: [no_sale, sale]", "outcomes: [no_sale, sale, big]"
    )
    text = text.replace("outcomeKnownAfter: [call]", "outcomeKnownAfter: [call, visit]")
    text = text.replace("leave: {no_sale: 0, sale: 0}", "leave: {no_sale: 0, sale: 0, big: 0}")
    text = text.replace(
        'call: {no_sale: -1, sale: "clip(size, 0, 10) - 1"}',
        "call: {no_sale: -1, sale: 2, big: 3}\n      visit: {no_sale: -1, sale: -1, big: 9}",
    )
    text = text.replace(
        "call: {no_sale: -1, sale: 0}",
        "call: {no_sale: -1, sale: 0, big: 0}\n      visit: {no_sale: -1, sale: 0, big: 0}",
    )
    spec = load_utility(text, "three.yaml")
    draw = np.random.default_rng(5)
    p = draw.dirichlet([4, 2, 1], size=5000)
    outcomes = (p.cumsum(axis=1) < draw.random((5000, 1))).sum(axis=1)
    report = align(
        probabilities=p,
        columns={"size": np.ones(5000), "age": draw.integers(18, 80, 5000)},
        outcomes=outcomes,
        utility=spec,
        operating_point=OperatingPoint((0.0, 0.0, 0.0)),
        seed=0,
        resamples=200,
    )
    assert report.gain_over_trivial.value > 0.1
    assert report.curves == ()
    assert report.best_constant_threshold is None
    assert report.near_threshold is not None
    assert report.near_threshold.quantity == "advantage"
    assert abs(report.near_threshold.gap) < 0.3
    assert report.alignment_gap.value < 20


def test_rows_that_do_not_agree_are_refused(utility: UtilitySpec) -> None:
    """Unknown outcomes, wrong shapes, no rows and a missing group field raise and say what must be."""
    _, columns, outcomes = world(4000, seed=1)
    unknown = outcomes.copy()
    unknown[7] = -1
    with pytest.raises(AlignmentError, match="row 7"):
        judge(utility, outcomes=unknown)
    with pytest.raises(AlignmentError, match="probabilities must be"):
        judge(utility, probabilities=np.ones((4000, 3)) / 3)
    with pytest.raises(AlignmentError, match="champion's actions"):
        judge(utility, champion=np.zeros(3, dtype=np.intp))
    with pytest.raises(AlignmentError, match="at least one row"):
        judge(utility, 0)
    with pytest.raises(AlignmentError, match="needs field 'age'"):
        judge(utility, columns={"size": columns["size"]})


def test_alignment_never_imports_torch() -> None:
    """The audit runs where the training stack is not installed."""
    code = "import sys, services.alignment.align; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
