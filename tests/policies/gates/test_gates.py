"""Promises of the gates: nothing passes without evidence, the order of precedence, error rates of the whole book."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from policies.gates.evidence import (
    SAMPLE_RATIO,
    Alarm,
    AssignmentBlock,
    Block,
    CountBlock,
    GapBlock,
    PollEvidence,
    UtilityBlock,
)
from policies.gates.gates import GateBook, GateError
from policies.rollout.rollout_policy import RolloutPolicy, load_rollout
from policies.rollout.verdict import Decision, GateStatus, ReasonCode, Verdict

YAML = Path(__file__).parents[3] / "policies" / "telemarketing" / "rollout.yaml"
TEXT = YAML.read_text(encoding="utf-8")
POLICY = load_rollout(TEXT, "rollout.yaml")
RANGE = (-1.0, 29.8)
EMPTY = np.empty(0)
NOTHING_NEW: dict[str, Block] = {
    "canary_errors": CountBlock(0, 0),
    "slow_share": CountBlock(0, 0),
    "utility": UtilityBlock(EMPTY, EMPTY),
    "call_rate_gap": GapBlock(0, 0, 0, 0),
}


def book_in(stage: str, policy: RolloutPolicy = POLICY) -> GateBook:
    book = GateBook.start(policy, RANGE)
    book.enter_stage(stage)
    return book


def poll(stage: str, blocks: dict[str, Block], **rest: object) -> PollEvidence:
    """One poll at the stage's weight, with a clean sample ratio of 200 units unless the blocks bring their own, and
    nothing new of every other metric."""
    weight = POLICY.stage(stage).weight_pct or 0.0
    told = rest.get("missing", {})
    nothing = {
        gate.metric: NOTHING_NEW[gate.metric]
        for gate in POLICY.stage(stage).gates
        if gate.metric not in told  # type: ignore[operator]
    }
    canary = round(2 * weight)
    ratio: dict[str, Block] = {SAMPLE_RATIO: AssignmentBlock(canary, 200 - canary, weight)} if weight else {}
    return PollEvidence(0.0, weight, {**ratio, **nothing, **blocks}, **rest)  # type: ignore[arg-type]


def payoffs(generator: np.random.Generator, n: int, *, called: float = 0.2, sold: float = 0.2) -> np.ndarray:
    """As in the bank's data: mostly not called, −1 for an unwanted call, a heavy-tailed gain for a sale."""
    is_called = generator.random(n) < called
    gain = 0.25 * 0.02463333 * np.clip(generator.lognormal(6.4, 1.4, n), 0, 5000) - 1
    return np.where(is_called, np.where(generator.random(n) < sold, gain, -1.0), 0.0)


def healthy(stage: str, generator: np.random.Generator, **candidate: float) -> PollEvidence:
    """One second of 200 requests: few errors, few slow ones, utilities of both arms."""
    weight = POLICY.stage(stage).weight_pct or 0.0
    n = int(generator.binomial(200, weight / 100)) if weight else 200
    counts = {
        name: CountBlock(int(generator.binomial(n, 0.003)), n) for name in ("canary_errors", "slow_share")
    }
    if not weight:
        return PollEvidence(0.0, 0.0, counts)
    arms = UtilityBlock(payoffs(generator, n, **candidate), payoffs(generator, 200 - n))
    ratio = AssignmentBlock(n, 200 - n, weight)
    return PollEvidence(0.0, weight, {**counts, "utility": arms, SAMPLE_RATIO: ratio})


def judged(book: GateBook, at: float, *, extended: bool = False) -> Verdict:
    assert book.stage_name is not None
    return book.judge(book.stage_name, at=at, entered_at=0.0, extended=extended)


def gate_of(verdict: Verdict, name: str) -> GateStatus:
    return next(gate.status for gate in verdict.gates if gate.gate == name)


# --- live stages: nothing passes without evidence


