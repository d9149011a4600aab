"""Draws panels and verdicts as Evidently widgets (plotly figures and tables). Imported with Evidently,
lazily.

Rule: no number is computed here beyond formatting. Must never be imported when a module is loaded, only
by `evidently_run`.
"""

import plotly.graph_objects as go  # type: ignore[import-untyped]
from evidently.legacy.model.widget import BaseWidgetInfo  # type: ignore[import-untyped]
from evidently.legacy.renderers.html_widgets import (  # type: ignore[import-untyped]
    CounterData,
    counter,
    plotly_figure,
    table_data,
    text_widget,
)

from policies.rollout.verdict import GateResult, GateStatus, Verdict
from services.reports.panels import IN_FORCE, MUTED, ROLE_COLOURS, Curve, Line, Panel, Table, Tornado
from services.reports.tornado_plot import figure as tornado_figure

_STATUS_SIGNS = {
    GateStatus.PASS: "✔ pass",
    GateStatus.FAIL: "✖ fail",
    GateStatus.INCONCLUSIVE: "… inconclusive",
    GateStatus.NO_DATA: "∅ no data",
    GateStatus.ERROR: "⚠ error",
}
_GATE_HEADER = ("gate", "status", "observed", "interval", "bound", "n", "evidence", "window", "why")
_LEVEL_DASHES = ("dash", "dot", "dashdot", "longdash")


def verdict_widgets(verdict: Verdict, *, service: str, release: str) -> list[BaseWidgetInfo]:
    """The stage's verdict in large type, its sentence, and a table of its gates."""
    passed = sum(gate.status is GateStatus.PASS for gate in verdict.gates)
    counters = [
        CounterData(label=f"{verdict.stage} of {service}", value=verdict.decision.value),
        CounterData(label="reason", value=verdict.reason.value.replace("_", " ")),
        CounterData(
            label="gates passed",
            value=f"{passed} of {len(verdict.gates)}" if verdict.gates else "none judged",
        ),
        CounterData(label="release", value=release.removeprefix(f"{service}-")),
    ]
    widgets = [counter(counters=counters, title="")]
    if verdict.gates:
        widgets.append(
            _table("Gates: " + verdict.detail, _GATE_HEADER, [_gate_row(g) for g in verdict.gates])
        )
    else:
        widgets.append(
            _table("Gates", ("this stage judged no gate",), [(verdict.detail or "no detail was given",)])
        )
    return widgets


def panel_widgets(panel: Panel) -> list[BaseWidgetInfo]:
    """One panel as widgets."""
    if isinstance(panel, Table):
        drawn = _table(panel.title, panel.header, list(panel.rows))
    elif isinstance(panel, Tornado):
        drawn = plotly_figure(title=panel.title, figure=tornado_figure(panel))
    else:
        drawn = plotly_figure(title=panel.title, figure=figure(panel))
    return [drawn, text_widget(text=panel.note)] if panel.note else [drawn]


def figure(curve: Curve) -> go.Figure:
    """The curve as a plotly figure."""
    drawn = go.Figure()
    for line in curve.lines:
        _add_line(drawn, line)
    for index, (name, level) in enumerate(curve.levels):
        colour = IN_FORCE if index == 0 else MUTED
        drawn.add_hline(
            y=level,
            line={"color": colour, "width": 2 if index == 0 else 1.2, "dash": _LEVEL_DASHES[index % 4]},
            annotation={
                "text": f"{name} {level:+.4f}",
                "font": {"color": colour if index == 0 else "#5b6470"},
            },
            annotation_position="bottom right" if index % 2 else "top right",
        )
    for index, mark in enumerate(curve.marks):
        colour = ROLE_COLOURS.get(mark.role, IN_FORCE)
        drawn.add_trace(
            go.Scatter(
                x=[mark.x],
                y=[mark.y],
                name=mark.text,
                mode="markers+text",
                text=[mark.text],
                textposition="bottom center" if index % 2 else "top center",
                textfont={"color": colour, "size": 12},
                cliponaxis=False,
                showlegend=False,
                marker={"color": colour, "size": 12, "line": {"color": "white", "width": 2}},
            )
        )
    drawn.update_layout(
        template="plotly_white",
        height=500,
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        hovermode="x unified",
        font={"size": 13},
    )
    drawn.update_xaxes(title=curve.x_label, type="log" if curve.is_log_x else "linear", showline=True)
    if curve.x_ticks:
        drawn.update_xaxes(
            tickmode="array", tickvals=list(range(len(curve.x_ticks))), ticktext=list(curve.x_ticks)
        )
    drawn.update_yaxes(title=curve.y_label, zeroline=True, zerolinecolor="#d0d4da")
    return drawn


def _add_line(drawn: go.Figure, line: Line) -> None:
    colour = ROLE_COLOURS.get(line.role, MUTED)
    if line.low is not None and line.high is not None:
        drawn.add_trace(
            go.Scatter(
                x=[*line.x, *line.x[::-1]],
                y=[*line.high, *line.low[::-1]],
                mode="lines",
                fill="toself",
                fillcolor=f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.13)",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    drawn.add_trace(
        go.Scatter(
            x=list(line.x),
            y=list(line.y),
            name=line.name,
            mode="lines",
            line={
                "color": colour,
                "width": 2.5,
                "dash": "dash" if line.is_dashed else "solid",
                "shape": "hv" if line.is_step else "linear",
            },
        )
    )


def _gate_row(gate: GateResult) -> tuple[str, ...]:
    evidence = "–"
    if gate.log_e is not None and gate.log_limit is not None:
        evidence = f"log E {gate.log_e:.2f} of {gate.log_limit:.2f}"
    if gate.rollback_log_e is not None and gate.rollback_log_limit is not None:
        evidence += f"; against it {gate.rollback_log_e:.2f} of {gate.rollback_log_limit:.2f}"
    interval = "–" if gate.interval is None else f"{gate.interval[0]:.4f} … {gate.interval[1]:.4f}"
    return (
        gate.gate if gate.required else f"{gate.gate} (not required)",
        _STATUS_SIGNS[gate.status],
        "–" if gate.observed is None else f"{gate.observed:.4f}",
        interval,
        "–" if gate.bound is None else f"{gate.bound:.4f}",
        f"{gate.n:,}",
        evidence,
        gate.window,
        gate.detail or "–",
    )


def _table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> BaseWidgetInfo:
    return table_data(title=title, column_names=list(header), data=rows)
