"""A flat history of decisions: read as it says, refused with its row, judged by a policy in the history's own time."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from policies.gates.evidence import SAMPLE_RATIO, AssignmentBlock, CountBlock, UtilityBlock
from policies.gates.history import Timeline, rehearse
from policies.rollout.rollout_policy import RolloutPolicy, load_rollout
from policies.rollout.verdict import Decision, ReasonCode
from services.rehearsal.history_file import History, HistoryFileError, read_history
from services.rehearsal.history_polls import Rehearsal, polls_of
from services.rollout.policy_set import POLICIES, load_policies

RANGE = load_policies("telemarketing").utility.range
SHIPPED = (POLICIES / "telemarketing" / "rollout.yaml").read_text(encoding="utf-8")
ON_ALL = SHIPPED.replace("where: disagreement", "where: all").replace(", varianceLeft: 0.28", "")
POLICY = load_rollout(ON_ALL, "rollout.yaml")
HEADER = "at,unit,assigned,failed,duration_ms,payoff\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "history.csv"
    file.write_text(text, encoding="utf-8")
    return file


def made(*, n: int, weight: float, gain: float = 0.0, seconds: float = 60.0, seed: int = 1) -> pl.DataFrame:
    """n units over this time, a share `weight` of them the canary's, who earn `gain` more each."""
    rng = np.random.default_rng(seed)
    canary = rng.random(n) < weight
    payoff = np.where(rng.random(n) < 0.15 + gain / 14 * canary, 13.0, -1.0)
    return pl.DataFrame(
        {
            "at": 1_000.0 + np.sort(rng.random(n)) * seconds,
            "unit": [f"u{i}" for i in range(n)],
            "assigned": np.where(canary, "canary", "stable"),
            "failed": np.zeros(n, dtype=int),
            "duration_ms": rng.gamma(4.0, 5.0, n),
            "payoff": payoff,
        }
    )


def history_of(folder: Path, frame: pl.DataFrame) -> History:
    frame.write_parquet(folder / "history.parquet")
    return read_history(folder / "history.parquet")