@pytest.mark.parametrize("stage", ["shadow", "canary-5", "canary-25", "probation"])
def test_no_data_holds_for_ever(stage: str) -> None:
    """With nothing but a clean sample ratio no stage with required gates ever advances, nor fails as inconclusive."""
    book = book_in(stage)
    for at in (1.0, 60.0, 10_000.0):
        book.observe(poll(stage, {}))
        for extended in (False, True):
            verdict = judged(book, at, extended=extended)
            assert verdict.decision is Decision.HOLD
            assert verdict.reason in (ReasonCode.BAKING, ReasonCode.NO_DATA)
    assert "has no data yet" in verdict.detail


def test_on_missing_rollback_acts_after_the_longest_bake() -> None:
    """onMissing: rollback waits for the longest bake, then rolls back for the missing evidence."""
    policy = load_rollout(TEXT.replace("onMissing: hold", "onMissing: rollback"), "r.yaml")
    book = book_in("canary-5", policy)
    book.observe(poll("canary-5", {}))
    assert judged(book, 39.0).decision is Decision.HOLD
    verdict = judged(book, 40.0)
    assert (verdict.decision, verdict.reason) == (Decision.ROLLBACK, ReasonCode.NO_DATA)


def test_missing_evidence_takes_a_pass_back() -> None:
    """A gate that has passed does not count as passed while its source is missing; the reason is told."""
    book = book_in("canary-5")
    book.observe(poll("canary-5", {"canary_errors": CountBlock(0, 200)}))
    assert judged(book, 16.0).decision is Decision.ADVANCE
    book.observe(poll("canary-5", {}, missing={"canary_errors": "the proxy does not answer"}))
    verdict = judged(book, 17.0)
    assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.MISSING_EVIDENCE)
    assert "the proxy does not answer" in verdict.detail
    book.observe(PollEvidence(17.0, 5.0, {SAMPLE_RATIO: AssignmentBlock(10, 190, 5.0)}))
    verdict = judged(book, 17.5)
    assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.MISSING_EVIDENCE)
    assert "the poll said nothing of it" in verdict.detail
    book.observe(poll("canary-5", {}, missing={"shipper": "12 s behind"}))
    assert judged(book, 18.0).reason is ReasonCode.MISSING_EVIDENCE
    book.observe(poll("canary-5", {}, missing={"utility": "no outcomes"}))
    assert judged(book, 19.0).decision is Decision.ADVANCE


@pytest.mark.parametrize("bad", [math.nan, math.inf, 31.0])
def test_unusable_payoffs_are_an_error_for_the_stage(bad: float) -> None:
    """A payoff that is NaN or out of range makes the gate `error` until the stage ends; onError: hold holds."""
    book = book_in("canary-25")
    generator = np.random.default_rng(0)
    book.observe(poll("canary-25", {"utility": UtilityBlock(np.array([bad]), np.zeros(3))}))
    for _ in range(30):
        book.observe(healthy("canary-25", generator))
    verdict = judged(book, 30.0)
    assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.GATE_ERROR)
    assert gate_of(verdict, "utility") is GateStatus.ERROR
    json.dumps(verdict.to_json(), allow_nan=False)


def test_too_few_samples_do_not_pass() -> None:
    """Evidence that would do is not enough below the gate's minSamples."""
    policy = load_rollout(TEXT.replace("minSamples: 50", "minSamples: 250"), "r.yaml")
    for n, decision in ((200, Decision.HOLD), (250, Decision.ADVANCE)):
        book = book_in("canary-5", policy)
        book.observe(poll("canary-5", {"canary_errors": CountBlock(0, n)}))
        assert judged(book, 20.0).decision is decision


