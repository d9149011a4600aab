"""Utility: one definition of what a decision is worth, for any number of actions and outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from policies.language.yaml_source import PolicyError
from policies.utility.utility import (
    Floats,
    UtilityError,
    best_action,
    expected_utility,
    load_utility,
    outcome_free,
    realised_utility,
)

FILE = Path(__file__).parents[3] / "policies" / "telemarketing" / "utility.yaml"
TEXT = FILE.read_text(encoding="utf-8")
SPEC = load_utility(TEXT, "utility.yaml")


@st.composite
def problems(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Payoffs (n, A, O) in [-50, 50] and probabilities (n, O) of 1–4 rows, 2–5 actions and 2–4 outcomes."""
    n, a, o = draw(st.integers(1, 4)), draw(st.integers(2, 5)), draw(st.integers(2, 4))
    payoffs = draw(arrays(np.float64, (n, a, o), elements=st.floats(-50, 50, width=32)))
    weights = draw(arrays(np.float64, (n, o), elements=st.floats(0.015625, 1, width=32)))
    return payoffs, weights / weights.sum(axis=1, keepdims=True)


def _clear(payoffs: Floats, probabilities: Floats) -> bool:
    """Whether every row's best action leads by more than rounding."""
    ordered = np.sort(expected_utility(payoffs, probabilities), axis=1)
    return bool((ordered[:, -1] - ordered[:, -2] > 1e-6).all())


@settings(max_examples=50, deadline=None)
@given(problems())
def test_expected_utility_is_the_sum_over_outcomes(problem: tuple[Floats, Floats]) -> None:
    """Against plain loops: every action's payoffs weighted with the probabilities of the outcomes."""
    payoffs, probabilities = problem
    n, a, o = payoffs.shape
    oracle = [
        [sum(payoffs[i, j, k] * probabilities[i, k] for k in range(o)) for j in range(a)] for i in range(n)
    ]
    np.testing.assert_allclose(expected_utility(payoffs, probabilities), oracle, rtol=1e-12, atol=1e-12)
    best = best_action(payoffs, probabilities)
    assert best.dtype == np.intp
    assert all(oracle[i][best[i]] >= max(oracle[i]) - 1e-9 for i in range(n))


@settings(max_examples=50, deadline=None)
@given(problems(), st.floats(0.01, 100), st.floats(-10, 10))
def test_the_unit_of_payoffs_does_not_matter(
    problem: tuple[Floats, Floats], factor: float, offset: float
) -> None:
    """Payoffs in cents, or against another reference, choose the same actions."""
    payoffs, probabilities = problem
    assume(_clear(payoffs, probabilities))
    chosen = best_action(payoffs, probabilities)
    np.testing.assert_array_equal(best_action(payoffs * factor, probabilities), chosen)
    np.testing.assert_array_equal(best_action(payoffs + offset, probabilities), chosen)


