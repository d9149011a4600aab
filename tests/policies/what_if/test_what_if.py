"""Promises of the simulation: the same counts get the engine's own verdict at the same poll, and it is fast."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from time import process_time

import numpy as np
import pytest

from policies.gates.evidence import SAMPLE_RATIO, AssignmentBlock, Block, CountBlock, PollEvidence
from policies.gates.gates import GateBook
from policies.rollout.rollout import IllegalTransition, Phase, RolloutState, initial, order, step
from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage
from policies.rollout.verdict import ReasonCode, Verdict
from policies.sequential.statistics import EITHER, ShareTest
from policies.what_if.paths import CountRuns
from policies.what_if.result import OUTCOMES
from policies.what_if.simulation import AssumptionError, Effect, Payoffs, Rates, Settings, simulate
from policies.what_if.traffic import Chunk


def gate(name: str, metric: str, **fields: object) -> Gate:
    """A gate as a stage sees it; every field may be said."""
    common: dict[str, object] = {
        "compare_to": "bound",
        "min": None,
        "max": None,
        "tolerance": None,
        "ni_margin": None,
        "min_samples": 0,
        "required": True,
        "weight": 1.0,
        "on_fail": "rollback",
        "on_missing": "hold",
        "on_error": "hold",
        "budget_ms": None,
        "estimate": "value",
        "applies_to": "all",
        "owner": "nobody",
        "rationale": "a gate of the tests",
        "scale": "ratio" if fields.get("compare_to") == "champion" and metric != "utility" else "absolute",
    }
    return Gate(name=name, metric=metric, **{**common, **fields})  # type: ignore[arg-type]


def stage(name: str, kind: str, gates: tuple[Gate, ...] = (), **fields: object) -> Stage:
    """A stage; every field may be said."""
    common: dict[str, object] = {
        "weight_pct": None,
        "bake_min_s": 0.0,
        "bake_max_s": 60.0,
        "on_inconclusive": "rollback",
        "advance_on": "gates" if gates else "readback",
        "approval": False,
        "rationale": "a stage of the tests",
    }
    return Stage(name=name, kind=kind, gates=gates, **{**common, **fields})  # type: ignore[arg-type]


def policy(*stages: Stage, **fields: object) -> RolloutPolicy:
    """A policy of live stages; the first must be a shadow."""
    common: dict[str, object] = {
        "alpha_rollback": 0.01,
        "alpha_advance": 0.05,
        "maturity_s": 0.0,
        "poll_s": 10.0,
        "lease_s": 60.0,
        "expected_requests_per_s": 80.0,
    }
    return RolloutPolicy(
        service="tests", version=1, owner="nobody", stages=stages, digest="sha256:0", **{**common, **fields}
    )  # type: ignore[arg-type]


BOUND = gate("errors", "canary_errors", max=0.02, min_samples=50)
DRIFT = gate("drift", "canary_errors", compare_to="champion", tolerance=1.0, ni_margin=2.0)
SLOW = gate("slow", "slow_share", compare_to="champion", tolerance=1.2, ni_margin=2.5, weight=2.0)
LONG = replace(DRIFT, name="drift-minutes", window_s=60.0)
SHIFT = gate("shift", "action_rate", compare_to="champion", tolerance=1.1, ni_margin=1.5, required=False)
APART = gate(
    "apart",
    "slow_share",
    compare_to="champion",
    tolerance=0.0,
    ni_margin=0.02,
    scale="absolute",
    window_s=25.0,
)
ACTED = gate("acted", "action_rate", min=0.3, required=False, on_fail="hold")
STAGED = policy(
    stage("shadow", "shadow", (replace(BOUND, required=False), ACTED), advance_on="bake", bake_min_s=30.0),
    stage(
        "canary-5",
        "canary",
        (BOUND, *(replace(one, required=False) for one in (DRIFT, SLOW, LONG, APART)), SHIFT),
        weight_pct=5.0,
        bake_min_s=60.0,
        bake_max_s=300.0,
    ),
    stage(
        "canary-50",
        "canary",
        (BOUND, DRIFT, SLOW, LONG, APART, SHIFT),
        weight_pct=50.0,
        bake_min_s=20.0,
        bake_max_s=200.0,
        on_inconclusive="extend",
    ),
    stage("full", "full"),
    stage("probation", "probation", (BOUND,), bake_max_s=20.0, on_inconclusive="manual"),
)
Chunks = dict[str, list[tuple[np.ndarray, Chunk]]]


def polls_of(chunks: Chunks, name: str, run: int, staged: RolloutPolicy = STAGED) -> list[dict[str, Block]]:
    """The blocks of one run's polls in a stage, as they were drawn."""
    polls: list[dict[str, Block]] = []
    weight = staged.stage(name).weight_pct
    for rows, chunk in chunks[name]:
        here = np.flatnonzero(rows == run)
        for column in range(chunk.canary_units.shape[1] if len(here) else 0):
            at = here[0], column
            units = int(chunk.canary_units[at]), int(chunk.stable_units[at])
            blocks: dict[str, Block] = {SAMPLE_RATIO: AssignmentBlock(*units, weight)} if weight else {}
            for source, runs in chunk.runs.items():
                if source.window:
                    continue
                assert isinstance(runs, CountRuns)
                parts = (runs.canary_events, runs.canary_n, runs.stable_events, runs.stable_n)
                blocks[source.metric] = CountBlock(*(int(part[at]) for part in parts))
            polls.append(blocks)
    return polls