def test_evidence_taken_at_another_weight_is_refused() -> None:
    """Blocks of a poll at another weight than the stage's do not count; they are missing evidence."""
    book = book_in("canary-5")
    book.observe(
        PollEvidence(
            0.0,
            1.0,
            {"canary_errors": CountBlock(0, 500), SAMPLE_RATIO: AssignmentBlock(10, 190, 1.0)},
        )
    )
    verdict = judged(book, 20.0)
    assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.MISSING_EVIDENCE)
    assert "the poll was taken at 1 %, the stage is at 5 %" in verdict.detail


# --- precedence and the bake clock


def test_alarm_rolls_back_whatever_the_gates_say() -> None:
    """An ejected canary is a rollback with its own reason, and stays one."""
    book = book_in("canary-5")
    alarm = Alarm(ReasonCode.CANARY_EJECTED, "ejected for 3 s")
    book.observe(poll("canary-5", {"canary_errors": CountBlock(0, 500)}, alarms=(alarm,)))
    book.observe(poll("canary-5", {}))
    verdict = judged(book, 20.0)
    assert (verdict.decision, verdict.reason) == (Decision.ROLLBACK, ReasonCode.CANARY_EJECTED)
    assert verdict.detail == "ejected for 3 s"


def test_rollback_side_is_live_where_a_gate_is_not_required() -> None:
    """At 1 % no gate is required, but an erroring candidate is rolled back there, with value and bound in words."""
    book = book_in("canary-1")
    for _ in range(3):
        book.observe(poll("canary-1", {"canary_errors": CountBlock(2, 2)}))
    verdict = judged(book, 3.0)
    assert (verdict.decision, verdict.reason) == (Decision.ROLLBACK, ReasonCode.BOUND_EXCEEDED)
    assert "canary_errors 1.00" in verdict.detail
    assert "against 0.05" in verdict.detail


def test_on_fail_hold_holds() -> None:
    """A failed gate whose onFail is `hold` stops the rollout without rolling back."""
    text = TEXT.replace("    onFail: rollback\n    onMissing: hold", "    onFail: hold\n    onMissing: hold")
    book = book_in("canary-5", load_rollout(text, "r.yaml"))
    book.observe(poll("canary-5", {"canary_errors": CountBlock(40, 80)}))
    verdict = judged(book, 20.0)
    assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.GATE_FAILED_HELD)


def test_bake_stage_waits_then_advances() -> None:
    """`advanceOn: bake` advances when the least bake time is over, says how long yet, and needs the sample ratio."""
    book = book_in("canary-1")
    assert judged(book, 12.0).reason is ReasonCode.MISSING_EVIDENCE
    book.observe(poll("canary-1", {}))
    early = judged(book, 6.0)
    assert (early.decision, early.reason, early.wait_s) == (Decision.HOLD, ReasonCode.BAKING, 4.0)
    assert early.detail == "holds: bake 6 s of 10 s"
    assert (judged(book, 10.0).decision, judged(book, 10.0).reason) == (Decision.ADVANCE, ReasonCode.BAKED)


def test_sample_ratio_holds_and_never_rolls_back() -> None:
    """Units that do not split by the weight hold the rollout at every age, whatever the gates say."""
    book = book_in("canary-5")
    book.observe(poll("canary-5", {"canary_errors": CountBlock(0, 500)}))
    book.observe(poll("canary-5", {SAMPLE_RATIO: AssignmentBlock(120, 880, 5.0)}))
    for at in (20.0, 500.0):
        verdict = judged(book, at, extended=True)
        assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.SAMPLE_RATIO)
    assert "120 canary" not in verdict.detail
    assert "130 of 1200 units are the canary's, not 5 %" in verdict.detail


def through_json(book: GateBook) -> GateBook:
    return GateBook.from_json(book.policy, json.loads(json.dumps(book.to_json(), allow_nan=False)))


