"""Promises of the tests behind the gates: published numbers, error rates under the null, exact storage."""

import json
import math

import numpy as np
import pytest
from numpy.random import Generator

from policies.sequential.mixture import Side
from policies.sequential.statistics import (
    BETTER,
    EITHER,
    WORSE,
    BettingTest,
    BoundTest,
    EffectTest,
    Pairing,
    PayoffOutOfRange,
    RateContrast,
    ShareTest,
    TwoByTwoTest,
    check_payoffs,
    interval_of_rate,
    interval_of_ratio,
    rollback_log_e,
)

LIMIT_05, LIMIT_01 = math.log(20), math.log(100)


def rng(seed: int) -> Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("bound", "about"), [(0.01, 300), (0.02, 150), (0.05, 59)])
def test_zero_events_pass_a_bound_soon(bound: float, about: int) -> None:
    """F6: without any event a 1 / 2 / 5 % bound passes after about 300 / 150 / 59 observations."""
    test = BoundTest(bound, "below")
    while test.log_e < LIMIT_05:
        test.update(0, 1)
    assert about * 0.98 <= test.n <= about * 1.05


def test_bound_test_knows_both_sides() -> None:
    """F6: many events reject "p ≤ bound" and never "p ≥ bound"; one event does not end the evidence for passing."""
    above, below = BoundTest(0.05, "above"), BoundTest(0.05, "below")
    for test in (above, below):
        test.update(30, 200)
    assert above.log_e > LIMIT_01
    assert below.log_e < 0
    few = BoundTest(0.05, "below")
    few.update(2, 250)
    assert few.log_e > LIMIT_05


def crossed(log_e: list[float], limit: float) -> bool:
    return max(log_e) >= limit


def test_bound_test_keeps_its_error_rate_at_every_look() -> None:
    """F6 at p = bound, looked at every 40 trials up to 2,000: either side errs in at most 5 % of runs."""
    generator = rng(6)
    wrong = {"above": 0, "below": 0}
    for _ in range(150):
        events = np.cumsum(generator.binomial(40, 0.05, size=50))
        for side in wrong:
            looks = [BoundTest(0.05, side, int(e), 40 * (i + 1)).log_e for i, e in enumerate(events)]
            wrong[side] += crossed(looks, LIMIT_05)
    assert max(wrong.values()) <= 150 * 0.05 + 3 * math.sqrt(150 * 0.05 * 0.95)


def polls(generator: Generator, rate_c: float, rate_s: float, *, count: int = 120) -> list[tuple[int, ...]]:
    n_c = generator.binomial(2000, 0.05, size=count)
    return [
        (int(generator.binomial(n, rate_c)), int(n), int(generator.binomial(2000 - n, rate_s)), int(2000 - n))
        for n in n_c
    ]


def share_and_two_by_two(blocks: list[tuple[int, ...]]) -> tuple[list[float], list[float]]:
    share, table = ShareTest(1.0, WORSE), TwoByTwoTest()
    shares, tables = [], []
    for e_c, n_c, e_s, n_s in blocks:
        share.update(e_c, e_s, w=0.05)
        table.update(e_c, n_c, stable_events=e_s, stable_n=n_s)
        shares.append(share.log_e)
        tables.append(table.log_e)
    return shares, tables


def test_rate_comparisons_keep_their_error_rate_at_every_poll() -> None:
    """F2 and F3, A/A at 5 % of 200 requests a second, polled each 10 s for 20 min: at most 5 % false alarms."""
    generator = rng(23)
    runs = [share_and_two_by_two(polls(generator, 0.01, 0.01)) for _ in range(60)]
    allowed = 60 * 0.05 + 2.5 * math.sqrt(60 * 0.05 * 0.95)
    assert sum(crossed(share, LIMIT_05) for share, _ in runs) <= allowed
    assert sum(crossed(table, LIMIT_05) for _, table in runs) <= allowed


def test_an_incident_that_both_arms_share_is_no_regression() -> None:
    """F3 with all errors tenfold in both arms for a minute: no alarm (a threshold controller alarms in 100 %)."""
    generator = rng(3)
    for _ in range(10):
        blocks = polls(generator, 0.01, 0.01, count=30)
        blocks[12:18] = polls(generator, 0.10, 0.10, count=6)
        assert not crossed(share_and_two_by_two(blocks)[1], LIMIT_01)


def test_rate_comparisons_find_a_doubled_rate() -> None:
    """F2 and F3 find 2 % against 1 % at 5 % of the traffic; the median run within 3 minutes (gates.md: 90 to 100 s)."""
    generator = rng(2)
    firsts: list[list[int]] = [[], []]
    for _ in range(30):
        for found, looks in zip(
            firsts, share_and_two_by_two(polls(generator, 0.02, 0.01, count=60)), strict=True
        ):
            found.append(next((i for i, log_e in enumerate(looks) if log_e >= LIMIT_05), 999))
    assert all(np.median(found) * 10 <= 180 for found in firsts)


