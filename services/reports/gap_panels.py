"""Gaps between groups on live decisions: each so far, candidate and stable, against its limit; and the rates.

Descriptive only, as services/reports/live_panels.py: plain 95 % intervals at one look. Must never import: evidently,
plotly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.reports.panels import Curve, Line, Panel, Table

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

LEAST_IN_GROUP = 20
_Z95 = 1.959964


@dataclass(frozen=True)
class WatchedGap:
    """A bound on how far a share may differ between group a and the others: of the decisions with `action`; with
    `among`, of that action among the decisions with that outcome; with `outcome`, of that outcome among those with
    that action.

    `column` of the frames is true for group a, false for the others, missing where nobody can tell; their column
    `outcome` is missing where it is not known or not mature. `unseen`: why live decisions cannot tell the share.
    """

    name: str
    column: str
    action: str
    groups: tuple[str, str]
    at_most: float
    among: str | None = None
    outcome: str | None = None
    unseen: str = ""

    @property
    def share(self) -> str:
        """What is compared, in words."""
        if self.outcome is not None:
            return f"share of '{self.outcome}' among '{self.action}'"
        return f"share '{self.action}'" + (f" among '{self.among}'" if self.among is not None else "")

    @property
    def whole(self) -> str:
        """Which decisions the share is of, in words."""
        if self.outcome is not None:
            return f"decisions '{self.action}' with a known outcome"
        return "decisions" + (f" with outcome '{self.among}'" if self.among is not None else "")


@dataclass(frozen=True)
class _Arm:
    """The decisions that the share is of, in the order of time, (n,) each: of group a, and counted in the share."""

    in_a: NDArray[np.bool_]
    counted: NDArray[np.bool_]


def gap_panels(
    candidate: pd.DataFrame, stable: pd.DataFrame | None, gaps: Sequence[WatchedGap]
) -> tuple[Panel, ...]:
    """A picture and a table for each gap; without the picture where a group has fewer than 20 decisions."""
    panels: list[Panel] = []
    for gap in gaps:
        if gap.unseen:
            panels.append(_unseen(gap))
            continue
        arms = {"candidate": _arm(candidate, gap)}
        if stable is not None:
            arms["stable"] = _arm(stable, gap)
        lines = [
            line for name in ("stable", "candidate") if name in arms for line in _so_far(name, arms[name])
        ]
        if lines:
            panels.append(
                Curve(
                    title=f"{gap.name}: the gap so far",
                    x_label=gap.whole,
                    y_label=f"{gap.groups[0]} less {gap.groups[1]}",
                    lines=tuple(lines),
                    value=float(lines[-1].y[-1]),
                    levels=(("limit", gap.at_most), ("limit", -gap.at_most)),
                    note=f"Compared: {gap.share}. Band: plain 95 % interval at each n, from {LEAST_IN_GROUP} "
                    "decisions in each group on. Between the limits: as agreed.",
                )
            )
        panels.append(_rates(gap, arms))
    return tuple(panels)


def _unseen(gap: WatchedGap) -> Table:
    note = f"Not seen live: {gap.unseen}. It is judged on recorded rows, before the release."
    return Table(f"{gap.name}: the shares", ("", gap.share), (("candidate", "–"),), 0.0, note)


def _arm(frame: pd.DataFrame, gap: WatchedGap) -> _Arm:
    is_acted, counts = frame["action"].astype(str) == gap.action, frame[gap.column].notna()
    is_counted = is_acted
    if gap.among is not None:
        counts &= frame["outcome"] == gap.among
    elif gap.outcome is not None:
        counts &= is_acted & frame["outcome"].notna()
        is_counted = frame["outcome"] == gap.outcome
    known = frame.assign(counted=is_counted)[counts]
    known = known.sort_values("at") if "at" in known else known
    return _Arm(known[gap.column].to_numpy(dtype=bool), known["counted"].to_numpy(dtype=bool))


def _so_far(name: str, arm: _Arm) -> tuple[Line, ...]:
    """The difference of the groups' shares after each decision; nothing before both groups have enough."""
    sizes = [np.cumsum(member) for member in (arm.in_a, ~arm.in_a)]
    enough = np.flatnonzero((sizes[0] >= LEAST_IN_GROUP) & (sizes[1] >= LEAST_IN_GROUP))
    if not enough.size:
        return ()
    first, last = int(enough[0]), len(arm.in_a) - 1
    at = np.unique(np.geomspace(first + 1, last + 1, 160).astype(np.int64)) - 1
    shares = [
        np.cumsum(arm.counted & member)[at] / size[at]
        for member, size in zip((arm.in_a, ~arm.in_a), sizes, strict=True)
    ]
    apart = shares[0] - shares[1]
    variance = sum(share * (1 - share) / size[at] for share, size in zip(shares, sizes, strict=True))
    half = _Z95 * np.sqrt(variance)
    return (Line(name, (at + 1).astype(np.float64), apart, name, low=apart - half, high=apart + half),)


def _rates(gap: WatchedGap, arms: dict[str, _Arm]) -> Table:
    rows, largest = [], 0.0
    for name, arm in arms.items():
        shares = []
        for group, member in zip(gap.groups, (arm.in_a, ~arm.in_a), strict=True):
            n = int(member.sum())
            shares.append(float(arm.counted[member].mean()) if n else float("nan"))
            rows.append((name, group, f"{n:,}", f"{shares[-1]:.2%}" if n else "–"))
        if name == "candidate":
            largest = abs(shares[0] - shares[1])
    note = "One of the groups has no such decision of the candidate."
    if np.isfinite(largest):
        note = f"Of the candidate they differ by {largest:.2%}; at most {gap.at_most:.2%} is agreed."
    header = ("", "group", gap.whole, gap.share)
    return Table(
        f"{gap.name}: the shares", header, tuple(rows), largest if np.isfinite(largest) else 0.0, note
    )
