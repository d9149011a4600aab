"""Utility where the releases differ: the mask rests on the row alone, changes no mean, and never hides a skew."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.gates.evidence import RatioBlock, UtilityBlock
from policies.rollout.rollout_policy import Stage
from policies.utility.utility import UtilitySpec, load_utility, realised_utility
from services.serving.release import Release
from services.serving.row_check import RowCheck
from services.serving.scorer import Scorer
from services.store.decisions import DecisionRow
from services.store.evidence import DecidedUnit
from services.telemetry.disagreement import Disagreement, DisagreementError, Recomputation

Make = Callable[..., DecisionRow]
Row = dict[str, Any]


@pytest.fixture(scope="session")
def spec(policy_texts: Mapping[str, str]) -> UtilitySpec:
    return load_utility(policy_texts["utility.yaml"], "utility.yaml")


@pytest.fixture
def differing(rollout: Any, pair: tuple[Path, Release, Release], make_stage: Callable[..., Stage]) -> Any:
    """The rollout of the pair, in a stage whose utility gate compares on disagreement only."""
    return compare(rollout, pair, make_stage)


def compare(rollout: Any, pair: tuple[Path, Release, Release], make_stage: Callable[..., Stage]) -> Any:
    folder, champion, candidate = pair
    stage = make_stage("canary-25", "canary", 25.0, "utility", "utility_per_action")
    gates = tuple(replace(g, where="disagreement") if g.metric == "utility" else g for g in stage.gates)
    rollout.stage = replace(stage, gates=gates)
    rollout.record = replace(rollout.record, champion=champion.id, candidate=candidate.id)
    rollout.disagreement = Disagreement(folder, champion=champion.id, candidate=candidate.id)
    return rollout


def unit_of(release: Release, row: Row, action: str, *, at: float = 1010.0, name: str = "d") -> DecidedUnit:
    return DecidedUnit(name, at, "canary", release.id, action, json.dumps(row), None)


def feed(
    rollout: Any, make: Make, calls: list[Row], answers: tuple[list[str], list[str]], *, every: int = 4
) -> list[DecisionRow]:
    """Decisions on the calls, each `every`-th the canary's, answered by its own release; all who are called say no."""
    made = []
    for at, row in enumerate(calls):
        is_canary = at % every == 0
        made.append(
            make(
                assigned="canary" if is_canary else "stable",
                release=rollout.record.candidate if is_canary else rollout.record.champion,
                action=answers[is_canary][at],
                row=row,
                at=1010.0 + at / 1000,
            )
        )
    rollout.put(*made, shipped=1030.0, watermark=1030.0)
    for row in made:
        if row.action == "call":
            rollout.outcome(row, "not_subscribed")
    return made


def test_units_on_which_both_act_alike_weigh_nothing(
    differing: Any, make_decision: Make, calls: list[Row], answers: tuple[list[str], list[str]]
) -> None:
    """Payoffs are 0 exactly where both releases take the same action on the row, in both arms; the full payoffs of the
    same units stand behind them, and payoffs per action are not masked."""
    feed(differing, make_decision, calls, answers)
    evidence = differing.poll(1030.0)
    block, pairs = evidence.blocks["utility"], evidence.blocks["utility_per_action"]
    assert isinstance(block, UtilityBlock)
    assert isinstance(pairs, RatioBlock)
    assert block.plain is not None
    alike = np.array([a == b for a, b in zip(*answers, strict=True)])
    is_canary = np.arange(len(calls)) % 4 == 0
    for values, plain, arm, own in (
        (block.canary, block.plain.canary, is_canary, answers[1]),
        (block.stable, block.plain.stable, ~is_canary, answers[0]),
    ):
        full = np.where(np.array(own)[arm] == "call", -1.0, 0.0)
        assert plain.tolist() == full.tolist()
        assert values.tolist() == np.where(alike[arm], 0.0, full).tolist()
    assert pairs.canary.tolist() == [[full, -full] for full in block.plain.canary.tolist()]
    assert 0.05 < 1 - alike.mean() < 0.6
    assert evidence.missing == {}


