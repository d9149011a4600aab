"""Constraints: bounds that hold whatever a rule earns; what cannot be measured is not held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policies.utility.constraints import ConstraintResult, measure_constraints
from policies.utility.utility import load_utility, realised_utility

FILE = Path(__file__).parents[3] / "policies" / "telemarketing" / "utility.yaml"
SPEC = load_utility(FILE.read_text(encoding="utf-8"), "utility.yaml")


def measured(age: list[int], actions: list[int], outcomes: list[int]) -> dict[str, ConstraintResult]:
    columns = {"age": np.array(age), "balance": np.full(len(age), 1000.0)}
    taken, seen = np.array(actions, dtype=np.intp), np.array(outcomes)
    own = {
        name: realised_utility(payoffs, taken, seen)
        for name, payoffs in SPEC.stakeholder_payoffs(columns).items()
    }
    results = measure_constraints(
        SPEC.constraints,
        columns,
        actions=taken,
        action_names=SPEC.actions,
        outcomes=seen,
        outcome_names=SPEC.outcomes,
        utilities=realised_utility(SPEC.payoffs(columns), taken, seen),
        stakeholder_utilities=own,
    )
    return {result.constraint.name: result for result in results}


def test_each_kind_is_measured_by_hand() -> None:
    """Utility, a stakeholder's utility, a rate and a gap between groups, on eight decisions."""
    results = measured(
        age=[20, 25, 29, 30, 31, 40, 50, 60],
        actions=[1, 1, 0, 0, 1, 0, 0, 0],
        outcomes=[1, 0, -1, -1, 0, -1, -1, -1],
    )
    assert results["earns_its_calls"].value == pytest.approx((5.1583325 - 2) / 8)
    assert results["unwanted_calls"].value == pytest.approx(-2 / 8)
    assert results["calls_made"].value == pytest.approx(3 / 8)
    assert results["call_rate_gap_by_age"].value == pytest.approx(2 / 4 - 1 / 4)
    assert [r.is_held for r in results.values()] == [True, True, True, False]
    assert results["call_rate_gap_by_age"].sentence() == (
        "call_rate_gap_by_age: 0.25 must be <= 0.2 (n = 8): broken"
    )


def test_a_group_without_rows_is_not_held() -> None:
    """Nobody up to 30: the gap is no data, never a pass."""
    gap = measured(age=[31, 45], actions=[0, 0], outcomes=[-1, -1])["call_rate_gap_by_age"]
    assert (gap.value, gap.is_held) == (None, False)
    assert "no data" in gap.sentence()


def test_bounds_are_inclusive_and_nan_is_not_held() -> None:
    """A value at the bound holds; NaN and None never do."""
    rate = next(c for c in SPEC.constraints if c.name == "calls_made")
    assert [rate.is_held(value) for value in (0.6, 0.61, float("nan"), None)] == [True, False, False, False]


def test_groups_are_split_at_the_bound() -> None:
    """30 is among the people up to 30; a missing or non-finite age is an error, not a group."""
    gap = next(c for c in SPEC.constraints if c.name == "call_rate_gap_by_age")
    assert gap.in_group_a({"age": np.array([18, 30, 31])}).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="needs field 'age'"):
        gap.in_group_a({})
    with pytest.raises(ValueError, match="'age' must be finite: nan in row 0"):
        gap.in_group_a({"age": np.array([np.nan])})
