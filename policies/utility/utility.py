"""What a decision is worth: payoffs of actions x outcomes per stakeholder, weighted; the one reference of it.

The training loss, operating point, alignment report and the canary gates take their payoffs from here.
Higher is better. Arrays are ordered as the file orders `actions` (A) and `outcomes` (O); n counts rows.
Source: expected utility over cost matrices that depend on the row, Elkan, "The Foundations of Cost-Sensitive
Learning", IJCAI 2001. Must never import: anything but numpy and policies; no clock, no I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from policies.language.digest import canonical_sha256
from policies.language.expression import ExpressionError
from policies.language.yaml_source import Document, Issue, PolicyError, load_document, parse
from policies.utility.constraint_file import constraint_of
from policies.utility.constraints import DEFAULT_ERROR_BUDGET, Constraint
from policies.utility.contradictions import contradictions
from policies.utility.spec_parts import (
    Abstention,
    Change,
    Domain,
    Hypothesis,
    Quantity,
    Satisfaction,
    Stakeholder,
    quantity_of,
    stakeholder_of,
)
from policies.utility.utility_file import UtilityFile
from policies.utility.utility_mistakes import cross_check

Floats: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = Mapping[str, NDArray[Any]]

_ROUNDING = 1e-9  # payoffs are in currency units; a sum of a few of them is exact to far less
_UNKNOWN = -1


class UtilityError(ValueError):
    """Rows, probabilities or outcomes that the utility spec cannot price."""


@dataclass(frozen=True)
class UtilitySpec:
    """A checked `utility.yaml`.

    `range` bounds every weighted payoff, inclusive, in `unit`; `fields` are what the payoffs read of a row, `hidden`
    those of them that nobody knows yet when deciding;
    `domains` gives each domain's owner and error budget; `warnings` are lawful but suspicious; `digest` covers the
    meaning, not the layout.
    """

    service: str
    version: int
    owner: str
    review_by: date
    unit: str
    actions: tuple[str, ...]
    outcomes: tuple[str, ...]
    default_action: str
    outcome_known_after: tuple[str, ...]
    range: tuple[float, float]
    quantities: tuple[Quantity, ...]
    stakeholders: tuple[Stakeholder, ...]
    domains: Mapping[str, Domain]
    constraints: tuple[Constraint, ...]
    changelog: tuple[Change, ...]
    abstain: Abstention | None
    satisfaction: Satisfaction | None
    hypotheses: tuple[Hypothesis, ...]
    fields: tuple[str, ...]
    digest: str
    hidden: tuple[str, ...] = ()
    warnings: tuple[Issue, ...] = ()

    @property
    def amounts(self) -> tuple[str, ...]:
        """The measured amounts that may come with outcomes: of quantities, and of fields hidden when deciding."""
        told = [one.measured.amount for one in self.quantities if one.measured is not None]
        return tuple(dict.fromkeys((*told, *self.hidden)))

    @property
    def default_index(self) -> int:
        """The index of the default action."""
        return self.actions.index(self.default_action)

    def stakeholder_payoffs(self, columns: Columns) -> dict[str, Floats]:
        """Each stakeholder's own, unweighted payoffs, `(n, A, O)` each, in `unit`.

        Raises UtilityError naming stakeholder, cell, field and row where a payoff cannot be computed.
        """
        n = _rows(columns)
        return {stakeholder.name: self._tensor(stakeholder, columns, n) for stakeholder in self.stakeholders}

    def payoffs(self, columns: Columns) -> Floats:
        """The weighted sum over the stakeholders, `(n, A, O)`, in `unit`.

        Raises UtilityError as stakeholder_payoffs does, and where a payoff leaves the declared range.
        """
        n = _rows(columns)
        total = np.zeros((n, len(self.actions), len(self.outcomes)))
        for stakeholder in self.stakeholders:
            if stakeholder.weight:
                total += stakeholder.weight * self._tensor(stakeholder, columns, n)
        self._check_range(total, columns)
        return total

    def _tensor(self, stakeholder: Stakeholder, columns: Columns, n: int) -> Floats:
        tensor = np.empty((n, len(self.actions), len(self.outcomes)))
        for a, row in enumerate(stakeholder.payoffs):
            for o, cell in enumerate(row):
                try:
                    tensor[:, a, o] = cell.evaluate(columns)
                except ExpressionError as error:
                    where = f"payoff {self.actions[a]} x {self.outcomes[o]} of '{stakeholder.name}'"
                    raise UtilityError(f"{where}, `{cell.text}`: {error}") from error
        return tensor

    def _check_range(self, total: Floats, columns: Columns) -> None:
        low, high = self.range
        if total.size and total.min() >= low - _ROUNDING and total.max() <= high + _ROUNDING:
            return
        outside = (total < low - _ROUNDING) | (total > high + _ROUNDING)
        if not outside.any():
            return
        row, a, o = (int(i) for i in np.argwhere(outside)[0])
        value = float(total[row, a, o])
        bound = f">= {low:g}" if value < low else f"<= {high:g}"
        names = sorted({f for s in self.stakeholders if s.weight for f in s.payoffs[a][o].fields})
        fields = ", ".join(f"{name} = {columns[name][row]}" for name in names) or "no field"
        raise UtilityError(
            f"payoff {self.actions[a]} x {self.outcomes[o]} must be {bound} {self.unit} "
            f"(the declared range): {value:g} in row {row}, from {fields}"
        )


def load_utility(text: str, source: str) -> UtilitySpec:
    """Read a `utility.yaml`; `source` names it in messages.

    Raises PolicyError with every mistake at once, each with file, line and column.
    """
    document = load_document(text, source)
    file = parse(document, UtilityFile)
    issues = cross_check(file, document) or contradictions(file, document)
    if issues:
        raise PolicyError(tuple(sorted(issues, key=lambda i: (i.line, i.column))))
    stakeholders = tuple(stakeholder_of(one, file) for one in file.stakeholders)
    cells = [cell for stakeholder in stakeholders for row in stakeholder.payoffs for cell in row]
    return UtilitySpec(
        service=file.service,
        version=file.version,
        owner=file.owner,
        review_by=file.review_by,
        unit=file.unit,
        actions=file.actions,
        outcomes=file.outcomes,
        default_action=file.default_action,
        outcome_known_after=file.outcome_known_after,
        range=(file.range.low, file.range.high),
        quantities=tuple(quantity_of(one, file) for one in file.quantities),
        stakeholders=stakeholders,
        domains=_domains(file),
        constraints=_constraints(file),
        changelog=tuple(Change(one.version, one.date, one.who, one.why) for one in file.changelog),
        abstain=None if file.abstain is None else Abstention(**file.abstain.model_dump()),
        satisfaction=None
        if file.user_satisfaction is None
        else Satisfaction(**file.user_satisfaction.model_dump()),
        hypotheses=tuple(Hypothesis(**one.model_dump()) for one in file.hypotheses),
        fields=tuple(sorted({field for cell in cells for field in cell.fields})),
        digest=canonical_sha256(document.data),
        hidden=file.hidden_when_deciding,
        warnings=_warnings(file, document),
    )


def expected_utility(payoffs: Floats, probabilities: NDArray[Any]) -> Floats:
    """The expected payoff of each action, `(n, A)`, from payoffs `(n, A, O)` and probabilities `(n, O)`.

    Raises UtilityError if shapes disagree or a row of probabilities is no distribution (sum 1 within 1e-5).
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    if payoffs.ndim != 3 or chances.shape != (payoffs.shape[0], payoffs.shape[2]):
        raise UtilityError(
            f"payoffs (n, A, O) and probabilities (n, O) disagree: {payoffs.shape}, {chances.shape}"
        )
    sums_to_one = np.abs(chances @ np.ones(chances.shape[1]) - 1) <= 1e-5
    if not (sums_to_one.all() and (chances >= 0).all()):
        row = int(np.flatnonzero(~(sums_to_one & (chances >= 0).all(axis=1)))[0])
        raise UtilityError(f"probabilities must be >= 0 and sum to 1: {chances[row].tolist()} in row {row}")
    return np.asarray(np.einsum("nao,no->na", payoffs, chances))


