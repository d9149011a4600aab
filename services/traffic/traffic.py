"""Who serves: keeps `slots.json` and derives from it the endpoint and route files that Envoy watches.

Rule 1: `slots.json` is written first; a crash after it is mended by `derive()`, which the supervisor repeats.
Rule 2: a file is replaced only when its content changes, in one rename.
Source: design.md §7. Must never import bentoml, torch or sqlalchemy.
"""

from collections.abc import Mapping
from pathlib import Path

from services.home import Home
from services.traffic.bootstrap import bootstrap, bootstrap_file, routes_file
from services.traffic.clusters import CANARY, SHADOW, STABLE, endpoints, endpoints_file
from services.traffic.errors import TrafficError
from services.traffic.records import recorded_ports
from services.traffic.routes import users_routes
from services.traffic.settings import EnvoySettings, read_settings
from services.traffic.slots import Slots
from services.traffic.state_files import Json, locked, read_object, write_json, write_json_if_changed
from services.traffic.throttle import Throttle, read_throttle

_ROUTES_TYPE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"


class Traffic:
    """The traffic files of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._file = home.traffic / "slots.json"

    def write_slots(self, slots: Slots, ports: Mapping[str, int] | None = None) -> None:
        """Make `slots` what Envoy serves, within a second if it runs; idempotent.

        `ports` maps release id to loopback port; without it, the ports recorded by `want_release`.
        Raises: TrafficError when a release of `slots` has no port; then nothing is changed.
        """
        with locked(self._home):
            known = recorded_ports(self._home) if ports is None else ports
            files = self._files(slots, known)
            write_json(self._file, slots.to_json())
            self._write(files)

    def read_slots(self) -> Slots | None:
        """What `slots.json` says; None before the first release."""
        value = read_object(self._file)
        return Slots.from_json(value, str(self._file)) if value else None

    def derive(self) -> bool:
        """Rewrite what does not agree with `slots.json` and the recorded ports; returns whether anything did."""
        with locked(self._home):
            slots = self.read_slots()
            return slots is not None and self._write(self._files(slots, recorded_ports(self._home)))

    def derive_bootstrap(self) -> bool:
        """Rewrite Envoy's start-up file if the settings or ports changed; Envoy reads it only when it starts."""
        with locked(self._home):
            value = bootstrap(self._home, read_settings(self._home))
            return write_json_if_changed(bootstrap_file(self._home), value)

    def _files(self, slots: Slots, ports: Mapping[str, int]) -> list[tuple[Path, Json]]:
        settings, throttle = read_settings(self._home), read_throttle(self._home)
        stable, canary, shadow = (
            tuple(_port(name, ports) for name in names)
            for names in (slots.stable, _one(slots.canary), _one(slots.shadow))
        )
        folder = self._home.traffic
        return [
            # Endpoints before routes: a mirror never points at a cluster that is still empty.
            (endpoints_file(folder, STABLE), endpoints(STABLE, stable)),
            (endpoints_file(folder, CANARY), endpoints(CANARY, canary)),
            (endpoints_file(folder, SHADOW), endpoints(SHADOW, shadow)),
            (routes_file(self._home), _routes(slots, settings, throttle)),
        ]

    def _write(self, files: list[tuple[Path, Json]]) -> bool:
        return any([write_json_if_changed(path, value) for path, value in files])


def _routes(slots: Slots, settings: EnvoySettings, throttle: Throttle) -> Json:
    return {"resources": [{"@type": _ROUTES_TYPE, **users_routes(slots, settings, throttle)}]}


def _one(release_id: str | None) -> tuple[str, ...]:
    return () if release_id is None else (release_id,)


def _port(release_id: str, ports: Mapping[str, int]) -> int:
    if release_id not in ports:
        raise TrafficError(
            f"release {release_id} has no port: start it first (want_release); "
            f"running are {', '.join(sorted(ports)) or 'none'}"
        )
    return ports[release_id]