@settings(max_examples=50, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_actions_and_outcomes_does_not_matter(
    problem: tuple[Floats, Floats], random: Any
) -> None:
    """Permuted actions permute the choice; permuted outcomes do not change it."""
    payoffs, probabilities = problem
    assume(_clear(payoffs, probabilities))
    chosen = best_action(payoffs, probabilities)
    order = list(range(payoffs.shape[1]))
    random.shuffle(order)
    permuted = best_action(payoffs[:, order, :], probabilities)
    np.testing.assert_array_equal(np.array(order)[permuted], chosen)
    other = list(range(payoffs.shape[2]))
    random.shuffle(other)
    np.testing.assert_array_equal(best_action(payoffs[:, :, other], probabilities[:, other]), chosen)


@settings(max_examples=50, deadline=None)
@given(problems(), st.data())
def test_a_better_payoff_never_makes_an_action_less_chosen(
    problem: tuple[Floats, Floats], data: st.DataObject
) -> None:
    """Raise one action's payoff under one outcome: wherever it was chosen, it still is."""
    payoffs, probabilities = problem
    assume(_clear(payoffs, probabilities))
    action = data.draw(st.integers(0, payoffs.shape[1] - 1))
    outcome = data.draw(st.integers(0, payoffs.shape[2] - 1))
    better = payoffs.copy()
    better[:, action, outcome] += data.draw(st.floats(0, 20))
    was = best_action(payoffs, probabilities) == action
    assert (best_action(better, probabilities) == action)[was].all()


def test_ties_go_to_the_default_action_else_to_the_lowest() -> None:
    """Exact ties: the default if it is among the best, and only then."""
    payoffs = np.array([[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [2.0, 2.0], [1.0, 1.0]]])
    even = np.full((2, 2), 0.5)
    assert best_action(payoffs, even, default_action=2).tolist() == [2, 0]
    assert best_action(payoffs, even).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([[0.5, 0.5, 0.0]], "disagree"),
        ([[0.5, 0.6]], r"sum to 1: \[0.5, 0.6\] in row 0"),
        ([[1.5, -0.5]], ">= 0"),
        ([[float("nan"), 0.5]], "sum to 1"),
    ],
)
def test_what_is_no_distribution_is_refused(probabilities: list[list[float]], message: str) -> None:
    """A NaN, a negative or an unnormalised probability prices nothing."""
    with pytest.raises(UtilityError, match=message):
        expected_utility(np.zeros((1, 2, 2)), np.array(probabilities))


def test_realised_utility_takes_what_happened() -> None:
    """The payoff of the action taken under the outcome seen; unknown (-1) only where it does not matter."""
    payoffs = SPEC.payoffs({"balance": np.array([1000.0, 1000.0, 1000.0])})
    earned = realised_utility(payoffs, np.array([1, 1, 0]), np.array([1, 0, -1]))
    np.testing.assert_allclose(earned, [5.1583325, -1.0, 0.0], rtol=1e-12)
    with pytest.raises(UtilityError, match="must be known where the payoff depends on it: row 1"):
        realised_utility(payoffs, np.array([0, 1, 0]), np.array([-1, -1, -1]))
    with pytest.raises(UtilityError, match="action must be an index below 2: 2 in row 0"):
        realised_utility(payoffs, np.array([2, 1, 0]), np.array([0, 0, 0]))
    with pytest.raises(UtilityError, match="outcome must be an index below 2: -2 in row 2"):
        realised_utility(payoffs, np.array([0, 1, 0]), np.array([0, 0, -2]))


def test_leaving_is_known_without_an_outcome() -> None:
    """Leaving is outcome-free; calling is so only where a subscription earns nothing."""
    payoffs = SPEC.payoffs({"balance": np.array([-5, 1000])})
    assert outcome_free(payoffs).tolist() == [[True, True], [True, False]]


def test_the_telemarketing_payoffs_are_the_published_ones() -> None:
    """Relative to leaving alone; the customer is measured but, with weight 0, not priced."""
    columns = {"balance": np.array([-20, 1000, 102127]), "job": np.array(["a", "b", "c"])}
    call_subscribed = [-1.0, 0.25 * 0.02463333 * 1000 - 1, 0.25 * 0.02463333 * 5000 - 1]
    payoffs = SPEC.payoffs(columns)
    assert (SPEC.actions, SPEC.outcomes) == (("leave", "call"), ("not_subscribed", "subscribed"))
    assert payoffs.shape == (3, 2, 2)
    np.testing.assert_allclose(payoffs[:, 1, 1], call_subscribed, rtol=1e-12)
    assert (payoffs[:, 0, :] == 0).all()
    assert (payoffs[:, 1, 0] == -1).all()
    own = SPEC.stakeholder_payoffs(columns)
    np.testing.assert_array_equal(own["bank"], payoffs)
    assert own["customer"].tolist() == [[[0.0, 0.0], [-1.0, 0.0]]] * 3


def test_weights_add_stakeholders_up() -> None:
    """With a weight of 0.5 the customer's unwanted call costs the total half a point."""
    text = TEXT.replace("weight: 0\n", "weight: 0.5\n").replace("low: -1", "low: -1.5")
    payoffs = load_utility(text, "utility.yaml").payoffs({"balance": np.array([0.0])})
    assert payoffs.tolist() == [[[0.0, 0.0], [-1.5, -1.0]]]


