"""Promises of the lint on payoffs: what can have no value, or leaves the range, is told before a row finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.language.yaml_source import PolicyError, load_document
from policies.utility.payoff_bounds import doubtful_payoffs, text_fields
from policies.utility.utility import load_utility

TEXT = (Path(__file__).parents[3] / "policies" / "telemarketing" / "utility.yaml").read_text(encoding="utf-8")
CELL = "deposited_share * margin * clip(balance, 0, cap) - call_cost"
LINE = next(number for number, line in enumerate(TEXT.splitlines(), 1) if CELL in line)
START = TEXT.splitlines()[LINE - 1].index(CELL) + 1
FIELDS = {"balance": (-100_000.0, 1_000_000.0), "age": (18.0, 95.0)}


def doubts(cell: str) -> list[str]:
    """What is doubtful with this payoff in place of the shipped one, which reads the same quantities."""
    text = TEXT.replace(CELL, cell)
    utility, document = load_utility(text, "u.yaml"), load_document(text, "u.yaml")
    return [str(one) for one in doubtful_payoffs(utility, document, FIELDS)]


def test_the_shipped_payoffs_are_beyond_doubt() -> None:
    """Their clip keeps them within the declared range for every row that the contract lets in."""
    assert doubts(CELL) == []


@pytest.mark.parametrize(
    ("cell", "column", "says"),
    [
        (
            "deposited_share * margin * cap - call_cost / balance",
            44,
            "'/' has no finite value where its divisor is 0",
        ),
        ("deposited_share * margin * cap * log(balance) - call_cost", 34, "'log' has no finite value"),
    ],
)
def test_a_doubtful_division_stands_at_its_place(cell: str, column: int, says: str) -> None:
    """The warning points into the expression, at the operator; the range is not spoken of."""
    (found,) = doubts(cell)
    assert found.startswith(f"u.yaml:{LINE}:{START + column - 1}: ")
    assert says in found
    assert found.endswith("which the contract lets in")


def test_a_quantity_that_may_be_nothing_is_told_before_the_sensitivity_study_finds_it() -> None:
    """Stated at 1 EUR a division by `call_cost - 0.8` is safe; over its range from 0.5 to 2 it is not."""
    (found,) = doubts("deposited_share * margin * cap / cap + 0 / (call_cost - 0.8)")
    assert (
        "'/' has no finite value where its divisor is 0, which the ranges of its quantities let in" in found
    )


def test_a_range_that_may_be_left_is_told_with_the_payoff() -> None:
    """The payoff that leaves it furthest, and what it may come to; of a field without ends: any number."""
    low, high = doubts("deposited_share * margin * balance * cap / cap - call_cost")
    assert "'range.low' may be left by the payoff call x subscribed, which may come to -616.833 EUR" in low
    assert "'range.high' may be left by the payoff call x subscribed, which may come to 6,157.33 EUR" in high
    assert "may come to any number" in doubts("deposited_share * margin * cap * weight - call_cost")[0]


@pytest.mark.parametrize(
    ("cell", "column"),
    [
        ("deposited_share / 0 * margin * cap - call_cost", 17),
        ("cap / (deposited_share - 0.25) * margin - call_cost", 5),
        ("1e300 * 1e300 * deposited_share * margin * cap - call_cost", 7),
    ],
)
def test_what_never_has_a_value_is_an_error_at_its_place(cell: str, column: int) -> None:
    """Constants and named quantities alone make it so: no row is needed to refuse it, when the file is read."""
    with pytest.raises(PolicyError) as caught:
        load_utility(TEXT.replace(CELL, cell), "u.yaml")
    (issue,) = caught.value.issues
    assert (issue.line, issue.column) == (LINE, START + column - 1)
    assert "has no finite value" in issue.message


def test_a_misspelled_quantity_is_named_beside_the_one_that_nobody_reads() -> None:
    """`margn` is no field of any contract; the quantity it was meant for says so."""
    with pytest.raises(
        PolicyError, match=r"is read by no payoff: 'margin'; did a payoff mean it by 'margn'\?"
    ):
        load_utility(TEXT.replace(CELL, CELL.replace("margin", "margn")), "u.yaml")


def test_a_text_in_a_payoff_is_an_error_at_its_cell() -> None:
    """A category has no number; the kind is named."""
    text = TEXT.replace(CELL, CELL.replace("balance", "job"))
    (issue,) = text_fields(load_utility(text, "u.yaml"), load_document(text, "u.yaml"), {"job": "category"})
    assert issue.line == LINE
    assert issue.message == "must read numbers: 'job' is a category"
