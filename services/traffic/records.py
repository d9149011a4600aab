"""What is to run and what runs: `specs.json`, `desired.json`, `running.json`, and who the supervisor is.

specs.json     processes that belong to the home whatever is released (control, prefect …); the composition root's
desired.json   releases that must run, each with the port it was given
running.json   what the supervisor owns now: pid, creation time, port, readiness
Must never import bentoml, torch or sqlalchemy.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from services.home import Home
from services.traffic.errors import TrafficError
from services.traffic.processes import Identity, is_alive
from services.traffic.state_files import Json, read_object, write_json

ENVOY = "envoy"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


class ReleaseCommand(Protocol):
    """How to start one release on one port; services.serving gives it. `env` is added to the supervisor's."""

    @property
    def argv(self) -> Sequence[str]: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def cwd(self) -> Path | str: ...
    @property
    def ready_url(self) -> str: ...


@dataclass(frozen=True)
class ProcessSpec:
    """One process to keep running; `env` is added to the supervisor's, `restart_delay_s` is the first back-off."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    ready_url: str | None
    restart_delay_s: float = 0.5

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise TrafficError(f"a process name must be letters, digits, '.', '_' or '-': {self.name!r}")
        if not self.argv:
            raise TrafficError(f"'argv' of {self.name} must not be empty")
        if self.restart_delay_s < 0:
            raise TrafficError(f"'restart_delay_s' of {self.name} must be >= 0: {self.restart_delay_s}")

    @property
    def port(self) -> int | None:
        """The port of `ready_url`."""
        return None if self.ready_url is None else urlsplit(self.ready_url).port

    @property
    def digest(self) -> str:
        """Changes when the process must be started anew to be what this spec says."""
        text = json.dumps([list(self.argv), dict(self.env), self.cwd], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunningProcess:
    """One owned process at the supervisor's last look; `since` (started) in monotonic seconds."""

    pid: int
    created: float
    port: int | None
    ready: bool
    since: float
    restarts: int
    digest: str

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.created)


def specs_file(home: Home) -> Path:
    return home.processes / "specs.json"


def desired_file(home: Home) -> Path:
    return home.traffic / "desired.json"


def running_file(home: Home) -> Path:
    return home.processes / "running.json"


def deaths_file(home: Home) -> Path:
    return home.processes / "deaths.json"


def supervisor_file(home: Home) -> Path:
    return home.processes / "supervisor.pid"


def write_specs(home: Home, specs: Sequence[ProcessSpec]) -> None:
    """Keep the static specs of this home. Raises: TrafficError on a name given twice or reserved."""
    names = [spec.name for spec in specs]
    twice = {name for name in names if names.count(name) > 1 or name == ENVOY}
    if twice:
        raise TrafficError(f"process names must be unique and not '{ENVOY}': {', '.join(sorted(twice))}")
    write_json(specs_file(home), {"specs": [{**asdict(spec), "argv": list(spec.argv)} for spec in specs]})


def read_specs(home: Home) -> tuple[ProcessSpec, ...]:
    found = read_object(specs_file(home)).get("specs", [])
    return tuple(_spec(entry, str(specs_file(home))) for entry in found if isinstance(entry, dict))  # type: ignore[union-attr]


def read_desired(home: Home) -> dict[str, ProcessSpec]:
    """Release id → how it is started."""
    releases = read_object(desired_file(home)).get("releases", {})
    if not isinstance(releases, dict):
        raise TrafficError(f"{desired_file(home)}: 'releases' must be an object")
    return {
        str(release_id): _spec({**entry, "name": release_id}, str(desired_file(home)))
        for release_id, entry in releases.items()
        if isinstance(entry, dict)
    }


def write_desired(home: Home, releases: Mapping[str, ProcessSpec]) -> None:
    """Keep what must run; call it under `locked(home)`."""
    write_json(
        desired_file(home),
        {
            "releases": {
                release_id: {
                    "port": spec.port,
                    "argv": list(spec.argv),
                    "env": dict(spec.env),
                    "cwd": spec.cwd,
                    "ready_url": spec.ready_url,
                    "restart_delay_s": spec.restart_delay_s,
                }
                for release_id, spec in releases.items()
            }
        },
    )


def recorded_ports(home: Home) -> dict[str, int]:
    """Release id → its port."""
    return {name: spec.port for name, spec in read_desired(home).items() if spec.port is not None}


def at_port(spec: ProcessSpec, port: int) -> ProcessSpec:
    """The same release on another port: the old number is replaced wherever it stands alone."""
    if spec.port is None or spec.ready_url is None:
        raise TrafficError(f"'ready_url' of {spec.name} must name a port: {spec.ready_url!r}")
    alone = re.compile(rf"(?<![\w.-]){spec.port}(?![\w.-])")
    return ProcessSpec(
        name=spec.name,
        argv=tuple(alone.sub(str(port), word) for word in spec.argv),
        env={key: alone.sub(str(port), value) for key, value in spec.env.items()},
        cwd=spec.cwd,
        ready_url=alone.sub(str(port), spec.ready_url),
        restart_delay_s=spec.restart_delay_s,
    )


def read_running(home: Home) -> dict[str, RunningProcess]:
    """What running.json says, alive or not."""
    found: dict[str, RunningProcess] = {}
    for name, entry in read_object(running_file(home)).items():
        if isinstance(entry, dict):
            try:
                found[name] = RunningProcess(**entry)
            except TypeError as error:
                raise TrafficError(f"{running_file(home)}: '{name}': {error}; remove the file") from error
    return found


def write_running(home: Home, running: Mapping[str, RunningProcess]) -> None:
    write_json(running_file(home), {name: asdict(entry) for name, entry in running.items()})


def read_deaths(home: Home, name: str) -> int:
    """How often the process of this name has died under this supervisor; a dead one is not in running.json."""
    count = read_object(deaths_file(home)).get(name, 0)
    return count if isinstance(count, int) else 0


def write_deaths(home: Home, deaths: Mapping[str, int]) -> None:
    write_json(deaths_file(home), dict(deaths))


def supervisor_identity(home: Home) -> Identity | None:
    """The supervisor of this home, if it lives."""
    value = read_object(supervisor_file(home))
    pid, created = value.get("pid"), value.get("created")
    if not isinstance(pid, int) or not isinstance(created, int | float):
        return None
    identity = Identity(pid, float(created))
    return identity if is_alive(identity) else None


def _spec(entry: Mapping[str, Json], source: str) -> ProcessSpec:
    argv, env = entry.get("argv"), entry.get("env", {})
    ready_url, delay = entry.get("ready_url"), entry.get("restart_delay_s", 0.5)
    if (
        not isinstance(argv, list)
        or not isinstance(env, dict)
        or not isinstance(ready_url, str | None)
        or not isinstance(delay, int | float)
    ):
        raise TrafficError(
            f"{source}: '{entry.get('name')}' must have argv, env, cwd, ready_url, restart_delay_s"
        )
    return ProcessSpec(
        name=str(entry.get("name")),
        argv=tuple(str(word) for word in argv),
        env={str(key): str(value) for key, value in env.items()},
        cwd=str(entry.get("cwd")),
        ready_url=ready_url,
        restart_delay_s=float(delay),
    )
