"""What alignment found, frozen: the numbers the gates judge and the tables the report draws. numpy only."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policies.gates.evidence import Measured
from policies.operating.point_proof import PointProof
from policies.utility.constraints import ConstraintResult
from services.alignment.near_threshold import NearThreshold

HINDSIGHT = "hindsight"


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
    """One stakeholder's own, unweighted utility per decision under the operating point, and the champion's.

    `agrees`: the share of decisions that the stakeholder's payoffs alone would have taken, at the same probabilities.
    """

    name: str
    weight: float
    utility: Measured
    champion: Measured | None
    agrees: float


@dataclass(frozen=True)
class GroupRow:
    """One group of a constraint: its rows, the rate of the constraint's action, its utility per decision.

    `decided_best`: the share of decisions that hindsight would not change; `regret`: what hindsight would have earned
    more per decision. `utility` is None for a group without rows, and the rates are NaN.
    """

    constraint: str
    group: str
    rows: int
    action_rate: float
    utility: Measured | None
    decided_best: float
    regret: float


@dataclass(frozen=True)
class DomainRow:
    """A domain's constraints on these rows: how many are kept of how many, and the one with the least room left."""

    name: str
    owner: str
    error_budget: float
    kept: int
    of: int
    tightest: str


@dataclass(frozen=True)
class FoldRow:
    """Rows of one month, or of a tenth of the rows in order: utility per decision, in force and of the champion."""

    name: str
    rows: int
    action_rate: float
    utility: Measured
    champion: Measured | None
    hindsight: float


@dataclass(frozen=True)
class HypothesisRow:
    """What was expected and what came: `kept` and `refuted` where the whole interval says so, else `open`;
    `not measured` where the metric is measured elsewhere."""

    name: str
    statement: str
    owner: str
    registered: str
    expected: str
    measured: Measured | None
    verdict: Literal["kept", "refuted", "open", "not measured"]


@dataclass(frozen=True)
class Misplacement:
    """Utility lost per 1,000 decisions (m,), with its interval, where the decision is off by `off_by` (m,) `of`.

    `near` is the mean loss where it is off by `near_off` either way: 0.01 in probability, 1 in another unit, or less
    where the rows lie closer than that to their thresholds.
    """

    of: str
    off_by: NDArray[np.float64]
    lost: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    near_off: float
    near: float


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
    regrets: Mapping[str, Measured]
    domains: tuple[DomainRow, ...]
    folds: tuple[FoldRow, ...]
    misplacement: Misplacement | None
    hypotheses: tuple[HypothesisRow, ...]
    proof: PointProof | None

    def measured(self) -> dict[str, Measured]:
        """The metrics of the alignment gates; one that could not be measured is absent, never zero.

        `<stakeholder>_utility` for each stakeholder; `group_call_rate_gap` is the widest gap of any constraint;
        `constraints_broken` counts those that the point's proof shows broken, on validation rows or on these.
        """
        found = {"gain_over_trivial": self.gain_over_trivial, "alignment_gap": self.alignment_gap}
        if self.gain_over_champion is not None:
            found["gain_over_champion"] = self.gain_over_champion
        if self.proof is not None:
            found["constraints_broken"] = Measured(float(len(self.proof.broken)), n=self.n)
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
                    "decided_best": _finite(g.decided_best),
                    "regret": _finite(g.regret),
                }
                for g in self.groups
            ],
            "constraints": [result.sentence() for result in self.constraints],
            "regrets": {name: dict(vars(value)) for name, value in self.regrets.items()},
            "domains": [asdict(row) for row in self.domains],
            "folds": [asdict(row) for row in self.folds],
            "hypotheses": [asdict(row) for row in self.hypotheses],
            "lost_when_off": None
            if self.misplacement is None
            else {"off_by": self.misplacement.near_off, "lost_per_1000": self.misplacement.near},
            "near_threshold": None if self.near_threshold is None else self.near_threshold.to_json(),
        }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
