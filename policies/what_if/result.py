"""What a simulation came to: shares of runs by how they ended, time to decision, exposed units, utility lost.

Shares carry their Monte-Carlo standard error, √(p·(1−p)/runs). Source: gates.md, staged verification. Must never
import: anything that does I/O.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policies.rollout.rollout_policy import RolloutPolicy
from policies.rollout.verdict import ReasonCode

FloatArray = NDArray[np.float64]
Outcome = Literal["promoted", "rolled_back", "inconclusive", "waits"]
OUTCOMES: tuple[Outcome, ...] = ("rolled_back", "promoted", "inconclusive", "waits")
"""rolled_back: on evidence, or for want of it; inconclusive: rolled back because nothing was shown in the longest
bake; waits: for a person (approval, `onInconclusive: manual`, a held gate)."""


@dataclass(frozen=True)
class Ending:
    """One way to end: outcome, why, in which stage, by which gate ("" where none decided), and how many runs."""

    outcome: Outcome
    reason: ReasonCode
    stage: str
    gate: str
    runs: int


@dataclass(eq=False)
class Runs:
    """All runs while they go on (runs,): seconds so far, units that the candidate served, how each ended (None: not
    yet)."""

    time_s: FloatArray
    exposed: FloatArray
    endings: list[tuple[Outcome, ReasonCode, str, str] | None]
    is_under_way: NDArray[np.bool_]

    @classmethod
    def start(cls, runs: int) -> Runs:
        """None has begun."""
        return cls(np.zeros(runs), np.zeros(runs), [None] * runs, np.ones(runs, dtype=bool))

    def end(self, run: int, outcome: Outcome, reason: ReasonCode, *, stage: str, gate: str) -> None:
        """This run is over."""
        self.endings[run] = (outcome, reason, stage, gate)
        self.is_under_way[run] = False


@dataclass(frozen=True, eq=False)
class WhatIf:
    """The result for one effect.

    shares: of runs, by outcome. time_s (runs,): from the first live stage to the decision; exposed (runs,): units that
    the candidate served until then, all users' from the full stage on; outcome (runs,): index into OUTCOMES. Lost
    utility is exposed units times the assumed loss per unit, None where nothing was assumed of utility.
    assumed: gates that were taken to pass, because nothing was assumed of their metric or they have no simulation.
    """

    service: str
    policy: str
    effect: str
    runs: int
    seed: int
    requests_per_s: float
    endings: tuple[Ending, ...]
    time_s: FloatArray
    exposed: FloatArray
    outcome: NDArray[np.intp]
    loss_per_unit: float | None
    assumed: tuple[str, ...]

    def share(self, outcome: Outcome) -> float:
        """Share of runs that ended so."""
        return float(np.mean(self.outcome == OUTCOMES.index(outcome)))

    def standard_error(self, outcome: Outcome) -> float:
        """Monte-Carlo standard error of the share."""
        share = self.share(outcome)
        return math.sqrt(share * (1 - share) / self.runs)

    def time_to(self, quantile: float, outcome: Outcome | None = None) -> float | None:
        """Seconds within which this share of the runs with the outcome (or of all) was decided; None: no such run."""
        times = self.time_s if outcome is None else self.time_s[self.outcome == OUTCOMES.index(outcome)]
        return float(np.quantile(times, quantile)) if len(times) else None

    @property
    def exposed_mean(self) -> float:
        """Mean units that the candidate served until the decision."""
        return float(self.exposed.mean())

    @property
    def lost(self) -> float | None:
        """Expected utility lost, in the utility spec's unit; below 0 where the candidate is better."""
        return None if self.loss_per_unit is None else self.exposed_mean * self.loss_per_unit + 0.0

    @property
    def lost_standard_error(self) -> float | None:
        """Monte-Carlo standard error of `lost`."""
        if self.loss_per_unit is None:
            return None
        return abs(self.loss_per_unit) * float(self.exposed.std()) / math.sqrt(self.runs)

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe values: the summary, not every run."""
        return {
            "service": self.service,
            "policy": self.policy,
            "effect": self.effect,
            "runs": self.runs,
            "seed": self.seed,
            "requests_per_s": self.requests_per_s,
            "shares": {name: self.share(name) for name in OUTCOMES},
            "standard_errors": {name: self.standard_error(name) for name in OUTCOMES},
            "time_s": {"median": self.time_to(0.5), "p90": self.time_to(0.9)},
            "time_s_by_outcome": {name: self.time_to(0.5, name) for name in OUTCOMES},
            "exposed_units": {"mean": self.exposed_mean, "median": float(np.median(self.exposed))},
            "utility_lost": {"mean": self.lost, "standard_error": self.lost_standard_error},
            "endings": [
                {
                    "outcome": one.outcome,
                    "reason": one.reason.value,
                    "stage": one.stage,
                    "gate": one.gate,
                    "share": one.runs / self.runs,
                }
                for one in self.endings
            ],
            "assumed_to_pass": list(self.assumed),
        }


def lasting(seconds: float) -> str:
    """A time to decision, short: `129 s`, `22 min`, `9.5 h`, `12 d`."""
    for size, unit in ((172_800, "d"), (10_800, "h"), (180, "min")):
        if seconds >= size:
            value = seconds / {"d": 86_400, "h": 3_600, "min": 60}[unit]
            return f"{value:.1f} {unit}" if value < 20 else f"{value:.0f} {unit}"
    return f"{seconds:.3g} s"


def summarise(
    policy: RolloutPolicy,
    runs: Runs,
    *,
    effect_name: str,
    seed: int,
    requests_per_s: float,
    loss_per_unit: float | None,
    assumed: tuple[str, ...],
) -> WhatIf:
    """The result; a run that no stage ended was promoted."""
    last = policy.live_stages[-1]
    reason = ReasonCode.GATES_PASSED if last.required else ReasonCode.BAKED
    promoted: tuple[Outcome, ReasonCode, str, str] = ("promoted", reason, last.name, "")
    ended = [promoted if one is None else one for one in runs.endings]
    return WhatIf(
        service=policy.service,
        policy=policy.digest,
        effect=effect_name,
        runs=len(ended),
        seed=seed,
        requests_per_s=requests_per_s,
        endings=tuple(Ending(*key, count) for key, count in Counter(ended).most_common()),
        time_s=runs.time_s,
        exposed=runs.exposed,
        outcome=np.array([OUTCOMES.index(one[0]) for one in ended]),
        loss_per_unit=loss_per_unit,
        assumed=assumed,
    )
