"""The numbers of a utility spec that may be off, and the payoffs as they would be with other numbers.

A parameter is a quantity, a stakeholder's weight, or a payoff (by a factor, or by an amount added). Only what a
parameter touches is computed anew. The declared range of the payoffs is not checked: it belongs to the stated numbers.
Must never import: anything but numpy and policies; no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policies.language.expression import Expression, ExpressionError, compile_expression
from policies.utility.spec_parts import Stakeholder
from policies.utility.utility import Columns, Floats, UtilityError, UtilitySpec

ParameterKind = Literal["quantity", "weight", "factor", "amount"]


@dataclass(frozen=True)
class Parameter:
    """One number in doubt: `stated` now, anything in [low, high] perhaps, in `unit`.

    `owner` is the quantity or the stakeholder; `action` and `outcome` name the cell of a factor or an amount.
    """

    kind: ParameterKind
    owner: str
    stated: float
    low: float
    high: float
    unit: str
    action: str | None = None
    outcome: str | None = None

    @property
    def name(self) -> str:
        """`call_cost`, `weight of customer`, `bank: call x subscribed (factor)`."""
        if self.kind == "quantity":
            return self.owner
        if self.kind == "weight":
            return f"weight of {self.owner}"
        return f"{self.owner}: {self.action} x {self.outcome} ({self.kind})"


def parameters_of(utility: UtilitySpec) -> tuple[Parameter, ...]:
    """Every number of the spec with a sensitivity range that is wider than a point, in the file's order."""
    found = [
        Parameter("quantity", one.name, one.value, *one.range, one.unit)
        for one in utility.quantities
        if one.range is not None
    ]
    for who in utility.stakeholders:
        if who.weight_range is not None:
            unit = f"{utility.unit} a point" if who.unit == utility.unit else f"{utility.unit} per {who.unit}"
            found.append(Parameter("weight", who.name, who.weight, *who.weight_range, unit))
        for one in who.payoff_ranges:
            stated, unit = (1.0, "times") if one.by == "factor" else (0.0, who.unit)
            found.append(
                Parameter(one.by, who.name, stated, one.low, one.high, unit, one.action, one.outcome)
            )
    return tuple(one for one in found if one.low < one.high)


class VariedPayoffs:
    """The payoffs of n rows, `(n, A, O)`, at any values of the parameters."""

    def __init__(self, utility: UtilitySpec, columns: Columns) -> None:
        """Raises UtilityError where a row cannot be priced by the stated numbers."""
        self.parameters = parameters_of(utility)
        self.stated = np.array([one.stated for one in self.parameters])
        self._utility, self._columns = utility, columns
        self._constants = {one.name: one.value for one in utility.quantities}
        self._fixed: dict[tuple[str, int, int], Floats | float] = {}
        self._n = len(next(iter(columns.values())))
        utility.payoffs(columns)  # the stated numbers keep the declared range

    def at(self, values: NDArray[np.float64] | Sequence[float]) -> Floats:
        """The weighted payoffs `(n, A, O)` at `values` (k,), one for each parameter.

        Raises UtilityError where a payoff has no finite value there.
        """
        utility = self._utility
        constants = dict(self._constants)
        weights = {who.name: who.weight for who in utility.stakeholders}
        changes: dict[tuple[str, str, str], tuple[float, float]] = {}
        for one, value in zip(self.parameters, values, strict=True):
            if one.kind == "quantity":
                constants[one.owner] = float(value)
            elif one.kind == "weight":
                weights[one.owner] = float(value)
            else:
                key = (one.owner, str(one.action), str(one.outcome))
                factor, amount = changes.get(key, (1.0, 0.0))
                changes[key] = (float(value), amount) if one.kind == "factor" else (factor, float(value))
        total = np.zeros((len(utility.actions), len(utility.outcomes), self._n))
        for who in utility.stakeholders:
            if not weights[who.name]:
                continue
            for a, action in enumerate(utility.actions):
                for o, outcome in enumerate(utility.outcomes):
                    factor, amount = changes.get((who.name, action, outcome), (1.0, 0.0))
                    cell = self._cell(who, a, o, constants)
                    total[a, o] += weights[who.name] * (factor * cell + amount)
        return total.transpose(2, 0, 1)

    def _cell(self, who: Stakeholder, a: int, o: int, constants: dict[str, float]) -> Floats | float:
        """One payoff of all rows; what no quantity touches is computed once, what no field touches is one number."""
        expression, key = who.payoffs[a][o], (who.name, a, o)
        moved = constants != self._constants and self._reads_quantity(expression)
        if moved:
            return self._value(who, a, o, compile_expression(expression.text, constants))
        if key not in self._fixed:
            self._fixed[key] = self._value(who, a, o, expression)
        return self._fixed[key]

    def _reads_quantity(self, expression: Expression) -> bool:
        return compile_expression(expression.text).fields != expression.fields

    def _value(self, who: Stakeholder, a: int, o: int, expression: Expression) -> Floats | float:
        try:
            if expression.fields:
                return expression.evaluate(self._columns)
            return float(expression.evaluate({"": np.zeros(1)})[0])
        except ExpressionError as error:
            cell = f"{self._utility.actions[a]} x {self._utility.outcomes[o]} of '{who.name}'"
            raise UtilityError(f"payoff {cell}, `{expression.text}`, within its range: {error}") from error
