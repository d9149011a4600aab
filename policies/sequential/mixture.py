"""F1: the normal mixture, one- and two-sided, as evidence about any effect that has an estimate and a variance.

log E = ½·ln(4ρ/(v+ρ)) + s²/(2(v+ρ)) + ln Φ(s/√(v+ρ)); the asymptotic use takes s = (Δ̂−δ)/Var̂, v = 1/Var̂.
Stages are strata: their scores Δ̂/Var̂ and informations 1/Var̂ are added, never their raw counts, because what both
arms share may differ between stages while their weights do. All is a function of sums: an update costs O(1).
Source: Howard, Ramdas, McAuliffe, Sekhon, Annals of Statistics 2021, Prop. 5; Waudby-Smith et al.,
"Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024.
Must never import: anything that draws random numbers or does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from scipy.special import log_ndtr

from policies.sequential.evidence_blocks import stored_number

Side = Literal["above", "below", "within", "beyond"]


def log_sum_exp(logs: Sequence[float]) -> float:
    """ln Σ exp(logs), without overflow; −inf for nothing but zeros. n ≥ 1 values."""
    top = max(logs)
    return top if math.isinf(top) else top + math.log(math.fsum(math.exp(log - top) for log in logs))


def rho_one_sided(v_opt: float, alpha: float) -> float:
    """The mixture's precision that is tightest at intrinsic time v_opt, one-sided."""
    return rho_two_sided(v_opt, 2 * alpha)


def rho_two_sided(v_opt: float, alpha: float) -> float:
    """The mixture's precision that is tightest at intrinsic time v_opt, two-sided."""
    doubled = 2 * math.log(1 / alpha)
    return v_opt / (doubled + math.log1p(doubled))


def log_e_one_sided(s: float, v: float, *, rho: float) -> float:
    """log E against H0 "drift ≤ 0" of the sum s at intrinsic time v."""
    total = v + rho
    return 0.5 * math.log(4 * rho / total) + s * s / (2 * total) + float(log_ndtr(s / math.sqrt(total)))


def log_e_two_sided(s: float, v: float, *, rho: float) -> float:
    """log E against H0 "drift = 0" of the sum s at intrinsic time v."""
    return 0.5 * math.log(rho / (v + rho)) + s * s / (2 * (v + rho))


def bound_two_sided(v: float, *, rho: float, alpha: float) -> float:
    """The |s| that has log_e_two_sided equal to ln(1/alpha)."""
    return math.sqrt((v + rho) * math.log((v + rho) / (rho * alpha * alpha)))


def interval_of_mean(
    estimate: float, variance: float, *, v_opt: float, alpha: float
) -> tuple[float, float] | None:
    """An asymptotic confidence sequence for a mean whose estimate has this variance; None without variance."""
    if not (variance > 0 and math.isfinite(variance) and math.isfinite(estimate)):
        return None
    half = bound_two_sided(1 / variance, rho=rho_two_sided(v_opt, alpha), alpha=alpha) * variance
    return estimate - half, estimate + half


class Sums(Protocol):
    """What was seen of one stratum, as sums."""

    def effect(self, *, at_least: float = 0.0) -> tuple[float, float] | None:
        """The estimate and its variance; None while the normal approximation may not be used.

        at_least: the smallest effect under H0, where the variance depends on it and the evidence is for less.
        """

    def clear(self) -> None:
        """Start a new stratum."""

    def to_json(self) -> dict[str, object]:
        """The sums."""

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take the sums that `to_json` wrote."""


@dataclass
class EffectTest:
    """F1 on an effect. H0 by side: "above" effect ≤ null; "below" effect ≥ null; "within" |effect| ≥ null;
    "beyond" |effect| ≤ null. Within needs both one-sided tests (the smaller E), beyond takes the mean of the two.

    v_opt: the intrinsic time 1/Var̂ at which it is tightest. Silent (log E = 0) while no stratum is ready.
    """

    sums: Sums
    null: float
    side: Side
    alpha: float
    v_opt: float
    score: float = 0.0
    information: float = 0.0

    def begin_stage(self) -> None:
        """Close the stratum; one that was not ready is lost, which costs power and no validity."""
        moments = self._moments()
        if moments is not None:
            self.score += moments[0] / moments[1]
            self.information += 1 / moments[1]
        self.sums.clear()

    def _moments(self) -> tuple[float, float] | None:
        return self.sums.effect(at_least=self.null) if self.side == "below" else self.sums.effect()

    def _totals(self) -> tuple[float, float]:
        """Σ Δ̂/Var̂ and Σ 1/Var̂ over the strata."""
        moments = self._moments()
        if moments is None:
            return self.score, self.information
        return self.score + moments[0] / moments[1], self.information + 1 / moments[1]

    @property
    def effect(self) -> tuple[float, float] | None:
        """The estimate over all strata and its variance; None while silent."""
        score, information = self._totals()
        return None if information == 0 else (score / information, 1 / information)

    @property
    def is_silent(self) -> bool:
        """Whether there is too little for the normal approximation."""
        return self._totals()[1] == 0

    @property
    def log_e(self) -> float:
        """The evidence so far."""
        return self.log_e_at(1.0)

    def log_e_at(self, factor: float) -> float:
        """The evidence if there were `factor` times as much of what was seen."""
        score, v = (factor * total for total in self._totals())
        if v == 0:
            return 0.0
        rho, margin = rho_one_sided(self.v_opt, self.alpha), self.null * v
        if self.side == "above":
            return log_e_one_sided(score - margin, v, rho=rho)
        if self.side == "below":
            return log_e_one_sided(margin - score, v, rho=rho)
        if self.side == "within":
            return log_e_one_sided(margin - abs(score), v, rho=rho)
        both = [log_e_one_sided(sign * score - margin, v, rho=rho) for sign in (1, -1)]
        return log_sum_exp(both) - math.log(2)

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """Confidence sequence of the effect, two-sided."""
        effect = self.effect
        return None if effect is None else interval_of_mean(*effect, v_opt=self.v_opt, alpha=alpha)

    def to_json(self) -> dict[str, object]:
        """The stratum's sums and what the closed ones came to."""
        return {"sums": self.sums.to_json(), "score": self.score, "information": self.information}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        sums = obj["sums"]
        if not isinstance(sums, Mapping):
            raise TypeError(f"'sums' must be a mapping: {sums!r}")
        self.sums.restore(sums)
        self.score = stored_number(obj, "score")
        self.information = stored_number(obj, "information", at_least=0.0)