def conduct(chunks: Chunks, run: int, staged: RolloutPolicy = STAGED) -> tuple[str, ReasonCode, str, float]:
    """One run by the engine itself, poll by poll: outcome, reason, stage and seconds."""
    book, state = GateBook.start(staged, (0.0, 1.0)), initial(staged, 0.0)[0]
    while True:
        name, entered = state.stage, state.entered_at
        book.enter_stage(name)
        for number, blocks in enumerate(polls_of(chunks, name, run, staged), start=1):
            now = entered + number * staged.poll_s
            book.observe(PollEvidence(now, staged.stage(name).weight_pct or 0.0, blocks))
            verdict = book.judge(name, at=now, entered_at=entered, extended=state.extended)
            state = _follow(staged, state, verdict, now)
            if verdict.reason is ReasonCode.INCONCLUSIVE_MANUAL:
                return "waits", verdict.reason, name, now
            if state.phase in (Phase.ROLLED_BACK, Phase.PROMOTED):
                inconclusive = verdict.reason is ReasonCode.INCONCLUSIVE
                outcome = "inconclusive" if inconclusive else str(state.phase.value)
                return outcome, verdict.reason, name, now
            if state.stage != name:
                break
        else:
            return "waits", verdict.reason, name, now


def _follow(staged: RolloutPolicy, state: RolloutState, verdict: Verdict, now: float) -> RolloutState:
    try:
        return step(staged, state, verdict, now)[0]
    except IllegalTransition:
        return order(staged, state, "promote", now)[0]


RUNS = 16
RATES: list[dict[str, tuple[float, float]]] = [
    {"canary_errors": (0.01, 0.01), "slow_share": (0.02, 0.02), "action_rate": (0.5, 0.5)},
    {"canary_errors": (0.012, 0.01), "slow_share": (0.03, 0.02), "action_rate": (0.31, 0.5)},
    {"canary_errors": (0.02, 0.01), "slow_share": (0.02, 0.02), "action_rate": (0.5, 0.5)},
    {"canary_errors": (0.0, 0.0), "slow_share": (0.0, 0.0), "action_rate": (0.2, 0.5)},
    {"canary_errors": (0.006, 0.01), "slow_share": (0.02, 0.04), "action_rate": (0.5, 0.5)},
    {"canary_errors": (0.06, 0.01), "slow_share": (0.02, 0.02), "action_rate": (0.5, 0.5)},
    {"canary_errors": (0.008, 0.004), "slow_share": (0.02, 0.05), "action_rate": (0.5, 0.5)},
]


@pytest.mark.parametrize("rates", RATES)
def test_same_counts_same_verdict_at_the_same_poll(rates: dict[str, tuple[float, float]]) -> None:
    """Every run ends as the engine ends it when it is given that run's counts: outcome, reason, stage and second."""
    chunks: Chunks = defaultdict(list)
    effect = Effect("some", {name: Rates(*pair) for name, pair in rates.items()})
    found = simulate(
        STAGED,
        effect,
        Settings(runs=RUNS, seed=3),
        on_chunk=lambda name, rows, chunk: chunks[name].append((rows, chunk)),
    )
    engines = [conduct(chunks, run) for run in range(RUNS)]
    for run, (outcome, _, _, at) in enumerate(engines):
        assert (OUTCOMES[found.outcome[run]], found.time_s[run]) == (outcome, at), engines[run]
    endings = Counter[tuple[str, ReasonCode, str]]()
    for one in found.endings:
        endings[one.outcome, one.reason, one.stage] += one.runs
    assert endings == Counter(engine[:3] for engine in engines)


