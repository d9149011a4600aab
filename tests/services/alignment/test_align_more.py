"""Alignment beyond the gap: families of rules, time, regret, misplaced thresholds, domains and hypotheses."""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.gates.evidence import Measured
from policies.operating.operating_point import OperatingPoint, threshold_of
from policies.operating.point_proof import PointProof
from policies.operating.point_search import check_point, search_point
from policies.utility.utility import UtilitySpec, load_utility, realised_utility
from services.alignment.align import align
from services.alignment.bootstrap import EXACT_ROWS, PairedMeans
from services.alignment.report import HINDSIGHT
from services.alignment.rule_families import JudgedRows, constant_thresholds, misplaced, shifts
from services.alignment.time_folds import fold_rows

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
  - {name: safety, owner: Care, errorBudget: 0.02}
  - {name: revenue, owner: Sales}
constraints:
  - {name: calls, kind: action_rate, domain: safety, action: call, atMost: 0.9, rationale: T.}
  - {name: false_calls, kind: rate_among, domain: safety, action: call, among: no_sale, atMost: 0.3, rationale: T.}
  - {name: by_age, kind: rate_among_gap, domain: revenue, action: call, among: sale, groups: {field: age, upTo: 30},
     atMost: 0.5, rationale: T.}
  - {name: fast, kind: latency, domain: revenue, atMost: 100ms, share: 0.9, rationale: T.}
hypotheses:
  - {name: h1, statement: It pays., metric: gain_over_trivial, atLeast: 0.01, owner: A, registered: 2026-01-01}
  - {name: h2, statement: It pays much., metric: gain_over_trivial, atLeast: 5, owner: A, registered: 2026-01-01}
  - {name: h3, statement: Few calls., metric: calls, atMost: 0.9, owner: A, registered: 2026-01-01}
  - {name: h4, statement: No worse than now., metric: gain_over_champion, atLeast: 0, owner: A, registered: 2026-01-01}
changelog:
  - {version: 1, date: 2026-01-01, who: Test, why: Test.}