def test_a_payoff_outside_the_declared_range_is_refused() -> None:
    """The error names row, field, its value and the bound: the tests of the canary rest on the range."""
    spec = load_utility(TEXT.replace("clip(balance, 0, cap)", "min(balance, 2 * cap)"), "utility.yaml")
    with pytest.raises(UtilityError) as caught:
        spec.payoffs({"balance": np.array([10.0, 9000.0])})
    assert str(caught.value) == (
        "payoff call x subscribed must be <= 29.8 EUR (the declared range): 54.425 in row 1, "
        "from balance = 9000.0"
    )
    with pytest.raises(UtilityError, match=r">= -1 EUR .* in row 0, from balance = -10.0"):
        spec.payoffs({"balance": np.array([-10.0])})


def test_a_row_that_cannot_be_priced_is_named() -> None:
    """A missing field or a NaN says which stakeholder's cell, which field, which row."""
    with pytest.raises(UtilityError, match=r"call x subscribed of 'bank', .*field 'balance' is not among"):
        SPEC.payoffs({"age": np.array([30])})
    with pytest.raises(UtilityError, match="field 'balance' must be finite: nan in row 1"):
        SPEC.payoffs({"balance": np.array([1.0, np.nan])})
    with pytest.raises(UtilityError, match="no columns"):
        SPEC.payoffs({})


