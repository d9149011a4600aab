"""What one gate on a gap or a ratio metric does by itself in one stage, by simulation with the engine's own tests.

The what-if of whole rollouts takes these gates to pass (what_if_gates.can_simulate); the people who approve a policy
want each gate's power all the same. Units come at the expected traffic; a stage is looked at `LOOKS` times whatever
its poll, which misses crossings in between, and over its first `LOOKS` × `MOST_UNITS` units where it brings more:
shares of rollbacks and passes are a little low.
Source: gates.md semantics 2 and 3. Must never import: anything that does I/O; randomness comes in as a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from policies.gates.evidence import Block, GapArmsBlock, GapBlock, RatioBlock
from policies.gates.gate_evidence import GateEvidence, kind_of
from policies.rollout.planning import longest_passage_s
from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage
from policies.sequential.evidence_blocks import FloatArray
from policies.what_if.payoffs import AssumptionError, Payoffs

LOOKS = 60
MOST_UNITS = 2_000
Draw = Callable[[np.random.Generator, float, float], Block]
"""(generator, canary units, stable units expected between two looks) → what they bring."""


@dataclass(frozen=True)
class Alone:
    """Shares of the runs, in [0, 1], in which the gate rolled back and passed within the longest bake."""

    effect: str
    stage: str
    stopped: float
    passed: float


def gate_alone(
    gate: Gate, policy: RolloutPolicy, payoff_range: tuple[float, float], *, runs: int, seed: int = 0
) -> tuple[Alone, ...]:
    """The gate in the first stage that requires it, else runs it, under the effects its own bounds suggest.

    Empty where the policy expects nothing of the metric, so that nothing can be drawn.
    """
    stages = [stage for stage in policy.live_stages if any(one.name == gate.name for one in stage.gates)]
    required = [stage for stage in stages if any(one.name == gate.name for one in stage.required)]
    stage = (required or stages)[0]
    found = []
    for effect, draw in _effects(gate, stage, payoff_range):
        generator = np.random.default_rng(seed)
        ends = [_run(gate, stage, policy, payoff_range, draw=draw, generator=generator) for _ in range(runs)]
        found.append(Alone(effect, stage.name, ends.count("stopped") / runs, ends.count("passed") / runs))
    return tuple(found)


def _run(
    gate: Gate,
    stage: Stage,
    policy: RolloutPolicy,
    payoff_range: tuple[float, float],
    *,
    draw: Draw,
    generator: np.random.Generator,
) -> str:
    planned = sum(any(one.name == gate.name for one in each.gates) for each in policy.live_stages)
    alpha = policy.alpha_of(gate.name)
    evidence = GateEvidence(gate, alpha, policy.alpha_advance, planned, payoff_range)
    evidence.enter_stage(stage.weight_pct)
    longest_s = longest_passage_s((stage,))
    units = min(policy.expected_requests_per_s * longest_s / LOOKS, MOST_UNITS)
    share = 1.0 if stage.weight_pct is None else stage.weight_pct / 100
    for look in range(1, LOOKS + 1):
        at = look * longest_s / LOOKS
        evidence.observe(draw(generator, units * share, units * (1 - share)), at=at)
        if evidence.has_failed:
            return "stopped"
        is_shown = evidence.advance_log_e >= evidence.advance_limit
        if is_shown and evidence.tally.canary_n >= gate.min_samples and at >= stage.bake_min_s:
            return "passed"
    return "undecided"


def _effects(gate: Gate, stage: Stage, payoff_range: tuple[float, float]) -> Iterator[tuple[str, Draw]]:
    rate = gate.expected_rate
    if kind_of(gate) == "ratio" and gate.expected_sd is not None and rate is not None:
        margin = gate.ni_margin or 0.0
        for name, worse in (("as stable", 0.0), ("at niMargin", margin), ("twice the margin", 2 * margin)):
            with suppress(AssumptionError):  # payoffs of that mean cannot spread like this
                yield f"{name}, {0.0 - worse:+g}" if worse else name, _ratios(gate, rate, worse, payoff_range)
        return
    if kind_of(gate) != "gap" or rate is None or gate.expected_group_share is None:
        return
    bound = gate.bound if gate.compare_to == "bound" else gate.ni_margin
    names = (
        ("at its bound", "twice its bound")
        if gate.compare_to == "bound"
        else ("at niMargin", "twice the margin")
    )
    for name, gap in (("no gap", 0.0), (names[0], bound or 0.0), (names[1], 2 * (bound or 0.0))):
        if rate + gap < 1:
            has_arms = stage.kind == "canary"
            draw = _gaps(rate, gap, gate.expected_group_share, has_arms=has_arms)
            yield f"{name}, {100 * gap:.3g} points" if gap else name, draw


def _gaps(rate: float, gap: float, share: float, *, has_arms: bool) -> Draw:
    """Group a, the smaller one, is acted on more often by `gap`, in the canary only."""

    def arm(generator: np.random.Generator, units: float, more: float) -> GapBlock:
        a, b = int(generator.poisson(units * share)), int(generator.poisson(units * (1 - share)))
        return GapBlock(int(generator.binomial(a, rate + more)), a, int(generator.binomial(b, rate)), b)

    def draw(generator: np.random.Generator, canary: float, stable: float) -> Block:
        found = arm(generator, canary, gap)
        return GapArmsBlock(found, arm(generator, stable, 0.0)) if has_arms else found

    return draw


def _ratios(gate: Gate, rate: float, worse: float, payoff_range: tuple[float, float]) -> Draw:
    """Payoffs of units acted on, the canary's lower by `worse`; the others earn and count 0.

    Stable's mean is the middle of the range, where there is room on both sides. Raises AssumptionError where the
    canary's cannot have the expected deviation.
    """
    same = Payoffs(0.0, gate.expected_sd or 1.0, *payoff_range, mean=sum(payoff_range) / 2)
    lower = Payoffs(0.0, same.sd, *payoff_range, mean=same.centre - worse)

    def arm(generator: np.random.Generator, units: float, payoffs: Payoffs) -> FloatArray:
        acted = generator.random(int(generator.poisson(units))) < rate
        earned = np.where(acted, payoffs.draw(generator, len(acted)), 0.0)
        return np.column_stack((earned, acted.astype(float)))

    def draw(generator: np.random.Generator, canary: float, stable: float) -> Block:
        return RatioBlock(arm(generator, canary, lower), arm(generator, stable, same))

    return draw
