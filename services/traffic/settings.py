"""The few numbers of the data plane that an installation may change, kept in `traffic/settings.json`.

Must never import anything that does I/O beyond the state files.
"""

import math
from dataclasses import asdict, dataclass, fields

from services.home import Home
from services.traffic.errors import TrafficError
from services.traffic.state_files import read_object, write_json


@dataclass(frozen=True)
class EnvoySettings:
    """Time limits of one request (seconds), its largest body (bytes), and when a failing host is ejected."""

    per_try_timeout_s: float = 1.0
    timeout_s: float = 10.0
    max_body_bytes: int = 1 << 20
    ejection_after_errors: int = 5
    ejection_s: float = 30.0
    health_interval_s: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
                raise TrafficError(f"'{field.name}' must be a number > 0: {value!r}")
        if self.timeout_s < 2 * self.per_try_timeout_s:
            raise TrafficError(
                f"'timeout_s' must be >= 2 * per_try_timeout_s, or the retry has no time: {self.timeout_s}"
            )


def read_settings(home: Home) -> EnvoySettings:
    """This home's settings, defaults where the file says nothing. Raises: TrafficError on an unknown key."""
    path = home.traffic / "settings.json"
    value = read_object(path)
    known = {field.name for field in fields(EnvoySettings)}
    unknown = set(value) - known
    if unknown:
        raise TrafficError(
            f"{path}: unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}"
        )
    return EnvoySettings(**value)  # type: ignore[arg-type]  # __post_init__ checks every value


def write_settings(home: Home, settings: EnvoySettings) -> None:
    """Keep `settings` for this home; Envoy takes them when the supervisor starts it next."""
    write_json(home.traffic / "settings.json", asdict(settings))