def test_a_proven_sample_ratio_mismatch_stays_proven_in_its_stage() -> None:
    """Once its E has reached 1/alpha, no number of clean polls, no restart and no silence lets the stage advance."""
    book = book_in("canary-5")
    for _ in range(10):
        book.observe(poll("canary-5", {SAMPLE_RATIO: AssignmentBlock(12, 88, 5.0)}))
    for _ in range(50):
        clean = {SAMPLE_RATIO: AssignmentBlock(4, 96, 5.0), "canary_errors": CountBlock(0, 10)}
        book.observe(poll("canary-5", clean))
    assert book.ratio.log_e < 0
    for one in (book, through_json(book)):
        verdict = judged(one, 30.0)
        assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.SAMPLE_RATIO)
        assert "proven earlier in this stage" in verdict.detail
    book.observe(poll("canary-5", {"canary_errors": CountBlock(0, 1)}, missing={SAMPLE_RATIO: "no log"}))
    assert judged(book, 30.0).reason is ReasonCode.SAMPLE_RATIO
    book.enter_stage("canary-25")
    book.observe(poll("canary-25", {}))
    assert gate_of(judged(book, 1.0), "sample-ratio") is GateStatus.PASS


def test_the_sample_ratio_has_failed_from_one_in_a_thousand_on() -> None:
    """It is judged at alpha .001: log E just below ln 1000 passes, just above it fails."""
    statuses = []
    for canary in (25, 26, 27, 28, 29, 30, 31, 32):
        book = book_in("canary-5")
        book.observe(poll("canary-5", {SAMPLE_RATIO: AssignmentBlock(canary, 200 - canary, 5.0)}))
        status = gate_of(judged(book, 1.0), "sample-ratio")
        assert status is (GateStatus.FAIL if book.ratio.log_e >= math.log(1000) else GateStatus.PASS)
        statuses.append(status)
    assert set(statuses) == {GateStatus.PASS, GateStatus.FAIL}


def test_a_missing_sample_ratio_is_no_clean_one() -> None:
    """A poll that cannot tell the split takes the check's pass back, with its reason."""
    book = book_in("canary-5")
    book.observe(poll("canary-5", {"canary_errors": CountBlock(0, 200)}))
    assert judged(book, 16.0).decision is Decision.ADVANCE
    book.observe(poll("canary-5", {"canary_errors": CountBlock(0, 1)}, missing={SAMPLE_RATIO: "no log"}))
    verdict = judged(book, 16.0)
    assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.MISSING_EVIDENCE)
    assert "sample ratio: no log" in verdict.detail


def test_a_gate_that_failed_stays_failed_for_the_rollout() -> None:
    """Where onFail is `hold`, clean polls after the failure, a restart or the next stage do not undo it."""
    text = TEXT.replace("    onFail: rollback\n    onMissing: hold", "    onFail: hold\n    onMissing: hold")
    book = book_in("canary-5", load_rollout(text, "r.yaml"))
    book.observe(poll("canary-5", {"canary_errors": CountBlock(20, 80)}))
    for _ in range(60):
        book.observe(poll("canary-5", {"canary_errors": CountBlock(0, 40)}))
    evidence = book.gates["errors"]
    assert evidence.rollback_log_e < evidence.rollback_limit
    for one in (book, through_json(book)):
        verdict = judged(one, 30.0)
        assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.GATE_FAILED_HELD)
    book.enter_stage("canary-25")
    assert gate_of(judged(through_json(book), 0.0), "errors") is GateStatus.FAIL


