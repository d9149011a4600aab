"""What the benchmark prints: one table per data set, one line per method, and the targets beneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from real_data import DataSet


class Scored(Protocol):
    """A method's actions (n,) on the test rows, and how long it took to get there."""

    @property
    def name(self) -> str: ...
    @property
    def actions(self) -> NDArray[Any]: ...
    @property
    def fit_s(self) -> float: ...


@dataclass
class Line:
    """One method on one data set, over the splits: savings in percent, cost per 1,000 decisions, seconds to fit."""

    name: str
    savings: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    fit_s: list[float] = field(default_factory=list)
    more: dict[str, list[float]] = field(default_factory=dict)
    row_se: float = 0.0

    @property
    def mean(self) -> float:
        return float(np.mean(self.savings))

    @property
    def se(self) -> float:
        return self.row_se or standard_error(self.savings)

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "savings_pct": self.mean,
            "se": self.se,
            "by_split": self.savings,
            "cost_per_1000": float(np.mean(self.cost)),
            "fit_s": float(np.mean(self.fit_s)),
            **{key: values for key, values in self.more.items()},
        }


@dataclass
class Table:
    """All methods on one data set, in the order in which they came."""

    title: str
    unit: str
    lines: dict[str, Line] = field(default_factory=dict)

    def add(self, entry: Scored, test: DataSet, **more: float) -> None:
        line = self.lines.setdefault(entry.name, Line(entry.name))
        line.savings.append(100 * test.savings(entry.actions))
        line.cost.append(1000 * float(test.cost(entry.actions).mean()))
        line.fit_s.append(entry.fit_s)
        for key, value in more.items():
            line.more.setdefault(key, []).append(value)

    def text(self) -> str:
        keys = list(dict.fromkeys(key for line in self.lines.values() for key in line.more))
        head = f"{'':44s} {'savings %':>14s} {f'{self.unit} per 1,000':>16s} {'fit s':>7s}"
        rows = [self.title, head + "".join(f" {key:>22s}" for key in keys)]
        for line in self.lines.values():
            more = "".join(
                f" {', '.join(f'{value:.3f}' for value in line.more.get(key, [])):>22s}" for key in keys
            )
            rows.append(
                f"{line.name:44s} {line.mean:7.2f} ± {line.se:4.2f} {np.mean(line.cost):16,.1f} "
                f"{np.mean(line.fit_s):7.1f}{more}"
            )
        return "\n".join(rows)


@dataclass(frozen=True)
class Target:
    """What the issue asks, what was found, and whether that meets it."""

    asked: str
    found: str
    is_met: bool


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of several splits; 0 for one."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
