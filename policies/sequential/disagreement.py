"""How many units a comparison of utility saves by looking only where the two releases act differently.

Units on which both act alike have payoff 0 in both arms; the mean difference stays, its variance shrinks, and the
units that are needed shrink with the variance. Reported from what was seen: 1 − Var_masked/Var_plain of a paired
difference. Source: gates.md semantics 4 (n ∝ variance) and 11. Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from policies.sequential.evidence_blocks import UtilityBlock, stored_list

FloatArray = NDArray[np.float64]
MIN_UNITS = 100


@dataclass
class Savings:
    """Per arm the number of units, Σx and Σx² of the masked payoffs and of the full ones."""

    canary: list[float] = field(default_factory=lambda: [0.0] * 5)
    stable: list[float] = field(default_factory=lambda: [0.0] * 5)

    def update(self, block: UtilityBlock) -> None:
        """Add one poll; a block without full payoffs says nothing about savings."""
        if block.plain is None:
            return
        _add(self.canary, block.canary, block.plain.canary)
        _add(self.stable, block.stable, block.plain.stable)

    def share(self, group_sizes: tuple[int, int]) -> float | None:
        """Share of the units that the mask saves, given the (canary, stable) units of one difference; None below
        `MIN_UNITS` in an arm, or without any variance. Below 0 where masked payoffs vary more."""
        if min(self.canary[0], self.stable[0]) < MIN_UNITS:
            return None
        arms = list(zip((self.canary, self.stable), group_sizes, strict=True))
        masked = sum(_variance(sums[0], *sums[1:3]) / size for sums, size in arms)
        plain = sum(_variance(sums[0], *sums[3:5]) / size for sums, size in arms)
        return 1 - masked / plain if plain > 0 else None

    def to_json(self) -> dict[str, object]:
        """The sums."""
        return {"canary": list(self.canary), "stable": list(self.stable)}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        self.canary = [float(str(one)) for one in stored_list(obj["canary"])]
        self.stable = [float(str(one)) for one in stored_list(obj["stable"])]
        for sums in (self.canary, self.stable):
            if len(sums) != 5 or not all(map(math.isfinite, sums)) or sums[0] < 0:
                raise ValueError(f"must be a count of units and four finite sums: {sums}")


def _add(sums: list[float], masked: FloatArray, plain: FloatArray) -> None:
    new = (len(masked), np.add.reduce(masked), masked @ masked, np.add.reduce(plain), plain @ plain)
    for i, one in enumerate(new):
        sums[i] += float(one)


def _variance(n: float, total: float, squares: float) -> float:
    return max(squares / n - (total / n) ** 2, 0.0)
