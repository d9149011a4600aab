"""Promises of one gate's evidence: the test follows from metric and compareTo; impossible evidence is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from policies.evidence import CountBlock
from policies.gate_evidence import GateEvidence
from policies.rollout_policy import Gate, load_rollout
from policies.statistics import BettingTest, BoundTest, GapTest, ShareTest, TwoByTwoTest

YAML = Path(__file__).parents[2] / "policies" / "telemarketing" / "rollout.yaml"
GATES = {
    gate.name: gate for gate in load_rollout(YAML.read_text(encoding="utf-8"), "rollout.yaml").live_gates
}
RATIO = replace(GATES["errors"], compare_to="champion", max=None, tolerance=1.0, ni_margin=1.5)


def evidence_of(gate: Gate) -> GateEvidence:
    evidence = GateEvidence(gate, 0.01, 0.05, planned_stages=3, payoff_range=(-1.0, 29.8))
    evidence.enter_stage(25.0)
    return evidence


@pytest.mark.parametrize(
    ("gate", "advance", "rollback"),
    [
        (GATES["errors"], BoundTest, BoundTest),
        (GATES["utility"], BettingTest, BettingTest),
        (GATES["call-rate-gap"], GapTest, GapTest),
        (RATIO, ShareTest, TwoByTwoTest),
        (replace(RATIO, tolerance=1.1), ShareTest, ShareTest),
    ],
)
def test_metric_and_comparison_choose_the_test(gate: Gate, advance: type, rollback: type) -> None:
    """Bound: F6; utility: F4; gap: F1; rate against champion: F2 to advance, F3 (or F2 with a margin) to roll back."""
    evidence = evidence_of(gate)
    assert (type(evidence.advance), type(evidence.carried)) == (advance, rollback)


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
