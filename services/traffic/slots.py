"""What Envoy's clusters mean: which release is stable, canary and shadow, and the salt of this rollout.

`slots.json` is the single source; the endpoint and route files are derived from it.
Source: design.md §7. Must never import anything that does I/O.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from services.traffic.errors import TrafficError
from services.traffic.state_files import Json

_SALT = re.compile(r"[0-9a-z][0-9a-z-]{0,63}\Z")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


@dataclass(frozen=True)
class Slots:
    """`stable`: release ids by priority, the first serves, the next takes over; `canary`, `shadow`: one or none."""

    stable: tuple[str, ...]
    canary: str | None
    shadow: str | None
    salt: str

    def __post_init__(self) -> None:
        if not self.stable:
            raise TrafficError("'stable' must name at least one release: none given")
        if len(set(self.stable)) != len(self.stable):
            raise TrafficError(f"'stable' must name each release once: {', '.join(self.stable)}")
        for release_id in self.releases():
            if not _RELEASE.match(release_id):
                raise TrafficError(f"a release id must be letters, digits, '.', '_' or '-': {release_id!r}")
        if not _SALT.match(self.salt):
            raise TrafficError(f"'salt' must be 1 to 64 of a-z, 0-9 and '-': {self.salt!r}")

    def releases(self) -> tuple[str, ...]:
        """Every release that is named, once, stable first."""
        named = [*self.stable, *(name for name in (self.canary, self.shadow) if name is not None)]
        return tuple(dict.fromkeys(named))

    def to_json(self) -> dict[str, Json]:
        return {
            "stable": list(self.stable),
            "canary": self.canary,
            "shadow": self.shadow,
            "salt": self.salt,
        }

    @staticmethod
    def from_json(value: dict[str, Json], source: str) -> "Slots":
        """Slots from the object in `source`. Raises: TrafficError naming the field that is wrong."""
        unknown = set(value) - {"stable", "canary", "shadow", "salt"}
        if unknown:
            raise TrafficError(f"{source}: unknown {', '.join(sorted(unknown))}")
        stable, salt = value.get("stable"), value.get("salt")
        if not isinstance(stable, list) or not all(isinstance(name, str) for name in stable):
            raise TrafficError(f"{source}: 'stable' must be a list of release ids: {stable!r}")
        if not isinstance(salt, str):
            raise TrafficError(f"{source}: 'salt' must be a string: {salt!r}")
        return Slots(
            stable=tuple(str(name) for name in stable),
            canary=_optional(value, "canary", source),
            shadow=_optional(value, "shadow", source),
            salt=salt,
        )


def new_salt(random_bytes: Callable[[int], bytes]) -> str:
    """A salt for one rollout, 16 hex digits (`new_salt(os.urandom)`); never reuse one between rollouts."""
    return random_bytes(8).hex()


def _optional(value: dict[str, Json], field: str, source: str) -> str | None:
    found = value.get(field)
    if found is not None and not isinstance(found, str):
        raise TrafficError(f"{source}: '{field}' must be a release id or null: {found!r}")
    return found
