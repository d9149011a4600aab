"""Promises of simulated utility: polls of differences bet like the units they stand for, and what that costs."""

from dataclasses import dataclass

import numpy as np
import pytest

from policies.gates.evidence import SAMPLE_RATIO, AssignmentBlock, Block, PollEvidence, UtilityBlock
from policies.gates.gates import GateBook
from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage
from policies.rollout.verdict import Decision, ReasonCode
from policies.sequential.betting import BettingTest, Pairing
from policies.what_if.payoffs import BettingPath, Payoffs, make_library
from policies.what_if.simulation import Effect, Settings, simulate

RUNS, POLLS, UNITS = 200, 60, 200
LOW, HIGH, LIMIT = -1.0, 0.25, float(np.log(20))


@dataclass(frozen=True)
class Lives:
    """Of many runs: the share whose log E reached ln 20 in 60 polls, and the median poll at which it did."""

    share: float
    median: float


def lives(log_e: np.ndarray) -> Lives:
    """log_e (runs, polls)."""
    has = (log_e >= LIMIT).any(axis=1)
    polls = np.argmax(log_e >= LIMIT, axis=1)[has] + 1
    return Lives(float(has.mean()), float(np.median(polls)) if len(polls) else np.inf)


def by_units(payoffs: Payoffs, test: tuple[float, str, float], *, weight_pct: float, seed: int) -> np.ndarray:
    """Log E (runs, polls) as the gate comes to it: λ moves after every difference."""
    generator, w = np.random.default_rng(seed), weight_pct / 100
    found = np.zeros((RUNS, POLLS))
    null, side, planned = test
    for run in range(RUNS):
        betting, pairing = BettingTest(null, side, HIGH - LOW, planned), Pairing(weight_pct)
        for poll in range(POLLS):
            canary, stable = generator.poisson((UNITS * w, UNITS * (1 - w)))
            betting.update(
                pairing.pair(payoffs.draw(generator, canary), payoffs.draw(generator, stable))
                + payoffs.difference
            )
            found[run, poll] = betting.log_e
    return found


def by_polls(payoffs: Payoffs, test: tuple[float, str, float], *, weight_pct: float, seed: int) -> np.ndarray:
    """Log E (runs, polls) as the simulation comes to it."""
    generator = np.random.default_rng(seed)
    library = make_library(
        payoffs, weight_pct=weight_pct, units_per_poll=UNITS, masked=False, generator=generator
    )
    path = BettingPath(BettingTest(test[0], test[1], HIGH - LOW, test[2]), RUNS)
    return path.extend(np.arange(RUNS), library, generator.integers(library.polls, size=(RUNS, POLLS)))


@pytest.mark.parametrize(
    ("weight_pct", "difference", "test"),
    [
        (5.0, 0.0, (-0.04, "above", 0.0)),  # passes: not worse by the margin
        (5.0, -0.03, (0.0, "below", -0.04)),  # fails: worse by nearly the margin
        (50.0, -0.01, (0.0, "below", -0.04)),  # worse by a quarter of it
    ],
)
def test_polls_bet_like_units(difference: float, test: tuple[float, str, float], weight_pct: float) -> None:
    """Against the process that bets unit by unit: shares of decisions within 4 standard errors, median time within a
    tenth or two polls. What it costs is printed."""
    payoffs = Payoffs(difference, sd=0.2, low=LOW, high=HIGH, mean=0.2)
    units = lives(by_units(payoffs, test, weight_pct=weight_pct, seed=1))
    polls = lives(by_polls(payoffs, test, weight_pct=weight_pct, seed=2))
    print(f"{weight_pct:g} % {difference:+g} {test}: units {units}, polls {polls}")
    pooled = (units.share + polls.share) / 2
    error = max(np.sqrt(2 * pooled * (1 - pooled) / RUNS), 1 / RUNS)
    assert abs(units.share - polls.share) <= 4 * error
    if units.share > 0.5:
        assert abs(units.median - polls.median) <= max(2, 0.1 * units.median)


