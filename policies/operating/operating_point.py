"""The rule from probabilities to an action, fixed in a release: the best expected utility, under prices.

A price is what a constraint puts on an action, an outcome, a stakeholder or a group: payoffs are priced first, then the
best expected utility decides (`act iff p a >= (1 - p)(b + lambda)` for a bound on false positives). A shift is a price
on an action alone. No price is the Bayes rule of each row. Where the evidence does not tell the best action, a rule
with an abstention band takes its action instead (policies/operating/abstention.py).
Source: Elkan, "The Foundations of Cost-Sensitive Learning", IJCAI 2001 (the per-row threshold); the prices are Lagrange
multipliers (policies/operating/point_search.py finds them). Must never import: anything but numpy and policies; no
clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from policies.operating.abstention import AbstentionBand
from policies.operating.point_proof import PointProof
from policies.utility.constraints import in_group_a
from policies.utility.utility import Columns, Floats, UtilityError, UtilitySpec, expected_utility, highest

_BAYES: Literal["per_row_bayes"] = "per_row_bayes"
_KEYS = frozenset({"kind", "shift", "default_action"})
_MORE_KEYS = frozenset({"prices", "stakeholder_prices", "group_prices", "abstention", "proof"})

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class GroupPrices:
    """What is added to the payoffs `[action][outcome]` of group a (`field` <= `up_to`, or = `value`), and of b."""

    field: str
    up_to: float | None
    value: str | None
    a: Matrix
    b: Matrix


@dataclass(frozen=True)
class OperatingPoint:
    """`shift` has one finite entry per action, in the utility spec's order; ties go to `default_action`.

    `prices` `[action][outcome]`, added to every row's payoffs, and `stakeholder_prices`, added to the stakeholders'
    weights, are in the spec's unit; `proof` is for reading and changes no action.
    """

    shift: tuple[float, ...]
    default_action: int = 0
    kind: Literal["per_row_bayes"] = _BAYES
    prices: Matrix = ()
    stakeholder_prices: tuple[tuple[str, float], ...] = ()
    group_prices: tuple[GroupPrices, ...] = ()
    abstention: AbstentionBand | None = None
    proof: PointProof | None = None

    def __post_init__(self) -> None:
        if self.kind != _BAYES:
            raise UtilityError(f"kind must be '{_BAYES}': {self.kind!r}")
        if len(self.shift) < 2 or not all(math.isfinite(s) for s in self.shift):
            raise UtilityError(f"shift must be two finite numbers or more: {self.shift}")
        if not 0 <= self.default_action < len(self.shift):
            raise UtilityError(
                f"default_action must be an index below {len(self.shift)}: {self.default_action}"
            )
        tables = [self.prices, *(table for one in self.group_prices for table in (one.a, one.b))]
        for table in filter(None, tables):
            if len(table) != len(self.shift) or len({len(row) for row in table}) != 1:
                raise UtilityError(f"prices must have a row of equal length per action: {table}")
        numbers = [x for table in tables for row in table for x in row]
        if not all(math.isfinite(x) for x in (*numbers, *(price for _, price in self.stakeholder_prices))):
            raise UtilityError("every price must be finite")

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of a row that the prices read, beyond what the payoffs read."""
        return tuple(sorted({one.field for one in self.group_prices}))

    @property
    def is_priced(self) -> bool:
        """Whether anything but the payoffs decides: a shift, a price or an abstention band."""
        priced = self.prices or self.stakeholder_prices or self.group_prices or self.abstention
        return any(self.shift) or bool(priced)

    def priced(
        self, payoffs: Floats, *, utility: UtilitySpec | None = None, columns: Columns | None = None
    ) -> Floats:
        """The payoffs `(n, A, O)` with all prices added.

        `utility` and `columns` of the rows are needed where stakeholders or groups are priced. Raises UtilityError
        without them, where the number of actions or outcomes disagrees, and where a row's group cannot be told.
        """
        if payoffs.ndim != 3 or payoffs.shape[1] != len(self.shift):
            raise UtilityError(f"payoffs must have shape (n, {len(self.shift)}, O): {payoffs.shape}")
        total = payoffs + np.asarray(self.shift, dtype=np.float64)[:, None]
        if self.prices:
            total += self._table(self.prices, payoffs)
        if not (self.stakeholder_prices or self.group_prices):
            return total
        if utility is None or columns is None:
            raise UtilityError(
                "this operating point prices stakeholders or groups: it needs the rows' fields"
            )
        if self.stakeholder_prices:
            own = utility.stakeholder_payoffs(columns)
            for name, price in self.stakeholder_prices:
                if name not in own:
                    raise UtilityError(f"the operating point prices stakeholder '{name}', whom nobody knows")
                total += price * own[name]
        for one in self.group_prices:
            try:
                in_a = in_group_a(columns, one.field, up_to=one.up_to, value=one.value)
            except ValueError as error:
                raise UtilityError(f"the operating point tells groups: {error}") from error
            total += np.where(in_a[:, None, None], self._table(one.a, payoffs), self._table(one.b, payoffs))
        return total

    def choose(
        self,
        payoffs: Floats,
        probabilities: NDArray[Any],
        *,
        utility: UtilitySpec | None = None,
        columns: Columns | None = None,
    ) -> NDArray[np.intp]:
        """The action of each row, `(n,)`, from payoffs `(n, A, O)` and probabilities `(n, O)`.

        Raises UtilityError as priced and expected_utility do.
        """
        return self.choose_priced(self.priced(payoffs, utility=utility, columns=columns), probabilities)[0]

    def choose_priced(
        self, priced: Floats, probabilities: NDArray[Any], *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.intp], Floats]:
        """The action of each row `(n,)` from priced payoffs, and its lead `(n,)`: how far another one is, in the unit.

        allowed `(A,)`: the actions that may be taken at all, the default among them; None is all. With one action left
        the lead is infinite. Raises UtilityError as expected_utility does, and where the default is not allowed.
        """
        expected = expected_utility(priced, probabilities)
        if allowed is not None:
            if allowed.shape != (len(self.shift),) or not allowed[self.default_action]:
                raise UtilityError(f"'allowed' must hold the default action {self.default_action}: {allowed}")
            expected = np.where(allowed, expected, -np.inf)
        actions = highest(expected, default_action=self.default_action)
        first, second = expected[:, 0], np.full(len(expected), -np.inf)
        for action in range(1, expected.shape[1]):
            second = np.maximum(second, np.minimum(first, expected[:, action]))
            first = np.maximum(first, expected[:, action])
        lead = first - second
        if self.abstention is None or (allowed is not None and not allowed[self.abstention.action]):
            return actions, lead
        stake = self.abstention.stake(priced, probabilities, actions, allowed=allowed)
        abstains = (stake > self.abstention.least_stake) & (actions != self.abstention.action)
        from_abstaining = np.abs(stake - self.abstention.least_stake)
        lead = np.where(actions == self.abstention.action, lead, np.minimum(lead, from_abstaining))
        return np.where(abstains, self.abstention.action, actions).astype(np.intp), lead

    def threshold(
        self, payoffs: Floats, *, utility: UtilitySpec | None = None, columns: Columns | None = None
    ) -> Floats:
        """The threshold of each row, `(n,)`, as threshold_of says, for two actions under these prices."""
        return threshold_of(self.priced(payoffs, utility=utility, columns=columns))

    def without_proof(self) -> OperatingPoint:
        """The same rule, without what was proved of it: what an answer to a caller shows."""
        return replace(self, proof=None)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, JSON-safe; what the point does not have stands not in it."""
        found: dict[str, Any] = {
            "kind": self.kind,
            "shift": list(self.shift),
            "default_action": self.default_action,
        }
        if self.prices:
            found["prices"] = _lists(self.prices)
        if self.stakeholder_prices:
            found["stakeholder_prices"] = dict(self.stakeholder_prices)
        if self.group_prices:
            found["group_prices"] = [
                {**vars(one), "a": _lists(one.a), "b": _lists(one.b)} for one in self.group_prices
            ]
        if self.abstention is not None:
            found["abstention"] = self.abstention.to_json()
        if self.proof is not None:
            found["proof"] = self.proof.to_json()
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> OperatingPoint:
        """The inverse of to_json; raises UtilityError for anything else."""
        if not set(value) >= _KEYS or set(value) - _KEYS - _MORE_KEYS:
            raise UtilityError(f"an operating point has kind, shift and default_action: {sorted(value)}")
        shift = value["shift"]
        if not isinstance(shift, list) or not all(type(s) in (int, float) for s in shift):
            raise UtilityError(f"shift must be a list of numbers: {shift!r}")
        if type(value["default_action"]) is not int:
            raise UtilityError(f"default_action must be an index: {value['default_action']!r}")
        try:
            return cls(
                tuple(float(s) for s in shift),
                value["default_action"],
                value["kind"],
                prices=_matrix(value.get("prices", ())),
                stakeholder_prices=tuple(
                    (str(name), float(price)) for name, price in value.get("stakeholder_prices", {}).items()
                ),
                group_prices=tuple(
                    GroupPrices(
                        one["field"], one["up_to"], one["value"], _matrix(one["a"]), _matrix(one["b"])
                    )
                    for one in value.get("group_prices", ())
                ),
                abstention=AbstentionBand.from_json(value["abstention"]) if "abstention" in value else None,
                proof=PointProof.from_json(value["proof"]) if "proof" in value else None,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UtilityError(f"an operating point that cannot be read: {error!r}") from error

    def _table(self, table: Matrix, payoffs: Floats) -> Floats:
        prices = np.asarray(table, dtype=np.float64)
        if prices.shape != payoffs.shape[1:]:
            raise UtilityError(f"prices must have shape {payoffs.shape[1:]}: {prices.shape}")
        return prices


def threshold_of(payoffs: Floats) -> Floats:
    """For two actions and two outcomes: action 1 is better iff P(outcome 1) > threshold, `(n,)`.

    -inf: action 1 is better whatever the outcome; +inf: it never is. Payoffs have shape `(n, 2, 2)`.
    Raises UtilityError for another shape, or where action 1 is better iff outcome 1 is the LESS probable.
    """
    if payoffs.shape[1:] != (2, 2):
        raise UtilityError(f"a threshold needs payoffs of shape (n, 2, 2): {payoffs.shape}")
    gain = payoffs[:, 1, :] - payoffs[:, 0, :]
    if0, if1 = gain[:, 0], gain[:, 1]
    backwards = (if0 > 0) & (if1 <= 0)
    if backwards.any():
        row = int(np.flatnonzero(backwards)[0])
        raise UtilityError(f"action 1 must gain more under outcome 1 than under outcome 0: row {row}")
    result = np.where(np.maximum(if0, if1) <= 0, np.inf, -np.inf)
    mixed = (if0 <= 0) & (if1 > 0)
    result[mixed] = -if0[mixed] / (if1[mixed] - if0[mixed])
    return result


def _lists(table: Matrix) -> list[list[float]]:
    return [list(row) for row in table]


def _matrix(rows: Any) -> Matrix:
    return tuple(tuple(float(x) for x in row) for row in rows)