def test_three_actions_and_three_outcomes_need_no_other_code() -> None:
    """Approve, refer, decline over repaid, late, lost: the same file format and the same functions."""
    row = "{repaid: 0.1 * amount, late: 0, lost: -amount}"
    text = TEXT[: TEXT.index("quantities:")] + (
        "stakeholders:\n  - name: bank\n    weight: 1\n    why: margin\n    payoffs:\n"
        f"      approve: {row}\n"
        "      refer: {repaid: 0.1 * amount - 20, late: -20, lost: -20}\n"
        "      decline: {repaid: 0, late: 0, lost: 0}\n"
        "domains: []\nconstraints: []\n" + TEXT[TEXT.index("changelog:") :]
    )
    for old, new in (
        ("[leave, call]", "[approve, refer, decline]"),
        ("[not_subscribed, subscribed]", "[repaid, late, lost]"),
        ("defaultAction: leave", "defaultAction: decline"),
        ("[call]", "[approve, refer]"),
        ("low: -1\n", "low: -5000\n"),
        ("high: 29.8", "high: 500"),
    ):
        text = text.replace(old, new)
    spec = load_utility(text, "credit.yaml")
    payoffs = spec.payoffs({"amount": np.array([1000.0, 1000.0, 1000.0])})
    chances = np.array([[0.99, 0.005, 0.005], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    chosen = best_action(payoffs, chances, default_action=spec.default_index)
    assert [spec.actions[i] for i in chosen] == ["approve", "refer", "decline"]
    assert spec.warnings == ()


def test_a_quantity_is_read_by_name_and_has_one_value() -> None:
    """Payoffs that name a quantity move with its value, are exactly the written-out ones, and read no field of it."""
    columns = {"balance": np.array([123.0, 1428.0, 9000.0])}
    start, stop = TEXT.index("  - name: deposited_share"), TEXT.index("# Payoffs are relative")
    rest = TEXT[stop:].replace("deposited_share * margin", "0.25 * 0.02463333").replace("0, cap", "0, 5000")
    plain = load_utility(TEXT[:start] + rest, "utility.yaml")
    np.testing.assert_array_equal(SPEC.payoffs(columns), plain.payoffs(columns))
    assert SPEC.fields == ("balance",)
    dearer = load_utility(
        TEXT.replace("value: 1\n", "value: 2\n").replace("low: -1", "low: -2"), "utility.yaml"
    )
    np.testing.assert_allclose(dearer.payoffs(columns)[:, 1], SPEC.payoffs(columns)[:, 1] - 1, rtol=1e-12)


def test_a_payoff_of_quantities_alone_is_a_number_for_constraints() -> None:
    """Two EUR for every call, six calls in ten, and no less than -0.4 a decision: found to contradict by name."""
    start = TEXT.index("Minds a call")
    text = TEXT[:start] + TEXT[start:].replace(
        "not_subscribed: -1", 'not_subscribed: "-2 * call_cost"', 1
    ).replace(
        'call:\n        not_subscribed: "-2 * call_cost"\n        subscribed: 0',
        'call:\n        not_subscribed: "-2 * call_cost"\n        subscribed: "-2 * call_cost"',
        1,
    ).replace("atMost: 0.6", "atLeast: 0.6", 1)
    with pytest.raises(PolicyError) as caught:
        load_utility(text, "utility.yaml")
    assert [issue.path for issue in caught.value.issues] == ["constraints[1]", "constraints[2]"]
    assert "'unwanted_calls' cannot be kept together with 'calls_made'" in str(caught.value)


def test_a_payoff_that_cannot_be_observed_is_a_warning() -> None:
    """A payoff that depends on the outcome after an action that hides it is lawful, but said."""
    text = TEXT.replace("leave:\n        not_subscribed: 0", "leave:\n        not_subscribed: 0.5", 1)
    (warning,) = load_utility(text, "utility.yaml").warnings
    assert warning.path == "stakeholders[0].payoffs.leave"
    assert text.splitlines()[warning.line - 1].strip() == "leave:"
    assert "known only after call" in warning.message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "defaultAction: leave",
            "defaultAction: leve",
            "'defaultAction' must be one of 'leave', 'call': 'leve'",
        ),
        ("[leave, call]", "[leave, leave]", "'actions[1]' must be unique: 'leave'"),
        ("stakeholder: customer", "stakeholder: custmer", "did you mean 'customer'"),
        ("domain: safety", "domain: safty", "'constraints[1].domain' must be one of 'revenue', 'safety'"),
        ("- name: customer", "- name: bank", "'stakeholders[1].name' must be unique"),
        ("weight: 1\n", "weight: 0\n", "'stakeholders' must hold one weight > 0"),
        ("weight: 1\n", "weight: -1\n", "'stakeholders[0].weight' must be >= 0.0: -1"),
        ("high: 29.8", "high: -2", "'range.high' must be > low (-1): -2"),
        ("low: -1", "low: -0.5", "'range' must hold the payoff call x not_subscribed, -1: [-0.5, 29.8]"),
        ("name: margin", "name: margins", "'quantities[2].name' is read by no payoff: 'margins'"),
        ("name: margin", "name: clip", "'quantities[2].name' must not be a function"),
        ("{low: 0.012, high", "{low: 0.03, high", "must hold 0.0246333, as it is now: [0.03, 0.04]"),
        ("clip(balance, 0, cap)", "clp(balance, 0, cap)", "unknown function 'clp'; did you mean 'clip'?"),
        ("reviewBy: 2027-06-30", "reviewBy: soon", "'reviewBy' must be a date (YYYY-MM-DD): 'soon'"),
        ("version: 1 ", "version: 2 ", "'changelog[0].version' must be the file's version (2)"),
        ("atMost: 0.20", "atMost: 15", "'constraints[3].atMost' must be <= 1.0: 15"),
        ("service: telemarketing", "service: Tele Marketing", "'service' must be text like"),
    ],
)
def test_a_wrong_value_is_refused_where_it_stands(old: str, new: str, message: str) -> None:
    """References, ranges and expressions are checked when the file is read."""
    assert old in TEXT
    with pytest.raises(PolicyError) as caught:
        load_utility(TEXT.replace(old, new, 1), "utility.yaml")
    assert any(message in str(issue) and issue.line > 1 for issue in caught.value.issues), str(caught.value)


def test_the_digest_covers_meaning_only() -> None:
    """A comment leaves the digest alone; a payoff does not."""
    assert load_utility("# another comment\n" + TEXT, "utility.yaml").digest == SPEC.digest
    assert load_utility(TEXT.replace("0.02463333", "0.02463334"), "utility.yaml").digest != SPEC.digest