@pytest.mark.parametrize(
    ("wish", "first", "second"),
    [
        ("extend", (Decision.HOLD, ReasonCode.EXTENDED), (Decision.ROLLBACK, ReasonCode.INCONCLUSIVE)),
        (
            "rollback",
            (Decision.ROLLBACK, ReasonCode.INCONCLUSIVE),
            (Decision.ROLLBACK, ReasonCode.INCONCLUSIVE),
        ),
        (
            "manual",
            (Decision.HOLD, ReasonCode.INCONCLUSIVE_MANUAL),
            (Decision.HOLD, ReasonCode.INCONCLUSIVE_MANUAL),
        ),
    ],
)
def test_inconclusive_at_the_longest_bake(
    wish: str, first: tuple[Decision, ReasonCode], second: tuple[Decision, ReasonCode]
) -> None:
    """Undecided at the longest bake: extend once then roll back as `inconclusive`, or at once, or wait for a person."""
    text = TEXT.replace(
        "max: 40s}    # real: min: 1d\n    onInconclusive: extend",
        f"max: 40s}}\n    onInconclusive: {wish}",
    )
    book = book_in("canary-5", load_rollout(text, "r.yaml"))
    book.observe(poll("canary-5", {"canary_errors": CountBlock(3, 60)}))
    before = judged(book, 39.0)
    assert (before.decision, before.reason) == (Decision.HOLD, ReasonCode.MORE_EVIDENCE)
    verdict = judged(book, 40.0)
    assert (verdict.decision, verdict.reason) == first
    assert judged(book, 79.0, extended=True).reason is not ReasonCode.INCONCLUSIVE
    verdict = judged(book, 80.0, extended=True)
    assert (verdict.decision, verdict.reason) == second


def test_hold_says_what_it_waits_for() -> None:
    """A hold names the bake, the gates that are open, how many more observations they want, and the seconds."""
    book = book_in("canary-5")
    for _ in range(5):
        book.observe(poll("canary-5", {"canary_errors": CountBlock(0, 10)}))
    verdict = judged(book, 5.0)
    assert verdict.detail == "holds: bake 5 s of 15 s; errors needs about 11 more canary requests (1 s)"
    assert verdict.wait_s == 10.0


def test_full_advances_once_entered_and_approval_waits() -> None:
    """The full stage waits only for its read-back; a stage with approval holds for a person when all is well."""
    assert judged(book_in("full"), 0.0).decision is Decision.ADVANCE
    text = TEXT.replace("    approval: false ", "    approval: true ")
    book = book_in("shadow", load_rollout(text, "r.yaml"))
    book.observe(poll("shadow", {"call_rate_gap": GapBlock(60, 400, 300, 1800)}))
    verdict = judged(book, 12.0)
    assert (verdict.decision, verdict.reason) == (Decision.HOLD, ReasonCode.AWAITING_APPROVAL)


# --- the shadow's gap


@pytest.mark.parametrize(
    ("block", "decision"),
    [
        (GapBlock(60, 300, 250, 1700), Decision.ADVANCE),
        (GapBlock(270, 300, 250, 1700), Decision.ROLLBACK),
        (GapBlock(300, 300, 1700, 1700), Decision.ADVANCE),
        (GapBlock(9, 90, 250, 1700), Decision.HOLD),
    ],
)
def test_call_rate_gap_in_shadow(block: GapBlock, decision: Decision) -> None:
    """A small gap advances, a gap far beyond 0.30 rolls back, calling all is no gap, too few young people hold."""
    book = book_in("shadow")
    book.observe(poll("shadow", {"call_rate_gap": block}))
    assert judged(book, 12.0).decision is decision


# --- the book as a whole


def run(stages: Iterable[str], seed: int, seconds: int, **candidate: float) -> tuple[GateBook, list[Verdict]]:
    generator = np.random.default_rng(seed)
    book = GateBook.start(POLICY, RANGE)
    verdicts = []
    for stage in stages:
        book.enter_stage(stage)
        for second in range(1, seconds + 1):
            book.observe(healthy(stage, generator, **candidate))
            verdicts.append(judged(book, float(second)))
            if verdicts[-1].decision is not Decision.HOLD:
                break
    return book, verdicts


def test_equal_releases_are_hardly_ever_rolled_back() -> None:
    """A/A over the 25 % and 50 % stages, judged each second: at most 1 % rolled back (40 runs: at most 2)."""
    ends = [run(("canary-25", "canary-50"), seed, 40)[1] for seed in range(40)]
    assert sum(any(v.decision is Decision.ROLLBACK for v in verdicts) for verdicts in ends) <= 2