def judged(history: History, policy: RolloutPolicy = POLICY) -> tuple[Rehearsal, Timeline]:
    found = polls_of(history, policy, RANGE)
    return found, rehearse(found.policy, found.polls, RANGE, recorded_by=found.policy)


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    """Times as epoch seconds or ISO 8601, with or without an offset, empty payoffs: the same history either way."""
    text = HEADER + (
        "2026-03-01T10:00:00Z,a,stable,0,12,-1\n"
        "2026-03-01T12:00:01.5+02:00,b,canary,1,250.5,\n"
        "2026-03-01 10:00:03,a,canary,0,9,12.5\n"
        "1772359202,c,stable,0,14,0\n"
    )
    csv = read_history(written(tmp_path, text))
    assert csv.at.tolist() == [1772359200.0, 1772359201.5, 1772359202.0]
    assert csv.is_canary.tolist() == [False, True, False]
    np.testing.assert_array_equal(csv.columns["payoff"], [-1.0, np.nan, 0.0])
    assert csv.rows == 4
    frame = pl.DataFrame({"at": csv.at, "unit": ["a", "b", "c"], "assigned": ["stable", "canary", "stable"]})
    parquet = history_of(tmp_path, frame.with_columns(payoff=pl.Series(csv.columns["payoff"]).fill_nan(None)))
    np.testing.assert_array_equal(parquet.columns["payoff"], csv.columns["payoff"])
    assert parquet.at.tolist() == csv.at.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("at,unit\n1,a\n", "lacks column 'assigned'; it has at, unit; needed are at, unit, assigned"),
        (HEADER.replace("payoff", "pay_off"), "unknown column 'pay_off'; did you mean 'payoff'?"),
        (HEADER, "has no rows"),
        (HEADER + "1,a,stable,0,5,1\n2,b,new,0,5,1\n", "row 2 (line 3): 'assigned' must be stable or canary: 'new'"),
        (HEADER + "soon,a,stable,0,5,1\n", "row 1 (line 2): 'at' must be epoch seconds or an ISO 8601 time: 'soon'"),
        (HEADER + "1,,stable,0,5,1\n", "row 1 (line 2): 'unit' must be a name: nothing"),
        (HEADER + "1,a,stable,2,5,1\n", "row 1 (line 2): 'failed' must be 0 or 1: '2'"),
        (HEADER + "1,a,stable,0,,1\n", "row 1 (line 2): 'duration_ms' must be milliseconds, 0 or more: nothing"),
        (HEADER + "1,a,stable,0,5,lots\n", "row 1 (line 2): 'payoff' must be a number: 'lots'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    """File, row, line, field and value of each mistake, and what was probably meant."""
    file = written(tmp_path, text)
    with pytest.raises(HistoryFileError) as caught:
        read_history(file)
    assert f"{file}: {message}" in str(caught.value)


def test_polls_hold_what_is_new_and_only_what_is_mature(tmp_path: Path) -> None:
    """Over all polls each unit is counted once, at once for errors, and its payoff no sooner than the maturity."""
    frame = made(n=4_000, weight=0.25)
    history = history_of(tmp_path, pl.concat([frame, frame.with_columns(pl.col("at") + 30)]))
    found = polls_of(history, POLICY, RANGE)
    counts = [poll.evidence.blocks["canary_errors"] for poll in found.polls]
    assert all(isinstance(block, CountBlock) for block in counts)
    assert sum(block.canary_n + block.stable_n for block in counts) == 4_000  # type: ignore[union-attr]
    payoffs: list[float] = []
    for poll in found.polls:
        block, units = poll.evidence.blocks["utility"], poll.evidence.blocks[SAMPLE_RATIO]
        assert isinstance(block, UtilityBlock)
        assert isinstance(units, AssignmentBlock)
        payoffs += block.canary.tolist()
        mature = history.at + POLICY.maturity_s <= poll.at
        assert len(payoffs) == (mature & history.is_canary).sum()
    assert payoffs == history.columns["payoff"][history.is_canary].tolist()


def test_the_split_names_the_stage(tmp_path: Path) -> None:
    """A quarter of the units: judged as the 25 % stage. A third: the same at the weight found, and said."""
    quarter, _ = judged(history_of(tmp_path, made(n=8_000, weight=0.25)))
    assert {poll.stage for poll in quarter.polls} == {"canary-25"}
    assert "judged as stage 'canary-25' (25 %)" in quarter.notes[0]
    third, timeline = judged(history_of(tmp_path, made(n=8_000, weight=1 / 3)))
    assert "no stage has this weight" in third.notes[0]
    assert third.polls[0].evidence.weight_pct == pytest.approx(100 / 3, abs=2)
    assert all(one.verdict.reason is not ReasonCode.SAMPLE_RATIO for one in timeline.said)


def test_weights_name_the_stages_one_after_another(tmp_path: Path) -> None:
    """5 % for a minute, then 25 %, then back to 5 %: two stages are judged, the way back is not, and is told."""
    parts = [
        made(n=3_000, weight=w, seed=i).with_columns(
            pl.col("at") + 60 * i,
            unit=pl.format("p{}-{}", pl.lit(i), pl.col("unit")),
            weight_pct=pl.lit(100 * w),
        )
        for i, w in enumerate((0.05, 0.25, 0.05))
    ]
    found, timeline = judged(history_of(tmp_path, pl.concat(parts)))
    assert [story.logged_stage for story in timeline.stories()] == ["canary-5", "canary-25"]
    assert len(found.notes) == 1
    assert found.notes[0].endswith("units at 5 % are not judged: that stage is over")


def test_a_worse_release_is_rolled_back_in_the_history_own_time(tmp_path: Path) -> None:
    """The canary earns 0.8 less a unit: rolled back by the gate `utility`, minutes before the history ends; as good a
    one advances."""
    _, worse = judged(history_of(tmp_path, made(n=24_000, weight=0.5, gain=-0.8, seconds=120)))
    last = worse.said[-1]
    assert (last.verdict.decision, last.verdict.reason) == (Decision.ROLLBACK, ReasonCode.REGRESSION)
    assert last.after_s < 60
    _, good = judged(history_of(tmp_path, made(n=24_000, weight=0.5, gain=0.3, seconds=120)))
    assert good.stories()[0].first.verdict.decision is Decision.ADVANCE


def test_payoffs_that_come_too_late_are_no_evidence(tmp_path: Path) -> None:
    """Outcomes of the canary come after the maturity: utility has no data and the policy holds, whatever they say."""
    frame = made(n=8_000, weight=0.25).with_columns(
        outcome_at=pl.col("at") + pl.when(pl.col("assigned") == "canary").then(10.0).otherwise(1.0)
    )
    _, timeline = judged(history_of(tmp_path, frame))
    last = timeline.said[-1].verdict
    assert (last.decision, last.reason) == (Decision.HOLD, ReasonCode.MISSING_EVIDENCE)
    assert "have no payoff within 4 s (at most 1%)" in last.detail


def test_a_column_that_is_not_there_is_missing_evidence(tmp_path: Path) -> None:
    """Without durations the required gate `slow` has no data, and is told why."""
    _, timeline = judged(history_of(tmp_path, made(n=8_000, weight=0.25).drop("duration_ms")))
    assert "the file has no column 'duration_ms'" in timeline.said[-1].verdict.detail


def test_a_payoff_outside_the_range_is_refused(tmp_path: Path) -> None:
    """The utility spec says what a payoff can be; a file in other units is found out."""
    frame = made(n=100, weight=0.5).with_columns(payoff=pl.lit(1300.0))
    with pytest.raises(
        HistoryFileError, match=r"'payoff' must be in the utility spec's range \[-1, 29.8\]: 1300"
    ):
        judged(history_of(tmp_path, frame))


def test_a_history_that_is_too_long_for_its_poll_is_refused(tmp_path: Path) -> None:
    """A month at two polls a second is five million looks: told what to change."""
    frame = made(n=100, weight=0.5, seconds=30 * 86400.0)
    with pytest.raises(
        HistoryFileError, match=r"lasts 28 days, more than 50,000 polls of 0\.5 s; write a longer `poll`"
    ):
        judged(history_of(tmp_path, frame))


def test_where_they_differ_needs_to_be_told(tmp_path: Path) -> None:
    """A policy that compares where the releases differ takes the column `differs`; without it there is no data."""
    policy = load_rollout(SHIPPED, "rollout.yaml")
    frame = made(n=4_000, weight=0.25)
    _, blind = judged(history_of(tmp_path, frame), policy)
    assert "the file has no column 'differs'" in blind.said[-1].verdict.detail
    found, _ = judged(history_of(tmp_path, frame.with_columns(differs=pl.lit(0))), policy)
    block = found.polls[20].evidence.blocks["utility"]
    assert isinstance(block, UtilityBlock)
    assert not block.canary.any()
    assert block.plain is not None
    assert block.plain.canary.any()
