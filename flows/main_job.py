"""The main job: from the CSV of telemarketing calls to a promoted canary, on real parts, with a story one can follow.

The first release is trained on the first 30 % of the calls in time; a candidate of the first 60 % challenges it while
the remaining 40 % are replayed as live requests and their outcomes come back seconds later. Nothing here decides.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flows.conduct_rollout import conduct
from flows.show_progress import ProgressView
from flows.system import bring_up, make_world, serve_first, start_release, wait_for_prefect
from flows.wiring import code_version, open_store, use_prefect
from policies.rollout.verdict import Verdict
from services.data.splits import by_event_time
from services.home import Home
from services.ledger.ledger import append
from services.rehearsal.replay import ReplaySummary
from services.rehearsal.replay_process import ReplayProcess
from services.rollout.new_rollout import begin_rollout
from services.rollout.policy_set import PolicySet, load_policies
from services.rollout.release_job import ReleaseJob, Watcher
from services.serving.release import Release
from services.store.database import Database

if TYPE_CHECKING:
    import polars as pl

FIRST_STOP, CANDIDATE_STOP = 0.3, 0.6
REPLAY_RATE_PER_S = 200.0
SEED = 7


@dataclass
class JobResult:
    """What the main job came to, for its closing table."""

    verdicts: list[tuple[Verdict, str]] = field(default_factory=list)
    phase: str = ""
    first: Release | None = None
    candidate: Release | None = None
    replay: ReplaySummary | None = None


class MainJob:
    """One run of the main job in a fresh home."""

    def __init__(
        self, home: Home, view: ProgressView, *, service: str, rate_per_s: float, rows: Path | None = None
    ) -> None:
        self._home = home
        self._view = view
        self._service = service
        self._rate_per_s = rate_per_s
        self._rows = rows
        self.policies: PolicySet = load_policies(service)
        self.result = JobResult()

    def run(self) -> JobResult:
        """Everything, in order; the caller takes the system down. Raises StageRefused, TrafficError, WiringError."""
        home, view = self._home, self._view
        bring_up(home, view.say)
        use_prefect(home)
        from services.reports.stage_report import warm_up

        warm_up()
        from flows.read_rows import read_rows

        delivered = read_rows(self._rows, self.policies.contract)
        view.say(f"data: {len(delivered):,} rows, taken in the order of time")
        wait_for_prefect(home)
        db = open_store(home)
        try:
            first = self._make_release(db, "first", FIRST_STOP, None, delivered)
            serve_first(home, first)
            self._note_first(db, first)
            candidate = self._make_release(db, "challenger", CANDIDATE_STOP, first, delivered)
            self.result.first, self.result.candidate = first, candidate
            self._roll_out(db, first, candidate, delivered)
        finally:
            db.close()
        return self.result

    def _make_release(
        self, db: Database, kind: str, stop: float, champion: Release | None, delivered: pl.DataFrame
    ) -> Release:
        from flows.release_model import release_model

        view = self._view
        name = f"{self._service}-{kind}"
        view.say("")
        view.say(
            f"[bold]{name}[/]: the first {stop:.0%} of the rows" + ("" if champion else ", no champion yet")
        )
        if champion is not None:
            view.rail.verdicts.clear()
        job = ReleaseJob(
            name=name,
            home=self._home,
            db=db,
            policies=self.policies,
            start=0.0,
            stop=stop,
            seed=SEED,
            champion=champion,
            code_version=code_version(),
            clock=time.time,
            watcher=Watcher(enter=view.enter, conclude=self._conclude, epoch=view.epoch, say=view.say),
        )
        release = release_model(name, job, delivered)
        view.say(f"release [bold]{release.id}[/] packed")
        return release

    def _note_first(self, db: Database, first: Release) -> None:
        append(
            db,
            "first_release_serves",
            {"release": first.id, "why": "no champion; passed contract, training and alignment"},
            service=self._service,
            rollout_id=None,
            at=time.time(),
        )
        self._view.say(f"stable: [bold]{first.id}[/] serves all users at {self._home.ports.users}")

    def _conclude(self, verdict: Verdict, report: str) -> None:
        self._view.conclude(verdict)
        self.result.verdicts.append((verdict, report))

    def _roll_out(self, db: Database, first: Release, candidate: Release, delivered: pl.DataFrame) -> None:
        view, home = self._view, self._home
        view.say("")
        view.say(f"[bold]rollout[/]: {candidate.id} challenges {first.id}")
        start_release(home, candidate)
        world = make_world(home, db)
        record = begin_rollout(
            world,
            service=self._service,
            champion=first.id,
            candidate=candidate.id,
            policy_text=self.policies.texts["rollout.yaml"],
            utility_text=self.policies.texts["utility.yaml"],
        )
        rows = by_event_time(delivered, self.policies.contract, start=CANDIDATE_STOP, stop=1.0)
        with ReplayProcess(home, self.policies, rows, rate_per_s=self._rate_per_s) as replay:
            self.result.phase = conduct(
                world,
                record,
                view,
                on_verdict=self._conclude,
                rehearsal=replay,
            )
            self.result.replay = replay.finish()
