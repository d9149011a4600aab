"""Brings the running system up and down: supervisor, control service, Envoy, Prefect's server, the stable release.

The same functions serve `trimtab up`, the main job and the drills; each has a home of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flows.wiring import (
    WiringError,
    make_home,
    open_store,
    own_prefect_url,
    prefect_url,
    require_free_ports,
    supervisor_specs,
)
from services.control.switch import restore
from services.home import LOOPBACK, Home
from services.rollout.effects import World
from services.rollout.policy_set import POLICIES
from services.serving.build import build_bento
from services.serving.release import Release, find_release
from services.serving.release_command import launch_command
from services.store.database import Database
from services.traffic.admin import EnvoyAdmin
from services.traffic.records import read_desired, supervisor_identity
from services.traffic.slots import Slots, new_salt
from services.traffic.supervision import (
    running,
    start_supervisor,
    stop_supervisor,
    wait_ready,
    want_release,
)
from services.traffic.traffic import Traffic

CONTROL_READY_S = 60.0
RELEASE_READY_S = 120.0
ENVOY_READY_S = 30.0
PREFECT_READY_S = 120.0
Say = Callable[[str], None]


def is_up(home: Home) -> bool:
    """Whether a supervisor of this home lives."""
    return supervisor_identity(home) is not None


def bring_up(home: Home, say: Say) -> bool:
    """Start the supervisor with what it owns; False when it runs already. Envoy follows as soon as stable is ready."""
    if is_up(home):
        return False
    if not running(home):  # what a killed supervisor left is adopted, ports and all
        require_free_ports(home.ports)
    make_home(home)
    db = open_store(home)
    restore(db, home)
    db.close()
    fit_releases(home)
    start_supervisor(home, supervisor_specs(home))
    say(f"supervisor, control service on {LOOPBACK}:{home.ports.control}")
    wait_ready(home, "control", CONTROL_READY_S)
    return True


def fit_releases(home: Home) -> None:
    """Have every wanted release start from where its home lies now: it may have been moved, or copied, since, and
    would else log its decisions in the old one."""
    for name, spec in read_desired(home).items():
        if not (Path(spec.cwd).is_relative_to(home.root) and Path(spec.argv[0]).exists()):
            want_release(home, name, partial(launch_command, name, home))


def wait_for_prefect(home: Home) -> None:
    """Wait until this home's own Prefect server answers; a server named by PREFECT_API_URL is taken as it is."""
    if prefect_url(home) == own_prefect_url(home):
        wait_ready(home, "prefect", PREFECT_READY_S)


def take_down(home: Home) -> bool:
    """Stop everything that the supervisor owns; False when nothing ran."""
    was_up = is_up(home)
    stop_supervisor(home)
    return was_up


def serve_first(home: Home, release: Release) -> None:
    """Make a release the stable one where there is none yet: start it, then point Envoy's stable at it."""
    traffic = Traffic(home)
    if traffic.read_slots() is not None:
        raise WiringError(f"{home.root} has a stable release already; start a rollout instead")
    start_release(home, release)
    traffic.write_slots(Slots(stable=(release.id,), canary=None, shadow=None, salt=new_salt(os.urandom)))
    wait_ready(home, "envoy", ENVOY_READY_S)


def start_release(home: Home, release: Release, *, fault: str | None = None) -> int:
    """Build the release's Bento if need be, have it run, wait until it is ready; returns its port."""
    build_bento(release, home)
    port = want_release(home, release.id, lambda port: launch_command(release.id, home, port, fault=fault))
    wait_ready(home, release.id, RELEASE_READY_S)
    return port


def stable_release(home: Home) -> str | None:
    """The release that serves all users, None before the first."""
    slots = Traffic(home).read_slots()
    return None if slots is None else slots.stable[0]


def make_world(home: Home, db: Database, *, fault: str | None = None) -> World:
    """What a rollout in this home acts on; `fault` goes to the candidate of a drill."""

    def command(release_id: str, port: int):  # type: ignore[no-untyped-def]
        build_bento(find_release(home.releases, release_id), home)
        return launch_command(release_id, home, port, fault=fault)

    return World(
        home=home,
        db=db,
        admin=EnvoyAdmin(home),
        traffic=Traffic(home),
        command=command,
        clock=time.time,
        timer=time.monotonic,
        sleep=time.sleep,
        policies=POLICIES,
    )


def addresses(home: Home) -> dict[str, str]:
    """Where a person or a client finds what runs."""
    return {
        "decisions": f"http://{LOOPBACK}:{home.ports.users}/decide",
        "outcomes": f"http://{LOOPBACK}:{home.ports.control}/outcomes",
        "control": f"http://{LOOPBACK}:{home.ports.control}/status",
        "prefect": prefect_url(home).removesuffix("/api"),
        "reports": str(home.reports / "html"),
    }
