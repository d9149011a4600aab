"""What alignment found beyond the rules: utility by month, what a misplaced decision costs, regret, domains, the proof.

Draws numbers that services/alignment and the operating point's proof hold; computes none of its own. Must never import:
evidently, plotly, torch.
"""

import numpy as np

from policies.gates.evidence import Measured
from policies.operating.point_proof import Kept
from services.alignment.report import AlignmentReport, FoldRow, Misplacement
from services.reports.panels import Curve, Line, Mark, Panel, Table

_MOST_TICKS = 8


def more_alignment_panels(report: AlignmentReport) -> tuple[Panel, ...]:
    """The pictures first, then the tables; what was not measured has no panel."""
    panels: list[Panel] = []
    if len(report.folds) > 1:
        panels.append(_by_time(report.folds, report.unit))
    if report.misplacement is not None:
        panels.append(_misplaced(report.misplacement, report.unit))
    panels += [_regrets(report), _domains(report), _proof(report), _hypotheses(report)]
    return tuple(panel for panel in panels if not isinstance(panel, Table) or panel.rows)


def measured_text(value: Measured) -> str:
    """`+0.1234 [+0.1000, +0.1500]`."""
    if value.lower is None or value.upper is None:
        return f"{value.value:+.4f}"
    return f"{value.value:+.4f} [{value.lower:+.4f}, {value.upper:+.4f}]"


def _by_time(folds: tuple[FoldRow, ...], unit: str) -> Curve:
    at = np.arange(float(len(folds)))
    lines = []
    if all(fold.champion is not None for fold in folds):
        lines.append(
            Line("champion", at, np.array([f.champion.value for f in folds if f.champion]), "stable")
        )
    lines += [
        Line("hindsight", at, np.array([f.hindsight for f in folds]), "muted", is_dashed=True),
        Line(
            "in force",
            at,
            np.array([f.utility.value for f in folds]),
            "in force",
            low=np.array([f.utility.lower for f in folds], dtype=np.float64),
            high=np.array([f.utility.upper for f in folds], dtype=np.float64),
        ),
    ]
    worst = min(folds, key=lambda fold: fold.utility.value)
    every = -(-len(folds) // _MOST_TICKS)
    ticks = (f"{fold.name}<br>{fold.rows:,} rows" for fold in folds)
    return Curve(
        title="Utility in the order of time",
        x_label="rows in the order of time",
        y_label=f"utility, {unit} a decision",
        lines=tuple(lines),
        value=worst.utility.value,
        x_ticks=tuple(tick if number % every == 0 else "" for number, tick in enumerate(ticks)),
        note=f"Worst: {worst.name}, {measured_text(worst.utility)} {unit} a decision on {worst.rows:,} rows, "
        f"{worst.action_rate:.1%} of them acted on. Band: 95 %, of the rows of each fold alone. Hindsight: the best "
        "action of each row had its outcome been known.",
    )


def _misplaced(found: Misplacement, unit: str) -> Curve:
    zero = int(np.argmin(np.abs(found.off_by)))
    return Curve(
        title="What a misplaced threshold costs",
        x_label=f"threshold off by, {found.of}; to the right it acts less",
        y_label=f"lost, {unit} per 1,000 decisions",
        lines=(Line("lost", found.off_by, found.lost, "candidate", low=found.low, high=found.high),),
        value=found.near,
        marks=(Mark("in force", float(found.off_by[zero]), float(found.lost[zero])),),
        note=f"Off by {found.near_off:.2g} {found.of} either way costs {found.near:+.2f} {unit} per 1,000 decisions. "
        "Below 0: these rows would have liked another threshold better. Band: 95 %.",
    )


def _regrets(report: AlignmentReport) -> Table:
    rows = tuple((name, measured_text(regret)) for name, regret in report.regrets.items())
    hindsight = report.regrets.get("hindsight")
    return Table(
        title="Regret",
        header=("against", f"earned more than the point in force, {report.unit} a decision [95 %]"),
        rows=rows,
        value=0.0 if hindsight is None else hindsight.value,
        note="Negative: the point in force earned more. Hindsight knows each outcome, so nobody can reach it.",
    )


def _domains(report: AlignmentReport) -> Table:
    return Table(
        title="Per domain",
        header=("domain", "owner", "constraints kept", "error budget", "least room left"),
        rows=tuple(
            (row.name, row.owner, f"{row.kept} of {row.of}", f"{row.error_budget:.1%}", row.tightest)
            for row in report.domains
        ),
        value=float(sum(row.of - row.kept for row in report.domains)),
        note="On these rows, as measured. The error budget is the chance that a bound is broken although the operating "
        "point was proved to keep it.",
    )


def _proof(report: AlignmentReport) -> Table:
    if report.proof is None:
        return Table("Proof of the operating point", (), (), 0.0)
    proof = report.proof
    note = "Found on validation rows; the price is what the constraint costs per unit of what it bounds. "
    if proof.conflict:
        note = proof.sentences()[0] + ". " + note
    if proof.abstains:
        note += f"For want of evidence {proof.abstains:.1%} of the rows get the abstention's action."
    return Table(
        title="Proof of the operating point",
        header=("constraint", "must be", "with", "validation", "limit", "", f"price, {report.unit}", "later rows"),
        rows=tuple(_proof_row(one) for one in proof.kept),
        value=float(sum(not one.is_kept for one in proof.kept)),
        note=note,
    )  # fmt: skip


def _proof_row(one: Kept) -> tuple[str, ...]:
    signs = {"kept": "✔ kept", "unsure": "… kept, not surely", "broken": "✖ not kept"}
    later = "–"
    if one.test_value is not None:
        later = f"{one.test_value:.4g} {'✔' if one.is_kept_on_test else '✖'} ({one.test_rows:,} rows)"
    return (
        one.constraint,
        one.required,
        f"{one.confidence:.2%}, {one.method}",
        "no data" if one.value is None else f"{one.value:.4g} ({one.rows:,} rows)",
        "–" if one.limit is None else f"{one.limit:.4g}",
        signs[one.verdict] + (f": {one.note}" if one.note and not one.is_kept else ""),
        f"{one.price:.4g}" if one.price else "–",
        later,
    )


def _hypotheses(report: AlignmentReport) -> Table:
    signs = {
        "kept": "✔ kept",
        "refuted": "✖ refuted",
        "open": "… open",
        "not measured": "∅ not measured here",
    }
    return Table(
        title="Hypotheses registered beforehand",
        header=("hypothesis", "expected", "found", "", "owner", "registered"),
        rows=tuple(
            (
                row.statement,
                row.expected,
                "–" if row.measured is None else measured_text(row.measured),
                signs[row.verdict],
                row.owner,
                row.registered,
            )
            for row in report.hypotheses
        ),
        value=float(sum(row.verdict == "refuted" for row in report.hypotheses)),
    )
