"""Which actions are switched off for everyone: read from a small file, looked at twice a second at most.

The file is written by services/control/switch.py, whole or not at all. Looking is done by the request that comes, so
that there is no thread and nothing to stop: a request is never decided by a look older than `LOOK_EVERY_MS`.
Rule 1: what cannot be read changes nothing; the last known state stays in force, and the log says so once.
Rule 2: a release that starts and finds a file that it cannot read knows no state: then every action but the default
is off until it can, because the default is what the utility spec takes when in doubt.
Rule 3: the default action is never off. An action that this release does not have is no concern of its.
Must never import bentoml or torch.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from services.serving.release import ReleaseError

LOOK_EVERY_MS = 500.0

log = logging.getLogger("trimtab.serving")


class SwitchesUnreadable(ValueError):
    """The file is there but says nothing that can be followed; or it is gone after it was there."""


@dataclass(frozen=True)
class SwitchedOff:
    """`actions` that must not be taken, in the file's order; `entry`: the ledger entry that says so, 0 for none."""

    actions: tuple[str, ...]
    entry: int


@dataclass(frozen=True)
class Gate:
    """Which of a release's actions may be taken while some are switched off: `allowed` (A,), `off` their names."""

    allowed: NDArray[np.bool_]
    off: tuple[str, ...]


NOTHING_OFF = SwitchedOff((), 0)


def read_switches(file: Path) -> SwitchedOff:
    """What the file says; nothing is off where there is none. Raises SwitchesUnreadable."""
    try:
        found = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        return NOTHING_OFF
    except (OSError, orjson.JSONDecodeError) as error:
        raise SwitchesUnreadable(f"{file}: {error}") from error
    if not isinstance(found, dict) or found.get("v") != 1:
        raise SwitchesUnreadable(f"{file}: must be an object with v 1")
    actions, entry = found.get("off"), found.get("entry")
    if not isinstance(actions, list) or not all(isinstance(one, str) for one in actions):
        raise SwitchesUnreadable(f"{file}: 'off' must be a list of actions: {actions!r}")
    if type(entry) is not int:
        raise SwitchesUnreadable(f"{file}: 'entry' must be a number of the ledger: {entry!r}")
    return SwitchedOff(tuple(actions), entry)


class Switches:
    """The switches as one serving process sees them. `file` None: nothing can be switched off here."""

    def __init__(
        self, file: Path | None, *, actions: Sequence[str], default_action: int, timer_ms: Callable[[], float]
    ) -> None:
        self._file = file
        self._actions = tuple(actions)
        self._default = self._actions[default_action]
        self._timer_ms = timer_ms
        self._looked_at = float("-inf")
        self._was_there = False
        self._trouble = ""
        self.known: SwitchedOff | None = None
        """The last state that could be read; None before the first."""
        self._gate = self._gate_of(tuple(name for name in self._actions if name != self._default))

    def start(self) -> None:
        """The first look. Raises ReleaseError where the default action is switched off: nothing would be left to do."""
        if self._file is not None:
            with suppress(SwitchesUnreadable):
                found = read_switches(self._file)
                if self._default in found.actions:
                    raise ReleaseError(
                        f"its default action {self._default!r} is switched off, by {self._file}"
                    )
        self.gate()

    def gate(self) -> Gate | None:
        """The gate for a request that is decided now; None while nothing is switched off."""
        if self._file is None:
            return None
        now = self._timer_ms()
        if now - self._looked_at >= LOOK_EVERY_MS:
            self._looked_at = now
            self._look(self._file)
        return self._gate

    def _look(self, file: Path) -> None:
        try:
            found = read_switches(file)
            if found is NOTHING_OFF and self._was_there:
                raise SwitchesUnreadable(f"{file}: it was there, and is gone")
            if self._default in found.actions:
                raise SwitchesUnreadable(f"{file}: the default action {self._default!r} cannot be off")
        except SwitchesUnreadable as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                in_force = "all but the default" if self.known is None else ", ".join(self.known.actions)
                log.error("event=switches_unreadable off=%r why=%r", in_force or "nothing", self._trouble)
            return
        self._was_there, self._trouble = self._was_there or found is not NOTHING_OFF, ""
        if found != self.known:
            if found.actions or self.known is not None:
                log.warning("event=switches off=%r entry=%d", ", ".join(found.actions), found.entry)
            self.known = found
            self._gate = self._gate_of(tuple(name for name in found.actions if name in self._actions))

    def _gate_of(self, off: tuple[str, ...]) -> Gate | None:
        if not off:
            return None
        return Gate(np.array([name not in off for name in self._actions]), off)