def best_action(payoffs: Floats, probabilities: NDArray[Any], *, default_action: int = 0) -> NDArray[np.intp]:
    """The action of highest expected utility, `(n,)`; in a tie the default action if it is among the best,
    else the lowest index. Raises UtilityError as expected_utility does."""
    return highest(expected_utility(payoffs, probabilities), default_action=default_action)


def highest(utilities: Floats, *, default_action: int) -> NDArray[np.intp]:
    """The index of the greatest of each row of `(n, A)`, `(n,)`; ties as in best_action."""
    best = np.full(len(utilities), default_action, dtype=np.intp)
    greatest = utilities[:, default_action].copy()
    for action in range(utilities.shape[1]):  # a few actions, many rows: faster than along the rows
        is_better = utilities[:, action] > greatest
        best[is_better] = action
        np.maximum(greatest, utilities[:, action], out=greatest)
    return best


def realised_utility(payoffs: Floats, actions: NDArray[Any], outcomes: NDArray[Any]) -> Floats:
    """What each decision earned, `(n,)`: payoffs `(n, A, O)` at actions `(n,)` and outcomes `(n,)`.

    An outcome of -1 is unknown, which is allowed where the payoff of the action taken does not depend on it.
    Raises UtilityError for another unknown outcome, an index out of range, or shapes that disagree.
    """
    n, action_count, outcome_count = payoffs.shape
    if actions.shape != (n,) or outcomes.shape != (n,):
        raise UtilityError(f"actions and outcomes must have shape ({n},): {actions.shape}, {outcomes.shape}")
    for name, index, low, count in (
        ("action", actions, 0, action_count),
        ("outcome", outcomes, -1, outcome_count),
    ):
        wrong = (index < low) | (index >= count)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise UtilityError(f"{name} must be an index below {count}: {index[row]} in row {row}")
    unknown = np.flatnonzero(outcomes == _UNKNOWN)
    matters = ~outcome_free(payoffs[unknown])[np.arange(len(unknown)), actions[unknown]]
    if matters.any():
        row = int(unknown[matters][0])
        raise UtilityError(f"the outcome must be known where the payoff depends on it: row {row}")
    return np.asarray(payoffs[np.arange(n), actions, np.maximum(outcomes, 0)], dtype=np.float64)


