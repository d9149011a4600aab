"""Fits the map from a release's logits to probabilities anew, on outcomes seen since; the weights stay as they are.

Two methods. `calibration` refits slope and bias, as training does; `prior_shift` keeps the slope and moves the bias
only, which needs fewer outcomes and is right where only the base rates have changed.
Which outcomes are seen is no accident: a decision that does not reveal its outcome has none. Rule: where what was done
rests on the row and the release alone (nobody acted on something that is not in the row), the outcome does not depend
on whether it was seen, given the row; so the map may be fitted on the seen rows alone. What it says of scores at which
nobody acted is the family's extrapolation, and is tested only when somebody acts on them: by the canary.
Source: Saerens, Latinne, Decaestecker 2002 (shifted base rates); Zadrozny 2004 (selection by features alone).

numpy only: must never import torch.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.training.calibration import Calibration, log_loss
from services.training.errors import TrainingError
from services.training.time_slices import UNLABELLED

Method: TypeAlias = Literal["calibration", "prior_shift"]
METHODS: tuple[Method, ...] = ("calibration", "prior_shift")
LEAST_OUTCOMES: dict[Method, int] = {"calibration": 50, "prior_shift": 20}  # of each outcome, to fit on
LEAST_JUDGED = 20  # of each outcome, to judge by

Logits: TypeAlias = NDArray[np.floating[Any]]
Outcomes: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Recalibration:
    """The new map, and the mean log loss (nats) of the old and the new one on the rows that it was fitted on."""

    method: Method
    calibration: Calibration
    seen: tuple[int, ...]
    loss_before: float
    loss_after: float


def recalibrate(
    parent: Calibration, logits: Logits, outcomes: Outcomes, *, method: Method, names: tuple[str, ...]
) -> Recalibration:
    """Fit on (n, O) `logits` and (n,) `outcomes`, indices into `names`; UNLABELLED ones are left out.

    Raises TrainingError with what there is, where any outcome was seen too seldom.
    """
    seen = require_outcomes(outcomes, names=names, least=LEAST_OUTCOMES[method], what=f"to fit by {method}")
    known = outcomes != UNLABELLED
    calibration = _fitted(parent, logits[known], outcomes[known], method)
    return Recalibration(
        method,
        calibration,
        seen,
        loss_before=log_loss(parent.apply(logits[known]), outcomes[known]),
        loss_after=log_loss(calibration.apply(logits[known]), outcomes[known]),
    )


def require_outcomes(outcomes: Outcomes, *, names: tuple[str, ...], least: int, what: str) -> tuple[int, ...]:
    """How often each outcome was seen. Raises TrainingError with the counts where one is below `least`."""
    seen = tuple(int((outcomes == at).sum()) for at in range(len(names)))
    if min(seen) < least:
        there = ", ".join(f"{count:,} {name}" for name, count in zip(names, seen, strict=True))
        unseen = int((outcomes == UNLABELLED).sum())
        raise TrainingError(
            f"{what}, every outcome must be there at least {least} times: "
            f"{there} among {len(outcomes):,} rows, {unseen:,} of them without an outcome"
        )
    return seen


def complete(
    parent: Calibration, logits: Logits, outcomes: Outcomes, *, method: Method, seed: int
) -> Outcomes:
    """The outcomes (n,), with those that nobody saw drawn from a map fitted on these same rows' seen ones.

    For rows on which a rule must be priced as a whole (its rate of acting, for one); what rests on drawn outcomes
    is the model's word, and whoever reports on it must say so.
    """
    known = outcomes != UNLABELLED
    if known.all():
        return outcomes
    chances = _fitted(parent, logits[known], outcomes[known], method).apply(logits[~known])
    draws = np.random.default_rng(seed).random(len(chances))
    filled = outcomes.copy()
    filled[~known] = np.minimum((draws[:, None] >= chances.cumsum(axis=1)).sum(axis=1), chances.shape[1] - 1)
    return filled


def _fitted(parent: Calibration, logits: Logits, outcomes: Outcomes, method: Method) -> Calibration:
    if method == "prior_shift":
        return parent.with_new_base_rate(logits, outcomes)
    return Calibration.fit(logits, outcomes)
