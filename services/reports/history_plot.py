"""Pictures of a history judged again: every gate's log E against its limit over time, for one policy or two.

A row per gate: its evidence for passing (blue) and against it (red), each with the limit that it must cross; dashed
lines are the other policy's. Vertical lines are the moments at which a policy would have left the stage. A PNG, and an
HTML file that needs no network. Computes nothing but where a line breaks. Must never import: evidently, torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from policies.gates.history import Said, Timeline
from policies.rollout.verdict import GateStatus

PASSING, AGAINST, _INK, _BAND = "#1f5fbf", "#c2410c", "#24292f", "#f3f4f6"
SIDES = {"pass": (PASSING, "evidence for passing"), "fail": (AGAINST, "evidence against it")}
_DASHES = ("solid", "dash")
_LEAST, _MOST, _ROW_IN = -10.0, 20.0, 1.75
Titled = Sequence[tuple[str, Timeline]]


@dataclass(frozen=True)
class _Line:
    """One side of a gate: seconds since the start, log E, its limit; NaN where a stage begins anew.

    log E is cut at −10 and 20, so that the limits can be seen: a long stage leaves them far behind.
    """

    at_s: list[float]
    log_e: list[float]
    limit: list[float]


def _lines(timeline: Timeline, gate: str, start: float) -> dict[str, _Line]:
    found: dict[str, _Line] = {side: _Line([], [], []) for side in SIDES}
    before = None
    for one in timeline.said:
        for result in one.verdict.gates:
            if result.gate != gate:
                continue
            has_failed = result.status is GateStatus.FAIL
            values = {
                "pass": (None if has_failed else result.log_e, result.log_limit),
                "fail": (result.rollback_log_e, result.rollback_log_limit),
            }
            for side, (log_e, limit) in values.items():
                line = found[side]
                if before not in (None, one.verdict.stage):
                    _append(line, one.poll.at - start, math.nan, math.nan)
                if log_e is not None and limit is not None:
                    _append(line, one.poll.at - start, min(max(log_e, _LEAST), _MOST), limit)
        before = one.verdict.stage
    return found


def _append(line: _Line, at_s: float, log_e: float, limit: float) -> None:
    line.at_s.append(at_s)
    line.log_e.append(log_e)
    line.limit.append(limit)


def _gates(found: Titled) -> list[str]:
    """Every gate that was judged, in the order of the policies."""
    names = {
        result.gate: None for _, timeline in found for one in timeline.said for result in one.verdict.gates
    }
    return list(names)


def _stages(timeline: Timeline) -> list[tuple[str, float, float]]:
    """(logged stage, its first and last poll, epoch s)."""
    found: dict[str, list[float]] = {}
    for one in timeline.said:
        found.setdefault(one.poll.stage, []).append(one.poll.at)
    return [(name, at[0], at[-1]) for name, at in found.items()]


def _moves(timeline: Timeline) -> list[Said]:
    return [story.first for story in timeline.stories() if story.first.moves]


def _longest(found: Titled) -> Timeline:
    return max((timeline for _, timeline in found), key=lambda one: len(one.said))


def write_png(path: Path, found: Titled, *, title: str) -> None:
    """Draw it with matplotlib, at 150 dots an inch."""
    from matplotlib.figure import Figure

    gates, start = _gates(found), _longest(found).said[0].poll.entered_at
    figure = Figure(figsize=(13.0, 1.6 + _ROW_IN * len(gates)), dpi=150, layout="constrained")
    axes = figure.subplots(len(gates), 1, sharex=True, squeeze=False)[:, 0]
    for index, gate in enumerate(gates):
        one = axes[index]
        for number, (name, first, last) in enumerate(_stages(_longest(found))):
            if number % 2 == 0:
                one.axvspan(first - start, last - start, color=_BAND, zorder=0)
            if index == 0:
                one.annotate(
                    name, (first - start, 1.02), xycoords=("data", "axes fraction"), fontsize=8, color=_INK
                )
        for which, (label, timeline) in enumerate(found):
            style = "-" if which == 0 else "--"
            for side, line in _lines(timeline, gate, start).items():
                colour, words = SIDES[side]
                one.plot(line.at_s, line.log_e, style, color=colour, linewidth=1.6, label=f"{label}: {words}")
                one.plot(line.at_s, line.limit, ":", color=colour, linewidth=1.0)
            for said in _moves(timeline):
                one.axvline(said.poll.at - start, linestyle=style, color=_INK, linewidth=0.9)
                if index == 0:
                    place = (said.poll.at - start, 0.97)
                    words = f" {label}: {said.verdict.decision.value}"
                    one.annotate(
                        words, place, xycoords=("data", "axes fraction"), va="top", fontsize=7, rotation=90
                    )
        one.set_ylabel(gate, rotation=0, ha="right", va="center", color=_INK)
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="y", color="#e5e7eb", linewidth=0.7)
    axes[-1].set_xlabel(
        "seconds; log E, cut at −10 and 20; dotted: the limit it must cross; upright: where a policy leaves the stage"
    )
    figure.suptitle(title, color=_INK, fontsize=12)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False, fontsize=9
    )
    figure.savefig(path)


def write_html(path: Path, found: Titled, *, title: str) -> None:
    """Draw it with plotly, whose script stands in the file."""
    import plotly.graph_objects as go  # type: ignore[import-untyped]
    from plotly.subplots import make_subplots  # type: ignore[import-untyped]

    gates, start = _gates(found), _longest(found).said[0].poll.entered_at
    drawn = make_subplots(
        rows=len(gates),
        cols=1,
        shared_xaxes=True,
        subplot_titles=gates,
        vertical_spacing=0.25 / (len(gates) + 1),
    )
    for row, gate in enumerate(gates, start=1):
        for which, (label, timeline) in enumerate(found):
            for side, line in _lines(timeline, gate, start).items():
                colour, words = SIDES[side]
                dash = _DASHES[which % 2]
                drawn.add_trace(
                    go.Scatter(
                        x=line.at_s,
                        y=line.log_e,
                        name=f"{label}: {words}",
                        legendgroup=f"{label}{side}",
                        showlegend=row == 1,
                        line={"color": colour, "dash": dash, "width": 2},
                    ),
                    row=row,
                    col=1,
                )
                drawn.add_trace(
                    go.Scatter(
                        x=line.at_s,
                        y=line.limit,
                        showlegend=False,
                        hoverinfo="skip",
                        line={"color": colour, "dash": "dot", "width": 1},
                    ),
                    row=row,
                    col=1,
                )
    for which, (label, timeline) in enumerate(found):
        for said in _moves(timeline):
            drawn.add_vline(
                x=said.poll.at - start,
                line={"color": _INK, "width": 1, "dash": _DASHES[which % 2]},
                annotation={
                    "text": f"{label}: {said.verdict.decision.value}",
                    "font": {"size": 11},
                    "textangle": -90,
                },
                row=1,
                col=1,
            )
    drawn.update_layout(
        template="plotly_white",
        title={"text": title, "x": 0.01},
        height=220 + 190 * len(gates),
        font={"size": 13, "color": _INK},
        legend={"orientation": "h", "yanchor": "top", "y": -0.08, "x": 0},
        margin={"l": 60, "r": 30, "t": 110, "b": 110},
        hovermode="x unified",
    )
    drawn.update_yaxes(title="log E, cut at −10, 20")
    drawn.update_xaxes(title="seconds", row=len(gates), col=1)
    page = drawn.to_html(include_plotlyjs="inline", full_html=True, config={"displaylogo": False})
    path.write_text(page, encoding="utf-8")
