"""Promises of scenarios.yaml as a file: every key is meant, every mistake has its place, bounds are inclusive."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from policies.language.yaml_source import PolicyError, load_document
from policies.utility.scenarios import KnownField, Rows, load_scenarios, scenario_errors_beside
from policies.utility.utility import load_utility

FOLDER = Path(__file__).parents[3] / "policies" / "telemarketing"
TEXT = (FOLDER / "scenarios.yaml").read_text(encoding="utf-8")
LINES = TEXT.splitlines()
UTILITY = load_utility((FOLDER / "utility.yaml").read_text(encoding="utf-8"), "utility.yaml")
FIELDS = {
    "age": KnownField(True),
    "balance": KnownField(True),
    "pdays": KnownField(True),
    "previous": KnownField(True),
    "poutcome": KnownField(False, ("success", "failure", "other", "unknown")),
    "contact": KnownField(False, None),
    "job": KnownField(False, ("student", "retired")),
}
KEY = re.compile(r"^(?P<before>\s*(?:- )?)(?P<key>\w+):(?=\s|$)")
KEYED = [number for number, line in enumerate(LINES, start=1) if KEY.match(line)]
REMOVABLE = [  # without those that open a list or a mapping, which takes more than its line away
    number
    for number in KEYED
    if "- " not in LINES[number - 1][:6] and LINES[number - 1].split(":", 1)[1].split("#")[0].strip()
]


def beside(text: str) -> list[str]:
    """What is wrong beside the utility spec and the fields."""
    found, document = load_scenarios(text, "scenarios.yaml"), load_document(text, "scenarios.yaml")
    return [str(issue) for issue in scenario_errors_beside(UTILITY, found, document, fields=FIELDS)]


@pytest.mark.parametrize("number", KEYED)
def test_a_misspelled_key_is_named_with_its_line(number: int) -> None:
    """Each key of the shipped file, misspelled, is an unknown key at its own line."""
    match = KEY.match(LINES[number - 1])
    assert match is not None
    wrong = match["key"] + "x"
    lines = list(LINES)
    lines[number - 1] = KEY.sub(rf"\g<before>{wrong}:", lines[number - 1])
    with pytest.raises(PolicyError) as caught:
        load_scenarios("\n".join(lines), "scenarios.yaml")
    if match["key"] == "kind":  # without it nobody can tell which keys are known
        assert any(issue.line <= number and "kind" in str(issue) for issue in caught.value.issues)
        return
    unknown = [issue for issue in caught.value.issues if f"unknown key '{wrong}'" in issue.message]
    assert [(issue.source, issue.line) for issue in unknown] == [("scenarios.yaml", number)]


@pytest.mark.parametrize("number", REMOVABLE)
def test_a_removed_key_is_missed(number: int) -> None:
    """No key of the file is decoration: without its line the file is refused, or (a dry run, whom it is for) means
    something else."""
    without = "\n".join([*LINES[: number - 1], *LINES[number:]])
    if "dryRun" in LINES[number - 1] or "appliesTo" in LINES[number - 1]:
        assert load_scenarios(without, "s").digest != load_scenarios(TEXT, "s").digest
        return
    with pytest.raises(PolicyError):
        load_scenarios(without, "scenarios.yaml")


def test_the_shipped_file_fits_its_service() -> None:
    """Every kind of scenario has an example, and every name in it is known."""
    found = load_scenarios(TEXT, "scenarios.yaml")
    assert beside(TEXT) == []
    kinds = {"covariate_shift", "prior_shift", "noise", "missing_fields"}
    kinds |= {"demand_spike", "delayed_labels", "adversarial", "slice"}
    assert {one.kind for one in found.scenarios} == kinds
    assert [one.name for one in found.scenarios if one.dry_run] == ["half_as_many_subscribers_still_pay"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{field: age, upTo: 30}",
            "{field: agee, upTo: 30}",
            "'scenarios[0].rows.field' must be one of 'age'",
        ),
        ("{field: age, upTo: 30}", "{field: contact, upTo: 30}", "must be compared by 'value', it is a text"),
        ("value: student", "value: studnt", "did you mean 'student'"),
        ("outcome: subscribed", "outcome: subscribes", "must be one of 'not_subscribed', 'subscribed'"),
        ("action: call", "action: leave", "'scenarios[8].action' must be one of 'call': 'leave'"),
        ("constraint: call_rate_gap_by_age", "constraint: gap", "must be one of 'earns_its_calls'"),
        ("fields: [balance]", "fields: [balanc]", "'scenarios[5].fields[0]' must be one of"),
        (
            "contact]\n    size: 0.1",
            "contact]\n    size: 1.5",
            "must be at most 1, the share of swapped rows",
        ),
        (
            "{field: balance, amount: 100}",
            "{field: contact, amount: 100}",
            "'scenarios[10].nudges[0].field' must",
        ),
    ],
)
def test_a_name_that_nobody_knows_is_refused_where_it_stands(old: str, new: str, message: str) -> None:
    """Fields, outcomes, actions and constraints are those of the contract and the utility spec."""
    assert old in TEXT
    issues = beside(TEXT.replace(old, new, 1))
    assert len(issues) == 1
    assert message in issues[0]
    line = next(
        n
        for n, text in enumerate(TEXT.replace(old, new, 1).splitlines(), start=1)
        if new.split("\n")[-1] in text
    )
    assert issues[0].startswith(f"scenarios.yaml:{line}:")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{field: age, upTo: 30}", "{field: age}", "must have exactly one of 'upTo', 'from'"),
        (
            "    atMost: 300\n",
            "    atMost: 300\n    atLeast: 0\n",
            "must have exactly one of 'atLeast' and 'atMost'",
        ),
        ("measure: constraint\n", "measure: utility\n", "must have 'constraint' with 'measure: constraint'"),
        ("measure: regret", "measure: regrets", "regrets"),
        (
            "measure: gain_over_trivial\n    atLeast: -0.30",
            "measure: flipped\n    atMost: 1",
            "cannot be 'flipped'",
        ),
        ("name: rich_customers", "name: balance_made_up", "must be unique: 'balance_made_up'"),
        ("by: 5d", "by: 5", "must be"),
        ("times: 2\n    hypothesis: With", "times: 1\n    hypothesis: With", "must be > 1"),
    ],
)
def test_a_scenario_that_cannot_be_meant_is_refused(old: str, new: str, message: str) -> None:
    """Forms, bounds and measures are checked when the file is read."""
    assert old in TEXT
    with pytest.raises(PolicyError) as caught:
        load_scenarios(TEXT.replace(old, new, 1), "scenarios.yaml")
    assert any(message in str(issue) for issue in caught.value.issues), str(caught.value)


def test_a_recalibrated_release_stands_all_but_what_its_weights_stood() -> None:
    """`appliesTo: trained` leaves one out, and nothing else."""
    found = load_scenarios(TEXT, "scenarios.yaml")
    left_out = set(found.scenarios) - set(found.for_recalibrated().scenarios)
    assert [one.name for one in left_out] == ["outcomes_come_late"]


def test_bounds_hold_at_their_value_and_nothing_holds_without_one() -> None:
    """Inclusive on both sides; no value and no number do not hold."""
    by_name = {one.name: one for one in load_scenarios(TEXT, "scenarios.yaml").scenarios}
    least, most = by_name["campaign_among_the_young"], by_name["twice_as_many_subscribers"]
    assert [least.is_held(x) for x in (-0.10, -0.101, None, float("nan"))] == [True, False, False, False]
    assert [most.is_held(x) for x in (300.0, 300.1)] == [True, False]


def test_rows_are_told_by_number_and_by_text() -> None:
    """A missing value is among no rows."""
    columns = {
        "age": np.array([20.0, 30.0, np.nan, 31.0]),
        "job": np.array(["a", None, "b", "a"], dtype=object),
    }
    assert Rows("age", up_to=30).among(columns).tolist() == [True, True, False, False]
    assert Rows("age", at_least=30).among(columns).tolist() == [False, True, False, True]
    assert Rows("job", value="a").among(columns).tolist() == [True, False, False, True]
