"""Rows that a model has scored and whose outcomes are known, held so that a rule can be tallied on them many times.

Per action and row: the expected payoff, and what the row's own outcome made of it; of the weighted sum and of each
stakeholder that a constraint bounds. Rows are priced in pieces, so that memory holds these arrays and not the payoffs
(n, A, O); above a million rows they are float32, whose rounding turns one action in some millions (the proof of a point
is measured by the rule itself, in float64). Arrays are (A, n) or (O, n): a pass reads along rows.
Must never import: anything but numpy and policies; no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.operating.margins import MeanSums, Tally
from policies.utility.constraints import Constraint
from policies.utility.utility import Columns, UtilityError, UtilitySpec

PIECE = 131_072  # rows: a few arrays of it stay in the processor's cache
EXACT_ROWS = 1_000_000

Arrays = NDArray[Any]


@dataclass
class Prices:
    """What is added before choosing: `cells` (A, O) for all rows; by constraint (cells of group a, of b); and the
    stakeholders' further weights."""

    cells: NDArray[np.float64]
    groups: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)
    stakeholders: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredRows:
    """`probabilities` (O, n), `outcomes` (n,); `expected` and `realised` (A, n) by stakeholder name, "" for the
    weighted sum; `in_a` (n,) by constraint name."""

    actions: tuple[str, ...]
    outcome_names: tuple[str, ...]
    default: int
    span: float
    probabilities: Arrays
    outcomes: Arrays
    expected: Mapping[str, Arrays]
    realised: Mapping[str, Arrays]
    in_a: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(
        cls,
        utility: UtilitySpec,
        columns: Columns,
        *,
        probabilities: Arrays,
        outcomes: Arrays,
        decided_on: Columns | None = None,
    ) -> ScoredRows:
        """Price rows: `columns` hold what payoffs and groups read, probabilities (n, O), outcomes (n,) all known.

        `decided_on`: the columns as a decision sees them, where that differs: expected payoffs are theirs.
        Raises UtilityError as UtilitySpec.payoffs does, and for rows that do not agree or lack an outcome.
        """
        n, o = len(outcomes), len(utility.outcomes)
        if not n or probabilities.shape != (n, o):
            raise UtilityError(f"probabilities must be ({n}, {o}) with n > 0: {probabilities.shape}")
        if ((outcomes < 0) | (outcomes >= o)).any():
            raise UtilityError("every row must have a known outcome")
        kind = np.float64 if n <= EXACT_ROWS else np.float32
        names = ["", *sorted({str(c.stakeholder) for c in utility.constraints if c.stakeholder})]
        shape = (len(utility.actions), n)
        expected = {name: np.empty(shape, kind) for name in names}
        realised = {name: np.empty(shape, kind) for name in names}
        for piece in pieces(n):
            payoffs = _payoffs(utility, columns, piece, has_stakeholders=len(names) > 1)
            believed = payoffs
            if decided_on is not None:
                believed = _payoffs(utility, decided_on, piece, has_stakeholders=len(names) > 1)
            p = np.asarray(probabilities[piece], dtype=np.float64)
            at = np.arange(len(p))
            for name in names:
                expected[name][:, piece] = np.einsum("nao,no->an", believed[name], p)
                realised[name][:, piece] = payoffs[name][at, :, outcomes[piece]].T
        grouped = [c for c in utility.constraints if c.group_field is not None]
        try:
            in_a = {c.name: c.in_group_a(columns) for c in grouped}
        except ValueError as error:
            raise UtilityError(str(error)) from error
        low, high = utility.range
        return cls(
            actions=utility.actions,
            outcome_names=utility.outcomes,
            default=utility.default_index,
            span=high - low,
            probabilities=np.ascontiguousarray(probabilities.T, dtype=kind),
            outcomes=outcomes.astype(np.int8),
            expected=expected,
            realised=realised,
            in_a=in_a,
        )

    def __len__(self) -> int:
        return len(self.outcomes)

    def some(self, rows: NDArray[np.intp]) -> ScoredRows:
        """These rows only, in float64."""
        return ScoredRows(
            actions=self.actions,
            outcome_names=self.outcome_names,
            default=self.default,
            span=self.span,
            probabilities=self.probabilities[:, rows].astype(np.float64),
            outcomes=self.outcomes[rows],
            expected={name: a[:, rows].astype(np.float64) for name, a in self.expected.items()},
            realised={name: a[:, rows].astype(np.float64) for name, a in self.realised.items()},
            in_a={name: a[rows] for name, a in self.in_a.items()},
        )

    def tally(self, prices: Prices, *, means: Collection[str]) -> Tally:
        """What the best action of each row under `prices` does on all rows; `means`: whose payoffs are summed."""
        return tally_of(
            ((piece, self._best(prices, piece)) for piece in pieces(len(self))), self, means=means
        )

    def _best(self, prices: Prices, piece: slice) -> NDArray[np.int8]:
        best, actions = (
            self._score(prices, self.default, piece),
            np.full(len(self.outcomes[piece]), self.default, dtype=np.int8),
        )
        for action in range(len(self.actions)):
            if action != self.default:
                score = self._score(prices, action, piece)
                better = score > best
                actions[better] = action
                np.maximum(best, score, out=best)
        return actions

    def _score(self, prices: Prices, action: int, piece: slice) -> Arrays:
        score = self.expected[""][action, piece].copy()
        for outcome, price in enumerate(prices.cells[action]):
            if price:
                score += score.dtype.type(price) * self.probabilities[outcome, piece]
        for name, weight in prices.stakeholders.items():
            score += score.dtype.type(weight) * self.expected[name][action, piece]
        for name, (for_a, for_b) in prices.groups.items():
            in_a = self.in_a[name][piece]
            for outcome in range(len(self.outcome_names)):
                if for_a[action, outcome] or for_b[action, outcome]:
                    price = np.where(in_a, for_a[action, outcome], for_b[action, outcome])
                    score += price.astype(score.dtype) * self.probabilities[outcome, piece]
        return score


