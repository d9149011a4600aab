"""The tests behind the gates under one name: F1 (mixture, contrasts), F2, F3, F6 (proportions), F4 (betting).

Every test is an e-process: whatever the number of looks, under its null hypothesis P(E ever ≥ 1/α) ≤ α. It has
`log_e`, `to_json` and `restore`; what it was made for (bound, side, ratios) is not stored but comes from the policy,
which is frozen when a rollout starts. Source: gates.md. Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from policies.sequential.betting import BettingTest, Pairing, PayoffOutOfRange, check_payoffs
from policies.sequential.contrasts import RateContrast, RatioContrast
from policies.sequential.dispersion import Dispersion, PollScoreTest
from policies.sequential.mixture import (
    EffectTest,
    bound_two_sided,
    interval_of_mean,
    log_e_one_sided,
    log_e_two_sided,
    log_sum_exp,
    rho_one_sided,
    rho_two_sided,
)
from policies.sequential.proportions import (
    BETTER,
    BETTER_WEIGHTS,
    EITHER,
    WORSE,
    WORSE_WEIGHTS,
    BoundTest,
    ShareTest,
    TwoByTwoTest,
    interval_of_rate,
    interval_of_ratio,
)

__all__ = [
    "BETTER",
    "BETTER_WEIGHTS",
    "EITHER",
    "WORSE",
    "WORSE_WEIGHTS",
    "BettingTest",
    "BoundTest",
    "Dispersion",
    "EffectTest",
    "Pairing",
    "PayoffOutOfRange",
    "PollScoreTest",
    "RateContrast",
    "RatioContrast",
    "ShareTest",
    "TwoByTwoTest",
    "bound_two_sided",
    "check_payoffs",
    "interval_of_mean",
    "interval_of_rate",
    "interval_of_ratio",
    "log_e_one_sided",
    "log_e_two_sided",
    "rho_one_sided",
    "rho_two_sided",
    "rollback_log_e",
]


def rollback_log_e(carried: float, stages: Sequence[float], *, planned_stages: int) -> float:
    """log of ½·E_carried + ½·mean over the planned stages of E_stage; stages not yet started count as E = 1.

    Source: gates.md, semantics 3 and 8. planned_stages is frozen when the rollout starts.
    """
    unstarted = planned_stages - len(stages)
    if unstarted < 0:
        raise ValueError(f"'planned_stages' must be >= the {len(stages)} started: {planned_stages}")
    half = math.log(2)
    mean = log_sum_exp([*stages, *([0.0] * unstarted)]) - math.log(planned_stages)
    return log_sum_exp([carried - half, mean - half])
