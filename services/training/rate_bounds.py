"""Bounds on rates that a network can be trained to keep, as the utility spec states them.

numpy only: whoever checks a training plan reads this, and does not train.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec


@dataclass(frozen=True)
class RateBound:
    """The share of rows given `action`, among rows of outcome `among` (None: of all rows), is at most `at_most`."""

    action: int
    among: int | None
    at_most: float

    def rate(self, actions: NDArray[np.intp], outcomes: NDArray[np.int64]) -> float:
        """The rate (NaN without such rows) of actions (n,) under outcomes (n,)."""
        counted = actions == self.action
        return float((counted if self.among is None else counted[outcomes == self.among]).mean())


def rate_bounds(utility: UtilitySpec) -> tuple[RateBound, ...]:
    """The upper bounds among the constraints on rates and capacity; other kinds are left to the operating point."""
    found = []
    for one in utility.constraints:
        if one.action is None or one.at_most is None or one.kind not in _KINDS:
            continue
        among = None if one.among is None else utility.outcomes.index(one.among)
        share = one.at_most if one.decisions is None else one.at_most / one.decisions
        found.append(RateBound(utility.actions.index(one.action), among, share))
    return tuple(found)


_KINDS = frozenset({"action_rate", "rate_among", "capacity"})
