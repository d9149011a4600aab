"""The rule from probabilities to an action, fixed in a release: the best expected utility, after a shift.

A shift is in the spec's unit and is added to each action's expected utility: the price that a constraint puts
on an action (a shift of -lambda on `call` calls less). No shift is the Bayes rule of each row.
Source: Elkan, "The Foundations of Cost-Sensitive Learning", IJCAI 2001 (the per-row threshold).
Must never import: anything but numpy and policies; no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from policies.utility import Floats, UtilityError, expected_utility, highest

_KIND: Literal["per_row_bayes"] = "per_row_bayes"


@dataclass(frozen=True)
class OperatingPoint:
    """`shift` has one finite entry per action, in the utility spec's order; ties go to `default_action`."""

    shift: tuple[float, ...]
    default_action: int = 0
    kind: Literal["per_row_bayes"] = _KIND

    def __post_init__(self) -> None:
        if self.kind != _KIND:
            raise UtilityError(f"kind must be '{_KIND}': {self.kind!r}")
        if len(self.shift) < 2 or not all(math.isfinite(s) for s in self.shift):
            raise UtilityError(f"shift must be two finite numbers or more: {self.shift}")
        if not 0 <= self.default_action < len(self.shift):
            raise UtilityError(
                f"default_action must be an index below {len(self.shift)}: {self.default_action}"
            )

    def choose(self, payoffs: Floats, probabilities: NDArray[Any]) -> NDArray[np.intp]:
        """The action of each row, `(n,)`, from payoffs `(n, A, O)` and probabilities `(n, O)`.

        Raises UtilityError if the number of actions disagrees, and as expected_utility does.
        """
        utilities = expected_utility(payoffs, probabilities)
        return highest(utilities + self._shift_for(payoffs), default_action=self.default_action)

    def threshold(self, payoffs: Floats) -> Floats:
        """The threshold of each row, `(n,)`, as threshold_of says, for two actions under this shift."""
        return threshold_of(payoffs + self._shift_for(payoffs)[:, None])

    def to_json(self) -> dict[str, Any]:
        """A plain dict, JSON-safe."""
        return {"kind": self.kind, "shift": list(self.shift), "default_action": self.default_action}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> OperatingPoint:
        """The inverse of to_json; raises UtilityError for anything else."""
        if set(value) != {"kind", "shift", "default_action"}:
            raise UtilityError(f"an operating point has kind, shift and default_action: {sorted(value)}")
        shift = value["shift"]
        if not isinstance(shift, list) or not all(type(s) in (int, float) for s in shift):
            raise UtilityError(f"shift must be a list of numbers: {shift!r}")
        if type(value["default_action"]) is not int:
            raise UtilityError(f"default_action must be an index: {value['default_action']!r}")
        return cls(tuple(float(s) for s in shift), value["default_action"], value["kind"])

    def _shift_for(self, payoffs: Floats) -> Floats:
        if payoffs.ndim != 3 or payoffs.shape[1] != len(self.shift):
            raise UtilityError(f"payoffs must have shape (n, {len(self.shift)}, O): {payoffs.shape}")
        return np.asarray(self.shift, dtype=np.float64)


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
