"""Asking the supervisor: start and stop it, want and drop releases, wait until something is ready.

Everything goes through the files of records.py, so it works from any process and survives each.
Must never import bentoml, torch or sqlalchemy.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from services.home import Home
from services.traffic.errors import TrafficError
from services.traffic.processes import Identity, end, is_alive, kill_session, port_is_free, spawn, terminate
from services.traffic.records import (
    ProcessSpec,
    ReleaseCommand,
    RunningProcess,
    at_port,
    read_deaths,
    read_desired,
    read_running,
    running_file,
    supervisor_file,
    supervisor_identity,
    write_deaths,
    write_desired,
    write_running,
    write_specs,
)
from services.traffic.settings import EnvoySettings, write_settings
from services.traffic.state_files import locked
from services.traffic.traffic import Traffic

GRACE_S = 5.0
"""How long a process may take to finish after SIGTERM."""
MOST_DEATHS = 4
"""Deaths before it was ever ready after which nobody waits for a process any longer."""


def want_release(
    home: Home, release_id: str, command: Callable[[int], ReleaseCommand] | ReleaseCommand
) -> int:
    """Have this release run, and return its loopback port; idempotent, a release keeps its port.

    `command`: called with the port (`lambda port: launch_command(release_id, home, port)`), or a command made for
    some port, which is then moved to the one returned. Raises: TrafficError when no port is free.
    """
    with locked(home):
        port = _port_of(home, release_id)
    # A command may take seconds (it builds what it starts): the supervisor needs the lock meanwhile.
    made = command(port) if callable(command) else command
    spec = ProcessSpec(
        name=release_id,
        argv=tuple(made.argv),
        env=dict(made.env),
        cwd=str(made.cwd),
        ready_url=made.ready_url,
    )
    with locked(home):
        port = _port_of(home, release_id)
        spec = spec if spec.port == port else at_port(spec, port)
        releases = read_desired(home)
        if spec != releases.get(release_id):
            write_desired(home, {**releases, release_id: spec})
    return port


def port_if_running(home: Home, release_id: str) -> int | None:
    """The port of a release that runs as it was last wanted; None where it does not."""
    wanted, found = read_desired(home).get(release_id), running(home).get(release_id)
    is_it = wanted is not None and found is not None and wanted.digest == found.digest
    return wanted.port if is_it and wanted is not None else None


def _port_of(home: Home, release_id: str) -> int:
    """The port that the release has, or the one it would get now; call it under `locked(home)`."""
    releases = read_desired(home)
    known = releases.get(release_id)
    if known is not None and known.port is not None:
        return known.port
    return free_port(home, taken={spec.port for spec in releases.values()})


def drop_release(home: Home, release_id: str) -> None:
    """Have this release stopped; idempotent. Raises: TrafficError while a slot still names it."""
    slots = Traffic(home).read_slots()
    if slots is not None and release_id in slots.releases():
        raise TrafficError(
            f"release {release_id} still has a slot: take it out of slots.json first (write_slots)"
        )
    with locked(home):
        releases = read_desired(home)
        if releases.pop(release_id, None) is not None:
            write_desired(home, releases)


def free_port(home: Home, *, taken: set[int | None]) -> int:
    """A port of this home's range that no release has and nobody listens on. Raises: TrafficError."""
    for port in home.ports.releases:
        if port not in taken and port_is_free(port):
            return port
    span = home.ports.releases
    raise TrafficError(
        f"no free port in {span.start}–{span.stop - 1} for a release: drop one, or choose another base port"
    )


def running(home: Home) -> dict[str, RunningProcess]:
    """Name → process, for the owned processes that live."""
    return {name: process for name, process in read_running(home).items() if is_alive(process.identity)}