def test_masking_changes_no_mean_and_saves_units(
    pair: tuple[Path, Release, Release],
    calls: list[Row],
    answers: tuple[list[str], list[str]],
    spec: UtilitySpec,
) -> None:
    """Over random assignments the masked difference of the means has the same expectation as the plain one, and its
    variance is smaller by the factor that the payoffs' own variances give."""
    folder, champion, candidate = pair
    units = [unit_of(champion, row, action) for row, action in zip(calls, answers[0], strict=True)]
    found = Disagreement(folder, champion=champion.id, candidate=candidate.id).compare(units)
    random = np.random.default_rng(5)
    payoffs = spec.payoffs({"balance": np.array([row["balance"] for row in calls])})
    arms = [np.array([spec.actions.index(action) for action in own]) for own in answers]

    def difference(masked: bool, draws: int) -> tuple[float, float]:
        """Mean and variance of canary − stable at 50 %, fresh outcomes and a fresh assignment in each draw."""
        seen = []
        for _ in range(draws):
            outcomes = (random.random(len(calls)) < 0.1).astype(int)
            is_canary = random.random(len(calls)) < 0.5
            earned = np.where(
                is_canary,
                realised_utility(payoffs, arms[1], outcomes),
                realised_utility(payoffs, arms[0], outcomes),
            )
            earned = np.where(found.agrees, 0.0, earned) if masked else earned
            seen.append(earned[is_canary].mean() - earned[~is_canary].mean())
        return float(np.mean(seen)), float(np.var(seen))

    (plain, plain_var), (masked, masked_var) = difference(False, 3000), difference(True, 3000)
    expected = (payoffs @ np.array([0.9, 0.1]))[np.arange(len(calls))[:, None], np.stack(arms, axis=1)]
    truth = float((expected[:, 1] - expected[:, 0]).mean())
    assert abs(plain - truth) < 4 * np.sqrt(plain_var / 3000)
    assert abs(masked - truth) < 4 * np.sqrt(masked_var / 3000)
    differ = ~found.agrees
    moments = [(payoffs**2 @ np.array([0.9, 0.1]))[np.arange(len(calls)), own] for own in arms]
    means = [expected[:, at] for at in (0, 1)]
    full = sum(m2.mean() - m.mean() ** 2 for m2, m in zip(moments, means, strict=True))
    kept = sum((m2 * differ).mean() - (m * differ).mean() ** 2 for m2, m in zip(moments, means, strict=True))
    assert full / kept > 1.5
    assert plain_var / masked_var == pytest.approx(full / kept, rel=0.15)


@pytest.mark.parametrize("answerer", ["candidate", "stranger"])
def test_an_answer_that_is_not_the_releases_own_ends_the_evidence(
    differing: Any,
    make_decision: Make,
    calls: list[Row],
    answers: tuple[list[str], list[str]],
    answerer: str,
) -> None:
    """One answer unlike its release's files, or of a third release: utility is missing and names the decision, at every
    later poll and in every later stage, whatever else comes; payoffs per action go on."""
    feed(differing, make_decision, calls[:100], answers)
    action = answers[1][0]
    wrong = make_decision(
        decision_id="odd",
        assigned="canary",
        release=differing.record.candidate if answerer == "candidate" else "telemarketing-0123456789ab",
        action=("leave" if action == "call" else "call") if answerer == "candidate" else action,
        row=calls[0],
        at=1011.0,
    )
    differing.put(wrong)
    differing.outcome(wrong, "not_subscribed")
    evidence = differing.poll(1030.0)
    said = {
        "candidate": f"1 of 101 answers are not the release's own: odd ({wrong.release} served '{wrong.action}',"
        f" its files give '{action}')",
        "stranger": "1 of 101 answers are not the release's own: odd (answered by telemarketing-0123456789ab, "
        "neither release of this rollout)",
    }[answerer]
    assert evidence.missing == {"utility": said}
    assert set(evidence.blocks) == {"sample_ratio", "utility_per_action"}
    differing.stage = replace(differing.stage, name="canary-50")
    differing.settled_at = 1031.0
    differing.put(
        make_decision(release=differing.record.champion, action=answers[0][1], row=calls[1], at=1032.0),
        shipped=1050.0,
        watermark=1050.0,
    )
    assert differing.poll(1050.0).missing == {"utility": said}


def test_failover_is_no_skew(
    differing: Any, make_decision: Make, calls: list[Row], answers: tuple[list[str], list[str]]
) -> None:
    """A unit that stable answered for the canary counts with the canary, is masked by its row, and is no skew."""
    at = next(at for at in range(len(calls)) if answers[0][at] == "call" and answers[1][at] == "leave")
    same = next(at for at in range(len(calls)) if answers[0][at] == answers[1][at] == "call")
    champion = differing.record.champion
    made = [
        make_decision(assigned="canary", release=champion, action="call", row=calls[which], at=1010.0 + which)
        for which in (at, same)
    ]
    differing.put(*made, shipped=1010.0 + len(calls) + 20, watermark=1010.0 + len(calls) + 20)
    for row in made:
        differing.outcome(row, "not_subscribed")
    block = differing.poll(1010.0 + len(calls) + 20).blocks["utility"]
    assert block.canary[np.argsort([at, same]).argsort()].tolist() == [-1.0, 0.0]
    assert block.plain.canary.tolist() == [-1.0, -1.0]