def test_every_kind_of_ending_is_met() -> None:
    """The runs compared with the engine's end in every way that a run can: else the promise above is empty."""
    met = set()
    for rates in RATES:
        effect = Effect("some", {name: Rates(*pair) for name, pair in rates.items()})
        met |= {one.reason for one in simulate(STAGED, effect, Settings(runs=RUNS, seed=3)).endings}
    assert met >= {
        ReasonCode.GATES_PASSED,
        ReasonCode.BOUND_EXCEEDED,
        ReasonCode.REGRESSION,
        ReasonCode.INCONCLUSIVE,
        ReasonCode.GATE_FAILED_HELD,
        ReasonCode.INCONCLUSIVE_MANUAL,
    }


def test_a_gate_that_failed_stays_failed_as_in_the_engine() -> None:
    """At the bound, with a lax alpha, runs fail by chance and look well again later: both hold them to the end."""
    held = replace(BOUND, max=0.1, on_fail="hold", required=False)
    stages = (stage("canary-50", "canary", (held,), weight_pct=50.0, bake_min_s=1500.0, advance_on="bake"),)
    first = stage("shadow", "shadow", advance_on="bake", bake_min_s=10.0)
    last = stage("full", "full"), stage("probation", "probation", advance_on="bake")
    lax = policy(first, *stages, *last, alpha_rollback=0.3)
    chunks: Chunks = defaultdict(list)
    found = simulate(
        lax,
        Effect("at the bound", {"canary_errors": Rates(0.1, 0.1)}),
        Settings(runs=40, seed=5),
        on_chunk=lambda name, rows, chunk: chunks[name].append((rows, chunk)),
    )
    endings = []
    for run in range(40):
        outcome, reason, _, at = conduct(chunks, run, lax)
        assert (OUTCOMES[found.outcome[run]], found.time_s[run]) == (outcome, at)
        endings.append(reason)
    blocks = [polls_of(chunks, "canary-50", run, lax) for run in range(40)]
    now_well = 0
    for polls, reason in zip(blocks, endings, strict=True):
        book = GateBook.start(lax, (0.0, 1.0))
        for one in polls:
            book.observe(PollEvidence(0.0, 50.0, one))
        evidence = book.gates["errors"]
        is_well = evidence.rollback_log_e < evidence.rollback_limit
        now_well += reason is ReasonCode.GATE_FAILED_HELD and is_well
    assert now_well >= 1


def test_a_proven_sample_ratio_mismatch_stays_proven_as_in_the_engine() -> None:
    """Of thousands of clean runs a few are unlucky enough to prove a mismatch: none of them ever advances."""
    stages = (stage("canary-50", "canary", weight_pct=50.0, bake_min_s=2000.0, advance_on="bake"),)
    clean = policy(*stages, stage("full", "full"), expected_requests_per_s=4.0)
    chunks: Chunks = defaultdict(list)
    found = simulate(
        clean,
        Effect("any"),
        Settings(runs=4000, seed=1),
        on_chunk=lambda name, rows, chunk: chunks[name].append((rows, chunk)),
    )
    ever, now_clean = 0, 0
    for run in np.flatnonzero(_has_mismatch(chunks["canary-50"], 4000)):
        outcome, reason, _, at = conduct(chunks, int(run), clean)
        assert (outcome, reason) == ("waits", ReasonCode.SAMPLE_RATIO)
        assert (OUTCOMES[found.outcome[run]], found.time_s[run]) == (outcome, at)
        test = ShareTest(1.0, EITHER)
        for one in polls_of(chunks, "canary-50", int(run), clean):
            block = one[SAMPLE_RATIO]
            assert isinstance(block, AssignmentBlock)
            test.update(block.canary_units, block.stable_units, w=0.5)
        ever, now_clean = ever + 1, now_clean + (test.log_e < math.log(1000))
    assert (ever >= 1, now_clean >= 1) == (True, True)


