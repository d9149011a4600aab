"""How much traffic a variant may take at most, kept in `traffic/throttle.json` and in force within a second.

canary: what is over its limit is answered by stable, and is no evidence (assigned "none"): users notice nothing, and a
        canary that is throttled for long misses its share of the units, which holds the rollout (`sample_ratio`).
users:  what is over the limit of all user traffic is answered 429 with `retry-after`: a shield for stable.
Envoy's adaptive concurrency is not used: it answers 503 itself, before the router, so a slow canary would cost its
users their answers; the limit per try and the ejection (clusters.py) see to slowness.
Must never import anything that does I/O beyond the state files.
"""

import math
from dataclasses import asdict, dataclass, fields

from services.home import Home
from services.traffic.errors import TrafficError
from services.traffic.state_files import Json, locked, read_object, write_json

_FINEST_PER_S = 20.0  # Envoy fills a bucket every 50 ms at most


@dataclass(frozen=True)
class Throttle:
    """Most requests a second that the canary, and all users together, may make; None: no limit."""

    canary_per_s: float | None = None
    users_per_s: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
                raise TrafficError(f"'{field.name}' must be a number > 0: {value!r}")


def read_throttle(home: Home) -> Throttle:
    """What is in force; no limits where there is no file. Raises: TrafficError on an unknown key."""
    path = home.traffic / "throttle.json"
    value = read_object(path)
    known = {field.name for field in fields(Throttle)}
    if unknown := set(value) - known:
        raise TrafficError(
            f"{path}: unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}"
        )
    return Throttle(**value)  # type: ignore[arg-type]  # __post_init__ checks every value


def write_throttle(home: Home, throttle: Throttle) -> None:
    """Put these limits in force; the supervisor derives the routes from them within a second."""
    with locked(home):
        write_json(home.traffic / "throttle.json", asdict(throttle))


def token_bucket(per_s: float) -> dict[str, Json]:
    """Envoy's token bucket for so many requests a second; it holds one second's worth, at least one request."""
    if per_s <= _FINEST_PER_S:
        return {"max_tokens": math.ceil(per_s), "tokens_per_fill": 1, "fill_interval": f"{1 / per_s:.3f}s"}
    return {"max_tokens": math.ceil(per_s), "tokens_per_fill": round(per_s), "fill_interval": "1s"}
