"""Promises of one gate's evidence: the test follows from metric and compareTo; impossible evidence is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.gates.evidence import CountBlock, UtilityBlock
from policies.gates.gate_evidence import GateEvidence
from policies.gates.gate_tests import CountProcess, TwoSidedProcess
from policies.rollout.rollout_policy import Gate, load_rollout
from policies.sequential.mixture import EffectTest

YAML = Path(__file__).parents[3] / "policies" / "telemarketing" / "rollout.yaml"
GATES = {
    gate.name: gate for gate in load_rollout(YAML.read_text(encoding="utf-8"), "rollout.yaml").live_gates
}
RATIO = replace(GATES["errors"], compare_to="champion", max=None, tolerance=1.0, ni_margin=1.5, scale="ratio")


def evidence_of(gate: Gate) -> GateEvidence:
    evidence = GateEvidence(gate, 0.01, 0.05, planned_stages=3, payoff_range=(-1.0, 29.8))
    evidence.enter_stage(25.0)
    return evidence


def kind_of_test(process: object) -> str:
    """The test within a process, by name; of an F1 test also its effect and side."""
    if isinstance(process, TwoSidedProcess):
        return f"{kind_of_test(process.more)} and {kind_of_test(process.fewer)}"
    if isinstance(process, CountProcess):
        return type(process.test).__name__
    if isinstance(process, EffectTest):
        return f"{type(process.sums).__name__} {process.side} {process.null:g}"
    return type(process).__name__


SHIFT = replace(RATIO, metric="action_rate", scale="ratio")
PER_ACTION = replace(GATES["utility"], metric="utility_per_action", tolerance=0.1, ni_margin=0.5, where="all")
GAP_SHIFT = replace(
    GATES["call-rate-gap"], compare_to="champion", max=None, scale="absolute", tolerance=0.0, ni_margin=0.1
)


@pytest.mark.parametrize(
    ("gate", "advance", "rollback"),
    [
        (GATES["errors"], "BoundTest", "BoundTest"),
        (GATES["utility"], "BettingTest", "BettingTest"),
        (GATES["call-rate-gap"], "RateContrast within 0.2", "RateContrast beyond 0.2"),
        (GAP_SHIFT, "RateContrast within 0.1", "RateContrast beyond 0"),
        (RATIO, "ShareTest", "TwoByTwoTest"),
        (replace(RATIO, tolerance=1.1), "ShareTest", "ShareTest"),
        (
            replace(RATIO, scale="absolute", tolerance=0.01, ni_margin=0.02),
            "RateContrast below 0.02",
            "RateContrast above 0.01",
        ),
        (SHIFT, "ShareTest and ShareTest", "TwoByTwoTest and TwoByTwoTest"),
        (
            replace(SHIFT, scale="absolute", tolerance=0.05, ni_margin=0.1),
            "RateContrast within 0.1",
            "RateContrast beyond 0.05",
        ),
        (PER_ACTION, "RatioContrast above -0.5", "RatioContrast below -0.1"),
    ],
)
def test_metric_and_comparison_choose_the_test(gate: Gate, advance: str, rollback: str) -> None:
    """As gates.md says: bound F6; ratio F2 or F3; absolute, ratio metric, gaps F1; utility F4; shifts two-sided."""
    evidence = evidence_of(gate)
    assert (kind_of_test(evidence.advance), kind_of_test(evidence.carried)) == (advance, rollback)


@pytest.mark.parametrize(("events", "passes", "fails"), [(3, True, False), (9, False, True)])
def test_rate_against_champion(events: int, passes: bool, fails: bool) -> None:
    """Equal rates pass a ratio margin of 1.5 and never fail; a tripled rate fails and never passes."""
    evidence = evidence_of(RATIO)
    for _ in range(60):
        evidence.observe(CountBlock(events, 50, 9, 150))
    assert (evidence.advance_log_e >= evidence.advance_limit) is passes
    assert (evidence.rollback_log_e >= evidence.rollback_limit) is fails
    assert evidence.observed()[0] == pytest.approx(events / 3)


def test_a_lower_bound_counts_the_others() -> None:
    """`min: 0.95` on a rate is judged as `max: 0.05` on its complement."""
    lower = evidence_of(replace(GATES["errors"], max=None, min=0.95))
    upper = evidence_of(GATES["errors"])
    lower.observe(CountBlock(198, 200))
    upper.observe(CountBlock(2, 200))
    assert lower.advance_log_e == pytest.approx(upper.advance_log_e, rel=1e-9)
    assert lower.rollback_log_e == pytest.approx(upper.rollback_log_e, rel=1e-9)


@pytest.mark.parametrize("gate", [SHIFT, replace(SHIFT, scale="absolute", tolerance=0.05, ni_margin=0.1)])
@pytest.mark.parametrize("acted", [20, 60])
def test_a_shift_either_way_is_one(gate: Gate, acted: int) -> None:
    """The action rate against the champion: half as many and half as many again both roll back, and neither passes."""
    evidence = evidence_of(gate)
    for _ in range(60):
        evidence.observe(CountBlock(acted, 100, 120, 300))
    assert evidence.rollback_log_e >= evidence.rollback_limit
    assert evidence.advance_log_e < 0


def test_a_canary_without_errors_passes_an_absolute_margin() -> None:
    """Absolute margin of 2 points, stable at 1 %: no error among 1,000 canary requests is enough to pass."""
    evidence = evidence_of(replace(RATIO, scale="absolute", tolerance=0.0, ni_margin=0.02))
    for _ in range(20):
        evidence.observe(CountBlock(0, 50, 2, 150))
    assert evidence.advance_log_e >= evidence.advance_limit


def test_masked_payoffs_may_be_zero_where_no_payoff_is() -> None:
    """Where units on which both act alike count 0, the range is taken to hold 0; unmasked it is the spec's own."""
    gate = replace(GATES["utility"], where="disagreement")
    for where, width in (("disagreement", 5.0), ("all", 3.0)):
        evidence = GateEvidence(replace(gate, where=where), 0.01, 0.05, 3, (2.0, 5.0))  # type: ignore[arg-type]
        assert evidence.width == width


def test_masked_and_full_payoffs_are_each_read_where_the_gate_says() -> None:
    """One block serves gates on all units and gates on disagreement: each reads its own payoffs from it."""
    plain = UtilityBlock(np.full(4, 2.0), np.full(12, 1.0))
    block = UtilityBlock(np.zeros(4), np.zeros(12), plain)
    for where, mean in (("disagreement", 0.0), ("all", 1.0)):
        evidence = evidence_of(replace(GATES["utility"], where=where))  # type: ignore[arg-type]
        evidence.observe(block)
        assert evidence.observed()[0] == pytest.approx(mean)
