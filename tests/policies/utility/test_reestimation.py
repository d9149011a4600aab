"""Promises of re-estimation: measured amounts give each quantity with an honest interval; people sign the change."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from policies.language.yaml_source import PolicyError
from policies.utility.proposal import propose
from policies.utility.reestimation import Amounts, Estimate, reestimate
from policies.utility.utility import UtilityError, UtilitySpec, load_utility

TEXT = (Path(__file__).parents[3] / "policies" / "telemarketing" / "utility.yaml").read_text(encoding="utf-8")
SPEC = load_utility(TEXT, "utility.yaml")
DAY = date(2026, 11, 22)


def deposits(n: int, *, share: float, seed: int) -> Amounts:
    """Deposits of n customers: a share of the balance up to 5,000 EUR that varies from 0 to twice its mean."""
    draw = np.random.default_rng(seed)
    balance = draw.lognormal(6.5, 1.2, n) - 100
    return Amounts(np.clip(balance, 0, 5000) * draw.uniform(0, 2 * share, n), {"balance": balance})


def estimates(measured: dict[str, Amounts], utility: UtilitySpec = SPEC) -> dict[str, Estimate]:
    return {one.quantity.name: one for one in reestimate(utility, measured)}


def test_a_quantity_is_the_sum_of_amounts_over_the_sum_of_what_they_are_per() -> None:
    """A ratio of sums, because payoffs are sums: a rich customer counts for more; without `per` it is the mean."""
    found = estimates(
        {
            "deposited": Amounts(np.tile([100.0, 900.0], 20), {"balance": np.tile([1000.0, 9000.0], 20)}),
            "call_cost": Amounts(np.tile([1.0, 2.0], 20), {}),
        }
    )
    assert found["deposited_share"].value == pytest.approx(1000 / 6000)  # 9,000 EUR count as the cap, 5,000
    assert found["call_cost"].value == pytest.approx(1.5)
    assert found["call_cost"].n == 40


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Over 500 samples of 200 skewed amounts: 95 %, within what chance and skewness allow."""
    held = []
    for seed in range(500):
        one = estimates({"deposited": deposits(200, share=0.3, seed=seed)})["deposited_share"]
        assert one.low is not None
        assert one.high is not None
        held.append(one.low <= 0.3 <= one.high)
    assert 0.92 <= np.mean(held) <= 0.98


@pytest.mark.parametrize(
    ("share", "finding"), [(0.25, "agrees"), (0.31, "moved"), (0.5, "outside its range")]
)
def test_a_finding_says_where_the_estimate_lies(share: float, finding: str) -> None:
    """0.25 is stated, 0.15 to 0.35 allowed."""
    assert (
        estimates({"deposited": deposits(4_000, share=share, seed=1)})["deposited_share"].finding == finding
    )


def test_too_little_says_so() -> None:
    """29 amounts are no estimate, none at all is another matter, and a quantity that nothing measures is not there."""
    found = estimates({"call_cost": Amounts(np.ones(29), {})})
    assert {name: (one.finding, one.n, one.value) for name, one in found.items()} == {
        "call_cost": ("too few", 29, None),
        "deposited_share": ("not measured", 0, None),
    }


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        (Amounts(np.full(40, np.nan), {"balance": np.ones(40)}), "must be finite: nan in row 0"),
        (Amounts(np.ones(40), {"balance": np.full(40, -5.0)}), "sums to nothing over 40 decisions"),
        (Amounts(np.ones(40), {"balance": np.full(40, np.inf)}), "field 'balance' must be finite"),
        (Amounts(np.ones(40), {"income": np.ones(40)}), "field 'balance' is not among the columns"),
    ],
)
def test_what_cannot_be_estimated_is_an_error_with_its_place(amounts: Amounts, message: str) -> None:
    """Amounts and what they are per are numbers, and there is something to divide by."""
    with pytest.raises(UtilityError, match="deposited_share") as caught:
        estimates({"deposited": amounts})
    assert message in str(caught.value)


def test_a_proposal_changes_numbers_and_waits_for_a_name() -> None:
    """Value and version change, the range is widened to hold the interval, comments stay; the changelog's `who` is
    empty, which the loader refuses at its line, and once it is signed the file means what was measured."""
    found = reestimate(SPEC, {"deposited": deposits(3_000, share=0.36, seed=2)})
    share = found[1]
    assert share.value is not None
    assert share.high is not None
    proposal = propose(TEXT, "utility.yaml", found, on=DAY)
    assert proposal is not None
    assert proposal.open_issues == ()
    with pytest.raises(PolicyError, match=r"changelog\[0\].who"):
        load_utility(proposal.text, "utility.yaml")
    signed = load_utility(proposal.text.replace('who: ""', "who: Ann"), "utility.yaml")
    (quantity,) = (one for one in signed.quantities if one.name == "deposited_share")
    assert quantity.value == pytest.approx(share.value, rel=2e-3)
    assert quantity.range is not None
    assert quantity.range == pytest.approx((0.15, share.high), rel=2e-3)
    assert (signed.version, signed.changelog[0].date) == (SPEC.version + 1, DAY)
    assert "deposited_share 0.25 → 0.36" in signed.changelog[0].why
    assert [one.weight for one in signed.stakeholders] == [one.weight for one in SPEC.stakeholders]
    old, new = TEXT.splitlines(), proposal.text.splitlines()
    assert len(new) == len(old) + 4
    assert len(set(old) - set(new)) == 3  # version, value, sensitivity
    assert [line for line in new if line.startswith("#")] == [line for line in old if line.startswith("#")]


def test_nothing_that_agrees_is_proposed() -> None:
    """No patch where the stated numbers lie in their intervals, or too little is known."""
    agreeing = reestimate(SPEC, {"deposited": deposits(300, share=0.25, seed=3)})
    assert propose(TEXT, "utility.yaml", agreeing, on=DAY) is None


def test_what_a_person_must_mend_besides_is_said() -> None:
    """A dearer call leaves the declared range of payoffs: the patch is there, and so is the line that must follow."""
    found = reestimate(SPEC, {"call_cost": Amounts(np.full(50, 1.2) + np.tile([-0.1, 0.1], 25), {})})
    proposal = propose(TEXT, "utility.yaml", found, on=DAY)
    assert proposal is not None
    assert [
        "must hold the payoff call x not_subscribed, -1.2" in str(one) for one in proposal.open_issues
    ] == [True]


def test_a_measure_is_checked_when_the_file_is_read() -> None:
    """What cannot be computed is refused at its place: grammar, and a quantity measured by itself."""
    for per, message in (
        ("clip(balance, 0)", "clip takes 3 arguments: 2"),
        ("balance * deposited_share", "must not read the quantity that it measures: 'deposited_share'"),
    ):
        with pytest.raises(PolicyError) as caught:
            load_utility(
                TEXT.replace("clip(balance, 0, cap)}", f"{per}}}").replace(
                    'per: "clip(balance, 0, cap)"', f'per: "{per}"'
                ),
                "utility.yaml",
            )
        assert [(one.path, message in one.message) for one in caught.value.issues] == [
            ("quantities[1].measured.per", True)
        ]
