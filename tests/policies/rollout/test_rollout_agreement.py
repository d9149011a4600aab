"""Promises of rollout.yaml beside utility.yaml: what each may say alone, but not together."""

from dataclasses import replace
from pathlib import Path

import pytest

from policies.language.yaml_source import load_document
from policies.rollout.rollout_agreement import rollout_errors_beside, rollout_warnings_beside
from policies.rollout.rollout_policy import load_rollout
from policies.utility.utility import load_utility

FOLDER = Path(__file__).parents[3] / "policies" / "telemarketing"
ROLLOUT = (FOLDER / "rollout.yaml").read_text(encoding="utf-8")
UTILITY = (FOLDER / "utility.yaml").read_text(encoding="utf-8")


def beside(
    rollout: tuple[str, str] = ("", ""), utility: tuple[str, str] = ("", "")
) -> tuple[list[str], list[str]]:
    """Errors and warnings of the shipped pair with one text replaced in each."""
    assert rollout[0] in ROLLOUT
    assert utility[0] in UTILITY
    text = ROLLOUT.replace(*rollout, 1)
    spec, policy = load_utility(UTILITY.replace(*utility, 1), "u.yaml"), load_rollout(text, "r.yaml")
    document = load_document(text, "r.yaml")
    errors = rollout_errors_beside(spec, policy, document)
    return [str(one) for one in errors], [str(one) for one in rollout_warnings_beside(spec, policy, document)]


def line_of(words: str, text: str = ROLLOUT) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


def test_the_shipped_pair_agrees() -> None:
    """Neither an error nor a warning."""
    assert beside() == ([], [])


def test_a_metric_that_nobody_measures_is_named() -> None:
    """Groups and stakeholders exist only where the utility spec speaks of them."""
    spec, policy = load_utility(UTILITY, "u.yaml"), load_rollout(ROLLOUT, "r.yaml")
    strangers = tuple(replace(one, name="bank") for one in spec.stakeholders)
    constraints = tuple(one for one in spec.constraints if one.kind != "action_rate_gap")
    silent = replace(spec, constraints=constraints, stakeholders=strangers)
    customer, gap = rollout_errors_beside(silent, policy, load_document(ROLLOUT, "r.yaml"))
    assert customer.line == line_of("metric: customer_utility")
    assert "nobody measures 'customer_utility' here: utility.yaml has no stakeholder 'customer'" in str(
        customer
    )
    assert gap.line == line_of("metric: call_rate_gap")
    assert "nobody measures 'call_rate_gap' here: utility.yaml has no constraint of kind" in str(gap)


def test_a_margin_as_wide_as_payoffs_can_differ_is_refused() -> None:
    """Payoffs differ by at most the width of their range: no candidate could be worse by more."""
    (issue,) = beside(rollout=("{absolute: 0.30}", "{absolute: 31}"))[0]
    assert issue.startswith(f"r.yaml:{line_of('{absolute: 0.30}')}:")
    assert "must be < 30.8, the width of the payoff range [-1, 29.8] in utility.yaml" in issue


def test_a_range_that_starves_the_bets_is_a_warning_then_an_error() -> None:
    """A balance without a cap makes bets small: more units are wanted; where no bake brings them, it is refused."""
    errors, warnings = beside(utility=("high: 29.8", "high: 145"))
    assert errors == []
    (starved,) = [one for one in warnings if "its bets are starved" in one]
    assert "payoffs range over [-1, 145] (utility.yaml)" in starved
    assert starved.startswith(f"r.yaml:{line_of('{absolute: 0.30}')}:")
    errors, _ = beside(utility=("high: 29.8", "high: 2980"))
    for error in (one for one in errors if "'gates[13].niMargin'" in one):
        assert "its bets are starved: payoffs range over [-1, 2980] (utility.yaml)" in error
        assert "at 25% of 200 requests a second gate 'utility' needs about" in errors[0]
        assert "Cap the payoffs in utility.yaml" in error
    assert {one.split("'")[1] for one in errors} == {"gates[13].niMargin"}
    assert errors[0].startswith(f"r.yaml:{line_of('{absolute: 0.30}')}:")