def test_share_test_with_margin_and_sample_ratio() -> None:
    """F2: equal rates reject "ratio ≥ 1.5"; a 5 % canary that gets 7 % of the units trips the sample ratio."""
    advance = ShareTest(1.5, [1.5 * ratio for ratio in BETTER])
    ratio = ShareTest(1.0, EITHER)
    for _ in range(30):
        advance.update(25, 75, w=0.25)
        ratio.update(14, 186, w=0.05)
    assert advance.log_e > LIMIT_05
    assert ratio.log_e > math.log(1000)
    clean = ShareTest(1.0, EITHER)
    for _ in range(30):
        clean.update(10, 190, w=0.05)
    assert clean.log_e < 0


def payoffs(generator: Generator, n: int, *, lift: float = 0.0) -> np.ndarray:
    """Heavy-tailed payoffs in [−1, 29.8]: mostly 0 (not called), −1, and a few large gains."""
    called = generator.random(n) < 0.2
    gains = np.clip(0.25 * 0.02463333 * generator.lognormal(6.6, 1.3, n), 0, 30.8) - 1
    earned = np.where(generator.random(n) < 0.12 + lift, gains, -1.0)
    return np.where(called, earned, 0.0)


def test_betting_keeps_its_error_rate_at_every_poll() -> None:
    """F4 on heavy-tailed payoffs, A/A: rollback at most 1 %; a candidate worse by the margin passes in at most 5 %."""
    generator = rng(4)
    rolled_back = passed = 0
    for _ in range(200):
        pairing = Pairing(25.0)
        differences = pairing.pair(payoffs(generator, 2000), payoffs(generator, 6000))
        back = BettingTest(0.0, "below", 30.8, planned=-0.3)
        advance = BettingTest(-0.3, "above", 30.8, planned=0.0)
        looks: list[tuple[float, float]] = []
        for chunk in np.split(differences, 40):
            back.update(chunk)
            advance.update(chunk - 0.3)
            looks.append((back.log_e, advance.log_e))
        rolled_back += crossed([one for one, _ in looks], LIMIT_01)
        passed += crossed([other for _, other in looks], LIMIT_05)
    assert rolled_back <= 200 * 0.01 + 3 * math.sqrt(200 * 0.01 * 0.99)
    assert passed <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_betting_is_a_fair_game() -> None:
    """F4: at the null the mean of E stays at or below 1 (in a million small bets, within Monte-Carlo error)."""
    generator = rng(44)
    finals = []
    for _ in range(3000):
        test = BettingTest(0.0, "above", 1.0, planned=0.1)
        test.update(np.where(generator.random(60) < 0.9, -0.1, 0.9))
        finals.append(math.exp(test.log_e))
    assert np.mean(finals) <= 1 + 4 * np.std(finals) / math.sqrt(len(finals))


def test_betting_reads_a_stream_the_same_in_any_chunks() -> None:
    """F4 gives the identical log E whether the differences come in one poll or in seven, or through JSON between."""
    x = payoffs(rng(1), 700) - payoffs(rng(2), 700)
    whole = BettingTest(-0.3, "above", 30.8, planned=0.0)
    whole.update(x)
    parts = BettingTest(-0.3, "above", 30.8, planned=0.0)
    for chunk in np.split(x, 7):
        parts.update(chunk)
        stored = json.loads(json.dumps(parts.to_json()))
        parts = BettingTest(-0.3, "above", 30.8, planned=0.0)
        parts.restore(stored)
    assert parts == whole


@pytest.mark.parametrize(
    ("weight_pct", "sizes"), [(1, (1, 99)), (5, (1, 19)), (25, (1, 3)), (50, (1, 1)), (75, (3, 1))]
)
def test_pairing_sizes(weight_pct: float, sizes: tuple[int, int]) -> None:
    """k is (1−w)/w rounded, and symmetric above 50 %."""
    assert Pairing(weight_pct).group_sizes == sizes


def test_pairing_uses_each_unit_once_and_in_order() -> None:
    """One canary unit meets the mean of k fresh stable units; what is left over waits for the next poll, bounded."""
    pairing = Pairing(25.0)
    first = pairing.pair(np.array([1.0, 2.0, 3.0]), np.arange(7.0))
    assert first.tolist() == [1.0 - 1.0, 2.0 - 4.0]
    assert (pairing.canary, pairing.stable) == ([3.0], [6.0])
    second = Pairing.from_json(json.loads(json.dumps(pairing.to_json()))).pair(
        np.empty(0), np.array([7.0, 8.0])
    )
    assert second.tolist() == [3.0 - 7.0]
    pairing.pair(np.empty(0), np.zeros(10_000))
    assert len(pairing.stable) <= 3 * Pairing.MAX_GROUPS + 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, 29.9, -1.1])
