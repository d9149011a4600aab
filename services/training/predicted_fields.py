"""Fields that a payoff reads and nobody knows yet when deciding: predicted, and put in their place.

utility.yaml names such a field under `hiddenWhenDeciding`; the contract says when it is known (`availableAt`). A second
small network beside the one for the outcomes, on the same inputs, learns its value from all rows that have one, and a
straight line brings the predictions to the rows of those outcomes whose payoffs read it: an amount may be known of
buyers only, or be another where somebody buys. So what is predicted is the mean given the row and such an outcome.
Payoffs that are linear in the field get the expected payoff; one that bends in it (clip, log) is read at the mean,
which is near, not exact.
Source: Zadrozny and Elkan, "Learning and Making Decisions When Costs and Probabilities are Both Unknown", KDD 2001.

numpy only: serving imports this file, so it must never import torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec
from services.training.errors import TrainingError
from services.training.preprocessing import Columns

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FieldNetwork:
    """Which fields the second network predicts, (K,) each: value = mean + spread x output, within [low, high].

    Low and high are the least and the greatest value of the fitting rows; `hidden` are the network's own layers.
    """

    names: tuple[str, ...]
    hidden: tuple[int, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = (self.mean, self.spread, self.low, self.high)
        if not self.names or {len(one) for one in numbers} != {len(self.names)}:
            raise TrainingError(f"predicted fields must have mean, spread, low and high each: {self.names}")
        if not all(np.isfinite(one).all() for one in numbers):
            raise TrainingError(f"the scales of predicted fields must be finite: {self.names}")

    def values(self, outputs: NDArray[np.float32]) -> dict[str, Floats]:
        """The fields (n,), in their own units, from the network's outputs (n, K)."""
        found = np.asarray(self.mean) + np.asarray(self.spread) * outputs.astype(np.float64)
        kept = np.clip(found, self.low, self.high)
        return {name: kept[:, k] for k, name in enumerate(self.names)}

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe dict; `from_json` gives back an equal object."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "FieldNetwork":
        """Read what `to_json` wrote. Raises KeyError or TypeError if it is not that."""
        numbers = {key: tuple(float(v) for v in document[key]) for key in ("mean", "spread", "low", "high")}
        names, hidden = document["names"], document["hidden"]
        return cls(tuple(str(name) for name in names), tuple(int(units) for units in hidden), **numbers)


def is_needed(utility: UtilitySpec, field: str) -> NDArray[np.bool_]:
    """(O,) whether any stakeholder's payoff under the outcome reads the field."""
    return np.array(
        [
            any(field in row[o].fields for one in utility.stakeholders for row in one.payoffs)
            for o in range(len(utility.outcomes))
        ]
    )


def settled(columns: Columns, decided_on: Columns, names: Sequence[str]) -> Columns:
    """The columns with each of the `names` as it turned out, and as predicted where nobody ever learns it."""
    known = {name: np.asarray(columns[name], dtype=np.float64) for name in names}
    return {
        **columns,
        **{name: np.where(np.isnan(values), decided_on[name], values) for name, values in known.items()},
    }