def outcome_free(payoffs: Floats) -> NDArray[np.bool_]:
    """Where the payoff of an action `(n, A)` is the same for every outcome: it is known without one."""
    return np.asarray((payoffs == payoffs[:, :, :1]).all(axis=2))


def _rows(columns: Columns) -> int:
    if not columns:
        raise UtilityError("there are no columns, so the number of rows is unknown")
    return len(next(iter(columns.values())))


def _domains(file: UtilityFile) -> dict[str, Domain]:
    return {
        one.name: Domain(one.owner, DEFAULT_ERROR_BUDGET if one.error_budget is None else one.error_budget)
        for one in file.domains
    }


def _constraints(file: UtilityFile) -> tuple[Constraint, ...]:
    """Each with its part of its domain's error budget, which is split evenly (Bonferroni)."""
    budgets = _domains(file)
    count = Counter(one.domain for one in file.constraints)
    return tuple(
        constraint_of(one, error_budget=budgets[one.domain].error_budget / count[one.domain])
        for one in file.constraints
    )


def _warnings(file: UtilityFile, document: Document) -> tuple[Issue, ...]:
    """A payoff that needs an outcome which its own action keeps unknown cannot be compared live."""
    return tuple(
        document.issue(
            ("stakeholders", at, "payoffs", action),
            f"depends on the outcome, which is known only after {', '.join(file.outcome_known_after)}: "
            "no live comparison can use it",
            of_key=True,
        )
        for at, stakeholder in enumerate(file.stakeholders)
        for action, row in stakeholder.payoffs.items()
        if action not in file.outcome_known_after and len(set(row.values())) > 1
    )
