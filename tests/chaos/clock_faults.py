"""Faults of the wall clock, under users' load in the middle of a rollout: it is set an hour ahead, then an hour back.

All that the system owns sees the step at one instant, Envoy too (stepped_clock.c, preloaded; needs a C compiler); users
and their stop-watch do not. The second rollout begins an hour ahead, so after the step it began in the future.
"""

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from called_back import BAKE_S, called_back
from fault_row import FaultRow
from fault_script import Fault, OwnHome, run_faults
from live_system import LiveSystem, live_system

HOUR_S = 3600


class SteppedClock:
    """The wall clock of everything that is started with `env`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "step"
        library = folder / "stepped_clock.so"
        source = Path(__file__).with_name("stepped_clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source)], check=True)
        self.env = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._file)}
        self._file.write_bytes(bytes(8))

    def step(self, ahead_s: int) -> None:
        """From now on it is so many seconds ahead of the machine's."""
        with self._file.open("r+b") as opened:  # in place: it is mapped
            opened.write(struct.pack("=q", ahead_s))


@contextmanager
def under(clock: SteppedClock) -> Iterator[None]:
    """What is started in this block goes by this clock."""
    os.environ.update(clock.env)
    try:
        yield
    finally:
        for name in clock.env:
            del os.environ[name]


def clock_stepped(state: Path) -> list[FaultRow]:
    """Two rollouts in one home of its own: the clock goes ahead in the first, and back in the second."""
    clock = SteppedClock(state)
    with ExitStack() as stack:
        with under(clock):
            system = stack.enter_context(live_system(state, name="stepped"))
        ahead = _row(system, clock, "clock-stepped-ahead", HOUR_S)
        return [ahead, _row(system, clock, "clock-stepped-back", 0)]


def _row(system: LiveSystem, clock: SteppedClock, fault: str, ahead_s: int) -> FaultRow:
    began_s = HOUR_S - ahead_s

    def strike(_: str) -> None:
        time.sleep(2.0)
        clock.step(ahead_s)

    found = called_back(system, lambda candidate: system.conduct(candidate, env=clock.env), strike)
    said = system.ledger(found.rollout_id, "clock_stepped")
    by_s = [float(str(entry.body["by_s"])) for entry in said]
    return found.row(
        fault,
        is_met=len(by_s) == 1 and abs(by_s[0] - (ahead_s - began_s)) < 1.0 and found.baked_s >= BAKE_S,
        note=f"on the ledger {by_s} s; baked {found.baked_s:.1f} s more",
    )


FAULTS: dict[str, Fault] = {"clock-stepped": OwnHome(clock_stepped)}

if __name__ == "__main__":
    sys.exit(run_faults(FAULTS, sys.argv[1:]))
