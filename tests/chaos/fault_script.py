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
from pathlib import Path

from fault_row import FaultRow
from live_system import LiveSystem, live_system

Fault = Callable[[LiveSystem], FaultRow | Iterable[FaultRow]]


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
        with live_system(state, name=name) as system:
            return max([_run(name, fault, system) for name, fault in chosen.items()], default=0)


def own_system(fault: Callable[[Path], FaultRow | Iterable[FaultRow]]) -> Fault:
    """A fault that needs a home of its own beside the script's, with the same first release."""

    def run(system: LiveSystem) -> FaultRow | Iterable[FaultRow]:
        with tempfile.TemporaryDirectory(dir=system.home.root.parent) as folder:
            state = Path(folder)
            shutil.copytree(system.home.root.parent / "first-release", state / "first-release")
            return fault(state)

    return run


def _run(name: str, fault: Fault, system: LiveSystem) -> int:
    began = time.monotonic()
    print(f"{name} …", file=sys.stderr, flush=True)
    try:
        found = fault(system)
        rows = [found] if isinstance(found, FaultRow) else list(found)
    except Exception:  # one fault that cannot be run must not hide the others
        traceback.print_exc()
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