def test_a_candidate_worse_by_more_than_the_margin_does_not_advance() -> None:
    """Calling four times as many people at a loss: no run advances at 25 %, and nearly all are rolled back in 45 s."""
    ends = [run(("canary-25",), seed, 44, called=0.8, sold=0.01)[1][-1] for seed in range(15)]
    assert all(verdict.decision is not Decision.ADVANCE for verdict in ends)
    rolled = [verdict for verdict in ends if verdict.decision is Decision.ROLLBACK]
    assert len(rolled) >= 13
    assert {verdict.reason for verdict in rolled} == {ReasonCode.REGRESSION}


def test_a_better_candidate_is_promoted_with_the_least_bakes() -> None:
    """A candidate that sells to more of those it calls passes 25 % and 50 % in about their least bake times."""
    for seed in range(10):
        _, verdicts = run(("canary-25", "canary-50"), seed, 45, called=0.3, sold=0.45)
        advances = [v for v in verdicts if v.decision is Decision.ADVANCE]
        assert [v.stage for v in advances] == ["canary-25", "canary-50"]
        assert all("20 s" in v.detail or "21 s" in v.detail for v in advances)


def test_a_restart_changes_nothing() -> None:
    """Through JSON text after every poll, over two stages, the book judges identically to one that never stopped."""
    generator = np.random.default_rng(7)
    whole = book_in("canary-25")
    copy = GateBook.from_json(POLICY, json.loads(json.dumps(whole.to_json(), allow_nan=False)))
    for stage in ("canary-25", "canary-50", "probation"):
        whole.enter_stage(stage)
        copy.enter_stage(stage)
        for second in range(1, 12):
            evidence = healthy(stage, generator)
            whole.observe(evidence)
            copy.observe(evidence)
            copy = GateBook.from_json(POLICY, json.loads(json.dumps(copy.to_json(), allow_nan=False)))
            assert judged(copy, float(second)) == judged(whole, float(second))
            assert copy.to_json() == whole.to_json()


def test_judging_changes_nothing() -> None:
    """Two looks at the same evidence give the same verdict and leave the same book."""
    book, _ = run(("canary-25",), 3, 5)
    before = book.to_json()
    assert judged(book, 9.0) == judged(book, 9.0)
    assert book.to_json() == before


def test_rollback_evidence_is_carried_over_stages_and_advance_starts_anew() -> None:
    """Entering the next stage keeps the carried evidence of harm and restarts the evidence for passing."""
    book = book_in("canary-5")
    book.observe(poll("canary-5", {"canary_errors": CountBlock(9, 60)}))
    evidence = book.gates["errors"]
    carried, advance = evidence.carried.log_e, evidence.advance_log_e
    assert carried > 0.5
    assert advance < 0
    before = evidence.rollback_log_e
    book.enter_stage("canary-25")
    assert evidence.carried.log_e == carried
    assert evidence.advance_log_e == 0.0
    assert evidence.rollback_log_e == pytest.approx(before)
    assert evidence.tally.canary_n == 0


def test_book_refuses_what_is_not_its_own() -> None:
    """Another policy's book, a stage that went by, an offline stage, a block of the wrong kind, no payoff range."""
    book = book_in("canary-25")
    other = load_rollout(TEXT.replace("poll: 500ms ", "poll: 2s "), "r.yaml")
    with pytest.raises(GateError, match="was made for policy"):
        GateBook.from_json(other, book.to_json())
    with pytest.raises(GateError, match="lies before"):
        book.enter_stage("shadow")
    with pytest.raises(GateError, match="must be one of shadow"):
        book.enter_stage("alignment")
    with pytest.raises(GateError, match="cannot take a CountBlock"):
        book.observe(poll("canary-25", {"utility": CountBlock(0, 1)}))
    with pytest.raises(GateError, match="current stage 'canary-25'"):
        book.judge("canary-50", at=1.0, entered_at=0.0, extended=False)
    with pytest.raises(GateError, match="payoff_range"):
        GateBook.start(POLICY)
    with pytest.raises(GateError, match="not a stored book"):
        GateBook.from_json(POLICY, {"policy": POLICY.digest})