def test_rounding_decides_nothing(
    write_pair: Callable[..., tuple[Path, Release, Release]], calls: list[Row], contract: Any
) -> None:
    """Where a release is within rounding of a tie, the row is compared in full, though both actions come out the same
    here; and either answer to it is no skew."""
    _, champion, _ = write_pair()
    scorer = Scorer.load(champion)
    check = RowCheck(contract.columns, payoff_fields=scorer.utility.fields)
    decided = scorer.decide(check.to_columns(calls))
    at = int(np.argmin(decided.actions))  # the first that the champion leaves alone
    behind = decided.expected_utility[at, 0] - decided.expected_utility[at, 1]
    folder, champion, candidate = write_pair(float(behind) - 1e-5)
    disagreement = Disagreement(folder, champion=champion.id, candidate=candidate.id)
    for action in ("leave", "call"):
        found = disagreement.compare([unit_of(candidate, calls[at], action)])
        assert (found.agrees.tolist(), found.skew, found.unscored) == ([False], "", 0)
    assert Recomputation(candidate).decide([calls[at]]).actions.tolist() == ["leave"]


def test_rows_that_one_release_cannot_score_are_compared_in_full(
    write_pair: Callable[..., tuple[Path, Release, Release]],
    rollout: Any,
    make_decision: Make,
    make_stage: Callable[..., Stage],
    calls: list[Row],
    answers: tuple[list[str], list[str]],
    policy_texts: Mapping[str, str],
) -> None:
    """Where the candidate's contract refuses a row that stable takes, the row counts in full in both arms."""
    stricter = policy_texts["contract.yaml"].replace("maximum: 1000000", "maximum: 500")
    differing = compare(rollout, write_pair(0.0, contract=stricter), make_stage)
    champion = differing.record.champion
    rich = [at for at in range(100) if calls[at]["balance"] > 500 and answers[0][at] == "call"][:2]
    poor = next(at for at in range(100) if calls[at]["balance"] <= 500 and answers[0][at] == "call")
    made = [
        make_decision(assigned=assigned, release=champion, action="call", row=calls[at], at=1010.0 + second)
        for second, (at, assigned) in enumerate(
            [(rich[0], "canary"), (poor, "canary"), (rich[1], "stable"), (poor, "stable")]
        )
    ]
    differing.put(*made, shipped=1040.0, watermark=1040.0)
    for row in made:
        differing.outcome(row, "not_subscribed")
    assert differing.utilities(1040.0) == ([-1.0, 0.0], [-1.0, 0.0])
    assert differing.record.cursors["unscored"] == 2


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("champion", "the rollout names no champion whose actions could be recomputed"),
        ("folder", "cannot be loaded to recompute"),
        ("both", "'where: disagreement' needs both releases, and none were given"),
    ],
)
def test_without_both_releases_nothing_is_known_or_lost(
    differing: Any,
    make_decision: Make,
    calls: list[Row],
    answers: tuple[list[str], list[str]],
    missing: str,
    said: str,
    tmp_path: Path,
) -> None:
    """A release that cannot be recomputed makes utility missing, never plain, and nothing is consumed meanwhile."""
    whole = differing.disagreement
    candidate = differing.record.candidate
    differing.disagreement = {
        "champion": Disagreement(whole._releases, champion=None, candidate=candidate),
        "folder": Disagreement(tmp_path, champion=differing.record.champion, candidate=candidate),
        "both": None,
    }[missing]
    feed(differing, make_decision, calls[:40], answers)
    evidence = differing.poll(1030.0)
    assert said in evidence.missing["utility"]
    assert "utility" not in evidence.blocks
    differing.disagreement = whole
    canary, stable = differing.utilities(1031.0)
    assert (len(canary), len(stable)) == (10, 30)


def test_completeness_is_that_of_the_full_payoffs(
    differing: Any, make_decision: Make, calls: list[Row], answers: tuple[list[str], list[str]]
) -> None:
    """A unit on which both would call still needs its outcome: too many without one withhold utility, masked or not."""
    same = [at for at in range(len(calls)) if answers[0][at] == answers[1][at] == "call"][:50]
    made = [
        make_decision(release=differing.record.champion, action="call", row=calls[at], at=1010.0)
        for at in same
    ]
    differing.put(*made, shipped=1030.0, watermark=1030.0)
    for row in made[2:]:
        differing.outcome(row, "subscribed")
    assert "2 of 50 matured decisions" in differing.poll(1030.0).missing["utility"]
    for row in made[:2]:
        differing.outcome(row, "subscribed")
    assert differing.utilities(1030.0) == ([], [0.0] * 50)


