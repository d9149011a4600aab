"""The named rules a release could have decided by instead, on the same rows: one action for all, or plain Bayes.

Families over one number stand in services/alignment/rule_families.py. numpy only.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec, best_action

Floats = NDArray[np.float64]
Actions = NDArray[np.intp]


@dataclass(frozen=True)
class Rule:
    """One way to decide, and its actions (n,)."""

    name: str
    kind: Literal["in_force", "always", "bayes"]
    actions: Actions


def rules(
    payoffs: Floats, probabilities: Floats, *, utility: UtilitySpec, in_force: Actions
) -> tuple[Rule, ...]:
    """Each on payoffs (n, A, O) and probabilities (n, O); the one in force comes first."""
    best = best_action(payoffs, probabilities, default_action=utility.default_index)
    return (
        Rule("in force", "in_force", in_force),
        Rule("best action of each row", "bayes", best),
        *(
            Rule(f"always {name}", "always", np.full(len(payoffs), index, dtype=np.intp))
            for index, name in enumerate(utility.actions)
        ),
    )