GATE = Gate(
    name="utility",
    metric="utility",
    compare_to="champion",
    min=None,
    max=None,
    tolerance=0.0,
    ni_margin=0.04,
    min_samples=0,
    required=True,
    weight=1.0,
    on_fail="rollback",
    on_missing="hold",
    on_error="hold",
    budget_ms=None,
    estimate="value",
    applies_to="all",
    owner="nobody",
    rationale="a gate of the tests",
    where="disagreement",
)
STAGE = Stage(
    name="canary-25",
    kind="canary",
    weight_pct=25.0,
    bake_min_s=0.0,
    bake_max_s=150.0,
    on_inconclusive="rollback",
    advance_on="gates",
    approval=False,
    rationale="a stage of the tests",
    gates=(GATE,),
)
POLICY = RolloutPolicy(
    service="tests",
    version=1,
    owner="nobody",
    alpha_rollback=0.05,
    alpha_advance=0.05,
    maturity_s=25.0,
    poll_s=10.0,
    lease_s=60.0,
    expected_requests_per_s=8.0,
    stages=(STAGE,),
    digest="sha256:0",
)


def engine(payoffs: Payoffs, runs: int, seed: int) -> dict[str, float]:
    """Shares by decision from the engine itself, unit by unit: units mature late, and agree on most."""
    generator, found = (
        np.random.default_rng(seed),
        dict.fromkeys(("promoted", "rolled_back", "inconclusive"), 0),
    )
    for _ in range(runs):
        book, arriving, at = GateBook.start(POLICY, (LOW, HIGH)), [], 0.0
        while True:
            at += POLICY.poll_s
            sizes = generator.poisson((8 * 10 * 0.25, 8 * 10 * 0.75))
            arms = [payoffs.draw(generator, int(n)) for n in sizes]
            arms[0] = np.clip(arms[0] + payoffs.difference / payoffs.disagreement, LOW, HIGH)
            masked = [np.where(generator.random(len(a)) < payoffs.disagreement, a, 0.0) for a in arms]
            arriving.append(UtilityBlock(*masked))
            blocks: dict[str, Block] = {SAMPLE_RATIO: AssignmentBlock(*(int(n) for n in sizes), 25.0)}
            is_mature = len(arriving) > 3
            blocks["utility"] = arriving.pop(0) if is_mature else UtilityBlock(np.zeros(0), np.zeros(0))
            book.observe(PollEvidence(at, 25.0, blocks))
            verdict = book.judge("canary-25", at=at, entered_at=0.0, extended=False)
            if verdict.decision is not Decision.HOLD:
                break
        is_open = verdict.reason is ReasonCode.INCONCLUSIVE
        how = "inconclusive" if is_open else str(verdict.decision.value).lower()
        found[{"advance": "promoted", "rollback": "rolled_back"}.get(how, how)] += 1
    return {name: count / runs for name, count in found.items()}


@pytest.mark.parametrize("difference", [-0.01, -0.025])
def test_shares_agree_with_the_engine(difference: float) -> None:
    """With late outcomes and payoffs masked to where the releases differ, the simulation ends in the engine's shares
    within 4 standard errors, between the tolerance and the margin, where every outcome is met."""
    payoffs = Payoffs(difference, sd=0.25, low=LOW, high=HIGH, mean=0.0, disagreement=0.3)
    theirs = engine(payoffs, 150, seed=3)
    found = simulate(POLICY, Effect("some", {}, payoffs), Settings(runs=2000, seed=4))
    ours = {name: found.share(name) for name in theirs}  # type: ignore[arg-type]
    print(f"{difference:+g}: engine {theirs}, simulation {ours}")
    for name, share in theirs.items():
        error = np.sqrt(max(ours[name] * (1 - ours[name]), 0.01) / 150)
        assert abs(share - ours[name]) <= 4 * error