def test_payoffs_out_of_range_are_refused(bad: float) -> None:
    """A payoff that is not finite or outside the spec's range is an error, not a sample."""
    with pytest.raises(PayoffOutOfRange):
        check_payoffs(np.array([0.0, bad]), -1.0, 29.8)


def gap_test(bound: float, side: Side, alpha: float) -> tuple[EffectTest, RateContrast]:
    sums = RateContrast((1, -1))
    return EffectTest(sums, bound, side, alpha, 36 / bound**2), sums


def test_gap_needs_enough_and_finds_both_sides() -> None:
    """F1 gap: silent under 100 per group or 10 events; then a small gap is within 0.30 and a large one beyond."""
    quiet, sums = gap_test(0.3, "within", 0.05)
    sums.update(30, 99, 400, 2000)
    assert quiet.log_e == 0
    assert quiet.is_silent
    sides: tuple[Side, Side] = ("within", "beyond")
    for a_events, shown in ((60, "within"), (240, "beyond")):
        for side in sides:
            test, sums = gap_test(0.3, side, 0.01)
            sums.update(a_events, 300, 400, 2000)
            assert (test.log_e > LIMIT_01) is (side == shown)
            assert (test.log_e < 0) is (side != shown)


def test_gap_keeps_its_error_rate_at_every_poll() -> None:
    """F1 gap with the true gap on the bound, 40 polls: either side errs in at most 5 % of runs."""
    generator = rng(30)
    sides: tuple[Side, Side] = ("within", "beyond")
    wrong = dict.fromkeys(sides, 0)
    for _ in range(200):
        tests = {side: gap_test(0.3, side, 0.05) for side in sides}
        done = set()
        for _ in range(40):
            a, b = int(generator.binomial(30, 0.5)), int(generator.binomial(170, 0.2))
            for side, (test, sums) in tests.items():
                sums.update(a, 30, b, 170)
                if test.log_e >= LIMIT_05:
                    done.add(side)
        for side in done:
            wrong[side] += 1
    assert max(wrong.values()) <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_interval_of_rate_holds_the_truth() -> None:
    """The confidence sequence of a rate holds the truth at all looks in at least 95 % of runs, and narrows."""
    generator = rng(9)
    missed = 0
    for _ in range(100):
        events = np.cumsum(generator.binomial(25, 0.03, size=24))
        ends = [interval_of_rate(int(e), 25 * (i + 1), alpha=0.05) for i, e in enumerate(events)]
        missed += any(end is None or not end[0] <= 0.03 <= end[1] for end in ends)
    assert missed <= 10
    assert interval_of_rate(0, 0, alpha=0.05) is None
    early, late = interval_of_rate(0, 50, alpha=0.05), interval_of_rate(0, 500, alpha=0.05)
    assert early is not None
    assert late is not None
    assert early[0] == late[0] == 0.0
    assert late[1] < early[1] < 0.15


def test_interval_of_ratio_holds_the_truth() -> None:
    """The confidence sequence of a ratio of rates (F2 inverted) holds 1.5 at all looks in at least 95 % of runs."""
    generator, missed = rng(19), 0
    for _ in range(100):
        canary, stable = (np.cumsum(generator.binomial(n, p, size=24)) for n, p in ((100, 0.03), (300, 0.02)))
        ends = [
            interval_of_ratio(int(c), 100 * i, stable_events=int(s), stable_n=300 * i, alpha=0.05)
            for i, (c, s) in enumerate(zip(canary, stable, strict=True), start=1)
        ]
        missed += any(end is not None and not end[0] <= 1.5 <= end[1] for end in ends)
        assert ends[-1] is not None
        assert ends[-1][1] - ends[-1][0] < 2.5
    assert missed <= 10
    assert interval_of_ratio(3, 10, stable_events=0, stable_n=10, alpha=0.05) is None


def test_rollback_evidence_counts_unstarted_stages_as_one() -> None:
    """½ carried + ½ mean over planned stages: one stage of five at E = e^10 counts a tenth; stages cannot exceed it."""
    expected = math.log(0.5 * 1 + 0.5 * (math.exp(10) + 4) / 5)
    assert rollback_log_e(0.0, [10.0], planned_stages=5) == pytest.approx(expected, rel=1e-12)
    assert rollback_log_e(900.0, [-900.0], planned_stages=2) == pytest.approx(900 - math.log(2))
    with pytest.raises(ValueError, match="planned_stages"):
        rollback_log_e(0.0, [1.0, 2.0], planned_stages=1)
