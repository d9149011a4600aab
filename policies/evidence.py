"""What one poll brought: counts, payoffs and measurements, by assigned variant, each unit once.

Rule 1: a block holds what is NEW since the last poll, in time order; whoever gathers it keeps the cursor.
Rule 2: a metric without evidence is absent from `blocks` and named in `missing` with why; it is never a zero.
Source: gates.md semantics 7 to 9. Must never import: anything that reads a clock, a file or a network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from policies.verdict import ReasonCode

FloatArray = NDArray[np.float64]


class EvidenceError(ValueError):
    """Evidence that cannot be: negative counts, more events than trials, a payoff that is not finite."""


@dataclass(frozen=True)
class CountBlock:
    """Events among trials of one poll. Where a gate compares with a bound, only the canary half counts."""

    canary_events: int
    canary_n: int
    stable_events: int = 0
    stable_n: int = 0

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        _check_counts("canary", self.canary_events, self.canary_n)
        _check_counts("stable", self.stable_events, self.stable_n)


@dataclass(frozen=True, eq=False)
class UtilityBlock:
    """Payoffs of matured units, new since the last poll, in time order: canary (n,) and stable (m,) float."""

    canary: FloatArray
    stable: FloatArray

    def __post_init__(self) -> None:
        """Refuse arrays of the wrong shape; values are judged by the gate, which knows their range."""
        for name in ("canary", "stable"):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if array.ndim != 1:
                raise EvidenceError(f"'{name}' payoffs must have shape (n,): {array.shape}")
            object.__setattr__(self, name, array)


@dataclass(frozen=True)
class GapBlock:
    """Action counts of two groups among the candidate's decisions of one poll."""

    group_a_events: int
    group_a_n: int
    group_b_events: int
    group_b_n: int

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        _check_counts("group_a", self.group_a_events, self.group_a_n)
        _check_counts("group_b", self.group_b_events, self.group_b_n)


@dataclass(frozen=True)
class AssignmentBlock:
    """Units assigned to each variant in one poll, at the weight in force (per cent) during all of it."""

    canary_units: int
    stable_units: int
    weight_pct: float

    def __post_init__(self) -> None:
        """Refuse counts and weights that cannot be."""
        if min(self.canary_units, self.stable_units) < 0:
            raise EvidenceError(f"assigned units must be ≥ 0: {self.canary_units}, {self.stable_units}")
        if not 0 <= self.weight_pct <= 100:
            raise EvidenceError(f"'weight_pct' must be in [0, 100]: {self.weight_pct}")


Block = CountBlock | UtilityBlock | GapBlock | AssignmentBlock

SAMPLE_RATIO = "sample_ratio"
"""The name under which `PollEvidence.blocks` carries the AssignmentBlock; always judged in canary stages."""


@dataclass(frozen=True)
class Measured:
    """An offline metric: the estimate, a 95 % interval where there is one, and the rows it rests on."""

    value: float
    lower: float | None = None
    upper: float | None = None
    n: int = 0

    def is_finite(self) -> bool:
        """Whether every number that is there is a finite one."""
        return all(math.isfinite(x) for x in (self.value, self.lower, self.upper) if x is not None)


@dataclass(frozen=True)
class Alarm:
    """Something that forces a rollback without a test, e.g. the proxy ejected the canary."""

    reason: ReasonCode
    detail: str


@dataclass(frozen=True, eq=False)
class PollEvidence:
    """All of one poll: blocks by metric name (and `SAMPLE_RATIO`), what is missing and why, alarms."""

    at: float
    weight_pct: float
    blocks: Mapping[str, Block]
    missing: Mapping[str, str] = field(default_factory=dict)
    alarms: tuple[Alarm, ...] = ()

    def __post_init__(self) -> None:
        """Freeze the mappings."""
        object.__setattr__(self, "blocks", MappingProxyType(dict(self.blocks)))
        object.__setattr__(self, "missing", MappingProxyType(dict(self.missing)))


def _check_counts(name: str, events: int, n: int) -> None:
    if not 0 <= events <= n:
        raise EvidenceError(f"'{name}_events' must be in [0, {name}_n]: {events} of {n}")
