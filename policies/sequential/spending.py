"""F5: group-sequential boundaries for a few planned looks, by spending α over the fraction of information.

No gate uses it: gates are looked at with every poll, for as long as it takes. It is for looks that are planned, few,
and of a known horizon, where it needs less data; `make bench-gates` compares with it.
The chance to cross a boundary comes from the recursion f_k(w) = ∫ f_{k−1}(u)·φ((w−u)/√Δ)/√Δ du over what has not
crossed yet, on Gauss–Legendre nodes. W = Z·√t is the score at information fraction t.
Source: Armitage, McPherson, Rowe, JRSS A 1969 (recursion); Lan & DeMets, Biometrika 1983 (spending).
Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

FloatArray = NDArray[np.float64]
Spending = Callable[[float, float], float]

_NODES = 240
_FAR = 9.0
"""Standard deviations beyond which nothing is left."""


class SpendingError(ValueError):
    """Looks that cannot be planned."""


def obrien_fleming(t: float, alpha: float) -> float:
    """One-sided α spent by the fraction t of the information: hardly any early. Source: Lan & DeMets 1983."""
    return float(2 - 2 * ndtr(ndtri(1 - alpha / 2) / math.sqrt(t)))


def pocock(t: float, alpha: float) -> float:
    """One-sided α spent by the fraction t of the information: nearly evenly. Source: Lan & DeMets 1983."""
    return alpha * math.log(1 + (math.e - 1) * t)


def boundaries(
    times: Sequence[float], *, alpha: float, spent: Spending, two_sided: bool = False
) -> tuple[float, ...]:
    """The |z| (two-sided) or z at each look that spends exactly `spent` by then.

    times: fractions of the information in (0, 1], rising. alpha: in all; two-sided, each side has half of it.
    Raises SpendingError.
    """
    side = alpha / 2 if two_sided else alpha
    walk, bounds, before = _Walk(times, two_sided=two_sided), [], 0.0
    for t in times:
        now = spent(t, side)
        bounds.append(walk.bound_for(now - before))
        walk.step(bounds[-1])
        before = now
    return tuple(bounds)


def crossed_by(
    times: Sequence[float], bounds: Sequence[float], *, two_sided: bool = False
) -> tuple[float, ...]:
    """The chance that a boundary was crossed at or before each look, without any effect. Raises SpendingError."""
    walk, total, crossed = _Walk(times, two_sided=two_sided), 0.0, []
    for bound in bounds:
        total += walk.crossing(bound) * (2 if two_sided else 1)
        crossed.append(total)
        walk.step(bound)
    return tuple(crossed)


class _Walk:
    """The sub-density of the score on what has not crossed, look by look."""

    def __init__(self, times: Sequence[float], *, two_sided: bool) -> None:
        if not times or times[-1] > 1 or any(b <= a for a, b in zip([0.0, *times], times, strict=False)):
            raise SpendingError(f"'times' must rise within (0, 1]: {list(times)}")
        self.times, self.two_sided, self.look = tuple(times), two_sided, 0
        self.nodes, self.mass = np.zeros(1), np.ones(1)  # all of it at 0 before the first look
        self._x, self._w = np.polynomial.legendre.leggauss(_NODES)

    @property
    def _t(self) -> float:
        return self.times[self.look]

    @property
    def _sd(self) -> float:
        """√Δ: of the score's step to this look."""
        return math.sqrt(self._t - (self.times[self.look - 1] if self.look else 0.0))

    def crossing(self, bound: float) -> float:
        """The chance to cross upwards at this look and not before."""
        return float(self.mass @ ndtr((self.nodes - bound * math.sqrt(self._t)) / self._sd))

    def bound_for(self, chance: float) -> float:
        """The bound that is crossed upwards at this look with this chance."""
        if chance <= self.crossing(_FAR):
            return _FAR
        return float(brentq(lambda bound: self.crossing(bound) - chance, -_FAR, _FAR, xtol=1e-10))

    def step(self, bound: float) -> None:
        """Go on to the next look with what has not crossed this bound."""
        high = bound * math.sqrt(self._t)
        low = -high if self.two_sided else -_FAR * math.sqrt(self._t)
        nodes = low + (high - low) * (self._x + 1) / 2
        z = (nodes[:, None] - self.nodes) / self._sd
        density = np.exp(-0.5 * z * z) @ self.mass / (self._sd * math.sqrt(2 * math.pi))
        self.nodes, self.mass = nodes, density * self._w * (high - low) / 2
        self.look = min(self.look + 1, len(self.times) - 1)
