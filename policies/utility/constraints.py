"""What a decision rule must keep to, whatever it earns: bounds on utility, people, rates, counts and group gaps.

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

ConstraintKind = Literal[
    "utility",
    "stakeholder_utility",
    "action_rate",
    "rate_among",
    "precision",
    "capacity",
    "action_rate_gap",
    "rate_among_gap",
    "precision_gap",
    "latency",
]
DEFAULT_ERROR_BUDGET = 0.05
"""Of a domain that states none: files older than the key must stay readable, they travel in releases."""


@dataclass(frozen=True)
class Constraint:
    """One bound, inclusive: `at_least` or `at_most`, never both.

    `utility`, `stakeholder_utility`: means per decision, in the spec's unit. `action_rate`: the share of decisions with
    `action`. `rate_among`: that share among the decisions whose outcome is `among` (a false-positive or false-decline
    rate, or a recall). `precision`: the share of `outcome` among the decisions with `action`. `capacity`: the count of
    `action` in `decisions` decisions, which is what comes in `period_s` seconds. `*_gap`: the absolute difference of
    such a rate between group a, the rows whose `group_field` is <= `group_up_to` or is `group_value`, and the others;
    `group_prices`: whether groups may be treated by rules of their own to hold it. `latency`: seconds within which the
    `share` of answers must come; it is judged live, never on recorded rows.
    `error_budget`: the chance that the bound is broken where an operating point is said to hold it.
    """

    name: str
    kind: ConstraintKind
    domain: str
    rationale: str
    at_least: float | None = None
    at_most: float | None = None
    stakeholder: str | None = None
    action: str | None = None
    among: str | None = None
    outcome: str | None = None
    group_field: str | None = None
    group_up_to: float | None = None
    group_value: str | None = None
    group_prices: bool = False
    period_s: float | None = None
    decisions: int | None = None
    share: float | None = None
    error_budget: float = DEFAULT_ERROR_BUDGET

    @property
    def bound_text(self) -> str:
        """`>= -0.4` or `<= 0.15`."""
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"

    @property
    def is_live(self) -> bool:
        """Whether only live traffic can tell it."""
        return self.kind == "latency"

    @property
    def group_names(self) -> tuple[str, str]:
        """`age <= 30` and `age > 30`, or `sex = F` and `sex other than F`."""
        if self.group_value is not None:
            return (
                f"{self.group_field} = {self.group_value}",
                f"{self.group_field} other than {self.group_value}",
            )
        return f"{self.group_field} <= {self.group_up_to:g}", f"{self.group_field} > {self.group_up_to:g}"

    def in_group_a(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """`(n,)`: which rows are of group a (up to the bound, inclusive; or of that value).

        Raises ValueError if the constraint has no groups, the field is missing, or a value is missing or not finite.
        """
        if self.group_field is None:
            raise ValueError(f"constraint '{self.name}' has no groups")
        if self.group_field not in columns:
            raise ValueError(f"constraint '{self.name}' needs field '{self.group_field}'")
        return in_group_a(columns, self.group_field, up_to=self.group_up_to, value=self.group_value)

    def is_held(self, value: float | None) -> bool:
        """Whether a measured value keeps the bound; a missing or non-finite one does not."""
        if value is None or not np.isfinite(value):
            return False
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)


def in_group_a(
    columns: Mapping[str, NDArray[Any]], field: str, *, up_to: float | None, value: str | None
) -> NDArray[np.bool_]:
    """`(n,)`: which rows have `field` <= `up_to`, or, where that is None, are of `value`.

    Raises ValueError if the field is absent, or a value of it is missing or not finite.
    """
    if field not in columns:
        raise ValueError(f"field '{field}' is not among the columns: {', '.join(sorted(columns))}")
    if up_to is None:
        texts = np.asarray(columns[field], dtype=object)
        missing = (texts == None) | (texts != texts)  # noqa: E711 — by element
        if missing.any():
            raise ValueError(f"field '{field}' must have a value: row {int(missing.argmax())}")
        return np.asarray(texts == value, dtype=bool)
    numbers = np.asarray(columns[field], dtype=np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(f"field '{field}' must be finite: {numbers[row]} in row {row}")
    return np.asarray(numbers <= up_to)


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
    outcomes: NDArray[Any],
    outcome_names: Sequence[str],
    utilities: NDArray[np.float64],
    stakeholder_utilities: Mapping[str, NDArray[np.float64]],
) -> tuple[ConstraintResult, ...]:
    """Measure each constraint on the same n decisions; those that only live traffic can tell are left out.

    `actions` and `outcomes` (n,) are indices into their names, an outcome of -1 unknown; `utilities` (n,) and each of
    `stakeholder_utilities` (n,) are realised payoffs per decision. A rate among outcomes needs every outcome known. A
    group, an outcome or an action without rows leaves what is measured in it unmeasured.
    """
    results = []
    for one in constraints:
        if one.is_live:
            continue
        value: float | None = None
        if one.kind == "utility" and len(actions):
            value = float(utilities.mean())
        elif one.kind == "stakeholder_utility" and len(actions):
            value = float(stakeholder_utilities[str(one.stakeholder)].mean())
        elif len(actions):
            taken = actions == list(action_names).index(str(one.action))
            seen = {name: outcomes == at for at, name in enumerate(outcome_names)}
            value = _rate(one, taken, seen, columns, is_known=bool((outcomes >= 0).all()))
        results.append(ConstraintResult(one, value, one.is_held(value), len(actions)))
    return tuple(results)


def _rate(
    one: Constraint,
    taken: NDArray[np.bool_],
    seen: Mapping[str, NDArray[np.bool_]],
    columns: Mapping[str, NDArray[Any]],
    *,
    is_known: bool,
) -> float | None:
    """The rate, count or gap of an action from which rows took it (n,) and which showed each outcome (n,)."""
    if (one.among is not None or one.outcome is not None) and not is_known:
        return None
    if one.among is not None:
        part, whole = taken & seen[one.among], seen[one.among]
    elif one.outcome is not None:
        part, whole = taken & seen[one.outcome], taken
    else:
        part, whole = taken, np.ones(len(taken), dtype=bool)
    if one.group_field is None:
        share = _share(part, whole)
        return share if share is None or one.decisions is None else share * one.decisions
    in_a = one.in_group_a(columns)
    a, b = _share(part & in_a, whole & in_a), _share(part & ~in_a, whole & ~in_a)
    return None if a is None or b is None else abs(a - b)


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None