def _payoffs(
    utility: UtilitySpec, columns: Columns, piece: slice, *, has_stakeholders: bool
) -> dict[str, Arrays]:
    """(n, A, O) of a piece's rows: the weighted sum under "", each stakeholder's by name."""
    some = {name: values[piece] for name, values in columns.items()}
    own = utility.stakeholder_payoffs(some) if has_stakeholders else {}
    return {"": utility.payoffs(some), **own}


def pieces(n: int) -> Iterator[slice]:
    """Slices that cover n rows."""
    return (slice(start, min(start + PIECE, n)) for start in range(0, n, PIECE))


def tally_of(
    chosen: Iterable[tuple[slice, NDArray[Any]]], rows: ScoredRows, *, means: Collection[str]
) -> Tally:
    """The tally of actions (indices), given piece by piece; `means` names whose payoffs are summed."""
    shape = (len(rows.actions), len(rows.outcome_names))
    counts = np.zeros(shape, dtype=np.int64)
    in_a = {name: np.zeros(shape, dtype=np.int64) for name in rows.in_a}
    sums = {name: np.zeros(2) for name in means}
    n = 0
    for piece, actions in chosen:
        cell = actions.astype(np.intp) * shape[1] + rows.outcomes[piece]
        counts += np.bincount(cell, minlength=counts.size).reshape(shape)
        for name, member in rows.in_a.items():
            in_a[name] += np.bincount(cell[member[piece]], minlength=counts.size).reshape(shape)
        for name in sums:
            earned = _earned(rows.realised[name][:, piece], actions)
            sums[name] += earned.sum(dtype=np.float64), np.square(earned, dtype=np.float64).sum()
        n += len(actions)
    found = {name: MeanSums(n, float(total), float(squares)) for name, (total, squares) in sums.items()}
    return Tally(rows.actions, rows.outcome_names, counts, in_a, found)


def _earned(values: Arrays, actions: NDArray[Any]) -> Arrays:
    earned: Arrays = values[0]
    for action in range(1, len(values)):
        earned = np.where(actions == action, values[action], earned)
    return earned


def is_steerable(one: Constraint) -> bool:
    """Whether a price can move a rule towards this bound."""
    if one.kind in ("utility", "latency", "precision_gap"):
        return False
    return one.group_prices if one.group_field is not None else True
