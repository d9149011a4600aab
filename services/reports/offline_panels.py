"""What training and alignment found, as panels: candidates side by side, the utility curve, people and
bounds.

Draws numbers that services/training and services/alignment measured; computes none of its own. Must never
import: evidently, plotly, torch.
"""

import numpy as np

from services.alignment.near_threshold import NearThreshold
from services.alignment.report import AlignmentReport, PolicyRow
from services.reports.alignment_panels import measured_text, more_alignment_panels
from services.reports.panels import Curve, Line, Mark, Panel, Table
from services.training.candidate import TrainedCandidate
from services.training.selection import Comparison, Training


def training_panels(training: Training, *, unit: str) -> tuple[Panel, ...]:
    """All candidates in one table, with how much more the kept one earned, and the losses of each by epoch."""
    chosen = training.chosen
    behind = {one.other: one for one in training.comparisons}
    rows = tuple(
        (
            one.loss_name.replace("_", " ")
            + (" ✔ kept" if one is chosen else "")
            + (f" (breaks {', '.join(one.broken)})" if one.broken else ""),
            f"{one.validation_utility:+.4f}",
            f"{one.validation_interval[0]:+.4f} … {one.validation_interval[1]:+.4f}",
            _ahead(behind.get(one.loss_name)),
            f"{one.validation_rows:,}",
            "no probabilities" if one.calibration_error is None else f"{one.calibration_error:.4f}",
            f"{one.best_epoch} of {len(one.history)}" if one.history else str(one.best_epoch),
            str(one.seed),
        )
        for one in training.candidates
    )
    header = (
        "candidate",
        f"validation utility, {unit} a decision",
        "95 % interval",
        "kept earns more [95 %]",
        "rows",
    )
    table = Table(
        title="Trained candidates",
        header=(*header, "calibration error", "epoch or round kept", "seed"),
        rows=rows,
        value=chosen.validation_utility,
        note="One candidate is kept by validation utility, all are on record; differences are paired row by row."
        + "".join(
            f" '{name}' is not known when deciding: the prediction in its place explains {share:.0%} of its variance."
            for name, share in training.predicted_fields.items()
        ),
    )
    return (table, *(_losses(one) for one in training.candidates if one.history))


def _ahead(comparison: Comparison | None) -> str:
    if comparison is None:
        return "–"
    low, high = comparison.interval
    return f"{comparison.difference:+.4f} [{low:+.4f}, {high:+.4f}]"


def _losses(candidate: TrainedCandidate) -> Curve:
    epochs = np.array([float(epoch.epoch) for epoch in candidate.history])
    training = np.array([epoch.training_loss for epoch in candidate.history])
    validation = np.array([epoch.validation_loss for epoch in candidate.history])
    best = int(np.argmin(np.abs(epochs - candidate.best_epoch)))
    return Curve(
        title=f"Loss by epoch: {candidate.loss_name.replace('_', ' ')}",
        x_label="epoch",
        y_label="loss, lower is better",
        lines=(
            Line("training", epochs, training, "stable"),
            Line("validation", epochs, validation, "candidate"),
        ),
        value=float(validation[best]),
        marks=(Mark(f"kept: epoch {epochs[best]:g}", float(epochs[best]), float(validation[best])),),
    )


def alignment_panels(report: AlignmentReport) -> tuple[Panel, ...]:
    """The utility curves with the operating point on them, then rules, stakeholders, groups and constraints."""
    panels: list[Panel] = []
    if report.curves:
        panels.append(_utility_by_share(report))
    panels += [_rules(report), _stakeholders(report), _groups(report), _constraints(report)]
    if report.near_threshold is not None:
        panels.append(_near_threshold(report.near_threshold))
    panels += more_alignment_panels(report)
    return tuple(panel for panel in panels if not isinstance(panel, Table) or panel.rows)


def _utility_by_share(report: AlignmentReport) -> Curve:
    """Each family of rules over the share of rows acted on: one axis on which all rules compare."""
    lines = []
    for curve, role in zip(report.curves, ("stable", "candidate"), strict=False):
        order = np.argsort(curve.action_rate, kind="stable")
        name = "one threshold for all" if "threshold" in curve.turns_on else f"per row, by {curve.turns_on}"
        lines.append(Line(name, curve.action_rate[order], curve.utility[order], role))
    marks = [_mark("operating point", report.in_force, "in force")]
    if report.champion is not None:
        marks.append(_mark("champion", report.champion, "stable"))
    marks += [_mark(row.name, row, "muted") for row in report.trivial]
    gap = report.alignment_gap
    return Curve(
        title="Utility curve",
        x_label="share of rows acted on",
        y_label=f"utility, {report.unit} a decision",
        lines=tuple(lines),
        value=report.in_force.utility.value,
        marks=tuple(marks),
        note=f"On {report.n:,} later rows. Alignment gap: {measured_text(gap)} {report.unit} per 1,000 decisions lost "
        f"against the best rule found on these very rows ({report.best_rule}).",
    )


