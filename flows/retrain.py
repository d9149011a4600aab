"""The scheduled flow: make a release of the rows so far and, if its stages advance, roll it out against the stable one.

Parameters are plain values, so a deployment can carry them; everything else is found in the home.
"""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow
from rich.console import Console

from flows.conduct_rollout import conduct
from flows.release_model import release_model
from flows.show_progress import ProgressView
from flows.system import make_world, stable_release
from flows.wiring import WiringError, code_version, locate_home, open_store
from policies.rollout.rollout_policy import load_rollout
from services.home import Home
from services.rollout.new_rollout import begin_rollout
from services.rollout.policy_set import load_policies
from services.rollout.release_job import ReleaseJob, Watcher
from services.rollout.sole_conductor import is_conducted
from services.serving.release import read_release
from services.store import rollouts
from services.store.database import Database

SEED = 7


@flow(name="retrain", flow_run_name="{service} up to {stop}", retries=0, persist_result=False)
def retrain(
    service: str = "telemarketing",
    home: str = "main",
    stop: float = 0.6,
    roll_out: bool = True,
    rows: str | None = None,
) -> str:
    """Retrain `service` on the rows up to `stop` (share of them in time); returns the phase the rollout ended in.

    `rows` is a Parquet or CSV file, by default the bank's calls.
    Without `roll_out` the release is packed and stays a candidate: `trimtab rollout start --release` takes it on.
    Raises StageRefused with the verdict of the stage that did not advance.
    """
    from flows.read_rows import read_rows

    place = locate_home(home)
    policies, db = load_policies(service), open_store(place)
    _finish_orphan(place, db, service)
    champion = stable_release(place)
    if champion is None:
        raise WiringError(f"there is no stable release in {place.root}; `trimtab run` makes the first one")
    delivered = read_rows(None if rows is None else Path(rows), policies.contract)
    with ProgressView(Console(), [stage.name for stage in policies.rollout.stages]) as view:
        job = ReleaseJob(
            name=f"{service}-retrained-{int(time.time())}",
            home=place,
            db=db,
            policies=policies,
            start=0.0,
            stop=stop,
            seed=SEED,
            champion=read_release(place.releases / champion),
            code_version=code_version(),
            clock=time.time,
            watcher=Watcher(enter=view.enter, conclude=lambda verdict, _: view.conclude(verdict)),
        )
        release = release_model(job.name, job, delivered)
        if not roll_out:
            return f"packed {release.id}"
        world = make_world(place, db)
        record = begin_rollout(
            world,
            service=service,
            champion=champion,
            candidate=release.id,
            policy_text=policies.texts["rollout.yaml"],
            utility_text=policies.texts["utility.yaml"],
        )
        return conduct(world, record, view, on_verdict=lambda verdict, _: view.conclude(verdict))


def _finish_orphan(place: Home, db: Database, service: str) -> None:
    """A rollout whose conductor died is brought to its end first; one that is conducted is not disturbed."""
    record = rollouts.active(db, service)
    if record is None:
        return
    if is_conducted(place, service):
        raise WiringError(f"rollout {record.id} is under way; the next scheduled run will try again")
    policy = load_rollout(record.policy_text, f"{record.id}/rollout.yaml")
    with ProgressView(Console(), [stage.name for stage in policy.live_stages]) as view:
        conduct(
            make_world(place, db),
            record,
            view,
            on_verdict=lambda verdict, _: view.conclude(verdict),
            resumed=True,
        )
