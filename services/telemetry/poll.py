"""One poll while it is put together: blocks by metric, what is missing and why, alarms, and the moving cursor.

Rule: what a source cannot give is named in `missing` and is no zero. Must never import: sqlalchemy, flows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from policies.gates.evidence import Alarm, Block, PollEvidence
from services.store import decisions as store
from services.store.database import Database
from services.telemetry.cursor import Cursor
from services.traffic.admin import Host

LIMIT = 5_000
"""Rows that one poll consumes at most; a backlog is worked off over polls."""
VARIANTS = ("canary", "stable")


class Admin(Protocol):
    """What is read of the proxy; services.traffic.admin.EnvoyAdmin."""

    def weight_pct(self) -> float: ...

    def endpoints(self) -> Mapping[str, tuple[Host, ...]]: ...


@dataclass(frozen=True)
class Limits:
    """When a source counts as missing, in seconds. `feed_s` None: twice the maturity plus 5."""

    eject_after_s: float = 3.0
    lag_s: float = 6.0
    feed_s: float | None = None


DEFAULT_LIMITS = Limits()


@dataclass
class Poll:
    """One poll while it is put together."""

    cursor: Cursor
    blocks: dict[str, Block]
    missing: dict[str, str]
    alarms: list[Alarm]

    def __post_init__(self) -> None:
        self.hosts_before = self.cursor.hosts

    def discard(self, metrics: set[str], why: str, *, now: float) -> None:
        """Drop this poll: nothing of it counts, and evidence starts anew from now."""
        self.blocks.clear()
        self.missing.update(dict.fromkeys(metrics, why))
        # The hosts' counters are not consumed: the candidate's failures in this poll count in the next.
        self.cursor = replace(self.cursor.settled_again(now), hosts=self.hosts_before)

    def evidence(self, now: float, weight_pct: float) -> tuple[PollEvidence, dict[str, object]]:
        found = PollEvidence(now, weight_pct, self.blocks, self.missing, tuple(self.alarms))
        return found, self.cursor.to_json()


def shipping_fault(db: Database, *, now: float, limits: Limits) -> str:
    """Why what the store holds is too old to judge by; empty when it is not."""
    through = store.read_mark(db, store.SHIPPED_THROUGH)
    if through is None:
        return "no log has been shipped yet: is the control service up?"
    if now - through > limits.lag_s:
        return f"the shipper is {now - through:.1f} s behind (at most {limits.lag_s:g} s)"
    return ""
