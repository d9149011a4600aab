"""What a stage report shows besides Evidently's own metrics: tables and curves, as plain values.

A panel carries one headline number (its value over the runs shows on Evidently's dashboard) and what to
draw. Colours are fixed by role here, so that the candidate has the same colour in every report: blue is
the candidate, grey the stable release or the reference, amber the rule in force. Must never import:
evidently, plotly, pandas.
"""

from collections.abc import Mapping
from dataclasses import dataclass

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
    """Lines over a common axis with marks, and horizontal levels to compare them with; `x_ticks` name x = 0, 1, 2, …"""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    value: float
    marks: tuple[Mark, ...] = ()
    levels: tuple[tuple[str, float], ...] = ()
    note: str = ""
    is_log_x: bool = False
    x_ticks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ends:
    """One column of a tornado: a quantity at both ends of each row's range (m,), against its value as things stand."""

    x_label: str
    stands: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Tornado:
    """Rows (m,), the greatest effect first, each with what becomes of every column at the ends of its range."""

    title: str
    names: tuple[str, ...]
    columns: tuple[Ends, ...]
    value: float
    note: str = ""


Panel = Table | Curve | Tornado
