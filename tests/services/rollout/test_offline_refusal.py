"""A stage before live traffic that refuses ends the job: its verdict is on record, nothing after it runs."""

import time
from dataclasses import dataclass, replace
from typing import Any

import pytest

from policies.gates.evidence import Measured
from policies.rollout.rollout_policy import load_rollout
from policies.rollout.verdict import Decision, Verdict
from services.ledger.ledger import entries
from services.rehearsal.bank_marketing import read_calls
from services.rollout import offline_stages
from services.rollout.policy_set import load_policies
from services.rollout.release_job import ReleaseJob, StageRefused, Watcher

SERVICE = "telemarketing"


def job_in(world: Any, heard: list[Verdict], *, rollout_text: str | None = None) -> ReleaseJob:
    policies = load_policies(SERVICE)
    if rollout_text is not None:
        policies = replace(policies, rollout=load_rollout(rollout_text, "rollout.yaml"))
    return ReleaseJob(
        name=f"{SERVICE}-first",
        home=world.home,
        db=world.db,
        policies=policies,
        start=0.0,
        stop=0.02,
        seed=7,
        champion=None,
        code_version="test",
        clock=time.time,
        watcher=Watcher(conclude=lambda verdict, report: heard.append(verdict)),
    )


def test_too_few_rows_are_refused_at_the_contract(simulation: Any) -> None:
    """904 rows where the policy wants 5,000: StageRefused with the verdict, which is on the ledger with its gate, value
    and bound, and was told to whoever watches; no release is packed."""
    heard: list[Verdict] = []
    job = job_in(simulation, heard)
    with pytest.raises(StageRefused, match="contract: ROLLBACK") as caught:
        offline_stages.check_contract(job, read_calls())
    verdict = caught.value.verdict
    assert (verdict.stage, verdict.decision) == ("contract", Decision.ROLLBACK)
    gate = next(one for one in verdict.gates if one.gate == "enough-rows")
    assert (gate.status.value, gate.observed, gate.bound) == ("fail", 904.0, 5000.0)
    assert heard == [verdict]
    recorded = [e.body["verdict"] for e in entries(simulation.db, kind="verdict")]
    assert recorded == [verdict.to_json()]
    assert entries(simulation.db, kind="release_packed") == ()


@dataclass(frozen=True)
class Found:
    """What a stage measured."""

    metrics: dict[str, Measured]

    def measured(self) -> dict[str, Measured]:
        return self.metrics


def test_refused_alignment_raises_after_the_ledger_has_it(simulation: Any) -> None:
    """A candidate that is worse than calling nobody: the job's stage raises, and the verdict stands on the ledger
    before anybody is told."""
    order: list[str] = []
    heard: list[Verdict] = []
    job = job_in(simulation, heard)

    def told(verdict: Verdict, report: str) -> None:
        order.append(f"told after {len(entries(simulation.db, kind='verdict'))} verdicts")

    job = job.watched_by(told)
    measured = {
        "gain_over_trivial": Measured(-0.2, -0.3, -0.1, 4000),
        "customer_utility": Measured(-0.24, None, None, 4000),
    }
    with pytest.raises(StageRefused, match="better-than-trivial"):
        job.pass_stage(
            "alignment",
            gather=lambda: Found(measured),
            report=lambda context, verdict, seen: order.append("reported"),
        )
    assert order == ["told after 1 verdicts", "reported"]
