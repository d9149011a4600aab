"""Whether the time since the last poll can be counted on: the wall clock was not set anew, the lease not outlived.

Pure: times come in, a ledger entry comes out. Must never import Prefect.
"""

from __future__ import annotations

from services.rollout.effects import GRANT_SHARE_OF_LEASE
from services.store.json_text import JsonObject

STEP_S = 1.0
"""How far the wall clock may leave the monotonic one between two polls; one that is adjusted slowly stays within."""


class PollTimes:
    """The times of one conductor's polls."""

    def __init__(self, lease_s: float) -> None:
        self._grant_s = GRANT_SHARE_OF_LEASE * lease_s
        self._before: tuple[float, float] | None = None

    def lost(self, now: float, timer: float, *, has_weight: bool) -> tuple[str, JsonObject] | None:
        """The kind and body of the ledger entry that says why the stage must start again; None where it need not.

        now: epoch s; timer: monotonic s; has_weight: whether the canary has users, and its grant may have lapsed.
        """
        before, self._before = self._before, (now, timer)
        if before is None:
            return None
        silent_s = timer - before[1]
        stepped_s = now - before[0] - silent_s
        if abs(stepped_s) > STEP_S:
            return "clock_stepped", {"by_s": round(stepped_s, 3), "silent_s": round(silent_s, 3)}
        if has_weight and silent_s > self._grant_s:
            return "lease_lapsed", {"silent_s": silent_s}
        return None
