"""A release whose payoffs read what is known only after the decision: made by the stages before live traffic."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.ledger.ledger import entries
from services.rehearsal.bank_marketing import read_calls
from services.rollout import offline_stages
from services.rollout.policy_set import FILES, POLICIES, parse_policies, with_scenarios
from services.rollout.release_job import ReleaseJob, Watcher
from services.serving.scorer import Scorer
from services.training.plan import TrainingPlan

SERVICE = "telemarketing"
TIME_COSTS = '"-0.004 * clip(duration, 0, 3600)"'


@pytest.fixture
def job(simulation: Any) -> ReleaseJob:
    """A call costs the agent's time: 14.40 EUR an hour, known when it is over."""
    texts = {name: (POLICIES / SERVICE / name).read_text(encoding="utf-8") for name in FILES}
    utility = texts["utility.yaml"].replace('"-call_cost"', TIME_COSTS)
    utility = utility.replace(
        "* clip(balance, 0, cap) - call_cost", "* clip(balance, 0, cap) - 0.004 * duration"
    )
    utility = utility.replace("range:\n  low: -1\n", "hiddenWhenDeciding: [duration]\nrange:\n  low: -20\n")
    utility = utility.replace("high: 29.8", "high: 31")
    start, stop = utility.index("  - name: call_cost"), utility.index("  - name: deposited_share")
    texts["utility.yaml"] = utility[:start] + utility[stop:]
    role = "- {property: mlRole, value: excluded}"
    texts["contract.yaml"] = texts["contract.yaml"].replace(role, role.replace("excluded", "payoff"))
    scenarios = (POLICIES / SERVICE / "scenarios.yaml").read_text(encoding="utf-8")
    policies = with_scenarios(parse_policies(SERVICE, texts, place="p"), scenarios)
    return ReleaseJob(
        name=f"{SERVICE}-first",
        home=simulation.home,
        db=simulation.db,
        policies=replace(policies, training=TrainingPlan(("cross_entropy",))),
        start=0.0,
        stop=0.2,
        seed=7,
        champion=None,
        code_version="test",
        clock=time.time,
        watcher=Watcher(),
    )


def test_it_is_trained_aligned_and_packed_like_any_other(job: ReleaseJob) -> None:
    """All stages pass; the release decides on rows that do not hold the field, and what the ledger says it earned was
    counted with the true one."""
    checked = offline_stages.check_contract(job, read_calls())
    training, slices = offline_stages.train_candidates(job, checked)
    point = offline_stages.align_thresholds(job, training, slices)
    scorer = Scorer.load(offline_stages.pack_release(job, checked, training, point))
    assert scorer.predicted_fields == ("duration",)
    seen = {name: values for name, values in slices.test.items() if name not in ("duration", "y")}
    decided = scorer.decide(seen)
    (aligned,) = entries(job.db, kind="aligned")
    in_force = aligned.body["policies"][0]
    payoffs = job.policies.utility.payoffs(slices.test)
    outcomes = (np.asarray(slices.test["y"]) == "yes").astype(np.int64)
    earned = payoffs[np.arange(len(outcomes)), decided.actions, outcomes].mean()
    assert in_force["name"] == "in force"
    assert in_force["utility"]["value"] == pytest.approx(earned)
    assert decided.predicted["duration"].std() > 0
