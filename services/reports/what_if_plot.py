"""Pictures of a what-if: how the runs of each scenario ended, and when. A PNG, and an HTML file that needs no network.

Left the shares of runs by outcome, right the time to decision (median, middle half, 5 to 95 %), one row a scenario.
Draws numbers that policies/what_if/simulation.py found; computes only quantiles of them. Must never import:
evidently, torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from policies.what_if.result import OUTCOMES, Outcome, WhatIf, lasting

COLOURS: dict[Outcome, str] = {
    "rolled_back": "#c2410c",
    "promoted": "#1f5fbf",
    "inconclusive": "#d9b26a",
    "waits": "#b6bcc4",
}
WORDS: dict[Outcome, str] = {
    "rolled_back": "rolled back",
    "promoted": "promoted",
    "inconclusive": "rolled back, inconclusive",
    "waits": "waits for a person",
}
_INK, _ROW_IN = "#24292f", 0.42
_ON: dict[Outcome, str] = {
    "rolled_back": "white",
    "promoted": "white",
    "inconclusive": _INK,
    "waits": _INK,
}
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Titled = Sequence[tuple[str, WhatIf]]


def _title(found: Titled, service: str) -> str:
    first = found[0][1]
    return f"{service}: what if? {first.runs:,} runs a scenario, {first.requests_per_s:g} requests a second"


def _times(one: WhatIf) -> list[float]:
    return [float(np.quantile(one.time_s, q)) for q in _QUANTILES]


def _summary(one: WhatIf, unit: str) -> str:
    """Under which units and money a scenario is to be remembered."""
    lost = ""
    if one.lost:
        lost = f", {abs(one.lost):,.0f} {unit} {'lost' if one.lost > 0 else 'gained'}"
    return f"{one.exposed_mean:,.0f} units exposed{lost}"


def write_png(path: Path, found: Titled, *, service: str, unit: str) -> None:
    """Draw it with matplotlib, at 150 dots an inch."""
    from matplotlib.figure import Figure

    rows = np.arange(len(found))[::-1]
    figure = Figure(figsize=(13.0, 1.9 + _ROW_IN * len(found)), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    start = np.zeros(len(found))
    for outcome in OUTCOMES:
        share = np.array([100 * one.share(outcome) for _, one in found])
        bars = left.barh(rows, share, left=start, height=0.62, color=COLOURS[outcome], label=WORDS[outcome])
        texts = [f"{value:.0f} %" if value >= 7 else "" for value in share]
        left.bar_label(bars, texts, label_type="center", color=_ON[outcome], fontsize=8)
        start += share
    left.set_yticks(rows, [name for name, _ in found], color=_INK)
    left.set(xlim=(0, 100), xlabel="share of runs, %")
    for row, (_, one) in zip(rows, found, strict=True):
        low, q1, median, q3, high = _times(one)
        right.plot([low, high], [row, row], color="#8b949e", linewidth=1.2)
        right.plot([q1, q3], [row, row], color="#8b949e", linewidth=6, solid_capstyle="butt")
        right.plot([median], [row], marker="o", color=_INK, markersize=6)
        text = f"{lasting(median)}; {_summary(one, unit)}"
        right.annotate(
            text,
            (0.0, row),
            (4, 8),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=7,
            color=_INK,
        )
    ends = [time for _, one in found for time in _times(one)]
    right.set_xscale("log")
    right.xaxis.set_major_formatter("{x:g}")
    right.set(
        xlim=(min(ends) * 0.6, max(ends) * 1.6),
        xlabel="seconds to the decision: median, middle half, 5 to 95 %",
    )
    for axes in (left, right):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    right.grid(axis="x", color="#e5e7eb", linewidth=0.8)
    right.set_axisbelow(True)
    figure.suptitle(_title(found, service), color=_INK, fontsize=12)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False)
    figure.savefig(path)


def write_html(path: Path, found: Titled, *, service: str, unit: str) -> None:
    """Draw it with plotly, whose script stands in the file."""
    import plotly.graph_objects as go  # type: ignore[import-untyped]
    from plotly.subplots import make_subplots  # type: ignore[import-untyped]

    names = [name for name, _ in found]
    drawn = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        column_widths=[0.58, 0.42],
        horizontal_spacing=0.02,
        subplot_titles=("how the runs ended", "time to the decision"),
    )
    for outcome in OUTCOMES:
        hover = [_hover(one, outcome, unit) for _, one in found]
        drawn.add_trace(
            go.Bar(
                y=names,
                x=[100 * one.share(outcome) for _, one in found],
                name=WORDS[outcome],
                orientation="h",
                marker={"color": COLOURS[outcome]},
                text=[
                    f"{100 * one.share(outcome):.0f} %" if one.share(outcome) >= 0.07 else ""
                    for _, one in found
                ],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                customdata=hover,
                hovertemplate="%{customdata}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    times = np.array([_times(one) for _, one in found])
    drawn.add_trace(
        go.Box(
            y=names,
            lowerfence=times[:, 0],
            q1=times[:, 1],
            median=times[:, 2],
            q3=times[:, 3],
            upperfence=times[:, 4],
            orientation="h",
            line={"color": _INK, "width": 1.3},
            fillcolor="#d0d7de",
            showlegend=False,
            name="",
        ),
        row=1,
        col=2,
    )
    drawn.update_layout(
        barmode="stack",
        template="plotly_white",
        title={"text": _title(found, service), "x": 0.01},
        height=230 + 46 * len(found),
        font={"size": 13, "color": _INK},
        legend={
            "orientation": "h",
            "yref": "container",
            "yanchor": "bottom",
            "y": 0.01,
            "x": 0,
            "traceorder": "normal",
        },
        margin={"l": 20, "r": 30, "t": 90, "b": 90},
    )
    drawn.update_yaxes(autorange="reversed", automargin=True)
    drawn.update_xaxes(title="share of runs, %", range=[0, 100], row=1, col=1)
    drawn.update_xaxes(title="seconds: median, middle half, 5 to 95 %", type="log", row=1, col=2)
    page = drawn.to_html(include_plotlyjs="inline", full_html=True, config={"displaylogo": False})
    path.write_text(page, encoding="utf-8")


def _hover(one: WhatIf, outcome: Outcome, unit: str) -> str:
    """What a bar says: its share and why the runs ended so."""
    lines = [
        f"<b>{WORDS[outcome]}: {100 * one.share(outcome):.1f} ±{100 * one.standard_error(outcome):.1f} %</b>"
    ]
    for ending in [each for each in one.endings if each.outcome == outcome][:5]:
        by = f" by {ending.gate}" if ending.gate else ""
        lines.append(f"{100 * ending.runs / one.runs:.1f} % {ending.reason.value}{by} in {ending.stage}")
    return "<br>".join([*lines, _summary(one, unit)])
