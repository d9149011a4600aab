"""One release in the making: what its stages share, from the contract to the release folder.

The job's name stands for the release until the release has its own id, which its content gives it.
Must never import Prefect; a flow wraps each stage and a drill calls them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from policies.gates.evidence import Measured
from policies.gates.gates import judge_measured
from policies.rollout.verdict import Decision, Verdict
from services.home import Home
from services.rollout.measured_record import record_measured
from services.rollout.policy_set import PolicySet
from services.rollout.stage import StageContext, pass_stage
from services.serving.release import Release
from services.store.database import Database
from services.training.fit import Progress as EpochProgress


class Measuring(Protocol):
    """What an offline stage found: its metrics by name."""

    def measured(self) -> Mapping[str, Measured]: ...


Evidence = TypeVar("Evidence", bound=Measuring)


class StageRefused(RuntimeError):
    """A stage before the release did not advance; the text is its verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.sentence())
        self.verdict = verdict


@dataclass(frozen=True)
class Watcher:
    """Who is told of progress; each may print, none may decide."""

    enter: Callable[[str], None] = lambda stage: None
    conclude: Callable[[Verdict, str], None] = lambda verdict, report: None
    epoch: Callable[[EpochProgress], None] = lambda progress: None
    say: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class ReleaseJob:
    """What to make: a release of this service from the rows between two fractions of time, against a champion.

    `seed` fixes splits' shuffles, network weights and bootstraps; `champion` is None for the first release.
    """

    name: str
    home: Home
    db: Database
    policies: PolicySet
    start: float
    stop: float
    seed: int
    champion: Release | None
    code_version: str
    clock: Callable[[], float]
    watcher: Watcher = field(default_factory=Watcher)

    def watched_by(self, conclude: Callable[[Verdict, str], None]) -> ReleaseJob:
        """The same job with another listener to its verdicts."""
        return replace(self, watcher=replace(self.watcher, conclude=conclude))

    def pass_stage(
        self,
        stage: str,
        *,
        gather: Callable[[], Evidence],
        report: Callable[[StageContext, Verdict, Evidence], None],
    ) -> Evidence:
        """Run one offline stage, judged by the policy on what it measured; go on only if it advances.

        Raises StageRefused.
        """
        self.watcher.enter(stage)
        context = StageContext(self.home, self.db, self.policies.service, self.name)
        verdict, evidence = pass_stage(
            context,
            gather=gather,
            judge=lambda evidence: self._judge(stage, evidence.measured()),
            act=lambda final: self.watcher.conclude(final, str(context.link(final).path)),
            report=lambda final, seen: report(context, final, seen),
        )
        if verdict.decision is not Decision.ADVANCE:
            raise StageRefused(verdict)
        return evidence

    def _judge(self, stage: str, measured: Mapping[str, Measured]) -> Verdict:
        """The policy's verdict, after what it rests on is on record."""
        at, is_first = self.clock(), self.champion is None
        record_measured(
            self.db,
            measured,
            job=self.name,
            stage=stage,
            policies=self.policies,
            first_release=is_first,
            at=at,
        )
        return judge_measured(self.policies.rollout.stage(stage), measured, at=at, first_release=is_first)
