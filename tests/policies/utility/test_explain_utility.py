"""Promises of `utility explain`: its thresholds are the engine's, and nothing that the file says is left out."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from policies.operating.operating_point import threshold_of
from policies.utility.explain_utility import explain_utility, region_sentence
from policies.utility.thresholds import Typical, regions, threshold_map, typical_rows
from policies.utility.utility import best_action, load_utility
from policies.utility.varied_payoffs import parameters_of

FILE = Path(__file__).parents[3] / "policies" / "telemarketing" / "utility.yaml"
TEXT = FILE.read_text(encoding="utf-8")
SPEC = load_utility(TEXT, "utility.yaml")
TYPICAL = (Typical("balance", 0.0, 448.0, 3574.0, -627.0, 13_165.0),)
TODAY = date(2026, 11, 22)

THREE = """
service: credit
version: 1
owner: Test
reviewBy: 2026-01-01
unit: EUR
actions: [approve, refer, decline]
outcomes: [repaid, lost]
defaultAction: decline
outcomeKnownAfter: [approve, refer]
range: {low: -5000, high: 500}
stakeholders:
  - name: bank
    weight: 1
    why: Test.
    payoffs:
      approve: {repaid: 0.1 * amount, lost: -amount}
      refer: {repaid: 0.1 * amount - 20, lost: -20}
      decline: {repaid: 0, lost: 0}
domains: []
constraints: []
changelog:
  - {version: 1, date: 2026-01-01, who: Test, why: Test.}
"""


def said(utility_text: str = TEXT, typical: tuple[Typical, ...] = TYPICAL) -> str:
    sections = explain_utility(
        load_utility(utility_text, "utility.yaml"), typical, today=TODAY, typical_of="45,211 rows"
    )
    return "\n".join(line for section in sections for line in (f"# {section.title}", *section.lines))


def test_typical_rows_have_the_engine_s_threshold() -> None:
    """Low, median and high of the field; the action turns where threshold_of says, and never where it says never."""
    rows = typical_rows(SPEC, TYPICAL)
    assert [row.values["balance"] for row in rows] == [0.0, 448.0, 3574.0]
    thresholds = threshold_of(SPEC.payoffs({"balance": np.array([0.0, 448.0, 3574.0])}))
    assert [one.action for one in rows[0].regions] == ["leave"]
    assert np.isinf(thresholds[0])
    for row, threshold in zip(rows[1:], thresholds[1:], strict=True):
        assert [one.action for one in row.regions] == ["leave", "call"]
        assert row.regions[1].start == pytest.approx(threshold)


def test_regions_of_three_actions_are_those_of_the_best_action() -> None:
    """Approve, refer, decline: between two starts the reference picks the region's action."""
    spec = load_utility(THREE, "utility.yaml")
    payoffs = spec.payoffs({"amount": np.array([1000.0])})
    found = regions(payoffs[0], spec)
    assert [one.action for one in found] == ["approve", "refer", "decline"]
    starts = np.array([one.start for one in found])
    for chance in np.linspace(0.0005, 0.9995, 400):
        best = best_action(payoffs, np.array([[1 - chance, chance]]), default_action=spec.default_index)[0]
        assert spec.actions[best] == found[int(np.searchsorted(starts, chance)) - 1].action


def test_everything_that_the_file_says_is_said() -> None:
    """Each stakeholder, constraint with its owner, number in doubt and change; and the threshold of a median row."""
    text = said()
    for one in SPEC.constraints:
        assert f"{one.name}: " in text
        assert f"{SPEC.domains[one.domain].owner} answers for it ({one.domain})" in text
        assert one.rationale in text
    for number in parameters_of(SPEC):
        assert f"{number.name} is {number.stated:g} " in text
    assert all(one.why in text for one in (*SPEC.stakeholders, *SPEC.quantities, *SPEC.changelog))
    assert "balance 448: call from P(subscribed) = 0.362 on, leave below." in text
    assert "balance 0: leave, whatever P(subscribed) is." in text
    assert "at balance 448 gains 1.759" in text
    assert "to be reviewed by 2027-06-30." in text
    assert "overdue" not in text
    assert "At the medians call from P = 0.362; at its low end P = 0.181, at its high end P = 0.725" in text
    assert text.index("call_cost is 1") < text.index("margin is") < text.index("cap is 5000")


