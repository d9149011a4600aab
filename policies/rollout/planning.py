"""How long each gate needs: the units, requests and time until a candidate that is as good as stable passes it.

Reckoned, not simulated: an e-process that grows by g per unit reaches ln(1/α) after about ln(1/α)/g units. For a
difference of means g = Δ²/2V, so n_canary ≈ 6·V/Δ² at α .05 and 9·V/Δ² at α .01, V = σc² + σs²·w/(1−w); what the
mixtures cost is added, as measured.
It is the median of simulated rollouts, nearly: nine in ten are through after twice the time.
Source: gates.md semantics 4, 5, 11 and F1, F2, F4, F6. Must never import: anything that does I/O or reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from policies.language.quantities import about
from policies.rollout.metrics import METRICS
from policies.sequential.contrasts import MIN_EVENTS, MIN_PER_ARM

if TYPE_CHECKING:
    from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage

MIN_EXPECTED_EVENTS = 20
_SHARE_COST, _BOUND_COST, _NORMAL_COST = 0.3, 0.13, 1.2
"""What the mixtures of F2, F6 (with no events at all) and F1 cost, as nats on top of ln(1/α)."""
_BOTH_SIDES = 1.6
"""Where a shift either way counts, both sides must pass: the later of the two takes about so much longer."""


@dataclass(frozen=True)
class Plan:
    """One required gate in one stage.

    units: candidate units until it passes; events: those of them that a ratio of rates counts, in the longest bake
    (None elsewhere); seconds: until then, waiting for outcomes included; longest_s: the longest bake, extended once
    where the stage says so; starved: how many times the units that the spread alone would need, because the payoff
    range keeps bets small. Infinite units: at what is expected it never passes.
    """

    gate: str
    stage: str
    units: float
    seconds: float
    longest_s: float
    events: float | None
    starved: float
    says: str

    @property
    def reaches(self) -> bool:
        """Whether the longest bake is long enough."""
        return self.seconds <= self.longest_s

    def to_json(self) -> dict[str, object]:
        """For machines; null where it never passes."""
        is_finite = math.isfinite(self.units)
        return {
            "gate": self.gate,
            "stage": self.stage,
            "units": math.ceil(self.units) if is_finite else None,
            "seconds": round(self.seconds, 1) if is_finite else None,
            "longest_s": self.longest_s,
            "expected_events": None if self.events is None else round(self.events, 1),
            "reaches": self.reaches,
            "says": self.says,
        }


@dataclass(frozen=True)
class _Setting:
    """What a gate meets in a stage. weight: the candidate's share of the units, 1 where it has them all."""

    gate: Gate
    weight: float
    log_limit: float
    payoff_width: float | None

    @property
    def both_arms(self) -> float:
        """1 + w/(1−w): the variance that stable's arm adds, as a multiple of the candidate's."""
        return 1.0 / (1.0 - self.weight)


def plan_rollout(policy: RolloutPolicy, payoff_range: tuple[float, float] | None = None) -> tuple[Plan, ...]:
    """The plan of every gate that a live stage requires, in the order of the stages.

    payoff_range: (low, high) of the utility spec; without it bets are taken to be free.
    """
    return tuple(
        plan_gate(gate, stage, policy, payoff_range=payoff_range)
        for stage in policy.live_stages
        for gate in stage.required
    )


def plan_gate(
    gate: Gate, stage: Stage, policy: RolloutPolicy, *, payoff_range: tuple[float, float] | None = None
) -> Plan:
    """One gate in one live stage that runs it."""
    weight = 1.0 if stage.weight_pct is None else stage.weight_pct / 100
    width = None if payoff_range is None else payoff_range[1] - payoff_range[0]
    setting = _Setting(gate, weight, -math.log(policy.alpha_advance), width)
    free = _units(_Setting(gate, weight, setting.log_limit, None))
    wanted = _units(setting)
    units = max(wanted, float(gate.min_samples))
    pace = policy.expected_requests_per_s * weight
    waits = policy.maturity_s if METRICS[gate.metric].needs_outcomes else 0.0
    longest_s = stage.bake_max_s * (2 if stage.on_inconclusive == "extend" else 1)
    plan = Plan(
        gate=gate.name,
        stage=stage.name,
        units=units,
        seconds=units / pace + waits + gate.window_s,
        longest_s=longest_s,
        events=_expected_events(gate, pace * max(longest_s - waits, 0.0)),
        starved=wanted / free if math.isfinite(wanted) else 1.0,
        says="",
    )
    return _worded(plan, stage, policy)


def _units(setting: _Setting) -> float:
    """Candidate units until the gate passes at what is expected."""
    gate = setting.gate
    kind = METRICS[gate.metric].kind
    if kind == "gap":
        return _gap_units(setting)
    if kind in ("utility", "ratio"):
        return _payoff_units(setting)
    if gate.compare_to == "bound":
        return _bound_units(setting)
    return _share_units(setting) if gate.scale == "ratio" else _difference_units(setting)