def test_every_masked_unit_counts_exactly_once(
    differing: Any, make_decision: Make, calls: list[Row], answers: tuple[list[str], list[str]]
) -> None:
    """Polls at any rhythm, some lost before they are saved, bring together what one poll over everything brings."""
    feed(differing, make_decision, calls, answers)
    whole = differing.poll(1030.0, saved=False).blocks["utility"]
    got: list[UtilityBlock] = []
    for through in (1010.1, 1010.101, 1010.4, 1010.73, 1030.0):
        differing.poll(through + 6.0, saved=False)
        got.append(differing.poll(through + 6.0).blocks["utility"])
    for name in ("canary", "stable"):
        assert np.concatenate([getattr(one, name) for one in got]).tolist() == getattr(whole, name).tolist()
        plain = np.concatenate([getattr(one.plain, name) for one in got])
        assert plain.tolist() == getattr(whole.plain, name).tolist()
    assert json.loads(json.dumps(differing.record.cursors))["unscored"] == 0


def test_recomputing_costs_milliseconds(
    pair: tuple[Path, Release, Release], calls: list[Row], answers: tuple[list[str], list[str]]
) -> None:
    """100 rows, a poll's worth, take under 50 ms of CPU for both releases; 5,000, the most of a poll, under 2 s."""
    folder, champion, candidate = pair
    disagreement = Disagreement(folder, champion=champion.id, candidate=candidate.id)
    units = [unit_of(champion, row, action) for row, action in zip(calls, answers[0], strict=True)]
    disagreement.compare(units)
    for n, most_ms in ((100, 50), (5000, 2000)):
        began = time.thread_time()
        found = disagreement.compare((units * 5)[:n])
        took_ms = 1000 * (time.thread_time() - began)
        print(f"compare_ms n={n} {took_ms:.1f}")
        assert len(found.agrees) == n
        assert took_ms < most_ms


def test_a_row_that_breaks_scoring_does_not_take_the_others_with_it(
    write_pair: Callable[..., tuple[Path, Release, Release]],
    calls: list[Row],
    served: Callable[[Release, list[Row]], list[str]],
    policy_texts: Mapping[str, str],
) -> None:
    """Rows that the contract refuses or that have no price are found one by one; the others get what is served."""
    sold = "deposited_share * margin * clip(balance, 0, cap) - call_cost"
    _, _, candidate = write_pair(
        utility=policy_texts["utility.yaml"].replace(
            sold, "log(balance) + 0 * deposited_share * margin * cap"
        )
    )
    rows = [{**row, "balance": 10 + at} for at, row in enumerate(calls[:33])]
    own = served(candidate, rows)
    rows[7]["balance"], rows[20]["job"] = 0, "astronaut"
    found = Recomputation(candidate).decide(rows)
    assert [at for at, action in enumerate(found.actions) if action is None] == [7, 20]
    assert [at for at, sure in enumerate(found.is_sure) if not sure] == [7, 20]
    kept = [at for at in range(33) if at not in (7, 20)]
    assert [found.actions[at] for at in kept] == [own[at] for at in kept]


def test_champion_and_candidate_are_two(pair: tuple[Path, Release, Release]) -> None:
    """One release under both names is refused: it would agree with itself on everything."""
    folder, champion, _ = pair
    with pytest.raises(DisagreementError, match="are one release"):
        Disagreement(folder, champion=champion.id, candidate=champion.id).compare([])


def test_an_action_switched_off_for_everyone_is_no_skew(
    pair: tuple[Path, Release, Release], calls: list[Row], answers: tuple[list[str], list[str]]
) -> None:
    """Rows decided while `call` was off are recomputed with it off: both releases agree on all of them, and nothing is
    a skew; the same answers without the switch on record are one."""
    folder, champion, candidate = pair
    compared = Disagreement(folder, champion=champion.id, candidate=candidate.id)
    off = json.dumps({"off": ["call"], "instead_of": None})
    free = [unit_of(champion, row, action) for row, action in zip(calls, answers[0], strict=True)]
    gated = [replace(unit_of(champion, row, "leave"), gated=off) for row in calls]
    mixed = compared.compare([*free, *gated])
    assert mixed.skew == ""
    assert mixed.agrees[len(free) :].all()
    assert (mixed.agrees[: len(free)] == compared.compare(free).agrees).all()
    assert (
        "answers are not the release's own" in compared.compare([replace(u, gated=None) for u in gated]).skew
    )
