"""The canary of gates.md: 5 % of 200 requests a second, polled every 10 s for 30 min, 1 % of errors in stable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.what_if.paths import CountRuns

Floats = NDArray[np.float64]
POLL_S, POLLS, PER_POLL, WEIGHT = 10.0, 180, 2000, 0.05
CANARY_N = int(PER_POLL * WEIGHT)
BASE = 0.01
BURST = 1.6  # variance of the bursty counts over the binomial one
INCIDENT = (60, 90, 5.0)  # from and to which poll both arms' rate is so many times the base rate


@dataclass(frozen=True)
class Condition:
    """What is true: the canary's rate, whether both arms meet an incident, whether events come in bursts."""

    name: str
    rate: float
    has_incident: bool = False
    is_bursty: bool = False

    @property
    def is_null(self) -> bool:
        """Whether a rollback would be a false one."""
        return self.rate == BASE


CONDITIONS = (
    Condition("A/A", BASE),
    Condition("A/A, shared incident", BASE, has_incident=True),
    Condition("A/A, bursty", BASE, is_bursty=True),
    Condition("1.5 %", 0.015),
    Condition("2 %", 0.02),
    Condition("5 %", 0.05),
)


def draw(condition: Condition, runs: int, generator: np.random.Generator) -> CountRuns:
    """Counts of both arms, (runs, polls)."""
    shape = runs, POLLS
    canary_n = generator.binomial(PER_POLL, WEIGHT, shape)
    stable_n = PER_POLL - canary_n
    factor = np.ones(POLLS)
    if condition.has_incident:
        factor[INCIDENT[0] : INCIDENT[1]] = INCIDENT[2]
    arms = [
        _events(n, rate * factor, condition.is_bursty, generator)
        for n, rate in ((canary_n, condition.rate), (stable_n, BASE))
    ]
    return CountRuns(arms[0], canary_n.astype(float), arms[1], stable_n.astype(float))


def _events(n: NDArray[np.int64], rate: Floats, is_bursty: bool, generator: np.random.Generator) -> Floats:
    """Events among n trials; bursty ones are negative binomial, of `BURST` times the variance."""
    if not is_bursty:
        return generator.binomial(n, rate).astype(float)
    mean = n * rate
    return np.minimum(generator.poisson(generator.gamma(mean / (BURST - 1), BURST - 1)), n).astype(float)


@dataclass(frozen=True)
class Score:
    """Of many runs: the share that was rolled back, the median seconds to it, the median canary requests until then
    (None: less than half were)."""

    share: float
    median_s: float | None
    requests: float | None


def score(alarms: NDArray[np.bool_], counts: CountRuns) -> Score:
    """alarms (runs, polls): where the method would have rolled back, were it still looking."""
    found = alarms.any(axis=1)
    first = np.argmax(alarms, axis=1)[found]
    share = float(found.mean())
    if share < 0.5:
        return Score(share, None, None)
    exposed = np.cumsum(counts.canary_n, axis=1)[found, first]
    return Score(share, float(np.median(first) + 1) * POLL_S, float(np.median(exposed)))
