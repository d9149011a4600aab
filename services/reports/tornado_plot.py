"""Pictures of a tornado: plotly for pages, matplotlib for a PNG. Upper bar: the low end; lower bar: the high end.

Draws numbers that policies/utility/sensitivity.py found; computes none. Must never import: evidently, torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from services.reports.panels import Ends, Tornado

if TYPE_CHECKING:
    import plotly.graph_objects as go  # type: ignore[import-untyped]

LOW, HIGH, _INK = "#8fb3e0", "#1f5fbf", "#24292f"


def figure(tornado: Tornado) -> go.Figure:
    """The tornado as a plotly figure, one panel a column over common rows."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots  # type: ignore[import-untyped]

    drawn = make_subplots(rows=1, cols=len(tornado.columns), shared_yaxes=True, horizontal_spacing=0.03)
    for at, ends in enumerate(tornado.columns, start=1):
        for name, values, colour in (
            ("at the low end", ends.low, LOW),
            ("at the high end", ends.high, HIGH),
        ):
            drawn.add_trace(
                go.Bar(
                    y=list(tornado.names),
                    x=list(values - ends.stands),
                    base=ends.stands,
                    name=name,
                    orientation="h",
                    marker={"color": colour},
                    customdata=list(values),
                    hovertemplate="%{y}, " + name + ": %{customdata:.4g}<extra></extra>",
                    showlegend=at == 1,
                    legendgroup=name,
                ),
                row=1,
                col=at,
            )
        drawn.add_vline(x=ends.stands, line={"color": _INK, "width": 1}, row=1, col=at)
        drawn.update_xaxes(title=ends.x_label, range=_limits(ends), row=1, col=at)
    drawn.update_layout(
        barmode="group",
        bargap=0.3,
        bargroupgap=0.05,
        template="plotly_white",
        height=170 + 62 * len(tornado.names),
        margin={"l": 20, "r": 30, "t": 50, "b": 60},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "traceorder": "normal"},
        font={"size": 13, "color": _INK},
    )
    drawn.update_yaxes(autorange="reversed", automargin=True)
    return drawn


def _limits(ends: Ends) -> list[float]:
    """A little room on both sides; a column in which nothing moves still has a width."""
    values = np.concatenate([ends.low, ends.high, [ends.stands]])
    low, high = float(values.min()), float(values.max())
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - room if low < 0 or low < ends.stands else low, high + room]


def write_html(path: Path, tornado: Tornado) -> None:
    """A page that needs no network."""
    drawn = figure(tornado)
    drawn.update_layout(title={"text": tornado.title, "x": 0.01}, margin={"t": 100})
    page = drawn.to_html(include_plotlyjs="inline", full_html=True, config={"displaylogo": False})
    path.write_text(page, encoding="utf-8")


def write_png(path: Path, tornado: Tornado) -> None:
    """Draw it with matplotlib, at 150 dots an inch."""
    from matplotlib.figure import Figure

    rows = np.arange(len(tornado.names))
    drawn = Figure(figsize=(13.0, 1.9 + 0.55 * len(rows)), dpi=150, layout="constrained")
    parts = np.atleast_1d(drawn.subplots(1, len(tornado.columns), sharey=True))
    for axes, ends in zip(parts, tornado.columns, strict=True):
        for name, values, colour, shift in (
            ("at the low end of its range", ends.low, LOW, -0.19),
            ("at the high end", ends.high, HIGH, 0.19),
        ):
            axes.barh(
                rows + shift,
                values - ends.stands,
                left=ends.stands,
                height=0.36,
                color=colour,
                label=name,
            )
        axes.axvline(ends.stands, color=_INK, linewidth=1)
        axes.set(xlabel=ends.x_label, xlim=_limits(ends))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
    parts[0].set_yticks(rows, list(tornado.names), color=_INK)
    parts[0].invert_yaxis()
    drawn.suptitle(tornado.title, color=_INK, fontsize=12)
    drawn.legend(*parts[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
    drawn.savefig(path)
