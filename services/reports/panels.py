"""What a stage report shows besides Evidently's own metrics: tables and curves, as plain values.

A panel carries one headline number (its value over the runs shows on Evidently's dashboard) and what to
draw. Colours are fixed by role here, so that the candidate has the same colour in every report: blue is
the candidate, grey the stable release or the reference, amber the rule in force. Must never import:
evidently, plotly, pandas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

CANDIDATE, STABLE, IN_FORCE, MUTED = "#1f5fbf", "#7d8590", "#d97706", "#b6bcc4"
ROLE_COLOURS: Mapping[str, str] = {
    "candidate": CANDIDATE,
    "stable": STABLE,
    "in force": IN_FORCE,
    "muted": MUTED,
}


@dataclass(frozen=True)
class Table:
    """Rows under a header, already formatted as text; `note` stands above the table."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    value: float
    note: str = ""


@dataclass(frozen=True)
class Line:
    """One line of a curve: x and y (n,), optionally a band low..high (n,). `role` picks the colour."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    role: str = "candidate"
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    is_dashed: bool = False
    is_step: bool = False


@dataclass(frozen=True)
class Mark:
    """A labelled point on a curve, e.g. the operating point in force."""

    text: str
    x: float
    y: float
    role: str = "in force"


@dataclass(frozen=True)
class Curve:
    """Lines over a common axis with marks, and horizontal levels to compare them with."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    value: float
    marks: tuple[Mark, ...] = ()
    levels: tuple[tuple[str, float], ...] = ()
    note: str = ""
    is_log_x: bool = False


Panel = Table | Curve


@dataclass(frozen=True)
class CandidateSummary:
    """One trained candidate: its validation utility per decision with interval, and what happened on the way.

    `utility_by_epoch` is (epochs,) validation utility per decision, higher is better.
    """

    name: str
    is_chosen: bool
    validation_utility: float
    interval: tuple[float, float]
    calibration_error: float | None = None
    utility_by_epoch: tuple[float, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


def training_panels(candidates: Sequence[CandidateSummary], *, unit: str) -> tuple[Panel, ...]:
    """All candidates side by side, and their validation utility by epoch.

    Raises ValueError where there is no candidate or not exactly one is chosen.
    """
    chosen = [candidate for candidate in candidates if candidate.is_chosen]
    if len(chosen) != 1:
        raise ValueError(
            f"'candidates' must hold exactly one chosen candidate: {len(chosen)} of {len(candidates)}"
        )
    extra = tuple(dict.fromkeys(key for candidate in candidates for key in candidate.notes))
    rows = tuple(
        (
            f"{candidate.name} ✔ chosen" if candidate.is_chosen else candidate.name,
            f"{candidate.validation_utility:+.4f}",
            f"{candidate.interval[0]:+.4f} … {candidate.interval[1]:+.4f}",
            "–" if candidate.calibration_error is None else f"{candidate.calibration_error:.4f}",
            str(len(candidate.utility_by_epoch) or "–"),
            *(candidate.notes.get(key, "–") for key in extra),
        )
        for candidate in candidates
    )
    table = Table(
        title="Trained candidates",
        header=(
            "candidate",
            f"validation utility, {unit}",
            "95 % interval",
            "calibration error",
            "epochs",
            *extra,
        ),
        rows=rows,
        value=chosen[0].validation_utility,
        note="The candidate of the higher validation utility is kept; both are recorded.",
    )
    lines = tuple(
        Line(
            name=candidate.name,
            x=np.arange(1, len(candidate.utility_by_epoch) + 1, dtype=np.float64),
            y=np.asarray(candidate.utility_by_epoch, dtype=np.float64),
            role="candidate" if candidate.is_chosen else "stable",
        )
        for candidate in candidates
        if candidate.utility_by_epoch
    )
    if not lines:
        return (table,)
    curve = Curve(
        title="Validation utility by epoch",
        x_label="epoch",
        y_label=f"validation utility, {unit}",
        lines=lines,
        value=float(max(float(line.y.max()) for line in lines)),
    )
    return (table, curve)


@dataclass(frozen=True)
class UtilityCurve:
    """Utility of every constant threshold on held-out rows, and of the rules to compare it with.

    `thresholds` and `utility` are (k,); `low`, `high` (k,) a 95 % band if known. `in_force` and
    `champion` are utilities of whole rules (a per-row operating point is not one threshold: it is drawn
    as a level, and as a mark where `in_force_threshold`, the median of its per-row thresholds, is given).
    `trivial` maps a trivial policy's name to its utility. Utilities are per decision, in `unit`; higher
    is better.
    """

    thresholds: NDArray[np.float64]
    utility: NDArray[np.float64]
    unit: str
    in_force: float
    in_force_name: str = "operating point in force"
    in_force_threshold: float | None = None
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    champion: float | None = None
    trivial: Mapping[str, float] = field(default_factory=dict)

    def panel(self) -> Curve:
        """The curve with the operating point, the best constant threshold and the levels marked."""
        best = int(np.argmax(self.utility))
        marks = [
            Mark(
                f"best constant threshold {self.thresholds[best]:.3f}: {self.utility[best]:+.4f}",
                float(self.thresholds[best]),
                float(self.utility[best]),
                "candidate",
            )
        ]
        if self.in_force_threshold is not None:
            marks.append(
                Mark(f"{self.in_force_name}: {self.in_force:+.4f}", self.in_force_threshold, self.in_force)
            )
        levels = [(self.in_force_name, self.in_force), *self.trivial.items()]
        if self.champion is not None:
            levels.append(("champion", self.champion))
        return Curve(
            title="Utility curve",
            x_label="constant threshold on the score",
            y_label=f"utility per decision, {self.unit}",
            lines=(
                Line("constant threshold", self.thresholds, self.utility, "candidate", self.low, self.high),
            ),
            value=self.in_force,
            marks=tuple(marks),
            levels=tuple(levels),
            note=f"Gain of the operating point over the best constant threshold: "
            f"{self.in_force - float(self.utility[best]):+.4f} {self.unit} a decision.",
        )


def breakdown(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | float | int]],
    *,
    value: float,
    note: str = "",
) -> Table:
    """A table per group, stakeholder or domain; numbers are formatted here, counts with thousands
    separators.
    """
    return Table(title, tuple(header), tuple(tuple(_cell(cell) for cell in row) for row in rows), value, note)


def _cell(cell: str | float | int) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    return "–" if not np.isfinite(cell) else f"{cell:,.4f}"
