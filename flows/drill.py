"""One drill: a home, ports and a stable release of its own, a bad candidate at 50 %, and what became of it.

The policy is the service's own, shortened to its last canary step. Conducted without Prefect: what a drill shows must
hold when Prefect is down.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.conduct_rollout import conduct
from flows.show_progress import ProgressView
from flows.system import bring_up, make_world, serve_first
from flows.wiring import code_version, locate_home, open_store
from policies.language.yaml_source import load_document
from policies.rollout.verdict import Decision, Verdict
from services.data.splits import by_event_time
from services.home import Home
from services.rehearsal.drill_releases import Drill, copy_release, forge_candidate
from services.rehearsal.replay_process import ReplayProcess
from services.rollout import offline_stages
from services.rollout.new_rollout import begin_rollout
from services.rollout.policy_set import PolicySet, load_policies
from services.rollout.release_job import ReleaseJob, Watcher
from services.serving.build import build_bento
from services.serving.release import Release, read_release
from services.signing.release_signature import sign_in_home
from services.store.database import Database

if TYPE_CHECKING:
    import polars as pl

RATE_PER_S = 150.0
FIRST_STOP, REPLAY_STOP = 0.3, 0.6  # rows on which harmful decisions truly lose
SEED = 7


@dataclass(frozen=True)
class DrillResult:
    """What became of the candidate, and of the users' requests."""

    drill: str
    phase: str
    verdict: Verdict | None
    sent: int
    failed: int

    @property
    def passed(self) -> bool:
        """Rolled back, with traffic, and no user request failed."""
        return self.phase == "rolled_back" and self.sent > 0 and self.failed == 0

    def to_json(self) -> dict[str, object]:
        """For machines."""
        verdict = None if self.verdict is None else self.verdict.to_json()
        return {
            "drill": self.drill,
            "phase": self.phase,
            "passed": self.passed,
            "user_requests": self.sent,
            "failed_user_requests": self.failed,
            "verdict": verdict,
        }


class Drilling:
    """One drill in a home of its own; the caller takes it down."""

    def __init__(self, home: Home, view: ProgressView, *, service: str, drill: Drill) -> None:
        self._home = home
        self._view = view
        self._service = service
        self._drill = drill

    def run(self) -> DrillResult:
        """Stable up, candidate in, traffic on, until the policy has decided."""
        from services.rehearsal.bank_marketing import read_calls

        home, view, drill = self._home, self._view, self._drill
        view.say(f"[bold]drill {drill.name}[/]: {drill.says}; 50 % of {RATE_PER_S:g} requests a second")
        policies = load_policies(self._service)
        delivered = read_calls()
        bring_up(home, view.say)
        db = open_store(home)
        try:
            watcher = Watcher(conclude=lambda verdict, _: view.conclude(verdict), epoch=view.epoch)
            stable = first_release(home, db, policies, delivered, watcher)
            serve_first(home, stable)
            candidate = forge_candidate(
                stable,
                drill,
                folder_of_releases=home.releases,
                actions=policies.utility.actions,
                created_at=time.time(),
            )
            sign_in_home(candidate, home)
            build_bento(candidate, home)
            view.say(f"stable {stable.id}, candidate {candidate.id}")
            rows = by_event_time(delivered, policies.contract, start=FIRST_STOP, stop=REPLAY_STOP)
            return self._roll_out(db, policies, stable, candidate, rows)
        finally:
            db.close()

    def _roll_out(
        self, db: Database, policies: PolicySet, stable: Release, candidate: Release, rows: pl.DataFrame
    ) -> DrillResult:
        home, view = self._home, self._view
        # The fault is the candidate's alone: stable was started without one.
        world = make_world(home, db, fault=self._drill.fault)
        record = begin_rollout(
            world,
            service=self._service,
            champion=stable.id,
            candidate=candidate.id,
            policy_text=straight_to_last_step(policies.texts["rollout.yaml"]),
            utility_text=policies.texts["utility.yaml"],
        )
        last: list[Verdict] = []

        def conclude(verdict: Verdict, report: str) -> None:
            last.append(verdict)
            view.conclude(verdict)

        with ReplayProcess(home, policies, rows, rate_per_s=RATE_PER_S) as replay:
            phase = conduct(
                world,
                record,
                view,
                on_verdict=conclude,
                rehearsal=replay,
                with_prefect=False,
            )
            summary = replay.finish()
        ending = next((v for v in reversed(last) if v.decision is Decision.ROLLBACK), None)
        sent, failed = (0, 0) if summary is None else (summary.sent, summary.failed)
        return DrillResult(self._drill.name, phase, ending or (last[-1] if last else None), sent, failed)


def first_release(
    home: Home, db: Database, policies: PolicySet, delivered: pl.DataFrame, watcher: Watcher
) -> Release:
    """The first release of the main job if there is one, else one trained now in the same way; in `home`."""
    service = policies.service
    main = locate_home("main").releases
    for folder in sorted(main.glob(f"{service}-*")) if main.is_dir() else []:
        release = read_release(folder)
        if release.provenance.get("job") == f"{service}-first":
            copy = copy_release(release, home.releases)
            sign_in_home(copy, home)
            return copy
    job = ReleaseJob(
        name=f"{service}-first",
        home=home,
        db=db,
        policies=policies,
        start=0.0,
        stop=FIRST_STOP,
        seed=SEED,
        champion=None,
        code_version=code_version(),
        clock=time.time,
        watcher=watcher,
    )
    checked = offline_stages.check_contract(job, delivered)
    training, slices = offline_stages.train_candidates(job, checked)
    point = offline_stages.align_thresholds(job, training, slices)
    return offline_stages.pack_release(job, checked, training, point)


def straight_to_last_step(text: str) -> str:
    """The same rollout policy without its canary steps but the last; JSON is YAML, so it is loaded as any other."""
    policy = load_document(text, "rollout.yaml").data
    last = [stage for stage in policy["stages"] if stage["kind"] == "canary"][-1]
    kept = [stage for stage in policy["stages"] if stage["kind"] != "canary" or stage is last]
    return json.dumps({**policy, "stages": kept}, indent=1)
