"""`make chaos`: every fault of every script, then the table in infra/reliability.md anew.

`--only NAME` (may be given again) runs that fault alone and replaces its row; `--list` names them. Exit status 1 when a
promise was not kept or a fault could not be run: its old row then stays.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fault_row import FaultRow, keep_results, read_row
from reliability_table import write_table

HERE = Path(__file__).parent
SOURCE = HERE.parents[1]
SCRIPTS = (
    "release_faults.py",
    "controller_kills.py",
    "proxy_faults.py",
    "store_faults.py",
    "decision_log_faults.py",
)
# The parts that bring their own faults may not be there yet, or not any more: what is there is run.


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--state", type=Path, default=SOURCE / ".bench" / "chaos")
    given = parser.parse_args(arguments)
    scripts = [HERE / name for name in SCRIPTS if (HERE / name).is_file()]
    names = {script: _names(script) for script in scripts}
    everything = [name for found in names.values() for name in found]
    if given.list:
        print("\n".join(everything))
        return 0
    unknown = sorted(set(given.only or ()) - set(everything))
    if unknown:
        parser.error(f"no fault {', '.join(unknown)}; there are {', '.join(everything)}")
    given.state.mkdir(parents=True, exist_ok=True)
    worst = 0
    for script, found in names.items():
        chosen = [name for name in found if not given.only or name in given.only]
        if chosen:
            rows, status = _run(script, chosen, given.state)
            write_table(keep_results(rows).values())
            worst = max(worst, status)
    return worst


def _names(script: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(script), "--list"],
        capture_output=True,
        text=True,
        check=True,
        env=_environment(),
    )
    return done.stdout.split()


def _run(script: Path, chosen: Sequence[str], state: Path) -> tuple[list[FaultRow], int]:
    argv = [sys.executable, str(script), "--state", str(state)]
    argv += [word for name in chosen for word in ("--only", name)]
    rows: list[FaultRow] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=_environment()) as process:
        for line in process.stdout or ():
            rows.append(read_row(line))
    return rows, int(process.returncode != 0)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
