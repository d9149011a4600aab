"""The parts of the utility benchmark that its numbers rest on: costs, savings, thresholds, what is seen when."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from policies.operating.operating_point import OperatingPoint

HERE = Path(__file__).parent


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The benchmark's modules; their libraries are needed only where peers are fitted."""
    monkeypatch.syspath_prepend(str(HERE))
    names = ("real_data", "trimtab_side", "peers", "score_table", "over_time", "constrained", "targets")
    return {name: importlib.import_module(name) for name in names}


def some_data(bench: dict[str, ModuleType], rows: int = 400):  # type: ignore[no-untyped-def]
    draw = np.random.default_rng(1)
    costs = np.column_stack(
        [draw.exponential(1, rows), draw.exponential(9, rows), *draw.random((2, rows)) * 0.1]
    )
    outcomes = (draw.random(rows) < 0.2).astype(np.int64)
    features = {"x": draw.normal(size=rows) + outcomes}
    return bench["real_data"].DataSet("toy", "EUR", features, outcomes, costs, outcomes * 0)


def test_the_credit_costs_are_the_published_ones(bench: dict[str, ModuleType]) -> None:
    """With all customers alike a refusal costs base rate x (profit + 75 % of the line): worked out by hand."""
    income, rate = np.full(3, 1000.0), 0.0479 / 12
    costs = bench["real_data"]._credit_costs(
        income, np.zeros(3), 0.07, rate=rate, cost_of_funds=0.0294 / 12, most=25_000.0
    )
    line = 3000.0
    instalment = line * rate / (1 - (1 + rate) ** -24)
    profit = sum(instalment / (1 + 0.0294 / 12) ** month for month in range(1, 25)) - line
    np.testing.assert_allclose(costs[0], [0.07 * (profit + 0.75 * line), 0.75 * line, 0, 0])
    in_debt = bench["real_data"]._credit_costs(
        income, np.full(3, 0.95), 0.07, rate=rate, cost_of_funds=0.0294 / 12, most=25_000.0
    )
    payable = sum(50.0 / (1 + rate) ** month for month in range(1, 25))  # 5 % of the income
    np.testing.assert_allclose(in_debt[:, 1], 0.75 * payable)


def test_savings_and_thresholds_are_the_products_own(bench: dict[str, ModuleType]) -> None:
    """The better of acting always and never saves nothing; the peers' per-row rule is our operating point."""
    data = some_data(bench)
    always, never = (data.savings(np.full(len(data), a)) for a in (1, 0))
    assert max(always, never) == 0.0
    p = np.random.default_rng(2).random(len(data))
    actions = bench["peers"].bayes_actions(data, p)
    ours = OperatingPoint((0.0, 0.0), 1).choose(data.payoffs, np.column_stack([1 - p, p]))
    np.testing.assert_array_equal(actions, ours)
    best = min(data.cost(p >= t).sum() for t in [*np.unique(p), np.inf])
    tuned = data.cost(p >= bench["peers"].tuned_threshold(data, p)).sum()
    assert best <= tuned <= best * 1.01
    assert bench["trimtab_side"].utility_of(data).payoffs(
        bench["trimtab_side"].columns_of(data)
    ) == pytest.approx(data.payoffs)


def test_whoever_adapts_sees_the_past_only(bench: dict[str, ModuleType]) -> None:
    """Before a block: rows before it, and where only calls tell, only those the policy called since the first fit."""
    data = some_data(bench, rows=10)
    policy = bench["over_time"]._Policy(data, 0, ("cross_entropy",), True, False, False)
    policy.actions = np.array([-1, -1, -1, 1, 0, 1, -1, -1, -1, -1])
    assert policy._seen(6).tolist() == [0, 1, 2, 3, 5]
    policy.sees_all = True
    assert policy._seen(6).tolist() == [0, 1, 2, 3, 4, 5]


def test_targets_compare_on_the_same_splits(bench: dict[str, ModuleType]) -> None:
    """The difference to the best peer is paired split by split, with its own standard error."""
    line = bench["score_table"].Line
    ours, peer = line("Trimtab", [50.0, 52.0, 54.0]), line("peer", [49.0, 52.5, 52.0])
    mean, se = bench["targets"].ahead(ours, peer)
    assert mean == pytest.approx((1 - 0.5 + 2) / 3)
    assert se == pytest.approx(np.std([1, -0.5, 2], ddof=1) / np.sqrt(3))


def test_hindsight_takes_the_least_price_that_keeps_the_bound(
    bench: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the rows themselves the rate lands on the bound, no price on a grid that keeps it saves more, and the target
    names what it takes from each model."""
    constrained, data = bench["constrained"], some_data(bench, rows=4000)
    p = np.clip(data.features["x"] / 4 + 0.3, 0.01, 0.99)
    monkeypatch.setitem(constrained.BOUNDS, "toy", 0.1)
    freely, priced = constrained.in_hindsight(data, "toy model", p, 1.0)
    rate = constrained.false_positive_rate(data, priced.actions)
    assert constrained.false_positive_rate(data, freely.actions) > 0.2
    assert 0.1 - 2 / (data.outcomes == 0).sum() < rate <= 0.1
    for price in np.linspace(0, 30, 301):
        actions = constrained.priced(data, p, price)
        if constrained.false_positive_rate(data, actions) <= 0.1:
            assert data.savings(actions) <= data.savings(priced.actions) + 0.002

    table = bench["score_table"].Table("toy", "EUR")
    for entry in (freely, priced):
        table.add(entry, data)
    given_up = 100 * (data.savings(priced.actions) - data.savings(freely.actions))
    assert bench["targets"].in_hindsight(table) == f"toy model {given_up:+.2f} ± 0.00"