def wait_ready(home: Home, name: str, timeout_s: float) -> RunningProcess:
    """Wait until the process of this name (a release id, "envoy", a spec's name) is ready.

    Raises: TrafficError after `timeout_s`, after `MOST_DEATHS` deaths of it, or at once when no supervisor runs.
    """
    deadline, deaths_before = time.monotonic() + timeout_s, read_deaths(home, name)
    while True:
        found, wanted = running(home).get(name), read_desired(home).get(name)
        is_wanted = found is not None and (wanted is None or found.digest == wanted.digest)
        if found is not None and found.ready and is_wanted:  # one that is about to be replaced does not count
            return found
        if read_deaths(home, name) - deaths_before >= MOST_DEATHS:
            raise TrafficError(
                f"{name} died {MOST_DEATHS} times before it was ready: {_last_line(home, name)}; "
                f"all its output: {home.processes / f'{name}.log'}"
            )
        if supervisor_identity(home) is None:
            raise TrafficError(
                f"{name} cannot become ready: no supervisor runs for {home.root}; `trimtab up`"
            )
        if time.monotonic() >= deadline:
            state = "is not started" if found is None else f"runs (pid {found.pid}) but is not ready"
            raise TrafficError(
                f"{name} {state} after {timeout_s} s; its output: {home.processes / f'{name}.log'}"
            )
        time.sleep(0.1)


def _last_line(home: Home, name: str) -> str:
    """What it said last that was not indented, which is where a traceback names its error."""
    log = home.processes / f"{name}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    said = [line for line in lines if line.strip() and not line.startswith((" ", "\t"))]
    errors = [line for line in said if "Error" in line]
    return (errors or said or ["it said nothing"])[-1]


def start_supervisor(
    home: Home,
    specs: Sequence[ProcessSpec],
    *,
    settings: EnvoySettings | None = None,
    timeout_s: float = 30.0,
) -> int:
    """Start the supervisor of this home, detached from the caller; returns its pid once it is in charge.

    Raises: TrafficError when one runs already, or when it does not come up within `timeout_s`.
    """
    already = supervisor_identity(home)
    if already is not None:
        raise TrafficError(
            f"a supervisor of {home.root} runs already (pid {already.pid}); `trimtab down` ends it"
        )
    home.processes.mkdir(parents=True, exist_ok=True)
    home.traffic.mkdir(parents=True, exist_ok=True)
    write_specs(home, specs)
    write_deaths(home, {})
    if settings is not None:
        write_settings(home, settings)
    argv = [sys.executable, "-m", "services.traffic.supervisor"]
    argv += ["--home", str(home.root), "--base-port", str(home.ports.base)]
    log = home.processes / "supervisor.log"
    identity, process = spawn(argv, env=None, cwd=Path.cwd(), log=log)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        now = supervisor_identity(home)
        if now is not None and now.pid == identity.pid:
            return identity.pid
        if process.poll() is not None:
            break
        time.sleep(0.05)
    kill_session(identity)
    raise TrafficError(f"the supervisor of {home.root} did not come up; its output: {log}")


def stop_supervisor(home: Home, *, timeout_s: float = 30.0) -> None:
    """Stop the supervisor and all it owns; if it is dead, end what it left behind; idempotent.

    Raises: TrafficError when it has not ended after `timeout_s`.
    """
    identity = supervisor_identity(home)
    if identity is not None:
        terminate(identity)
        deadline = time.monotonic() + timeout_s
        while is_alive(identity):
            if time.monotonic() >= deadline:
                raise TrafficError(
                    f"the supervisor (pid {identity.pid}) has not ended after {timeout_s} s; "
                    f"see {home.processes / 'supervisor.log'}"
                )
            time.sleep(0.05)
    if not running_file(home).exists():
        return
    with in_charge(home):
        end_orphans(home)


def end_orphans(home: Home) -> list[str]:
    """End what a killed supervisor left running; names. Call it while in charge."""
    left = running(home)
    identities: list[Identity] = [process.identity for process in read_running(home).values()]
    end(identities, grace_s=GRACE_S, now=time.monotonic, sleep=time.sleep)
    write_running(home, {})
    supervisor_file(home).unlink(missing_ok=True)
    return sorted(left)


@contextmanager
def in_charge(home: Home) -> Iterator[None]:
    """Hold this home's supervisor lock. Raises: TrafficError when another process does."""
    home.processes.mkdir(parents=True, exist_ok=True)
    # A killed holder's threads may keep the lock for some milliseconds after it counts as dead.
    lock = FileLock(home.processes / "supervisor.lock", timeout=2.0)
    try:
        lock.acquire()
    except Timeout as error:
        other = supervisor_identity(home)
        who = "another process" if other is None else f"pid {other.pid}"
        raise TrafficError(
            f"{who} is the supervisor of {home.root} already; `trimtab down` ends it"
        ) from error
    try:
        yield
    finally:
        lock.release()
