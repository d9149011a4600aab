"""What alignment found, frozen: the numbers the gates judge and the tables the report draws. numpy only."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.constraints import ConstraintResult
from policies.evidence import Measured
from services.alignment.near_threshold import NearThreshold


@dataclass(frozen=True)
class UtilityCurve:
    """Utility per decision and action rate (m,) against one number: a constant threshold, or a shift in EUR."""

    turns_on: str
    setting: NDArray[np.float64]
    utility: NDArray[np.float64]
    action_rate: NDArray[np.float64]

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe dict, for tables and plots."""
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in vars(self).items()}


@dataclass(frozen=True)
class PolicyRow:
    """One rule or release on the evaluation rows: utility per decision with interval, share not left to default."""

    name: str
    utility: Measured
    action_rate: float


@dataclass(frozen=True)
class StakeholderRow:
    """One stakeholder's own, unweighted utility per decision under the operating point, and the champion's."""

    name: str
    weight: float
    utility: Measured
    champion: Measured | None


@dataclass(frozen=True)
class GroupRow:
    """One group of a constraint: its rows, the rate of the constraint's action, its utility per decision.

    `utility` is None for a group without rows.
    """

    constraint: str
    group: str
    rows: int
    action_rate: float
    utility: Measured | None


@dataclass(frozen=True)
class AlignmentReport:
    """The operating point in force against everything else, on the same n rows.

    Utilities are per decision in `unit`, higher is better; `alignment_gap` is lost utility per 1,000 decisions, lower
    is better and never negative. Its estimate is the best rule found on these very rows, so it errs on the high side.
    """

    n: int
    unit: str
    in_force: PolicyRow
    champion: PolicyRow | None
    trivial: tuple[PolicyRow, ...]
    best_trivial: str
    best_constant_threshold: PolicyRow | None
    best_rule: str
    gain_over_trivial: Measured
    gain_over_champion: Measured | None
    alignment_gap: Measured
    disagreement: float | None
    group_gaps: Mapping[str, Measured]
    groups: tuple[GroupRow, ...]
    stakeholders: tuple[StakeholderRow, ...]
    constraints: tuple[ConstraintResult, ...]
    near_threshold: NearThreshold | None
    curves: tuple[UtilityCurve, ...]

    def measured(self) -> dict[str, Measured]:
        """The metrics of the alignment gates; one that could not be measured is absent, never zero.

        `<stakeholder>_utility` for each stakeholder; `group_call_rate_gap` is the widest gap of any constraint.
        """
        found = {"gain_over_trivial": self.gain_over_trivial, "alignment_gap": self.alignment_gap}
        if self.gain_over_champion is not None:
            found["gain_over_champion"] = self.gain_over_champion
        if self.group_gaps:
            found["group_call_rate_gap"] = max(self.group_gaps.values(), key=lambda gap: gap.value)
        return found | {f"{row.name}_utility": row.utility for row in self.stakeholders}

    def record(self) -> dict[str, object]:
        """What the ledger keeps: JSON-safe, without the curves."""
        rows = [
            self.in_force,
            *self.trivial,
            *(r for r in (self.champion, self.best_constant_threshold) if r),
        ]
        return {
            "n": self.n,
            "unit": self.unit,
            "best_trivial": self.best_trivial,
            "best_rule": self.best_rule,
            "disagreement": self.disagreement,
            "measured": {name: dict(vars(value)) for name, value in self.measured().items()},
            "policies": [
                {"name": r.name, "utility": dict(vars(r.utility)), "action_rate": r.action_rate} for r in rows
            ],
            "groups": [
                {
                    "constraint": g.constraint,
                    "group": g.group,
                    "rows": g.rows,
                    "action_rate": _finite(g.action_rate),
                }
                for g in self.groups
            ],
            "constraints": [result.sentence() for result in self.constraints],
            "near_threshold": None if self.near_threshold is None else self.near_threshold.to_json(),
        }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
