"""Conducts a rollout in a chaos home, as `trimtab rollout start|resume` does, without Prefect unless that is asked for;
the candidate may have a fault of a rehearsal. Exit status 0 when it ended, promoted or rolled back.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from flows.conduct_rollout import conduct
from flows.show_progress import ProgressView
from flows.system import make_world, stable_release
from flows.wiring import open_store, use_prefect
from services.home import Home, Ports
from services.rollout.new_rollout import begin_rollout
from services.serving.release import find_release
from services.store import rollouts


def main() -> int:
    """Conduct to the end; the phase is the last line of the output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--base-port", type=int, required=True)
    parser.add_argument("--candidate", help="a release of the home; without one, resume what is under way")
    parser.add_argument("--fault", help="of services/serving/fault.py")
    parser.add_argument("--with-prefect", action="store_true", help="show it in Prefect")
    given = parser.parse_args()
    home = Home(given.home, Ports(given.base_port))
    if given.with_prefect:
        use_prefect(home)
    db = open_store(home)
    world = replace(make_world(home, db, fault=given.fault), policies=home.root / "policies")
    if given.candidate is None:
        record = rollouts.active(db, "telemarketing")
        if record is None:
            raise SystemExit("no rollout is under way")
    else:
        candidate = find_release(home.releases, given.candidate)
        record = begin_rollout(
            world,
            service=candidate.service,
            champion=stable_release(home) or "",
            candidate=candidate.id,
            policy_text=(candidate.folder / "rollout.yaml").read_text(encoding="utf-8"),
            utility_text=(candidate.folder / "utility.yaml").read_text(encoding="utf-8"),
        )
    with ProgressView(Console(), []) as view:
        phase = conduct(
            world,
            record,
            view,
            on_verdict=lambda verdict, _: view.conclude(verdict),
            resumed=given.candidate is None,
            with_prefect=given.with_prefect,
        )
    print(phase)
    return 0


if __name__ == "__main__":
    sys.exit(main())