def _mark(name: str, row: PolicyRow, role: str) -> Mark:
    return Mark(f"{name} {row.utility.value:+.4f}", row.action_rate, row.utility.value, role)


def _rules(report: AlignmentReport) -> Table:
    rows = [report.in_force, *report.trivial]
    rows += [row for row in (report.best_constant_threshold, report.champion) if row is not None]
    note = (
        f"Gain over the best trivial rule ({report.best_trivial}): {measured_text(report.gain_over_trivial)}."
    )
    if report.gain_over_champion is not None:
        note += f" Over the champion: {measured_text(report.gain_over_champion)}."
    if report.disagreement is not None:
        note += f" Another action than the champion's on {report.disagreement:.1%} of rows."
    return Table(
        title="The operating point and its rivals",
        header=("rule", f"utility, {report.unit} a decision [95 %]", "share acted on"),
        rows=tuple((row.name, measured_text(row.utility), f"{row.action_rate:.1%}") for row in rows),
        value=report.gain_over_trivial.value,
        note=note,
    )


def _stakeholders(report: AlignmentReport) -> Table:
    rows = tuple(
        (
            row.name,
            f"{row.weight:g}",
            measured_text(row.utility),
            "–" if row.champion is None else measured_text(row.champion),
            f"{row.agrees:.1%}",
        )
        for row in report.stakeholders
    )
    return Table(
        title="Per stakeholder",
        header=(
            "stakeholder",
            "weight",
            "own utility a decision [95 %]",
            "under the champion",
            "would decide so, too",
        ),
        rows=rows,
        value=float(len(rows)),
    )


def _groups(report: AlignmentReport) -> Table:
    rows = tuple(
        (
            row.constraint,
            row.group,
            f"{row.rows:,}",
            f"{row.action_rate:.2%}" if np.isfinite(row.action_rate) else "–",
            "–" if row.utility is None else measured_text(row.utility),
            f"{row.decided_best:.1%}" if np.isfinite(row.decided_best) else "–",
            f"{row.regret:+.4f}" if np.isfinite(row.regret) else "–",
        )
        for row in report.groups
    )
    gaps = report.group_gaps
    return Table(
        title="Per group",
        header=(
            "constraint",
            "group",
            "rows",
            "action rate",
            f"utility, {report.unit} a decision [95 %]",
            "right in hindsight",
            "regret against it",
        ),
        rows=rows,
        value=max((gap.value for gap in gaps.values()), default=0.0),
        note=" ".join(f"Gap of {name}: {measured_text(gap)}." for name, gap in gaps.items()),
    )


def _constraints(report: AlignmentReport) -> Table:
    rows = tuple(
        (
            result.constraint.name,
            result.constraint.domain,
            "no data" if result.value is None else f"{result.value:.4f}",
            result.constraint.bound_text,
            "✔ held" if result.is_held else "✖ broken",
        )
        for result in report.constraints
    )
    return Table(
        title="Constraints of the utility spec",
        header=("constraint", "domain", "value", "bound", ""),
        rows=rows,
        value=float(sum(not result.is_held for result in report.constraints)),
    )


def _near_threshold(near: NearThreshold) -> Curve:
    return Curve(
        title="Calibration where it decides",
        x_label=f"{near.quantity}, distance from the row's own threshold",
        y_label=near.quantity,
        lines=(
            Line("predicted", near.margin, near.predicted, "stable", is_dashed=True),
            Line(
                "observed",
                near.margin,
                near.observed,
                "candidate",
                low=near.observed - 1.96 * near.error,
                high=near.observed + 1.96 * near.error,
            ),
        ),
        value=near.gap,
        note=f"Observed less predicted over the {int(near.rows.sum()):,} rows nearest to their threshold: "
        f"{near.gap:+.4f}. Positive: too timid there. Band: 1.96 standard errors.",
    )