"""
BAYES = OperatingPoint((0.0, 0.0))
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def utility() -> UtilitySpec:
    return load_utility(TEXT, "toy.yaml")


def world(rows: int, *, seed: int) -> tuple[Floats, dict[str, Floats], NDArray[np.int64]]:
    draw = np.random.default_rng(seed)
    p = draw.beta(1.0, 4.0, size=rows)
    columns = {"size": np.exp(draw.normal(1.2, 0.8, rows)), "age": draw.integers(18, 80, rows).astype(float)}
    return np.column_stack([1 - p, p]), columns, (draw.random(rows) < p).astype(np.int64)


def test_every_rule_of_a_family_earns_what_a_direct_count_says(utility: UtilitySpec) -> None:
    """Thresholds, shifts and misplaced points: utility and action rate of each against choosing row by row."""
    p, columns, outcomes = world(500, seed=1)
    payoffs = utility.payoffs(columns)
    rows = JudgedRows(payoffs, p, outcomes, np.arange(500), utility)
    off = misplaced(rows, payoffs)
    (shifted,) = shifts(rows)
    thresholds = constant_thresholds(rows)
    assert off is not None
    own = threshold_of(payoffs)
    for family, acts in (
        (thresholds, lambda t: p[:, 1] > t),
        (shifted, lambda shift: OperatingPoint((0.0, float(shift))).choose(payoffs, p) == 1),
        (off, lambda x: p[:, 1] - own > x),
    ):
        assert (np.diff(family.setting) > 0).all()
        for at, setting in enumerate(family.setting):
            actions = acts(setting).astype(np.intp)
            earned = realised_utility(payoffs, actions, outcomes)
            np.testing.assert_allclose(family.sums[:, at], earned, atol=1e-9)
            assert family.action_rate[at] == pytest.approx(actions.mean())


def test_three_actions_are_shifted_and_misplaced_alike() -> None:
    """With three actions each family still equals choosing row by row under the shift."""
    text = TEXT.replace("[leave, call]", "[leave, call, visit]").replace("[call]", "[call, visit]")
    text = text.replace(
        "      call: {no_sale: -1, sale: 0}",
        "      call: {no_sale: -1, sale: 0}\n      visit: {no_sale: 0, sale: 0}",
    )
    text = text.replace(
        'sale: "clip(size, 0, 10) - 1"}',
        'sale: "clip(size, 0, 10) - 1"}\n      visit: {no_sale: -0.9, sale: 4}',
    )
    spec = load_utility(text, "three.yaml")
    p, columns, outcomes = world(400, seed=2)
    payoffs = spec.payoffs(columns)
    rows = JudgedRows(payoffs, p, outcomes, np.arange(400), spec)
    off = misplaced(rows, payoffs)
    assert off is not None
    for action, family in ((1, shifts(rows)[0]), (2, shifts(rows)[1]), (0, off)):
        for at in range(0, len(family.setting), 7):
            shift = [0.0, 0.0, 0.0]
            shift[action] = float(family.setting[at])
            actions = OperatingPoint(tuple(shift)).choose(payoffs, p)
            np.testing.assert_allclose(
                family.sums[:, at], realised_utility(payoffs, actions, outcomes), atol=1e-9
            )
            assert family.action_rate[at] == pytest.approx((actions != 0).mean())


def test_many_rows_are_resampled_in_blocks_and_say_the_same() -> None:
    """Above EXACT_ROWS blocks of neighbours are drawn: the mean is exact, the interval that of the normal theory."""
    n = EXACT_ROWS + 10_007
    values = np.random.default_rng(3).normal(1.0, 2.0, n)
    book = PairedMeans()
    book.add("x", values)
    book.run(seed=1, resamples=500)
    found = book.mean("x")
    assert len(book.starts) == 2000
    assert found.value == pytest.approx(values.mean())
    assert found.lower is not None
    assert found.upper is not None
    assert found.upper - found.lower == pytest.approx(2 * 1.96 * 2.0 / np.sqrt(n), rel=0.15)


def test_regret_time_and_misplacement_agree_with_direct_counts(utility: UtilitySpec) -> None:
    """Hindsight is the best action of each row once known; folds add up to the whole; a point off by x loses that."""
    p, columns, outcomes = world(4000, seed=4)
    payoffs = utility.payoffs(columns)
    champion = np.ones(4000, dtype=np.intp)
    report = align(
        probabilities=p, columns=columns, outcomes=outcomes, utility=utility, operating_point=BAYES,
        champion=champion, moments=1.7e9 + np.arange(4000) * 86400.0 / 20, seed=0, resamples=200,
    )  # fmt: skip
    actions = BAYES.choose(payoffs, p)
    earned = realised_utility(payoffs, actions, outcomes)
    best = np.where(outcomes == 1, np.maximum(payoffs[:, 1, 1], 0), 0)
    assert report.regrets["hindsight"].value == pytest.approx((best - earned).mean())
    assert report.regrets["champion"].value == pytest.approx(
        (realised_utility(payoffs, champion, outcomes) - earned).mean()
    )
    assert report.regrets["best constant threshold"].value < 0
    assert [fold.name for fold in report.folds] == [
        str(np.datetime64("2023-11") + m) for m in range(len(report.folds))
    ]
    assert sum(fold.rows for fold in report.folds) == 4000
    assert sum(f.rows * f.utility.value for f in report.folds) / 4000 == pytest.approx(earned.mean())
    found = report.misplacement
    assert found is not None
    assert found.lost[np.abs(found.off_by).argmin()] == pytest.approx(0.0, abs=1e-9)
    at = 30
    off = (p[:, 1] - threshold_of(payoffs) > found.off_by[at]).astype(np.intp)
    lost = earned.mean() - realised_utility(payoffs, off, outcomes).mean()
    assert found.lost[at] == pytest.approx(1000 * lost)
    assert (found.low <= found.lost + 1e-9).all()
    assert found.near > 0
    json.dumps(report.record(), allow_nan=False)


def test_domains_hypotheses_and_agreement_are_told(utility: UtilitySpec) -> None:
    """Each domain's constraints, each hypothesis's verdict, and who would have decided so, too."""
    p, columns, outcomes = world(4000, seed=5)
    point = search_point(utility, columns, probabilities=p, outcomes=outcomes)
    point = check_point(point, utility, columns, probabilities=p, outcomes=outcomes)
    report = align(
        probabilities=p, columns=columns, outcomes=outcomes, utility=utility, operating_point=point,
        seed=0, resamples=200,
    )  # fmt: skip
    assert [(row.name, row.owner, row.error_budget, row.kept, row.of) for row in report.domains] == [
        ("safety", "Care", 0.02, 2, 2),
        ("revenue", "Sales", 0.05, 1, 1),
    ]
    assert report.domains[0].tightest.startswith("false_calls: ")
    assert [row.verdict for row in report.hypotheses] == ["kept", "refuted", "kept", "not measured"]
    assert report.proof is not None
    assert report.proof.is_met
    assert report.measured()["constraints_broken"] == Measured(0.0, n=4000)
    assert "group_call_rate_gap" not in report.measured()  # the gap is among sales only, another quantity
    assert [one.name for one in report.stakeholders] == ["shop", "customer"]
    acted = point.choose(utility.payoffs(columns), p) == 1
    assert report.stakeholders[1].agrees == pytest.approx((~acted).mean())
    assert report.in_force.action_rate == pytest.approx(acted.mean())
    young = columns["age"] <= 30
    group = report.groups[0]
    best = np.where(outcomes == 1, np.maximum(utility.payoffs(columns)[:, 1, 1], 0), 0)
    earned = realised_utility(utility.payoffs(columns), acted.astype(np.intp), outcomes)
    assert group.decided_best == pytest.approx((earned >= best)[young].mean())
    assert group.regret == pytest.approx((best - earned)[young].mean())


def test_broken_constraints_are_counted_once(utility: UtilitySpec) -> None:
    """Broken on the rows the point was found on, on later ones, or on both: one each; a missing margin is none."""
    p, columns, outcomes = world(4000, seed=5)
    point = search_point(utility, columns, probabilities=p, outcomes=outcomes)
    assert point.proof is not None
    first, second, *rest = point.proof.kept
    kept = (
        replace(first, verdict="broken", is_kept_on_test=False),
        replace(second, verdict="kept", is_kept_on_test=False),
        *(replace(one, verdict="unsure", is_kept_on_test=True) for one in rest),
    )
    report = align(
        probabilities=p, columns=columns, outcomes=outcomes, utility=utility,
        operating_point=replace(point, proof=PointProof(kept)), seed=0, resamples=20,
    )  # fmt: skip
    assert rest
    assert report.measured()["constraints_broken"].value == 2.0


def test_folds_of_one_day_are_told_apart_by_the_time() -> None:
    """Live decisions of an hour: the day alone would give every fold the same name."""
    book = PairedMeans()
    for name in ("in force", HINDSIGHT):
        book.add(name, np.zeros(3_600))
    found = fold_rows(book, np.zeros(3_600, dtype=bool), 1.7e9 + np.arange(3_600.0))
    assert [fold.name for fold in found][:2] == ["from 2023-11-14 22:13:20", "from 2023-11-14 22:19:20"]
