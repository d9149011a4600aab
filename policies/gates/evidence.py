"""What one poll brought: counts, payoffs and measurements, by assigned variant, each unit once.

Rule 1: a block holds what is NEW since the last poll, in time order; whoever gathers it keeps the cursor.
Rule 2: a metric without evidence is absent from `blocks` and named in `missing` with why; it is never a zero.
Rule 3: a poll's stored form is exact, so that judging a stored poll again gives the identical verdict.
Source: gates.md semantics 7 to 9 and 11. Must never import: anything that reads a clock, a file or a network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from policies.rollout.verdict import ReasonCode
from policies.sequential.evidence_blocks import (
    AssignmentBlock,
    Block,
    CountBlock,
    EvidenceError,
    FloatArray,
    GapArmsBlock,
    GapBlock,
    RatioBlock,
    UtilityBlock,
    block_from_json,
    block_to_json,
    stored_list,
    stored_mapping,
)

__all__ = [
    "SAMPLE_RATIO",
    "Alarm",
    "AssignmentBlock",
    "Block",
    "CountBlock",
    "EvidenceError",
    "FloatArray",
    "GapArmsBlock",
    "GapBlock",
    "Measured",
    "PollEvidence",
    "RatioBlock",
    "UtilityBlock",
]

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

    def to_json(self) -> dict[str, object]:
        """JSON-safe and exact; payoffs that are not finite stand as the texts "nan", "inf" and "-inf"."""
        return {
            "at": self.at,
            "weight_pct": self.weight_pct,
            "blocks": {name: block_to_json(block) for name, block in self.blocks.items()},
            "missing": dict(self.missing),
            "alarms": [{"reason": alarm.reason.value, "detail": alarm.detail} for alarm in self.alarms],
        }

    @classmethod
    def from_json(cls, obj: Mapping[str, object]) -> PollEvidence:
        """Read back what `to_json` wrote. Raises EvidenceError."""
        try:
            return cls(
                at=float(str(obj["at"])),
                weight_pct=float(str(obj["weight_pct"])),
                blocks={
                    name: block_from_json(stored_mapping(one))
                    for name, one in stored_mapping(obj["blocks"]).items()
                },
                missing={name: str(why) for name, why in stored_mapping(obj["missing"]).items()},
                alarms=tuple(
                    Alarm(ReasonCode(str(stored_mapping(one)["reason"])), str(stored_mapping(one)["detail"]))
                    for one in stored_list(obj["alarms"])
                ),
            )
        except EvidenceError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise EvidenceError(f"not a stored poll: {error!r}") from error