def _bound_units(setting: _Setting) -> float:
    """F6: ln(1/α) over the information that a unit at the expected rate brings against the bound."""
    gate = setting.gate
    rate, bound = gate.expected_rate or 0.0, gate.max
    if bound is None:  # a `min` bounds the others
        rate, bound = 1 - (gate.expected_rate or 1.0), 1 - (gate.min or 0.0)
    if rate >= bound:
        return math.inf
    information = _divergence(rate, bound)
    units = (setting.log_limit + _BOUND_COST) / information
    # a mixture pays half a log of the events, once there are some
    return units + 0.5 * math.log1p(units * rate) / information


def _share_units(setting: _Setting) -> float:
    """F2: events until the candidate's share of them is not that of the margin; two-sided gates need both sides."""
    gate, w = setting.gate, setting.weight
    rate, margin = gate.expected_rate or 0.0, gate.ni_margin or 1.0
    if rate <= 0 or margin <= 1:
        return math.inf
    events = (setting.log_limit + _SHARE_COST) / _divergence(w, w * margin / (w * margin + 1 - w))
    return w * events / rate * _sides(gate)


def _difference_units(setting: _Setting) -> float:
    """F1 on the difference of two rates, once both arms have spoken."""
    rate = setting.gate.expected_rate or 0.5
    variance = rate * (1 - rate) * setting.both_arms
    return max(_normal_units(setting, variance) * _sides(setting.gate), MIN_PER_ARM, MIN_EVENTS / rate)


def _gap_units(setting: _Setting) -> float:
    """F1 on the difference of two groups' rates, or on the difference of that between the arms."""
    gate = setting.gate
    if gate.expected_rate is None or gate.expected_group_share is None:
        return 2.0 * MIN_PER_ARM  # at least: nothing is known of the groups
    rate, share = gate.expected_rate, gate.expected_group_share
    variance = rate * (1 - rate) * (1 / share + 1 / (1 - share))
    if gate.compare_to == "champion":
        variance *= setting.both_arms
    return max(_normal_units(setting, variance) * _BOTH_SIDES, max(MIN_PER_ARM, MIN_EVENTS / rate) / share)


def _payoff_units(setting: _Setting) -> float:
    """F4 for a utility, F1 for a ratio of sums, at no true difference."""
    gate = setting.gate
    if gate.expected_sd is None:
        return math.inf
    variance = gate.expected_sd**2 * setting.both_arms
    if METRICS[gate.metric].kind == "ratio":  # sd is of a unit acted on
        rate = gate.expected_rate or 1.0
        return max(_normal_units(setting, variance) / rate, MIN_PER_ARM / rate)
    if gate.where == "disagreement":
        variance *= gate.expected_variance_left or 1.0
    margin = gate.ni_margin or 0.0
    stake = margin / (variance + margin**2)
    if setting.payoff_width is not None and margin < setting.payoff_width:
        stake = min(stake, 0.5 / (setting.payoff_width - margin))
    growth = stake * margin - stake**2 * (variance + margin**2) / 2
    return setting.log_limit / growth if growth > 0 else math.inf


def _normal_units(setting: _Setting, variance: float) -> float:
    gate = setting.gate
    margin = gate.max if gate.compare_to == "bound" else gate.ni_margin
    return 2 * (setting.log_limit + _NORMAL_COST) * variance / margin**2 if margin else math.inf


def _sides(gate: Gate) -> float:
    return _BOTH_SIDES if METRICS[gate.metric].worse == "either" else 1.0


def _divergence(p: float, q: float) -> float:
    """Kullback–Leibler divergence of Bernoulli(p) from Bernoulli(q), in nats; 0 ≤ p < 1, 0 < q < 1."""
    return (p * math.log(p / q) if p > 0 else 0.0) + (1 - p) * math.log((1 - p) / (1 - q))


def _expected_events(gate: Gate, units: float) -> float | None:
    if gate.compare_to == "bound" or gate.scale != "ratio" or gate.expected_rate is None:
        return None
    return units * gate.expected_rate


def _worded(plan: Plan, stage: Stage, policy: RolloutPolicy) -> Plan:
    share = "100%" if stage.weight_pct is None else f"{stage.weight_pct:g}%"
    at = f"at {share} of {policy.expected_requests_per_s:g} requests a second"
    if not math.isfinite(plan.units):
        says = f"{at} gate '{plan.gate}' never passes at what is expected of it"
    else:
        says = f"{at} gate '{plan.gate}' needs about {about(plan.seconds)} ({plan.units:,.0f} units)"
    return replace(plan, says=says)


def shortest_passage_s(stages: Sequence[Stage]) -> float:
    """The least time that the live stages take together."""
    return sum(stage.bake_min_s for stage in stages)


def longest_passage_s(stages: Sequence[Stage]) -> float:
    """The time that they take together if each lasts as long as it may."""
    return sum(s.bake_max_s * (2 if s.on_inconclusive == "extend" else 1) for s in stages)