def _has_mismatch(drawn: list[tuple[np.ndarray, Chunk]], runs: int) -> np.ndarray:
    """Which runs' splits ever reach 1/.001, by all of the mixture's likelihood ratios at a weight of 50 %."""
    canary = np.concatenate([chunk.canary_units for rows, chunk in drawn if len(rows) == runs], axis=1)
    stable = np.concatenate([chunk.stable_units for rows, chunk in drawn if len(rows) == runs], axis=1)
    c, s = np.cumsum(canary, axis=1), np.cumsum(stable, axis=1)
    logs = [c * np.log(2 * r / (1 + r)) + s * np.log(2 / (1 + r)) for r in EITHER]
    found: np.ndarray = (np.mean(np.exp(logs), axis=0) >= 1000).any(axis=1)
    return found


def test_a_run_is_the_same_again() -> None:
    """The same seed gives the same result; another one another; shares sum to 1."""
    effect = Effect("worse", {"canary_errors": Rates(0.015, 0.01), "slow_share": Rates(0.02, 0.02)})
    first, again, other = (simulate(STAGED, effect, Settings(runs=50, seed=seed)) for seed in (1, 1, 2))
    assert first.to_json() == again.to_json() != other.to_json()
    assert sum(first.share(outcome) for outcome in OUTCOMES) == pytest.approx(1.0)
    assert first.assumed == ("acted", "shift")


def test_exposure_and_loss_are_counted_until_the_decision() -> None:
    """Units in the canary and after the switch count, shadow's do not; lost utility is units times the loss of one."""
    alone = policy(
        stage("shadow", "shadow", advance_on="bake", bake_min_s=50.0),
        stage("canary-25", "canary", advance_on="bake", bake_min_s=100.0, weight_pct=25.0),
        stage("full", "full"),
    )
    found = simulate(alone, Effect("worse", {}, Payoffs(-0.5, 1.0, -2, 2)), Settings(runs=200))
    assert found.share("promoted") == 1.0
    assert np.ptp(found.time_s) == 0.0
    assert found.time_to(0.5) == 50 + 100 + 10
    assert found.exposed_mean == pytest.approx(0.25 * 80 * 100 + 80 * 10, rel=0.01)
    assert found.lost == pytest.approx(0.5 * found.exposed_mean)


def test_approval_is_given_or_waited_for() -> None:
    """A stage that wants a person is passed at once, or its runs end as waiting, as the settings say."""
    alone = policy(stage("shadow", "shadow", approval=True), stage("full", "full"))
    given = simulate(alone, Effect("any"), Settings(runs=5))
    waited = simulate(alone, Effect("any"), Settings(runs=5, approvals_given=False))
    assert (given.share("promoted"), waited.share("waits")) == (1.0, 1.0)
    assert waited.endings[0].reason is ReasonCode.AWAITING_APPROVAL


def test_a_dry_run_gate_never_acts() -> None:
    """A gate on a dry run neither rolls back nor is waited for."""
    alone = policy(stage("shadow", "shadow", (replace(BOUND, dry_run=True, required=False),)))
    found = simulate(alone, Effect("broken", {"canary_errors": Rates(1.0, 0.0)}), Settings(runs=20))
    assert found.share("promoted") == 1.0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Rates(1.2, 0.1), "'canary' must be a share in [0, 1]: 1.2"),
        (
            lambda: Effect("x", {"canary_error": Rates(0.1, 0.1)}),
            "no share of events is called 'canary_error'",
        ),
        (lambda: Payoffs(0.0, 3.0, -1, 1), "'sd' must be < 1 for payoffs in [-1, 1] with mean 0: 3"),
        (lambda: Payoffs(0.0, 1.0, 1, -1), "'high' must be > 'low': 1 and -1"),
        (lambda: Payoffs(0.0, 1.0, -2, 2, disagreement=0.0), "'disagreement' must be in (0, 1]: 0.0"),
        (lambda: Payoffs(0.0, 1.0, -2, 2, sample=np.array([0.0, 3.0])), "payoffs in [-2, 2]"),
        (lambda: simulate(STAGED, Effect("x"), Settings(runs=0)), "'runs' must be >= 1: 0"),
        (
            lambda: simulate(STAGED, Effect("x"), Settings(requests_per_s=-1.0)),
            "'requests_per_s' must be > 0: -1",
        ),
        (
            lambda: simulate(STAGED, Effect("x"), Settings(requests_per_s=0.0)),
            "'requests_per_s' must be > 0: 0",
        ),
    ],
)
def test_assumptions_that_cannot_be_are_refused(make: Callable[[], object], says: str) -> None:
    """What no release could be is an error that names the field, the bound and the value."""
    with pytest.raises(AssumptionError) as refused:
        make()
    assert says in str(refused.value)


