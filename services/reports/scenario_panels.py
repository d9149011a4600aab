"""What the alignment stage asked beyond its own rows, as panels: numbers in doubt, and scenarios.

Draws numbers that policies and services/alignment found; computes none of its own. Must never import: evidently,
plotly, torch.
"""

from __future__ import annotations

from policies.utility.sensitivity_result import Sensitivity
from services.alignment.scenarios import ScenarioReport, ScenarioResult
from services.reports.panels import Panel, Table
from services.reports.sensitivity_panels import sensitivity_panels


def study_panels(sensitivity: Sensitivity | None, scenarios: ScenarioReport | None) -> tuple[Panel, ...]:
    """The scenarios, then what rests on the utility spec's numbers; nothing of what was not studied."""
    panels: list[Panel] = []
    if scenarios is not None:
        panels.append(_table(scenarios))
    if sensitivity is not None:
        panels += sensitivity_panels(sensitivity)
    return tuple(panels)


def _table(report: ScenarioReport) -> Table:
    counted = [one for one in report.results if not one.scenario.dry_run]
    dry = len(report.results) - len(counted)
    note = (
        f"{len(counted) - len(report.failed)} of {len(counted)} hypotheses hold on rows changed as they say."
    )
    if dry:
        note += f" {dry} more on a dry run: judged and shown, not counted."
    return Table(
        title="Scenarios",
        header=(
            "scenario",
            "kind",
            "hypothesis",
            "measured",
            "as things stand",
            "bound",
            "rows",
            "owner",
            "",
        ),
        rows=tuple(
            (
                one.scenario.name,
                one.scenario.kind.replace("_", " "),
                one.scenario.hypothesis,
                f"{one.scenario.constraint or one.scenario.measure.replace('_', ' ')} {_number(one.value)}",
                _number(one.stands),
                one.bound,
                f"{one.n:,}",
                one.scenario.owner,
                _sign(one),
            )
            for one in report.results
        ),
        value=float(len(report.failed)),
        note=note,
    )


def _number(value: float | None) -> str:
    return "no data" if value is None else f"{value:.4g}"


def _sign(one: ScenarioResult) -> str:
    sign = "✔ held" if one.is_held else "✖ failed"
    return f"{sign} (dry run)" if one.scenario.dry_run else sign
