"""The weight that may be published now: the one active rollout's unexpired grant, read at most every 0.2 s.

Anything else is 0: no grant, an expired or revoked one, two active rollouts (one proxy carries one canary). A grant
that nobody renews also ends after its own length by the monotonic clock, so that stepping the machine's clock back
prolongs no lease.
A store that does not answer raises; who publishes must make 0 of that.
Must never import: sqlalchemy, policies, flows.
"""

import logging
import threading
from collections.abc import Callable
from time import monotonic

from services.store.database import Database
from services.store.grants import Grant, current_grants, effective_weight
from services.telemetry.events import log_event

LOGGER = logging.getLogger(__name__)
REFRESH_S = 0.2


class GrantReader:
    """Callable: the effective weight in percent. Safe for threads. Expiry is checked at each call, never
    cached."""

    def __init__(
        self, db: Database, *, clock: Callable[[], float], timer: Callable[[], float] = monotonic
    ) -> None:
        self._db = db
        self._clock = clock
        self._timer = timer
        self._lock = threading.Lock()
        self._grants: tuple[Grant, ...] = ()
        self._ends_at: dict[Grant, float] = {}
        self._read_at: float | None = None

    def __call__(self) -> float:
        """The weight in percent. Raises StoreError when the store does not answer."""
        with self._lock:
            now = self._timer()
            if self._read_at is None or now - self._read_at >= REFRESH_S:
                self._read_at = None  # a failure below must not leave an old grant in force
                found = current_grants(self._db)
                if len(found) > 1 and len(self._grants) <= 1:
                    log_event(
                        LOGGER, "several_active_grants", level=logging.ERROR, count=len(found), weight=0
                    )
                ends_at = {grant: now + grant.valid_until - grant.updated_at for grant in found}
                self._ends_at = {grant: self._ends_at.get(grant, ends_at[grant]) for grant in found}
                self._grants, self._read_at = found, now
            if len(self._grants) != 1 or now >= self._ends_at[self._grants[0]]:
                return 0.0
            grant = self._grants[0]
        return effective_weight(grant, self._clock())

    def forget(self) -> None:
        """Read the store at the next call, whatever was read when."""
        with self._lock:
            self._read_at = None