def test_what_measures_a_number_afterwards_is_said() -> None:
    """A mean, or one sum over another; a file that names no amount says nothing of it."""
    text = said()
    assert "call_cost: the mean of the amount call_cost that outcomes carry." in text
    assert (
        "deposited_share: over the sum of clip(balance, 0, cap), the sum of the amount deposited that outcomes carry."
        in text
    )
    assert "measured afterwards" not in said(THREE, (Typical("amount", 100.0, 500.0, 900.0, 0.0, 1000.0),))


def test_more_actions_and_an_overdue_review_are_said_as_well() -> None:
    """Three actions give two turns; a review that was due is called overdue."""
    text = said(THREE, (Typical("amount", 200.0, 1000.0, 3000.0, 100.0, 5000.0),))
    assert "It is overdue." in text
    row = typical_rows(load_utility(THREE, "u"), (Typical("amount", 200.0, 1000.0, 3000.0, 0.0, 0.0),))[1]
    assert region_sentence(row.regions, outcome="lost") in text
    assert "decline from P(lost) = " in text


def test_three_outcomes_have_no_threshold_but_certain_ends() -> None:
    """With three outcomes each row is said by what would be done if one of them were certain."""
    text = THREE.replace("[repaid, lost]", "[repaid, late, lost]").replace(
        "lost: -amount", "late: 0, lost: -amount"
    )
    text = text.replace("lost: -20", "late: -20, lost: -20").replace("lost: 0", "late: 0, lost: 0")
    found = said(text, (Typical("amount", 200.0, 1000.0, 3000.0, 100.0, 5000.0),))
    assert "amount 1,000: approve if repaid were certain, approve if late were certain" in found


def test_the_map_is_the_best_action_with_a_band_around_its_threshold() -> None:
    """The picture's regions, line and band agree: the line divides the regions, the band holds it."""
    found = threshold_map(SPEC, TYPICAL, "balance", seed=1)
    assert found.threshold is not None
    assert found.band_low is not None
    assert found.band_high is not None
    called = (found.best == 1).any(axis=1)
    first = found.chances[(found.best == 1).argmax(axis=1)]
    line = found.threshold[called]
    assert ((first[called] >= line) & (first[called] - line <= found.chances[1] + 1e-9)).all()
    assert (found.band_low <= found.threshold).all()
    assert (found.threshold <= found.band_high).all()


def test_typical_values_are_quantiles_of_what_is_there() -> None:
    """Missing values do not count, and a field without any is an error."""
    one = Typical.of("x", np.array([np.nan, *range(101)]))
    assert (one.low, one.median, one.high) == (10.0, 50.0, 90.0)
    with pytest.raises(ValueError, match="'x' must have a value"):
        Typical.of("x", np.array([np.nan]))


def test_every_kind_of_constraint_and_every_extra_is_said() -> None:
    """Ten kinds of bounds, abstention, satisfaction and hypotheses, each in its own words; large numbers as digits."""
    text = (Path(__file__).parents[1] / "lending.yaml").read_text(encoding="utf-8")
    spec = load_utility(text, "lending.yaml")
    highest = {"amount": 20_000.0, "thin_file": 1.0}
    typical = tuple(Typical(field, 0.0, 1.0, highest.get(field, 24.0), 0.0, 24.0) for field in spec.fields)
    found = said(text, typical)
    assert all(f"{one.name}: " in found for one in spec.constraints)
    for words in (
        "refer at most 300 times in 1000 decisions, which come in 1 day",
        "99 % of answers come within 250 ms",
        "the share of decline among those who turn out repaid differs by at most 5 points between sex = F and",
        "the share of repaid among those with approve is at least 80 %",
        "Where the best action is uncertain it is refer, in at most 10 % of decisions",
        "Users' satisfaction is complaints_per_1000, in complaints per 1,000 decisions, lower is better",
        "What the lender gains by approve, defaulted may be off by a factor from 0.7 to 1.4",
        "at amount 20,000 gains 1,600",
    ):
        assert words in found
    assert all(one.statement in found for one in spec.hypotheses)