def _full_book() -> dict[str, object]:
    """A stored book of two stages with counts, payoffs and a gap that was over before."""
    book = GateBook.start(POLICY, RANGE)
    book.observe(poll("shadow", {"call_rate_gap": GapBlock(60, 300, 250, 1700)}))
    book.enter_stage("canary-25")
    generator = np.random.default_rng(3)
    for _ in range(3):
        book.observe(healthy("canary-25", generator))
    return json.loads(json.dumps(book.to_json()))  # type: ignore[no-any-return]


def _at(obj: object, path: str) -> tuple[object, object]:
    *way, last = (int(key) if key.isdigit() else key for key in path.split("/"))
    for key in way:
        obj = obj[key]  # type: ignore[index]
    return obj, last


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("gates/errors/finished", [0.0] * 12),
        ("gates/errors/finished", [math.inf]),
        ("gates/errors/finished", ["nan"]),
        ("gates/errors/tally/canary_n", -1),
        ("gates/errors/tally/canary_events", 10_000),
        ("gates/errors/tally/units", 1),
        ("gates/errors/carried/test/n", -5),
        ("gates/errors/carried/test/events", 10_000),
        ("gates/errors/carried/polls/total", math.nan),
        ("gates/errors/stage_rollback", None),
        ("gates/errors/dispersion/events", -3),
        ("gates/errors/dispersion/squares", math.inf),
        ("gates/errors/dispersion/is_bursty", "no"),
        ("gates/errors/has_failed", "no"),
        ("gates/errors/error", 7),
        ("gates/utility/advance/log_e", math.inf),
        ("gates/utility/advance/log_e", "nan"),
        ("gates/utility/carried/n", -1),
        ("gates/utility/carried/squares", -1.0),
        ("gates/utility/pairing/weight_pct", 50.0),
        ("gates/utility/pairing/weight_pct", 0.0),
        ("gates/utility/pairing/canary", [math.nan]),
        ("gates/utility/pairing", None),
        ("gates/utility/savings/canary", [0.0]),
        ("gates/utility/window/waiting", {"kind": "utility"}),
        ("gates/call-rate-gap/carried/information", -1.0),
        ("gates/call-rate-gap/carried/sums/blocks", -1),
        ("gates/call-rate-gap/carried/sums/totals", [9.0, 1.0, 0.0, 0.0]),
        ("ratio/logs/0", math.nan),
        ("ratio/logs/0", math.inf),
        ("ratio_units", [1, -1]),
        ("ratio_units", [1]),
        ("ratio_has_failed", "yes"),
        ("stage", "canary-26"),
        ("stage", "alignment"),
        ("stage", "full"),
        ("stage", None),
        ("missing", []),
        ("alarms", [{"reason": "no reason", "detail": ""}]),
        ("extra", 1),
    ],
)
def test_a_stored_book_that_cannot_be_is_refused_when_it_is_read(path: str, value: object) -> None:
    """Counts below zero or events beyond trials, numbers that are none, foreign keys and stages: GateError, and no
    other error, at loading and not at a later poll."""
    stored = _full_book()
    assert GateBook.from_json(POLICY, stored).to_json() == stored
    inner, last = _at(stored, path)
    inner[last] = value  # type: ignore[index]
    with pytest.raises(GateError):
        GateBook.from_json(POLICY, stored)


