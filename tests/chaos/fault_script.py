"""What every script of faults is on the command line: rows as JSON lines on stdout, progress on stderr.

A fault is a function from a running system to its row (or rows); a script names its faults and calls `run_faults`:
`python tests/chaos/<script>.py [--only NAME]... [--list] [--state DIR]`. Exit status 1 when a promise was not kept or
a fault could not be run; the others are run all the same.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from fault_row import FaultRow
from live_system import FIRST_RELEASE, LiveSystem, live_system

Rows = FaultRow | Iterable[FaultRow]


@dataclass(frozen=True)
class OwnHome:
    """A fault that makes its own systems, in a state folder of its own with the script's first release."""

    strike: Callable[[Path], Rows]

    def run(self, state: Path) -> Rows:
        with tempfile.TemporaryDirectory(dir=state) as folder:
            if (state / FIRST_RELEASE).is_dir():
                shutil.copytree(state / FIRST_RELEASE, Path(folder) / FIRST_RELEASE)
            return self.strike(Path(folder))


Fault = Callable[[LiveSystem], Rows] | OwnHome


def run_faults(faults: Mapping[str, Fault], arguments: Sequence[str]) -> int:
    """Run the chosen faults one after the other on one running system; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="this fault; may be given again")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--state", type=Path, help="keep the first release here between runs")
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join(faults))
        return 0
    unknown = sorted(set(given.only or ()) - set(faults))
    if unknown:
        parser.error(f"no fault {', '.join(unknown)}; there are {', '.join(faults)}")
    chosen = {name: fault for name, fault in faults.items() if not given.only or name in given.only}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # whoever ends this early leaves no system running
    if given.state is not None:
        given.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=given.state) as folder:
        state, name = given.state or Path(folder), Path(folder).name
        is_shared = not all(isinstance(fault, OwnHome) for fault in chosen.values())
        with live_system(state, name=name) if is_shared else nullcontext() as system:
            return max([_run(name, fault, state, system) for name, fault in chosen.items()], default=0)


def _run(name: str, fault: Fault, state: Path, system: LiveSystem | None) -> int:
    began = time.monotonic()
    print(f"{name} …", file=sys.stderr, flush=True)
    try:
        if isinstance(fault, OwnHome):
            found = fault.run(state.resolve())
        else:
            assert system is not None
            found = fault(system)
        rows = [found] if isinstance(found, FaultRow) else list(found)
    except Exception:  # one fault that cannot be run must not hide the others
        traceback.print_exc()
        if system is not None:
            _clear(system)
        return 1
    for row in rows:
        print(row.to_line(), flush=True)
        held = "held" if row.is_met else "NOT HELD"
        print(
            f"{row.fault}: {held}; {row.failed} of {row.requests} failed; {row.note} "
            f"({time.monotonic() - began:.0f} s)",
            file=sys.stderr,
            flush=True,
        )
    return 0 if all(row.is_met for row in rows) else 1


def _clear(system: LiveSystem) -> None:
    """End what a fault that could not be run has left under way, or the next one could not begin."""
    try:
        for conductor in system.conductors:
            if conductor.process.poll() is None:
                conductor.kill()
        found = system.rollout()
        if found and not found["ended"]:
            system.order("abort")
            system.conduct().end(timeout_s=150)
    except Exception:  # then the next fault tells
        traceback.print_exc()
