"""Fits the map from a release's logits to probabilities anew, on rows that came since; the weights stay as they are.

Three methods. `calibration` refits slope and bias, as training does; `prior_shift` keeps the slope and moves the bias
only, which needs fewer outcomes and is right where only the base rates have changed. `prior_shift_em` does that without
any outcome, from the scores of all rows (services/training/base_rates.py).
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

from services.training.base_rates import shifted_base_rates
from services.training.calibration import Calibration, log_loss
from services.training.errors import TrainingError
from services.training.time_slices import UNLABELLED

Method: TypeAlias = Literal["calibration", "prior_shift", "prior_shift_em"]
METHODS: tuple[Method, ...] = ("calibration", "prior_shift", "prior_shift_em")
LEAST_OUTCOMES = {"calibration": 50, "prior_shift": 20, "prior_shift_em": 0}  # of each outcome, to fit on
LEAST_JUDGED = 20  # of each outcome, to judge by
WIDEST = 0.05  # either way, at 95 %: base rates that scores tell less surely than this are no estimate

Logits: TypeAlias = NDArray[np.floating[Any]]
Outcomes: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Recalibration:
    """The new map; outcomes `seen` (O,), and the mean log loss (nats) of both maps on these, None without any.

    `base_rates` (O,): how often each outcome comes on the rows that it was fitted on, by the new map; `rate_errors`
    (O,): standard errors of the rates that were estimated without outcomes, None with them.
    """

    method: Method
    calibration: Calibration
    seen: tuple[int, ...]
    loss_before: float | None
    loss_after: float | None
    base_rates: tuple[float, ...]
    rate_errors: tuple[float, ...] | None = None


def recalibrate(
    parent: Calibration,
    logits: Logits,
    outcomes: Outcomes,
    *,
    method: Method,
    names: tuple[str, ...],
    rates_before: tuple[float, ...] | None = None,
) -> Recalibration:
    """Fit on (n, O) `logits` and (n,) `outcomes`, indices into `names`; UNLABELLED ones are left out.

    `rates_before` (O,): how often each outcome came where `parent` was fitted; `prior_shift_em` needs it.
    Raises TrainingError with what there is, where any outcome was seen too seldom, or the rates are not known; and for
    a network that was trained to decide.
    """
    if parent.kind == "none":
        raise TrainingError("the release's scores decide and are no probabilities to recalibrate: retrain it")
    seen = require_outcomes(outcomes, names=names, least=LEAST_OUTCOMES[method], what=f"to fit by {method}")
    known = outcomes != UNLABELLED
    errors = None
    if method == "prior_shift_em":
        calibration, errors = _without_outcomes(parent, logits, rates_before, names)
    else:
        calibration = seen_map(parent, logits, outcomes, method=method)
    losses = [
        log_loss(one.apply(logits[known]), outcomes[known]) for one in (parent, calibration) if sum(seen)
    ]
    before, after = losses or (None, None)
    rates = tuple(calibration.apply(logits).mean(axis=0).tolist())
    return Recalibration(method, calibration, seen, before, after, rates, errors)


def seen_map(parent: Calibration, logits: Logits, outcomes: Outcomes, *, method: Method) -> Calibration:
    """The map fitted on the outcomes (n,) that were seen, of which there must be some, whatever the method."""
    known = outcomes != UNLABELLED
    if method == "calibration":
        return Calibration.fit(logits[known], outcomes[known])
    return parent.with_new_base_rate(logits[known], outcomes[known])


def _without_outcomes(
    parent: Calibration, logits: Logits, before: tuple[float, ...] | None, names: tuple[str, ...]
) -> tuple[Calibration, tuple[float, ...]]:
    if before is None:
        raise TrainingError(
            "prior_shift_em needs to know how often each outcome came where the release was calibrated, and it does "
            "not say so: it was packed before releases did"
        )
    found = shifted_base_rates(parent.apply(logits), before)
    if 1.96 * max(found.errors) > WIDEST:
        told = ", ".join(
            f"{name} {rate:.1%} ± {1.96 * error:.1%}"
            for name, rate, error in zip(names, found.rates, found.errors, strict=True)
        )
        raise TrainingError(
            f"the scores of {len(logits):,} rows tell the base rates too little: {told} (95 %), and each must be "
            f"within ± {WIDEST:.0%}"
        )
    bias = np.asarray(parent.bias) + np.log(np.asarray(found.rates) / np.asarray(before))
    return Calibration(parent.slope, tuple((bias - bias[0]).tolist())), found.errors


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


def complete(calibration: Calibration, logits: Logits, outcomes: Outcomes, *, seed: int) -> Outcomes:
    """The outcomes (n,), with those that nobody saw drawn from the map, which was fitted on these same rows.

    For rows on which a rule must be priced as a whole (its rate of acting, for one); what rests on drawn outcomes
    is the model's word, and whoever reports on it must say so.
    """
    known = outcomes != UNLABELLED
    chances = calibration.apply(logits[~known])
    draws = np.random.default_rng(seed).random(len(chances))
    filled = outcomes.copy()
    filled[~known] = np.minimum((draws[:, None] >= chances.cumsum(axis=1)).sum(axis=1), chances.shape[1] - 1)
    return filled
