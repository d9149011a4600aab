"""The traffic of a simulation: units of each arm, events among them, and utility, poll by poll.

Arrivals are Poisson, units are split by the stage's weight, events are binomial and independent. A metric's counts
are drawn once, so that all gates on it see the same. Source: design.md section 6. Must never import: anything that
does I/O; randomness comes in as a seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from policies.metrics import METRICS
from policies.rollout_policy import Gate, RolloutPolicy, Stage
from policies.what_if_gates import PayoffRuns, PollRuns
from policies.what_if_paths import CountRuns, FloatArray, IntArray
from policies.what_if_payoffs import AssumptionError, Payoffs, PollLibrary, make_library


@dataclass(frozen=True)
class Rates:
    """A share of events (errors, slow answers, actions): the canary's and stable's, in [0, 1]."""

    canary: float
    stable: float

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        for name in ("canary", "stable"):
            if not 0 <= getattr(self, name) <= 1:
                raise AssumptionError(f"'{name}' must be a share in [0, 1]: {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Effect:
    """What is assumed of a release. rates: by metric, for proportions; payoffs: for utility, None if nothing is.

    A metric of which nothing is assumed has no evidence here: its gates are taken to pass.
    """

    name: str
    rates: Mapping[str, Rates] = field(default_factory=dict)
    payoffs: Payoffs | None = None

    def __post_init__(self) -> None:
        """Refuse metrics that are no shares."""
        for name in self.rates:
            known = sorted(key for key, metric in METRICS.items() if metric.kind == "proportion")
            if name not in known:
                raise AssumptionError(f"no share of events is called {name!r}; there are {', '.join(known)}")

    def covers(self, metric: str) -> bool:
        """Whether something is assumed of this metric."""
        return metric in self.rates or (metric == "utility" and self.payoffs is not None)


@dataclass(frozen=True, eq=False)
class Chunk:
    """A chunk of polls: units assigned to each arm (rows, polls), and each metric's runs by (metric, masked)."""

    canary_units: FloatArray
    stable_units: FloatArray
    runs: Mapping[tuple[str, bool], PollRuns]


def key_of(gate: Gate) -> tuple[str, bool]:
    """Which of a chunk's runs a gate judges."""
    return gate.metric, gate.where == "disagreement"


class Traffic:
    """The polls of one stage, drawn chunk by chunk."""

    def __init__(
        self,
        policy: RolloutPolicy,
        stage: Stage,
        effect: Effect,
        *,
        requests_per_s: float,
        runs: int,
        generator: np.random.Generator,
    ) -> None:
        self._stage, self._effect, self._generator = stage, effect, generator
        self._units = requests_per_s * policy.poll_s
        self._lag = math.ceil(policy.maturity_s / policy.poll_s)
        self._w = 1.0 if stage.weight_pct is None else stage.weight_pct / 100
        self._past = np.zeros((runs, self._lag))  # canary units that have not matured yet
        self._polls_before = np.zeros(runs, dtype=np.intp)
        self._libraries: dict[bool, PollLibrary] = {}

    def draw(self, rows: IntArray, polls: int) -> Chunk:
        """The next polls of these runs."""
        shape = len(rows), polls
        canary = self._generator.poisson(self._units * self._w, shape).astype(float)
        stable = self._generator.poisson(self._units * (1 - self._w), shape).astype(float)
        runs: dict[tuple[str, bool], PollRuns] = {}
        matured = np.concatenate((self._past[rows], canary), axis=1)
        self._past[rows] = matured[:, polls:]
        first = self._polls_before[rows]
        self._polls_before[rows] = first + polls
        for gate in self._stage.gates:
            key = key_of(gate)
            if key in runs or not self._effect.covers(gate.metric):
                continue
            if gate.metric == "utility":
                is_ripe = first[:, None] + np.arange(polls) >= self._lag
                library = self._library(masked=key[1])
                drawn = np.where(is_ripe, self._generator.integers(library.polls, size=shape), -1)
                runs[key] = PayoffRuns(library, drawn, matured[:, :polls])
            else:
                rates = self._effect.rates[gate.metric]
                is_compared = any(
                    one.metric == gate.metric and one.compare_to == "champion" for one in self._stage.gates
                )
                runs[key] = CountRuns(
                    self._events(canary, rates.canary),
                    canary,
                    self._events(stable, rates.stable) if is_compared else np.zeros(shape),
                    stable,
                )
        return Chunk(canary, stable, runs)

    def _events(self, n: FloatArray, rate: float) -> FloatArray:
        return self._generator.binomial(n.astype(np.int64), rate).astype(float)

    def _library(self, *, masked: bool) -> PollLibrary:
        if masked not in self._libraries:
            payoffs = self._effect.payoffs
            if payoffs is None:
                raise AssumptionError("nothing is assumed of the payoffs")
            self._libraries[masked] = make_library(
                payoffs,
                weight_pct=100 * self._w,
                units_per_poll=self._units,
                masked=masked,
                generator=self._generator,
            )
        return self._libraries[masked]