@pytest.mark.parametrize("name", ["errors", "slow", "utility", "call-rate-gap"])
def test_a_stored_book_without_one_of_the_gates_is_refused(name: str) -> None:
    """What is not there is not a gate that has seen nothing: a rollout about to roll back would hold."""
    stored = _full_book()
    del stored["gates"][name]  # type: ignore[attr-defined]
    with pytest.raises(GateError, match="must hold the gates"):
        GateBook.from_json(POLICY, stored)


def test_unusable_evidence_is_still_unusable_after_a_restart() -> None:
    """The error of a stage's gate is stored: a restart does not make lost payoffs harmless."""
    book = book_in("canary-25")
    book.observe(poll("canary-25", {"utility": UtilityBlock(np.array([math.nan]), np.zeros(3))}))
    book = through_json(book)
    for _ in range(30):
        book.observe(healthy("canary-25", np.random.default_rng(0)))
    assert gate_of(judged(book, 30.0), "utility") is GateStatus.ERROR


def test_a_failed_gate_goes_before_one_in_error() -> None:
    """Evidence of harm and unusable evidence at once: the rollback is told as what was proven."""
    book = book_in("canary-25")
    bad: Block = UtilityBlock(np.array([math.nan]), np.zeros(3))
    book.observe(poll("canary-25", {"utility": bad, "canary_errors": CountBlock(60, 80)}))
    verdict = judged(book, 1.0)
    assert (gate_of(verdict, "errors"), gate_of(verdict, "utility")) == (GateStatus.FAIL, GateStatus.ERROR)
    assert (verdict.decision, verdict.reason) == (Decision.ROLLBACK, ReasonCode.BOUND_EXCEEDED)


def test_one_gate_that_failed_and_then_broke_has_failed() -> None:
    """A gate whose harm was proven before its evidence became unusable stays failed: an error would only hold."""
    book = book_in("canary-25")
    generator = np.random.default_rng(0)
    for _ in range(60):
        book.observe(healthy("canary-25", generator, called=0.9, sold=0.0))
    assert gate_of(judged(book, 1.0), "utility") is GateStatus.FAIL
    book.observe(poll("canary-25", {"utility": UtilityBlock(np.array([math.inf]), np.zeros(3))}))
    assert book.gates["utility"].error is not None
    assert gate_of(judged(book, 1.0), "utility") is GateStatus.FAIL


def test_a_poll_at_another_weight_is_not_fed() -> None:
    """Such a poll changes no gate and no sample ratio: neither harm nor its absence is taken from it."""
    book = book_in("canary-5")
    book.observe(poll("canary-5", {"canary_errors": CountBlock(1, 50)}))
    before = book.to_json()
    strange: dict[str, Block] = {
        "canary_errors": CountBlock(90, 100),
        SAMPLE_RATIO: AssignmentBlock(150, 50, 25.0),
    }
    book.observe(PollEvidence(1.0, 25.0, strange))
    after = book.to_json()
    assert {name for name in after if after[name] != before[name]} == {"missing"}


def test_a_sample_ratio_that_the_poll_says_nothing_of_or_takes_at_another_weight_is_missing() -> None:
    """Neither keeps the check's pass: the stage holds, and units of another weight are not counted."""
    book = book_in("canary-5")
    book.observe(poll("canary-5", {"canary_errors": CountBlock(0, 200)}))
    assert judged(book, 16.0).decision is Decision.ADVANCE
    errors: dict[str, Block] = {"canary_errors": CountBlock(0, 1)}
    book.observe(PollEvidence(1.0, 5.0, errors))
    assert judged(book, 16.0).reason is ReasonCode.MISSING_EVIDENCE
    book.observe(PollEvidence(1.0, 5.0, {**errors, SAMPLE_RATIO: AssignmentBlock(50, 150, 25.0)}))
    verdict = judged(book, 16.0)
    assert verdict.reason is ReasonCode.MISSING_EVIDENCE
    assert "assigned at 25 %, the stage is at 5 %" in verdict.detail
    assert book.ratio_units == [10, 190]
