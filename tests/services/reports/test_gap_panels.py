"""Gaps between groups in a live report: the difference so far with its band, against the limits, and the shares."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from services.reports.drawing import figure
from services.reports.gap_panels import WatchedGap, gap_panels
from services.reports.panels import Curve, Table

GAP = WatchedGap("by_age", "group of by_age", "call", ("age <= 30", "age > 30"), 0.2)


def arm(n: int, *, rate_a: float, rate_b: float, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    in_a = draw.random(n) < 0.3
    acted = draw.random(n) < np.where(in_a, rate_a, rate_b)
    at = draw.permutation(n).astype(float)
    return pd.DataFrame({"at": at, "action": np.where(acted, "call", "leave"), "group of by_age": in_a})


def test_the_last_point_is_the_gap_of_all_decisions() -> None:
    """Group a less the others, in the order of time, with a plain 95 % band; both limits are drawn."""
    mine = arm(2_000, rate_a=0.1, rate_b=0.4)
    curve, table = gap_panels(mine, arm(3_000, rate_a=0.2, rate_b=0.2, seed=1), [GAP])
    assert isinstance(curve, Curve)
    assert isinstance(table, Table)
    assert [line.name for line in curve.lines] == ["stable", "candidate"]
    own = curve.lines[-1]
    acted, in_a = mine["action"] == "call", mine["group of by_age"]
    a, b = acted[in_a].mean(), acted[~in_a].mean()
    assert own.y[-1] == pytest.approx(a - b)
    assert own.x[-1] == 2_000
    half = 1.959964 * np.sqrt(a * (1 - a) / in_a.sum() + b * (1 - b) / (~in_a).sum())
    assert own.high is not None
    assert own.high[-1] - own.y[-1] == pytest.approx(half)
    first = np.sort(mine.sort_values("at")["group of by_age"].to_numpy()[: int(own.x[0])])
    assert min(first.sum(), len(first) - first.sum()) == 20
    assert [value for _, value in curve.levels] == [0.2, -0.2]
    assert f"differ by {abs(a - b):.2%}; at most 20.00% is agreed" in table.note
    assert table.rows[0] == ("candidate", "age <= 30", f"{in_a.sum():,}", f"{a:.2%}")
    assert len(figure(curve).data) >= 2


def test_a_group_of_few_has_shares_but_no_picture() -> None:
    """19 decisions of a group show nothing; a group of none, and rows that do not say, are counted nowhere."""
    few = pd.DataFrame(
        {"action": ["call"] * 119, "group of by_age": [True] * 19 + [False] * 99 + [None], "at": range(119)}
    )
    (table,) = gap_panels(few, None, [GAP])
    assert isinstance(table, Table)
    assert [row[2] for row in table.rows] == ["19", "99"]
    (alone,) = gap_panels(few.iloc[:10], None, [GAP])
    assert isinstance(alone, Table)
    assert alone.rows[1] == ("candidate", "age > 30", "0", "–")
    assert "no such decision of the candidate" in alone.note


@pytest.mark.parametrize("kind", ["rate_among", "precision"])
def test_a_gap_among_outcomes_is_of_the_decisions_it_names(kind: str) -> None:
    """Calls among those that were refused, and refusals among the called: each of its own decisions; those without a
    known outcome are in neither."""
    frame = arm(2_000, rate_a=0.3, rate_b=0.5)
    draw = np.random.default_rng(3)
    frame["outcome"] = draw.choice(np.array(["yes", "no", None], dtype=object), len(frame))
    is_call, is_no, in_a = frame["action"] == "call", frame["outcome"] == "no", frame["group of by_age"]
    if kind == "rate_among":
        gap, part, whole = replace(GAP, among="no"), is_call & is_no, is_no
        words = ("decisions with outcome 'no'", "share 'call' among 'no'")
    else:
        gap, part, whole = replace(GAP, outcome="no"), is_call & is_no, is_call & frame["outcome"].notna()
        words = ("decisions 'call' with a known outcome", "share of 'no' among 'call'")
    curve, table = gap_panels(frame, None, [gap])
    assert isinstance(curve, Curve)
    assert isinstance(table, Table)
    a, b = part[in_a].sum() / whole[in_a].sum(), part[~in_a].sum() / whole[~in_a].sum()
    assert curve.lines[0].y[-1] == pytest.approx(a - b)
    assert curve.lines[0].x[-1] == whole.sum()
    assert curve.x_label == words[0]
    assert table.header[2:] == words
    assert table.rows[1] == ("candidate", "age > 30", f"{whole[~in_a].sum():,}", f"{b:.2%}")


def test_a_gap_that_live_decisions_cannot_tell_says_why() -> None:
    """One line instead of a share of those that happen to be seen."""
    gap = replace(GAP, among="no", unseen="no outcome is known after 'leave'")
    (table,) = gap_panels(arm(200, rate_a=0.1, rate_b=0.4), None, [gap])
    assert isinstance(table, Table)
    assert "Not seen live: no outcome is known after 'leave'." in table.note
