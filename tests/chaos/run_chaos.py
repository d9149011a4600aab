"""`make chaos`: every fault of every script, then the table in infra/reliability.md anew.

`--only NAME` (may be given again) runs that fault alone and replaces its row; `--list` names them. A fault that cannot
be run stops no other; its old row then stays, and the page says from which runs its rows are. Exit status 1 when a
promise was not kept or a fault could not be run. What goes on is told on stderr.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fault_row import Measured, keep_results, read_row
from reliability_table import write_table

from flows.wiring import code_version

HERE = Path(__file__).parent
SOURCE = HERE.parents[1]
SCRIPTS = (
    "release_faults.py",
    "controller_kills.py",
    "proxy_faults.py",
    "store_faults.py",
    "decision_log_faults.py",
    "prefect_faults.py",
    "clock_faults.py",
)


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--state", type=Path, default=SOURCE / ".bench" / "chaos")
    given = parser.parse_args(arguments)
    names = {HERE / name: _names(HERE / name) for name in SCRIPTS}
    everything = [name for found in names.values() for name in found]
    if given.list:
        print("\n".join(everything))
        return 0
    unknown = sorted(set(given.only or ()) - set(everything))
    if unknown:
        parser.error(f"no fault {', '.join(unknown)}; there are {', '.join(everything)}")
    given.state.mkdir(parents=True, exist_ok=True)
    commit, run, began = code_version(), f"{datetime.now(UTC):%Y-%m-%d %H:%M}", time.monotonic()
    worst = 0 if all(names.values()) else 1
    for script, found in names.items():
        chosen = [name for name in found if not given.only or name in given.only]
        if chosen:
            _say(f"{script.name}: {len(chosen)} faults, {(time.monotonic() - began) / 60:.0f} min so far")
            worst = max(worst, _run(script, chosen, given.state, commit, run))
    _say(f"all done in {(time.monotonic() - began) / 60:.0f} min; {'held' if not worst else 'NOT ALL HELD'}")
    return worst


def _names(script: Path) -> list[str]:
    """Its faults; none, said aloud, of one that cannot even be read: the others are run all the same."""
    argv = [sys.executable, str(script), "--list"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode != 0:
        _say(f"{script.name} does not start: {done.stderr[-2000:]}")
        return []
    return done.stdout.split()


def _run(script: Path, chosen: Sequence[str], state: Path, commit: str, run: str) -> int:
    """Run one script's faults; each row is kept as soon as it comes."""
    argv = [sys.executable, str(script), "--state", str(state)]
    argv += [word for name in chosen for word in ("--only", name)]
    since = time.monotonic()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=_environment()) as process:
        for line in process.stdout or ():
            now = time.monotonic()
            measured = Measured(read_row(line), commit, run, round(now - since, 1))
            since = now
            write_table(keep_results([measured]).values())
    return int(process.returncode != 0)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