def test_two_thousand_runs_of_540_polls_take_seconds() -> None:
    """Two thousand runs of 540 polls with errors, slow answers and utility, none of which ends early: under 10 s of
    one core."""
    gates = (
        gate("errors", "canary_errors", max=0.0101),
        gate("drift", "canary_errors", compare_to="champion", tolerance=1.0, ni_margin=1.01),
        gate("slow", "slow_share", compare_to="champion", tolerance=1.1, ni_margin=1.15),
        gate("utility", "utility", compare_to="champion", tolerance=0.0, ni_margin=0.001),
    )
    long = policy(
        stage("canary-25", "canary", gates, weight_pct=25.0, bake_min_s=5400.0, bake_max_s=5400.0),
        expected_requests_per_s=200.0,
    )
    rates = {"canary_errors": Rates(0.01, 0.01), "slow_share": Rates(0.01, 0.01)}
    started, told = process_time(), list[float]()
    found = simulate(long, Effect("A/A", rates, Payoffs(0.0, 5.2, -1, 29.8)), progress=told.append)
    spent_s = process_time() - started
    print(f"2,000 runs of 540 polls: {spent_s:.1f} s")
    assert spent_s < 10
    assert found.time_to(0.1) >= 5400
    assert told == sorted(told)
    assert told[-1] == 1.0


def staged(*gates: Gate) -> RolloutPolicy:
    """The staged run of gates.md: 5, 25 and 50 % of 200 requests a second, at most half an hour each."""
    stages = [
        stage(f"canary-{w}", "canary", gates, weight_pct=w, bake_max_s=1800.0) for w in (5.0, 25.0, 50.0)
    ]
    return policy(*stages, expected_requests_per_s=200.0)


@pytest.mark.parametrize(
    ("ratio", "rolls_back", "promotes", "says"),
    [
        (1.0, (0.0, 0.01), (0.98, 1.0), "0.3 / 99.6 / 0.1"),
        (1.2, (0.4, 0.6), (0.3, 0.5), "52 / 39 / 10"),
        (1.5, (0.99, 1.0), (0.0, 0.005), "99.7 / 0 / 0.3"),
        (2.0, (1.0, 1.0), (0.0, 0.0), "100 / 0 / 0, 2.8 min, 1,670 requests"),
    ],
)
def test_staged_run(
    ratio: float, rolls_back: tuple[float, float], promotes: tuple[float, float], says: str
) -> None:
    """Tolerance 1.0, niMargin 1.5, 1 % of errors: what gates.md found for the rates' ratio, at alpha .01 and .05."""
    judged = staged(gate("errors", "canary_errors", compare_to="champion", tolerance=1.0, ni_margin=1.5))
    effect = Effect(f"{ratio:g} times", {"canary_errors": Rates(0.01 * ratio, 0.01)})
    found = simulate(judged, effect, Settings(runs=4000, seed=11))
    shares = [found.share(outcome) for outcome in ("rolled_back", "promoted", "inconclusive")]
    minutes, requests = (found.time_to(0.5) or 0.0) / 60, float(np.median(found.exposed))
    print(f"{ratio:g}: {' / '.join(f'{100 * one:.1f}' for one in shares)} % after {minutes:.1f} min and")
    print(f"     {requests:,.0f} canary requests (median); gates.md: {says}")
    assert rolls_back[0] <= shares[0] <= rolls_back[1]
    assert promotes[0] <= shares[1] <= promotes[1]
    if ratio == 2.0:
        assert minutes <= 3.1
        assert requests <= 1900


@pytest.mark.parametrize("stable", [0.01, 0.0])
def test_a_canary_without_any_error_is_promoted(stable: float) -> None:
    """Where the required gate is an absolute bound, no error at all is enough, even where stable has none either."""
    drift = gate(
        "drift", "canary_errors", compare_to="champion", tolerance=1.0, ni_margin=1.5, required=False
    )
    judged = staged(gate("errors", "canary_errors", max=0.02), drift)
    found = simulate(judged, Effect("none", {"canary_errors": Rates(0.0, stable)}), Settings(runs=1000))
    assert found.share("promoted") == 1.0
    # ten polls, where chance makes stable look bursty and F1 has to speak too (dispersion guard)
    assert (found.time_to(0.9) or math.inf) <= 100.0
