"""The notation of tests.yaml: every form is read as it says, exactly; what is no series is told with a right one."""

import math

import numpy as np
import pytest

from policies.scripted.series import Counts, Missing, Nothing, SeriesError, Spread, parse_series

POLL_S = 0.5


def counts_of(text: str, polls: int) -> list[tuple[int, int]]:
    """(events, n) of the first polls."""
    series = parse_series(text, poll_s=POLL_S, form="counts")
    items = [series.at(poll) for poll in range(polls)]
    found = [item if isinstance(item, Counts) else item.at(at) for at, item in enumerate(items)]  # type: ignore[union-attr]
    return [(one.events, one.n) for one in found]


def test_items_follow_one_another_and_the_last_goes_on() -> None:
    """Repeated by number of polls or by time; an item without either lasts a poll, the last one for ever."""
    assert counts_of("0/10 x2 then 1/10 then 2/10 for 1s then 3/10", 7) == [
        *((0, 10), (0, 10)),
        (1, 10),
        *((2, 10), (2, 10)),
        *((3, 10), (3, 10)),
    ]
    assert parse_series("0/10 x2 then 1/10 for 1.5s", poll_s=POLL_S, form="counts").polls == 5
    assert parse_series("0/10", poll_s=POLL_S, form="counts").polls == math.inf


@pytest.mark.parametrize(("text", "n", "share"), [("2% of 10", 10, 0.02), ("33.3% of 7", 7, 0.333)])
def test_a_rate_is_exact_over_the_polls(text: str, n: int, share: float) -> None:
    """After any number of polls the events are the share of the units, to within half an event."""
    events = np.cumsum([events for events, _ in counts_of(text, 500)])
    polls = np.arange(1, 501)
    assert np.abs(events - share * n * polls).max() <= 0.5
    assert {size for _, size in counts_of(text, 500)} == {n}


@pytest.mark.parametrize(
    ("mean", "sd", "low", "high"), [(0.5, 4.0, -1.0, 29.8), (0.2, 0.1, -1.0, 0.25), (-0.02, 0.15, -1.0, 0.25)]
)
def test_a_spread_has_its_mean_and_deviation(mean: float, sd: float, low: float, high: float) -> None:
    """Over a thousand polls the payoffs have the mean and the standard deviation asked for, within the range."""
    spread = Spread(mean, sd, n=25)
    payoffs = np.concatenate([spread.drawn(poll, low=low, high=high, arm=0) for poll in range(1000)])
    assert len(payoffs) == 25_000
    assert low <= payoffs.min() <= payoffs.max() <= high
    assert payoffs.mean() == pytest.approx(mean, abs=sd / 1000)
    assert payoffs.std() == pytest.approx(sd, rel=2e-3)


def test_a_spread_is_the_same_every_time_and_not_the_same_in_both_arms() -> None:
    """A test gives the same verdict on every machine; its arms are not in step, which would hide their noise."""
    spread = Spread(0.5, 4.0, n=25)
    one, again, other = (spread.drawn(3, low=-1, high=29.8, arm=arm) for arm in (0, 0, 1))
    assert one.tolist() == again.tolist() != other.tolist()
    assert sorted(one) == sorted(other)


def test_a_spread_of_pairs_acts_on_its_share() -> None:
    """`acted 30%`: three in ten units are acted on and earn this mean; the others earn and count nothing."""
    spread = Spread(4.0, 3.0, n=20, acted=0.3)
    pairs = np.concatenate([spread.drawn(poll, low=-1, high=29.8, arm=0) for poll in range(1000)])
    assert pairs.shape == (20_000, 2)
    assert pairs[:, 1].sum() == 6_000
    assert pairs[pairs[:, 1] == 1, 0].mean() == pytest.approx(4.0, abs=0.01)
    assert not pairs[pairs[:, 1] == 0].any()


def test_silence_has_two_forms() -> None:
    """`_` is nothing new; `missing "why"` is the source's word that it has nothing, commas, `then` and all."""
    series = parse_series('_ x2 then missing "late, then later" x1', poll_s=POLL_S, form="payoffs")
    assert [series.at(poll) for poll in range(4)] == [
        *(Nothing(), Nothing()),
        Missing("late, then later"),
        Nothing(),
    ]


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        ("11/10", "counts", "more events than units"),
        ("0/10, 1/10", "counts", "set its items apart by `then`"),
        ("0/10 x0", "counts", "at least one poll"),
        ("0/10 for 0.7s", "counts", "whole number of polls of 0.5 s"),
        ("0/10 for 10", "counts", "must be a series like"),
        ("0/10 for 10w", "counts", "a duration with its unit"),
        ("0.02 of 10", "counts", "a percentage with its sign"),
        ("[-1 x]", "payoffs", "'x' in '[-1 x]' must be a number"),
        ("[-1/1 2]", "pairs", "payoff/acted pairs"),
        ("0/10", "payoffs", "must be payoffs like"),
        ("[1 2]", "counts", "must be counts like 3/10"),
        ("1/2", "groups", "two groups' counts"),
        ("1/2 | 1/3 | 1/4", "groups", "must be a series like"),
        ("mean 0 sd 1 n 10", "pairs", "acted 30%"),
        ("mean x sd 1 n 10", "payoffs", "'x' in 'mean x sd 1 n 10' must be a number"),
        ("mean 0 sd -1 n 10", "payoffs", "sd >= 0"),
        ("", "counts", "must be a series like"),
    ],
)
def test_what_is_no_series_is_told_with_a_right_one(text: str, form: str, message: str) -> None:
    """Each mistake has its own sentence."""
    with pytest.raises(SeriesError) as caught:
        parse_series(text, poll_s=POLL_S, form=form)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_deviation_that_cannot_be_is_refused_with_the_largest() -> None:
    """Payoffs in [-1, 0.25] with mean 0 cannot scatter by 4; the largest deviation is sqrt(1 · 0.25)."""
    with pytest.raises(SeriesError, match=r"at most 0\.5: 4"):
        Spread(0.0, 4.0, n=10).two_values(-1.0, 0.25)
