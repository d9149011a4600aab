"""The whole specification: three actions, three outcomes, every key; what contradicts itself is named with its line."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from policies.language.yaml_source import PolicyError
from policies.utility.constraints import measure_constraints
from policies.utility.spec_parts import PayoffRange
from policies.utility.utility import UtilityError, load_utility

TEXT = (Path(__file__).parents[1] / "lending.yaml").read_text(encoding="utf-8")
SPEC = load_utility(TEXT, "lending.yaml")
COLUMNS = {
    "amount": np.array([1000.0, 5000.0]),
    "thin_file": np.array([0, 1]),
    "months_read": np.array([6, 6]),
}


def refused(*changes: tuple[str, str]) -> list[str]:
    text = TEXT
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    with pytest.raises(PolicyError) as caught:
        load_utility(text, "lending.yaml")
    return [str(issue) for issue in caught.value.issues]


def line_of(words: str, text: str = TEXT) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


def test_ranges_units_hypotheses_and_budgets_are_read() -> None:
    """What the file says of doubt, units, expectations and owners stands in the spec, in order."""
    lender, applicant, privacy = SPEC.stakeholders
    assert (lender.weight_range, applicant.weight_range, privacy.weight_range) == ((1, 1), (0, 1), None)
    assert lender.payoff_ranges == (
        PayoffRange("approve", "defaulted", "factor", 0.7, 1.4),
        PayoffRange("decline", "repaid", "amount", -50, 0),
    )
    assert (lender.unit, applicant.unit) == ("EUR", "EUR as applicants value it")
    assert (SPEC.domains["safety"].owner, SPEC.domains["safety"].error_budget) == ("Risk office", 0.02)
    budgets = {one.name: one.error_budget for one in SPEC.constraints}
    assert budgets["defaults_caught"] == pytest.approx(0.01)  # two of the domain share 0.02
    assert budgets["false_declines"] == pytest.approx(0.05 / 3)  # no budget stated: 0.05
    assert SPEC.abstain is not None
    assert (SPEC.abstain.action, SPEC.abstain.at_most) == ("refer", 0.1)
    assert SPEC.satisfaction is not None
    assert SPEC.satisfaction.better == "lower"
    assert [(one.metric, one.at_least, one.at_most, one.registered) for one in SPEC.hypotheses] == [
        ("gain_over_trivial", 10, None, date(2026, 11, 10)),
        ("complaints_per_1000", None, 3, date(2026, 11, 10)),
    ]


def test_time_equity_and_privacy_are_priced_by_the_stakeholders() -> None:
    """Declining a thin file that repays costs 100 EUR to the applicant, half of which counts; a review costs both."""
    payoffs = SPEC.payoffs(COLUMNS)
    assert payoffs.shape == (2, 3, 3)
    assert payoffs[:, 2, 0].tolist() == [0.5 * -40, 0.5 * -100]
    assert payoffs[1, 1, 0] == pytest.approx(0.08 * 5000 - 35 - 0.5 * 8 - 0.5 * 6)


def test_every_kind_of_constraint_is_measured_by_hand() -> None:
    """Rates among an outcome, precision, counts in a period and gaps of each, on ten decisions; latency is not."""
    actions = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])  # approve x4, refer x2, decline x4
    outcomes = np.array([0, 0, 0, 2, 0, 1, 0, 0, 2, 2])
    columns = {
        "sex": np.array(list("FFMMFMFMFM"), dtype=object),
        "age": np.array([20, 40, 20, 40, 20, 40, 20, 40, 20, 40]),
    }
    nothing = np.zeros(10)
    results = measure_constraints(
        SPEC.constraints,
        columns,
        actions=actions,
        action_names=SPEC.actions,
        outcomes=outcomes,
        outcome_names=SPEC.outcomes,
        utilities=nothing,
        stakeholder_utilities={},
    )
    assert {result.constraint.name: result.value for result in results} == {
        "false_declines": pytest.approx(2 / 6),
        "defaults_caught": pytest.approx(1 / 3),
        "approvals_good": pytest.approx(3 / 4),
        "reviewers": pytest.approx(200),
        "declines_alike": pytest.approx(1 / 2 - 1 / 4),  # good women: rows 0, 1, 4, 6; good men: 2, 7
        "precision_alike": pytest.approx(1.0 - 1 / 2),
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("factor: {low: 0.7, high: 1.4}", "factor: {low: 1.1, high: 1.4}", "must hold 1, as it is now"),
        ("weight: {low: 0, high: 1}", "weight: {low: 0.6, high: 1}", "must hold 0.5, as it is now"),
        ("action: approve, outcome: defaulted, f", "action: aprove, outcome: defaulted, f", "did you mean 'approve'"),
        ("among: repaid, atMost", "among: repayed, atMost", "did you mean 'repaid'"),
        ("metric: gain_over_trivial", "metric: gain_over_trivail", "did you mean 'gain_over_trivial'"),
        ("registered: 2026-11-10", "registered: 2026-12-24", "must not be after the newest change"),
        ("errorBudget: 0.1}", "errorBudget: 1.1}", "must be < 1"),
        ("atLeast: 10", "atMost: 10\n    atLeast: 10", "exactly one of 'atLeast' and 'atMost'"),
        ("groups: {field: sex, value: F}", "groups: {field: sex}", "exactly one of 'upTo' (a number) and 'value'"),
        ("per: 1d", "per: 86400", "must be a duration with its unit"),
        ("abstain:\n  action: refer", "abstain:\n  action: refuse", "must be one of 'approve'"),
        ('"0.08 * amount"', '"0.08 * * amount"', "expected a number, a field or '(', not '*' (at character 8)"),
        ('"0.08 * amount"', '"0.08 * logg(amount)"', "unknown function 'logg'; did you mean 'log'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_where_it_stands(old: str, new: str, words: str) -> None:
    """One planted mistake gives one issue, at its line."""
    text = TEXT.replace(old, new, 1)
    (issue,) = refused((old, new))
    assert words in issue
    place = next(number for number, line in enumerate(text.splitlines(), 1) if new.splitlines()[-1] in line)
    assert abs(int(issue.split(":")[1]) - place) <= 5
    assert "lending.yaml:" in issue


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("0.08 * amuont", "field 'amuont' is not among the columns; did you mean 'amount'?"),
        ("1 / (amount - 5000)", "'/' has no finite value: inf in row 1 (at character 3)"),
        ("log(amount - 5000)", "'log' has no finite value"),
    ],
)
def test_a_payoff_that_cannot_be_computed_names_its_cell_field_and_row(cell: str, words: str) -> None:
    """A missing column, a division by zero and a logarithm of nothing: never a number, always a place."""
    spec = load_utility(TEXT.replace("0.08 * amount", cell, 1), "lending.yaml")
    with pytest.raises(UtilityError) as caught:
        spec.payoffs(COLUMNS)
    assert str(caught.value).startswith(f"payoff approve x repaid of 'lender', `{cell}`: ")
    assert words in str(caught.value)


def one_more(name: str, action: str, bound: str, among: str = "") -> str:
    kind = f"rate_among, among: {among}" if among else "action_rate"
    return f"{{name: {name}, kind: {kind}, domain: safety, action: {action}, {bound}, rationale: T.}}"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (
            (one_more("few", "approve", "atMost: 0.1"), one_more("many", "approve", "atLeast: 0.2")),
            ("few", "many"),
        ),
        (
            (
                one_more("good", "approve", "atLeast: 0.9", "repaid"),
                one_more("none", "decline", "atLeast: 0.3", "repaid"),
            ),
            ("good", "none"),
        ),
        (
            tuple(
                one_more(name, "refer", "atLeast: 0.4", among)
                for name, among in (("a", "repaid"), ("b", "late"), ("c", "defaulted"))
            ),
            ("reviewers", "a", "b", "c"),
        ),
    ],
)
def test_constraints_that_contradict_each_other_name_each_other(
    changes: tuple[str, ...], names: tuple[str, ...]
) -> None:
    """A cap under a floor; two floors that are more than everybody; recall floors on all outcomes over a capacity.

    Each constraint of the set gets an issue at its own line, which names the others with theirs; nothing else does.
    """
    added = "".join(f"  - {one}\n" for one in changes)
    text = TEXT.replace("\nabstain:", f"{added}\nabstain:", 1)
    issues = refused(("\nabstain:", f"{added}\nabstain:"))
    lines = {name: line_of(f"{{name: {name},", text) for name in names}
    assert [int(issue.split(":")[1]) for issue in issues] == sorted(lines.values())
    for issue in issues:
        own = next(name for name in names if f"'{name}' cannot be kept together" in issue)
        assert all(f"'{other}' (line {lines[other]})" in issue for other in names if other != own)
