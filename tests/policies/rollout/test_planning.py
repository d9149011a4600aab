"""Promises of planning: the formulas of gates.md, and times that simulated gates keep to."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.gates.evidence import Block, CountBlock, GapArmsBlock, GapBlock, RatioBlock, UtilityBlock
from policies.gates.gates import GateBook
from policies.rollout.planning import (
    longest_passage_s,
    plan_gate,
    plan_rollout,
    shortest_passage_s,
)
from policies.rollout.rollout_policy import Gate, RolloutPolicy, load_rollout

POLICIES = Path(__file__).parents[3] / "policies"
SHIPPED = load_rollout((POLICIES / "telemarketing" / "rollout.yaml").read_text(encoding="utf-8"), "r.yaml")
DEMO = load_rollout(
    Path(__file__).parents[1].joinpath("every_key.yaml").read_text(encoding="utf-8"), "r.yaml"
)
STAGE = "canary-25"
UTILITY = next(gate for gate in DEMO.stage(STAGE).gates if gate.name == "utility")
BARE = replace(
    UTILITY, where="all", expected_rate=None, expected_sd=None, expected_variance_left=None, ni_margin=None
)
RANGE = (-1.0, 29.8)
Draw = Callable[[np.random.Generator, int, int], Block]


def gate_with(**changes: Any) -> Gate:
    return replace(BARE, **{"tolerance": None if "max" in changes else 0.0, **changes})


def alone(gate: Gate, weight_pct: float = 25.0) -> RolloutPolicy:
    """The demo policy with this one gate, in one stage, outcomes known at once."""
    stages = tuple(
        replace(stage, weight_pct=weight_pct, gates=(gate,))
        if stage.name == STAGE
        else replace(stage, gates=())
        for stage in DEMO.stages
    )
    return replace(DEMO, stages=stages, maturity_s=0.0)


def payoffs(generator: np.random.Generator, n: int, share: float = 0.13) -> tuple[np.ndarray, np.ndarray]:
    """Payoffs (n,) and whether the unit was acted on (n,); mostly not, then a loss of 1 or a heavy-tailed gain."""
    acted = generator.random(n) < share
    gain = 0.25 * 0.02463333 * np.clip(generator.lognormal(7.4, 1.4, n), 0, 5000) - 1
    return np.where(acted, np.where(generator.random(n) < 0.45, gain, -1.0), 0.0), acted


def counts(rate: float) -> Draw:
    return lambda g, n, m: CountBlock(g.binomial(n, rate), n, g.binomial(m, rate), m)


def utilities(g: np.random.Generator, n: int, m: int) -> Block:
    return UtilityBlock(payoffs(g, n)[0], payoffs(g, m)[0])


def where_they_differ(g: np.random.Generator, n: int, m: int) -> Block:
    """Both act on 13 % of the units; on 4 % only one of them does, either as often as the other."""
    masked = payoffs(g, n, 0.02)[0], payoffs(g, m, 0.02)[0]
    return UtilityBlock(*masked, UtilityBlock(payoffs(g, n)[0], payoffs(g, m)[0]))


def ratios(g: np.random.Generator, n: int, m: int) -> Block:
    return RatioBlock(*(np.stack(payoffs(g, k), axis=1).astype(float) for k in (n, m)))


def groups(g: np.random.Generator, n: int) -> GapBlock:
    small = int(g.binomial(n, 0.2))
    return GapBlock(int(g.binomial(small, 0.13)), small, int(g.binomial(n - small, 0.13)), n - small)


def gaps(g: np.random.Generator, n: int, m: int) -> Block:
    return GapArmsBlock(groups(g, n), groups(g, m))


def seconds_until_it_passes(policy: RolloutPolicy, draw: Draw, *, seed: int) -> float:
    """One run at 200 requests a second, polled every 2 s, candidate as good as stable."""
    generator = np.random.default_rng(seed)
    book = GateBook.start(policy, RANGE)
    book.enter_stage(STAGE)
    (evidence,) = book.gates.values()
    weight = (policy.stage(STAGE).weight_pct or 0.0) / 100
    for poll in range(1, 1000):
        evidence.observe(
            draw(generator, int(generator.poisson(400 * weight)), int(generator.poisson(400 * (1 - weight))))
        )
        if evidence.advance_log_e >= evidence.advance_limit:
            return 2.0 * poll
    return math.inf


SD = 4.11  # of `payoffs`, per unit; 10.2 per unit acted on


@pytest.mark.parametrize(
    ("gate", "weight_pct", "draw"),
    [
        (gate_with(metric="canary_errors", compare_to="bound", max=0.03, expected_rate=0.01), 5.0, counts(0.01)),
        (
            gate_with(metric="slow_share", scale="ratio", tolerance=1.1, ni_margin=1.5, expected_rate=0.02),
            25.0,
            counts(0.02),
        ),
        (gate_with(metric="slow_share", ni_margin=0.02, expected_rate=0.05), 25.0, counts(0.05)),
        (gate_with(metric="action_rate", ni_margin=0.04, expected_rate=0.13), 25.0, counts(0.13)),
        (gate_with(metric="utility", ni_margin=0.3, expected_sd=SD), 50.0, utilities),
        (
            gate_with(
                metric="utility",
                where="disagreement",
                ni_margin=0.3,
                expected_sd=SD,
                expected_variance_left=0.04 / (2 * 0.13),  # acts in one arm only, of all acts in both
            ),
            25.0,
            where_they_differ,
        ),
        (gate_with(metric="utility_per_action", ni_margin=2.0, expected_sd=10.2, expected_rate=0.13), 25.0, ratios),
        (gate_with(metric="call_rate_gap", ni_margin=0.1, expected_rate=0.13, expected_group_share=0.2), 25.0, gaps),
    ],
    ids=["bound", "ratio", "difference", "two-sided", "utility", "disagreement", "per-action", "gap"],
)  # fmt: skip
def test_simulated_gates_keep_to_the_plan(gate: Gate, weight_pct: float, draw: Draw) -> None:
    """For every kind of gate the median of 50 simulated stages lies within a factor of 1.5 of the plan."""
    policy = alone(replace(gate, min_samples=0), weight_pct)
    planned = plan_gate(policy.stage(STAGE).gates[0], policy.stage(STAGE), policy, payoff_range=RANGE).seconds
    median = float(np.median([seconds_until_it_passes(policy, draw, seed=seed) for seed in range(50)]))
    assert 1 / 1.5 < median / planned < 1.5, (median, planned)


def test_the_formula_of_the_specification() -> None:
    """n ≈ 6·V/Δ² at α .05 and 9·V/Δ² at α .01, V = σc² + σs²·w/(1−w)."""
    gate = gate_with(metric="utility", ni_margin=0.3, expected_sd=6.0)
    for alpha, factor in ((0.05, 6.0), (0.01, 9.2)):
        policy = replace(alone(gate), alpha_advance=alpha)
        variance = 36 + 36 * 0.25 / 0.75
        assert plan_gate(gate, policy.stage(STAGE), policy).units == pytest.approx(
            factor * variance / 0.09, rel=0.02
        )


@pytest.mark.parametrize(("bound", "needed"), [(0.01, 300), (0.02, 150), (0.05, 59)])
def test_no_events_pass_a_bound_as_the_specification_says(bound: float, needed: int) -> None:
    """Zero events pass a 1 / 2 / 5 % bound after about 300 / 150 / 59 observations."""
    gate = gate_with(metric="canary_errors", compare_to="bound", max=bound)
    policy = alone(gate)
    assert plan_gate(gate, policy.stage(STAGE), policy).units == pytest.approx(needed, rel=0.06)


def test_a_wide_payoff_range_starves_the_bets() -> None:
    """The same spread within [-1, 10000] needs many times the units; the plan says how many times."""
    gate = gate_with(metric="utility", ni_margin=0.3, expected_sd=5.0)
    policy = alone(gate)
    stage = policy.stage(STAGE)
    free, capped, wide = (
        plan_gate(gate, stage, policy, payoff_range=ends) for ends in (None, RANGE, (-1.0, 1e4))
    )
    assert free.starved == 1.0
    assert capped.starved < 1.05
    assert wide.starved > 80
    assert wide.units == pytest.approx(free.units * wide.starved)


def test_the_plan_of_the_shipped_policy() -> None:
    """Every required live gate once per stage; each reaches its sample size within the longest bake, doubled or not."""
    plans = plan_rollout(SHIPPED, RANGE)
    assert [(plan.stage, plan.gate) for plan in plans] == [
        (stage.name, gate.name) for stage in SHIPPED.live_stages for gate in stage.required
    ]
    assert all(plan.reaches for plan in plans)
    found = {(plan.stage, plan.gate): plan for plan in plans}
    assert found["canary-5", "errors"].units == pytest.approx(61, abs=1)
    assert found["canary-5", "errors"].says == (
        "at 5% of 200 requests a second gate 'errors' needs about 6 s (61 units)"
    )
    assert found["canary-25", "utility"].to_json()["reaches"] is True
    assert (shortest_passage_s(SHIPPED.live_stages), longest_passage_s(SHIPPED.live_stages)) == (80.0, 370.0)
