"""What a decision rule must keep to, whatever it earns: bounds on utility, people, rates and group gaps.

Each constraint belongs to a domain (revenue, safety, …), whose owner answers for it. Bounds are inclusive.
Too little evidence never passes: a value that cannot be computed is None, and None is not held.
Must never import: anything but numpy; no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ConstraintKind = Literal["utility", "stakeholder_utility", "action_rate", "action_rate_gap"]


@dataclass(frozen=True)
class Constraint:
    """One bound. `utility` and `stakeholder_utility` are means per decision, in the spec's unit (`at_least`);
    `action_rate` is a share of decisions, `action_rate_gap` the absolute difference of that share between the
    rows whose `group_field` is <= `group_up_to` (group a) and the others (group b) (`at_most`)."""

    name: str
    kind: ConstraintKind
    domain: str
    rationale: str
    at_least: float | None = None
    at_most: float | None = None
    stakeholder: str | None = None
    action: str | None = None
    group_field: str | None = None
    group_up_to: float | None = None

    @property
    def bound_text(self) -> str:
        """`>= -0.4` or `<= 0.15`."""
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"

    def in_group_a(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """`(n,)`: which rows are of group a (up to the bound, inclusive).

        Raises ValueError if the constraint has no groups, the field is missing, or a value is not finite.
        """
        if self.group_field is None or self.group_up_to is None:
            raise ValueError(f"constraint '{self.name}' has no groups")
        if self.group_field not in columns:
            raise ValueError(f"constraint '{self.name}' needs field '{self.group_field}'")
        values = np.asarray(columns[self.group_field], dtype=np.float64)
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"field '{self.group_field}' must be finite: {values[row]} in row {row}")
        return np.asarray(values <= self.group_up_to)

    def is_held(self, value: float | None) -> bool:
        """Whether a measured value keeps the bound; a missing or non-finite one does not."""
        if value is None or not np.isfinite(value):
            return False
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class ConstraintResult:
    """A constraint measured on n decisions; `value` is None where there was nothing to measure."""

    constraint: Constraint
    value: float | None
    is_held: bool
    n: int

    def sentence(self) -> str:
        """`call_rate_gap_by_age: 0.056 must be <= 0.15 (n = 18085): held`."""
        shown = "no data" if self.value is None else f"{self.value:.4g}"
        verdict = "held" if self.is_held else "broken"
        return (
            f"{self.constraint.name}: {shown} must be {self.constraint.bound_text} (n = {self.n}): {verdict}"
        )


def measure_constraints(
    constraints: Sequence[Constraint],
    columns: Mapping[str, NDArray[Any]],
    *,
    actions: NDArray[np.intp],
    action_names: Sequence[str],
    utilities: NDArray[np.float64],
    stakeholder_utilities: Mapping[str, NDArray[np.float64]],
) -> tuple[ConstraintResult, ...]:
    """Measure each constraint on the same n decisions.

    `actions` (n,) are indices into `action_names`; `utilities` (n,) and each of `stakeholder_utilities` (n,)
    are realised payoffs per decision. A group without rows leaves its gap unmeasured.
    """
    results = []
    for constraint in constraints:
        value: float | None = None
        if len(actions):
            value = _value(constraint, columns, actions, action_names, utilities, stakeholder_utilities)
        results.append(ConstraintResult(constraint, value, constraint.is_held(value), len(actions)))
    return tuple(results)


def _value(
    constraint: Constraint,
    columns: Mapping[str, NDArray[Any]],
    actions: NDArray[np.intp],
    action_names: Sequence[str],
    utilities: NDArray[np.float64],
    stakeholder_utilities: Mapping[str, NDArray[np.float64]],
) -> float | None:
    if constraint.kind == "utility":
        return float(utilities.mean())
    if constraint.kind == "stakeholder_utility":
        return float(stakeholder_utilities[str(constraint.stakeholder)].mean())
    taken = actions == list(action_names).index(str(constraint.action))
    if constraint.kind == "action_rate":
        return float(taken.mean())
    in_a = constraint.in_group_a(columns)
    if in_a.all() or not in_a.any():
        return None
    return float(abs(taken[in_a].mean() - taken[~in_a].mean()))
