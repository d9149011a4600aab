"""Worlds in which a gate is wrong to act: each draws one poll's block for a gate kind under a null hypothesis."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.random import Generator
from scipy.special import ndtr

from policies.gates.evidence import (
    Block,
    CountBlock,
    FloatArray,
    GapArmsBlock,
    GapBlock,
    RatioBlock,
    UtilityBlock,
)
from policies.rollout.rollout_policy import Gate

UNITS = 400
RANGE = (-1.0, 29.8)
SCALE, SIGMA = 0.616, 1.3
TOP = math.log((RANGE[1] + 1) / SCALE)
# what a sale brings over a failed call, on average: the mean of the capped log-normal
SALE = SCALE * math.exp(SIGMA**2 / 2) * ndtr((TOP - SIGMA**2) / SIGMA) + (RANGE[1] + 1) * ndtr(-TOP / SIGMA)
BASE = Gate(
    name="gate",
    metric="canary_errors",
    compare_to="champion",
    min=None,
    max=None,
    tolerance=1.0,
    ni_margin=1.5,
    min_samples=0,
    required=True,
    weight=1.0,
    on_fail="rollback",
    on_missing="hold",
    on_error="hold",
    budget_ms=None,
    estimate="value",
    applies_to="all",
    owner="nobody",
    rationale="a gate of the tests",
    scale="ratio",
)


@dataclass(frozen=True)
class World:
    """shared: factor of this poll on both arms' rates. spread: variance of a poll's counts over the binomial one."""

    generator: Generator
    weight_pct: float
    shared: float = 1.0
    spread: float = 1.0

    def arms(self) -> tuple[int, int]:
        """Units of canary and stable in this poll."""
        canary = int(self.generator.binomial(UNITS, self.weight_pct / 100))
        return canary, UNITS - canary

    def events(self, n: int, rate: float, *, more: float = 0.0) -> int:
        """Events of one arm, in bursts where `spread` is above 1 (a beta-binomial of that variance at this n)."""
        rate = min(rate * self.shared + more, 0.999)
        if self.spread > 1 and n > 1:
            correlation = min((self.spread - 1) / (n - 1), 0.9)
            precision = (1 - correlation) / correlation
            rate = float(self.generator.beta(rate * precision, (1 - rate) * precision))
        return int(self.generator.binomial(n, rate))

    def payoffs(self, n: int, sold: float, called: FloatArray) -> FloatArray:
        """0 for those not called, −1 for an unwanted call, a heavy-tailed gain for a sale."""
        gain = np.clip(SCALE * self.generator.lognormal(0.0, SIGMA, n), 0, RANGE[1] + 1) - 1
        is_sold = self.generator.random(n) < sold * self.shared
        return np.where(called, np.where(is_sold, gain, -1.0), 0.0)


@dataclass(frozen=True)
class Kind:
    """A gate, how a poll is drawn for it with the canary "equal", at the "tolerance" or at the "margin", and the worlds
    in which that is a null: a bound is broken by an incident; payoffs and groups are counted by unit, not in bursts."""

    gate: Gate
    draw: Callable[[World, str, Gate], Block]
    worlds: tuple[str, ...]


def _effect(gate: Gate, where: str, nothing: float) -> float:
    return {"equal": nothing, "tolerance": gate.tolerance, "margin": gate.ni_margin}[where] or 0.0


def _ratio(world: World, where: str, gate: Gate) -> Block:
    canary, stable = world.arms()
    rate = 0.03 * _effect(gate, where, 1.0)
    return CountBlock(world.events(canary, rate), canary, world.events(stable, 0.03), stable)


def _absolute(world: World, where: str, gate: Gate) -> Block:
    canary, stable = world.arms()
    more = _effect(gate, where, 0.0)
    return CountBlock(world.events(canary, 0.03, more=more), canary, world.events(stable, 0.03), stable)


def _bound(world: World, where: str, gate: Gate) -> Block:
    canary, stable = world.arms()
    bound = gate.bound or 0.0
    return CountBlock(world.events(canary, bound), canary, world.events(stable, 0.03), stable)


def _fewer(world: World, where: str, gate: Gate) -> Block:
    """A shift down: the other side of a two-sided gate."""
    canary, stable = world.arms()
    change = _effect(gate, where, 1.0 if gate.scale == "ratio" else 0.0)
    rate, more = (0.2 / change, 0.0) if gate.scale == "ratio" else (0.2, -change)
    return CountBlock(world.events(canary, rate, more=more), canary, world.events(stable, 0.2), stable)


def _utility(world: World, where: str, gate: Gate) -> Block:
    """The releases act differently on a quarter of the units; there the canary sells less, by the effect per unit."""
    arms = []
    for n, worse in zip(world.arms(), (_effect(gate, where, 0.0), 0.0), strict=True):
        alike, differs = world.generator.random(n) < 0.3, world.generator.random(n) < 0.25
        both = world.payoffs(n, 0.5, alike & ~differs)
        own = world.payoffs(n, 0.5 - worse / 0.25 / SALE / world.shared, differs)
        arms.append((own, both + own))
    (masked_c, plain_c), (masked_s, plain_s) = arms
    return UtilityBlock(masked_c, masked_s, UtilityBlock(plain_c, plain_s))


def _per_action(world: World, where: str, gate: Gate) -> Block:
    """Payoffs of those called; the canary calls more of them and sells less, by the effect per call."""
    arms = []
    for n, called, worse in zip(world.arms(), (0.4, 0.3), (_effect(gate, where, 0.0), 0.0), strict=True):
        acted = world.generator.random(n) < called
        payoffs = world.payoffs(n, 0.5 - worse / SALE / world.shared, acted)
        arms.append(np.stack([payoffs, acted.astype(np.float64)], axis=1))
    return RatioBlock(*arms)


def _groups(world: World, n: int, gap: float) -> GapBlock:
    young = int(world.generator.binomial(n, 0.2))
    low = min(0.25 * world.shared, 0.6)
    return GapBlock(
        int(world.generator.binomial(young, low + gap)),
        young,
        int(world.generator.binomial(n - young, low)),
        n - young,
    )


def _gap(world: World, where: str, gate: Gate) -> Block:
    return _groups(world, world.arms()[0], gate.bound or 0.0)


def _gap_shift(world: World, where: str, gate: Gate) -> Block:
    canary, stable = world.arms()
    return GapArmsBlock(_groups(world, canary, 0.1 + _effect(gate, where, 0.0)), _groups(world, stable, 0.1))


def _differs(metric: str, tolerance: float, ni_margin: float, where: str = "all") -> Gate:
    margins = {"tolerance": tolerance, "ni_margin": ni_margin, "where": where}
    return replace(BASE, metric=metric, scale="absolute", **margins)  # type: ignore[arg-type]


_COUNTS, _UNITS = ("equal", "incident", "bursty"), ("equal", "incident")
KINDS = {
    "bound": Kind(
        replace(BASE, compare_to="bound", max=0.03, tolerance=None, ni_margin=None),
        _bound,
        ("equal", "bursty"),
    ),
    "ratio": Kind(BASE, _ratio, _COUNTS),
    "ratio-tolerance": Kind(replace(BASE, tolerance=1.2, ni_margin=2.0), _ratio, _COUNTS),
    "absolute": Kind(_differs("canary_errors", 0.005, 0.02), _absolute, _COUNTS),
    "shift-ratio": Kind(replace(BASE, metric="action_rate", tolerance=1.1, ni_margin=1.5), _fewer, _COUNTS),
    "shift-absolute": Kind(_differs("action_rate", 0.02, 0.06), _fewer, _COUNTS),
    "utility": Kind(_differs("utility", 0.0, 0.1), _utility, _UNITS),
    "utility-disagreement": Kind(_differs("utility", 0.0, 0.1, "disagreement"), _utility, _UNITS),
    "per-action": Kind(_differs("utility_per_action", 0.0, 0.5), _per_action, _UNITS),
    "gap-bound": Kind(
        replace(BASE, metric="call_rate_gap", compare_to="bound", max=0.2, tolerance=None, ni_margin=None),
        _gap,
        _UNITS,
    ),
    "gap-shift": Kind(_differs("call_rate_gap", 0.02, 0.12), _gap_shift, _UNITS),
}


@pytest.fixture
def make_world() -> type[World]:
    """How a poll's world is made: generator, weight (per cent), shared, spread."""
    return World


_NULLS = [(kind, world) for kind in KINDS.values() for world in kind.worlds]


@pytest.fixture(params=_NULLS, ids=[f"{name}-{world}" for name in KINDS for world in KINDS[name].worlds])
def null(request: pytest.FixtureRequest) -> tuple[Kind, str]:
    """Every gate kind in every world that is a null of it."""
    found: tuple[Kind, str] = request.param
    return found


@pytest.fixture(params=[name for name, kind in KINDS.items() if kind.gate.compare_to == "champion"])
def champion_kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind that compares with the champion."""
    return KINDS[request.param]


@pytest.fixture(params=KINDS, ids=list(KINDS))
def any_kind(request: pytest.FixtureRequest) -> Kind:
    """Every gate kind in turn."""
    return KINDS[request.param]


@pytest.fixture
def kinds() -> dict[str, Kind]:
    """All gate kinds by name."""
    return KINDS
