"""Where the evidence of a rollout was left: saved by the caller together with the gates, so each row counts
once.

Everything here is plain JSON. A cursor belongs to one stage settled at one instant: another stage starts the
windows again but keeps how far requests were read and what the hosts' counters stood at.
Must never import: sqlalchemy, flows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from services.telemetry.host_counters import HostTotals


@dataclass(frozen=True)
class Cursor:
    """`settled_at`: evidence starts here (the stage's weight was read back, and was right ever since).

    `decided_through`: decisions up to here are consumed, `acted_through`: likewise for what needs no outcome.
    `requests_seq`: requests likewise. `sick_since`: since when the candidate was found unable to take
    traffic. `needed` and `unresolved`, by variant: consumed decisions that needed an outcome, and those of
    them that had none. `unscored`: consumed decisions whose row a release cannot score. `skew`: why the
    releases are not what they were taken for; it stays for the whole rollout.
    """

    stage: str
    asked_settled_at: float
    settled_at: float
    decided_through: float
    requests_seq: int
    hosts: Mapping[str, HostTotals] = field(default_factory=dict)
    has_baseline: bool = False
    sick_since: float | None = None
    needed: Mapping[str, int] = field(default_factory=dict)
    unresolved: Mapping[str, int] = field(default_factory=dict)
    acted_through: float = 0.0
    unscored: int = 0
    skew: str = ""

    @classmethod
    def for_stage(cls, saved: Mapping[str, object], stage: str, settled_at: float) -> "Cursor":
        """The saved cursor, or a fresh one when stage or settling is another than it was saved for."""
        if not saved:
            return cls(stage, settled_at, settled_at, settled_at, 0, acted_through=settled_at)
        cursor = cls._from_json(cast(Mapping[str, Any], saved))
        if (cursor.stage, cursor.asked_settled_at) == (stage, settled_at):
            return cursor
        return replace(
            cursor,
            stage=stage,
            asked_settled_at=settled_at,
            settled_at=settled_at,
            decided_through=settled_at,
            has_baseline=False,
            sick_since=None,
            needed={},
            unresolved={},
            acted_through=settled_at,
            unscored=0,
        )

    def settled_again(self, now: float) -> "Cursor":
        """The weight was not what it should be: all that is not consumed yet is discarded, up to now."""
        return replace(
            self,
            settled_at=now,
            decided_through=max(now, self.decided_through),
            acted_through=max(now, self.acted_through),
            has_baseline=False,
        )

    def to_json(self) -> dict[str, object]:
        return {
            **vars(self),
            "hosts": {
                key: [totals.requests, totals.errors, totals.excused] for key, totals in self.hosts.items()
            },
            "needed": dict(self.needed),
            "unresolved": dict(self.unresolved),
        }

    @classmethod
    def _from_json(cls, saved: Mapping[str, Any]) -> "Cursor":
        hosts = {key: HostTotals(*pair) for key, pair in saved["hosts"].items()}
        return cls(**{**saved, "hosts": hosts})
