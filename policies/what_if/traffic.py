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
from numpy.typing import NDArray

from policies.rollout.metrics import METRICS
from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage
from policies.what_if.gates import PayoffRuns, PollRuns
from policies.what_if.paths import CountRuns, FloatArray, IntArray
from policies.what_if.payoffs import AssumptionError, Payoffs, PollLibrary, make_library

_SLACK_S = 1e-6


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


@dataclass(frozen=True)
class Source:
    """What a gate judges: a metric, masked to where the releases differ or not, in windows of so many polls; 0: each
    poll is a block of its own."""

    metric: str
    masked: bool = False
    window: int = 0


@dataclass(frozen=True, eq=False)
class Chunk:
    """A chunk of polls: units assigned to each arm (rows, polls), and what each source gave. Counts are there poll by
    poll, too, where gates judge them in windows."""

    canary_units: FloatArray
    stable_units: FloatArray
    runs: Mapping[Source, PollRuns]


def source_of(gate: Gate, policy: RolloutPolicy) -> Source:
    """What this gate judges. A window closes with the first poll at least its length after the one that opened it."""
    polls = math.ceil((gate.window_s - _SLACK_S) / policy.poll_s) if gate.window_s else 0
    return Source(gate.metric, gate.where == "disagreement", max(polls, 1) if gate.window_s else 0)


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
        self._effect, self._generator, self._runs = effect, generator, runs
        self._units = requests_per_s * policy.poll_s
        self._w = 1.0 if stage.weight_pct is None else stage.weight_pct / 100
        self._lag = math.ceil(policy.maturity_s / policy.poll_s)
        self._past = np.zeros((runs, self._lag))  # canary units that have not matured yet
        self._done = 0
        self._libraries: dict[Source, PollLibrary] = {}
        self._waiting: dict[Source, FloatArray] = {}
        wanted = [source_of(gate, policy) for gate in stage.gates if effect.covers(gate.metric)]
        self._sources = tuple(dict.fromkeys(wanted))

    def draw(self, rows: IntArray, polls: int) -> Chunk:
        """The next polls of these runs; all of them have seen the same number of polls in this stage."""
        shape = len(rows), polls
        canary = self._generator.poisson(self._units * self._w, shape).astype(float)
        stable = self._generator.poisson(self._units * (1 - self._w), shape).astype(float)
        matured = np.concatenate((self._past[rows], canary), axis=1)
        self._past[rows] = matured[:, polls:]
        runs: dict[Source, PollRuns] = {}
        for source in self._sources:
            if source.metric == "utility":
                runs[source] = self._payoffs(source, rows, matured[:, :polls])
                continue
            plain = runs.setdefault(Source(source.metric), self._counts(source.metric, canary, stable))
            if source.window and isinstance(plain, CountRuns):
                parts = (plain.canary_events, plain.canary_n, plain.stable_events, plain.stable_n)
                runs[source] = CountRuns(*self._in_windows(source, rows, parts))
        self._done += polls
        return Chunk(canary, stable, runs)

    def _counts(self, metric: str, canary: FloatArray, stable: FloatArray) -> CountRuns:
        rates = self._effect.rates[metric]
        arms = [
            self._generator.binomial(n.astype(np.int64), rate).astype(float)
            for n, rate in ((canary, rates.canary), (stable, rates.stable))
        ]
        return CountRuns(arms[0], canary, arms[1], stable)

    def _payoffs(self, source: Source, rows: IntArray, matured: FloatArray) -> PayoffRuns:
        number = self._done + 1 + np.arange(matured.shape[1])
        ripe = number > self._lag
        if source.window:
            ripe = ripe & _closes(number, source.window)
            matured = self._in_windows(source, rows, (matured,))[0]
        library = self._library(source)
        drawn = self._generator.integers(library.polls, size=matured.shape)
        return PayoffRuns(library, np.where(ripe, drawn, -1), matured)

    def _in_windows(self, source: Source, rows: IntArray, parts: tuple[FloatArray, ...]) -> list[FloatArray]:
        """Sums where a window closes, 0 elsewhere; what is left waits for the next chunk."""
        waiting = self._waiting.setdefault(source, np.zeros((len(parts), self._runs)))
        columns = np.flatnonzero(_closes(self._done + 1 + np.arange(parts[0].shape[1]), source.window))
        joined = []
        for held, part in zip(waiting, parts, strict=True):
            running, whole = held[rows][:, None] + np.cumsum(part, axis=1), np.zeros_like(part)
            whole[:, columns] = np.diff(running[:, columns], axis=1, prepend=0.0)
            held[rows] = running[:, -1] - whole.sum(axis=1)
            joined.append(whole)
        return joined

    def _library(self, source: Source) -> PollLibrary:
        if source not in self._libraries:
            payoffs = self._effect.payoffs
            if payoffs is None:
                raise AssumptionError("nothing is assumed of the payoffs")
            self._libraries[source] = make_library(
                payoffs,
                weight_pct=100 * self._w,
                units_per_poll=self._units * max(source.window, 1),
                masked=source.masked,
                generator=self._generator,
            )
        return self._libraries[source]


def _closes(number: IntArray, window: int) -> NDArray[np.bool_]:
    """Which of the stage's polls, counted from 1, close a window; the first only opens one."""
    closes: NDArray[np.bool_] = (number > 1) & ((number - 1) % window == 0)
    return closes