@pytest.mark.parametrize(("margins", "key"), [((29, 29.5), "tolerance"), ((0, 29.5), "niMargin")])
def test_a_margin_of_half_the_payoff_range_is_refused(margins: tuple[float, float], key: str) -> None:
    """No release that anyone would try is worse by so much: the gate could never fail, or never hold one back."""
    tolerance = "{absolute: 0}      #"
    assert tolerance in ROLLOUT
    text = ROLLOUT.replace(tolerance, f"{{absolute: {margins[0]}}} #").replace(
        "{absolute: 0.30}", f"{{absolute: {margins[1]}}}"
    )
    spec, policy = load_utility(UTILITY, "u.yaml"), load_rollout(text, "r.yaml")
    (issue,) = (str(one) for one in rollout_errors_beside(spec, policy, load_document(text, "r.yaml")))
    assert f"'gates[13].{key}.absolute' can never " in issue
    assert "payoffs range over [-1, 29.8] (utility.yaml), and no release that anyone would try" in issue


@pytest.mark.parametrize(("bound", "is_refused"), [("0.25", True), ("0.15", False)])
def test_a_bound_laxer_than_what_was_signed_is_refused(bound: str, is_refused: bool) -> None:
    """The gate on the call-rate gap may be stricter than the constraint, not laxer."""
    errors, _ = beside(rollout=("    max: 0.20 ", f"    max: {bound} "))
    assert [("must be <= 0.2, the bound of constraint 'call_rate_gap_by_age'" in one) for one in errors] == [
        True
    ] * is_refused


def test_a_rate_of_one_action_among_several_binds_no_gate_on_all_of_them() -> None:
    """`action_rate` counts every action but the default: with three actions 0.8 may be right beside 0.6 for one."""
    gate = """  - name: acts
    metric: action_rate
    compareTo: bound
    max: 0.8
    runsIn: [shadow, canary]
    onFail: hold
    onMissing: hold
    onError: hold
    rationale: Of this test alone.
"""
    text = ROLLOUT.replace("gates:\n", f"gates:\n{gate}", 1)
    spec, policy = load_utility(UTILITY, "u.yaml"), load_rollout(text, "r.yaml")
    document = load_document(text, "r.yaml")
    (issue,) = rollout_errors_beside(spec, policy, document)
    assert "must be <= 0.6, the bound of constraint 'calls_made'" in issue.message
    more = replace(spec, actions=(*spec.actions, "write"))
    assert rollout_errors_beside(more, policy, document) == []


@pytest.mark.parametrize(
    ("within", "share", "says"),
    [
        ("250ms", 0.95, []),
        ("1s", 0.9, []),
        (
            "250ms",
            0.99,
            ["gates[12].max", "must be <= 0.01, as constraint 'fast'", "longer than 250ms: 0.05"],
        ),
        (
            "100ms",
            0.9,
            ["gates[12].budget", "must be <= 100ms", "lets 0.1 of the answers", "longer than 100ms: 250ms"],
        ),
        (
            "300ms",
            0.99,
            ["'gates' must hold one that judges constraint 'fast'", "`budget: 300ms`, `max: 0.01`"],
        ),
    ],
)
def test_a_latency_constraint_is_judged_by_a_gate_as_strict(
    within: str, share: float, says: list[str]
) -> None:
    """Only live traffic can tell latency: `slow` (at most 5 % above 250 ms) must be at least as strict as what was
    signed, else the error says at which key, or that a gate is lacking."""
    fast = f"  - {{name: fast, kind: latency, domain: safety, atMost: {within}, share: {share}, rationale: The form}}\n"
    errors, _ = beside(utility=("  - name: earns_its_calls\n", f"{fast}  - name: earns_its_calls\n"))
    assert len(errors) == bool(says)
    assert all(part in errors[0] for part in says)


def test_a_latency_constraint_without_a_gate_is_refused() -> None:
    """A dry run acts on nothing, so it judges nothing either."""
    fast = "  - {name: fast, kind: latency, domain: safety, atMost: 1s, share: 0.9, rationale: The form}\n"
    errors, _ = beside(
        rollout=("    minSamples: 50\n    requiredFrom: 25%\n    onFail", "    dryRun: true\n    onFail"),
        utility=("  - name: earns_its_calls\n", f"{fast}  - name: earns_its_calls\n"),
    )
    assert len(errors) == 1
    assert "must hold one that judges constraint 'fast'" in errors[0]


def test_a_second_gap_that_no_gate_judges_is_pointed_out() -> None:
    """The live metric knows one pair of groups, the first; nobody watches the other constraint on live traffic."""
    second = """  - name: gap_by_balance
    kind: action_rate_gap
    domain: compliance
    action: call
    groups: {field: balance, upTo: 0}
    atMost: 0.5
    rationale: Of this test alone.
"""
    _, warnings = beside(
        utility=("# What is expected, registered", f"{second}# What is expected, registered")
    )
    assert len(warnings) == 1
    assert "judges the groups of constraint 'call_rate_gap_by_age' alone" in warnings[0]
    assert "live nobody judges gap_by_balance" in warnings[0]
