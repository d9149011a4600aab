"""Limits how much traffic the canary, or all users together, may make: ledger first, then the file, then read back.

Repeating changes nothing. Needs neither the control service nor Prefect. What a limit does stands in
services/traffic/throttle.py. Must never import: sqlalchemy, starlette, prefect.
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Literal

from services.home import Home
from services.ledger.ledger import append
from services.store import rollouts
from services.store.database import Database
from services.traffic.admin import EnvoyAdmin
from services.traffic.errors import TrafficError
from services.traffic.throttle import Throttle, read_throttle, write_throttle
from services.traffic.traffic import Traffic

CONFIRM_S = 3.0
Variant = Literal["canary", "users"]


@dataclass(frozen=True)
class Throttled:
    """What came of it: the limits now, whether anything changed, and whether Envoy has them (None: it is down)."""

    limits: Throttle
    changed: bool
    in_force: bool | None


def throttle(
    db: Database,
    home: Home,
    *,
    service: str,
    variant: Variant,
    per_s: float | None,
    by: str,
    reason: str,
    at: float,
) -> Throttled:
    """Limit `variant` to so many requests a second, None: no limit; wait until Envoy has it. Raises TrafficError."""
    before = read_throttle(home)
    wanted = replace(before, **{f"{variant}_per_s": per_s})
    active = rollouts.active(db, service)
    rollout_id = None if active is None else active.id
    if wanted != before:
        body = {"variant": variant, "per_s": per_s, "by": by, "reason": reason}
        append(db, "throttle", body, service=service, rollout_id=rollout_id, at=at)
        write_throttle(home, wanted)
    Traffic(home).derive()
    in_force = _read_back(home, wanted)
    if wanted != before:
        seen = {"limits": asdict(wanted), "in_force": in_force}
        append(db, "throttle_effect", seen, service=service, rollout_id=rollout_id, at=at)
    return Throttled(wanted, wanted != before, in_force)


def in_force(home: Home, wanted: Throttle) -> bool | None:
    """Whether Envoy has these limits; None when it does not answer."""
    try:
        found = EnvoyAdmin(home).limits()
    except TrafficError:
        return None
    return _is_close(found.canary_per_s, wanted.canary_per_s) and _is_close(
        found.users_per_s, wanted.users_per_s
    )


def _read_back(home: Home, wanted: Throttle) -> bool | None:
    deadline = time.monotonic() + CONFIRM_S
    while True:
        found = in_force(home, wanted)
        if found or time.monotonic() >= deadline:
            return found
        time.sleep(0.1)


def _is_close(found: float | None, wanted: float | None) -> bool:
    # The proxy's bucket is filled in whole requests and whole milliseconds.
    if found is None or wanted is None:
        return found is wanted
    return math.isclose(found, wanted, rel_tol=0.05)
