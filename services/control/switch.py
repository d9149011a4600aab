"""Switches an action of a service off for everyone, or on again: ledger first, then the file, then read back.

The ledger says what is off; the file (home/switches/<service>.json) is what the serving processes look at twice a
second (services/serving/switches.py) and is made from the ledger each time, so that repeating a command mends whatever
a crash left between the two. Repeating changes nothing else. Needs neither the control service nor Prefect.
Must never import: sqlalchemy, starlette, prefect.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from filelock import FileLock

from policies.utility.utility import UtilitySpec, load_utility
from services.home import LOOPBACK, Home
from services.ledger.ledger import append, entries
from services.serving.release import find_release
from services.serving.switches import SwitchedOff, SwitchesUnreadable, read_switches
from services.store import rollouts
from services.store.database import Database
from services.traffic.records import read_desired
from services.traffic.state_files import write_json
from services.traffic.supervision import running

ENTRY, EFFECT = "switch", "switch_effect"
CONFIRM_S = 3.0
_ASK_S = 1.0


class SwitchRefused(ValueError):
    """There is no such action, it is the default one, or no release of the service is there to ask."""


@dataclass(frozen=True)
class OffAction:
    """One action that is off: who switched it off, why and when (epoch s), and the ledger entry that says so."""

    action: str
    by: str
    reason: str
    at: float
    entry: int


@dataclass(frozen=True)
class Switched:
    """What a switch came to. `off`: all that is off now. `changed`: False where it stood so already.

    `confirmed`: the serving releases that say they follow; `silent`: those that do not, or do not answer; `after_s`:
    how long that took.
    """

    service: str
    off: tuple[OffAction, ...]
    changed: bool
    confirmed: tuple[str, ...]
    silent: tuple[str, ...]
    after_s: float


def switched_off(db: Database, service: str, *, at: float = inf) -> tuple[OffAction, ...]:
    """What the ledger says is off, in the order in which it was switched off; at: as it was then, epoch s."""
    off, _ = _state(db, service, at)
    return tuple(off.values())


def every_switched_off(db: Database) -> dict[str, tuple[OffAction, ...]]:
    """By service, for those of which anything is off."""
    services = sorted({entry.service for entry in entries(db, kind=ENTRY)})
    return {service: off for service in services if (off := switched_off(db, service))}


def switch(
    db: Database,
    home: Home,
    *,
    service: str,
    action: str,
    is_off: bool,
    by: str,
    reason: str,
    at: float,
    confirm_s: float = CONFIRM_S,
) -> Switched:
    """Switch one action of a service; wait at most `confirm_s` for the serving releases to follow.

    Raises SwitchRefused, ReleaseError, PolicyError.
    """
    _check(home, service, action, is_off=is_off)
    began = time.monotonic()
    with _locked(home, service):
        changed = (action in _state(db, service)[0]) is not is_off
        active = rollouts.active(db, service)
        rollout_id = None if active is None else active.id
        if changed:
            body = {"action": action, "off": is_off, "by": by, "reason": reason}
            append(db, ENTRY, body, service=service, rollout_id=rollout_id, at=at)
        wanted = _write(db, home, service)
    confirmed, silent = _read_back(home, service, wanted, confirm_s)
    after_s = time.monotonic() - began
    if changed:
        seen = {"off": list(wanted.actions), "confirmed": list(confirmed), "silent": list(silent)}
        append(db, EFFECT, seen, service=service, rollout_id=rollout_id, at=at + after_s)
    return Switched(service, switched_off(db, service), changed, confirmed, silent, after_s)


def restore(db: Database, home: Home) -> None:
    """Write every service's file anew from the ledger, where it is not as the ledger says."""
    for service in sorted({entry.service for entry in entries(db, kind=ENTRY)}):
        with _locked(home, service):
            _write(db, home, service)


def is_in_force(home: Home, service: str, off: Sequence[OffAction]) -> bool:
    """Whether the service's file says what the ledger says."""
    try:
        return set(read_switches(home.switches_file(service)).actions) == {one.action for one in off}
    except SwitchesUnreadable:
        return False


def _state(db: Database, service: str, at: float = inf) -> tuple[dict[str, OffAction], int]:
    """What is off by the ledger, and the number of the last entry that switched anything."""
    off: dict[str, OffAction] = {}
    last = 0
    for entry in entries(db, kind=ENTRY):
        if entry.service != service or entry.at > at:
            continue
        action, last = str(entry.body["action"]), entry.seq
        if entry.body["off"]:
            off[action] = OffAction(
                action, str(entry.body["by"]), str(entry.body["reason"]), entry.at, entry.seq
            )
        else:
            off.pop(action, None)
    return off, last


def _write(db: Database, home: Home, service: str) -> SwitchedOff:
    """Make the file what the ledger says; call it under the lock."""
    off, last = _state(db, service)
    wanted = SwitchedOff(tuple(off), last)
    file = home.switches_file(service)
    try:
        is_there = read_switches(file) == wanted
    except SwitchesUnreadable:
        is_there = False
    if not is_there:
        write_json(file, {"v": 1, "service": service, "off": list(wanted.actions), "entry": last})
    return wanted


def _locked(home: Home, service: str) -> FileLock:
    file = home.switches_file(service)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return FileLock(file.with_suffix(".lock"), timeout=10)


def _check(home: Home, service: str, action: str, *, is_off: bool) -> None:
    served = [name for name in read_desired(home) if _service_of(name) == service]
    if not served:
        raise SwitchRefused(f"no release of service {service!r} is served in {home.root}: nothing to switch")
    specs = [_utility(home, name) for name in served]
    known = sorted({name for spec in specs for name in spec.actions})
    if action not in known:
        raise SwitchRefused(f"'action' must be one of {', '.join(known)}: {action!r}")
    for name, spec in zip(served, specs, strict=True):
        if is_off and spec.default_action == action:
            raise SwitchRefused(
                f"'action' must not be the default action of {name}, which is taken when in doubt: {action!r}"
            )


def _utility(home: Home, release: str) -> UtilitySpec:
    file = find_release(home.releases, release).folder / "utility.yaml"
    return load_utility(file.read_text(encoding="utf-8"), str(file))


def _read_back(
    home: Home, service: str, wanted: SwitchedOff, confirm_s: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which running releases of the service follow the entry, and which do not within `confirm_s`."""
    deadline = time.monotonic() + confirm_s
    while True:
        ports = {
            name: process.port
            for name, process in running(home).items()
            if name in read_desired(home) and _service_of(name) == service and process.ready
        }
        follows = {name: _entry_at(port) == wanted.entry for name, port in ports.items()}
        if all(follows.values()) or time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    return (
        tuple(sorted(name for name, does in follows.items() if does)),
        tuple(sorted(name for name, does in follows.items() if not does)),
    )


def _entry_at(port: int | None) -> int | None:
    """The ledger entry that a release's process follows; None where it does not say."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/switches", timeout=_ASK_S) as answer:
            found = json.load(answer)
    except (OSError, urllib.error.URLError, ValueError):
        return None
    entry = found.get("entry") if isinstance(found, Mapping) else None
    return entry if isinstance(entry, int) else None


def _service_of(release: str) -> str:
    return release.rpartition("-")[0]
