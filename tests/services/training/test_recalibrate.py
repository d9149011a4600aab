"""Promises of recalibration: it finds a shift of the base rates, also from acted rows alone, and never guesses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.operating.operating_point import OperatingPoint
from policies.utility.utility import UtilitySpec, realised_utility
from services.training.calibration import Calibration
from services.training.errors import TrainingError
from services.training.recalibrate import METHODS, Method, complete, recalibrate
from services.training.time_slices import UNLABELLED

NAMES = ("no_sale", "sale")
PARENT = Calibration(2.0, (0.0, -0.5))
TRUTH = Calibration(2.0, (0.0, -2.0))  # what became of it: sales are rarer by a constant of the log odds

Rows = tuple[dict[str, NDArray[Any]], NDArray[np.float64], NDArray[np.int64]]


@pytest.fixture(scope="module")
def drifted(toy_columns: Callable[..., dict[str, NDArray[Any]]]) -> Callable[..., Rows]:
    """Columns, a network's logits (n, 2), and outcomes drawn from what became of it."""

    def make(rows: int, *, seed: int) -> Rows:
        draw = np.random.default_rng(seed)
        logits = draw.normal(size=(rows, 2))
        outcomes = (draw.random(rows) < TRUTH.apply(logits)[:, 1]).astype(np.int64)
        return toy_columns(rows, seed=seed), logits, outcomes

    return make


@pytest.mark.parametrize("method", METHODS)
def test_earns_more_on_later_rows(
    method: Method, drifted: Callable[..., Rows], toy_utility: UtilitySpec
) -> None:
    """After a shift of the base rate the recalibrated rule earns more than its parent on rows that it has not seen,
    by more than four standard errors, and its log loss there is lower."""
    _, logits, outcomes = drifted(4_000, seed=1)
    found = recalibrate(PARENT, logits, outcomes, method=method, names=NAMES)
    columns, later, happened = drifted(8_000, seed=2)
    payoffs, point = toy_utility.payoffs(columns), OperatingPoint((0.0, 0.0), toy_utility.default_index)
    before, after = (
        realised_utility(payoffs, point.choose(payoffs, one.apply(later)), happened)
        for one in (PARENT, found.calibration)
    )
    gain = after - before
    assert gain.mean() > 4 * gain.std() / np.sqrt(len(gain)) > 0
    assert found.loss_after < found.loss_before


@pytest.mark.parametrize("method", METHODS)
def test_acted_rows_alone_give_the_same_map(
    method: Method, drifted: Callable[..., Rows], toy_utility: UtilitySpec
) -> None:
    """Outcomes seen only where the parent acted, which rests on the row: the map is the true one within its error,
    although sales are far commoner among the seen rows; and the outcomes drawn for the others occur as often as theirs
    did."""
    columns, logits, outcomes = drifted(40_000, seed=3)
    point = OperatingPoint((0.0, 0.0), toy_utility.default_index)
    acted = point.choose(toy_utility.payoffs(columns), PARENT.apply(logits)) == 1
    seen = np.where(acted, outcomes, UNLABELLED)
    found = recalibrate(PARENT, logits, seen, method=method, names=NAMES)
    assert found.seen == (int((seen == 0).sum()), int((seen == 1).sum()))
    assert outcomes[acted].mean() > 1.4 * outcomes[~acted].mean()
    assert found.calibration.slope == pytest.approx(TRUTH.slope, abs=0.08)
    assert found.calibration.bias[1] == pytest.approx(TRUTH.bias[1], abs=0.08)
    filled = complete(PARENT, logits, seen, method=method, seed=7)
    assert (filled[acted] == outcomes[acted]).all()
    assert filled[~acted].mean() == pytest.approx(outcomes[~acted].mean(), abs=0.01)


def test_prior_shift_moves_the_bias_only(drifted: Callable[..., Rows]) -> None:
    """The slope is the parent's to the bit, and the mean probability is the rate that was seen, which is the condition
    of least log loss."""
    _, logits, outcomes = drifted(4_000, seed=4)
    found = recalibrate(PARENT, logits, outcomes, method="prior_shift", names=NAMES).calibration
    assert found.slope == PARENT.slope
    assert found.apply(logits)[:, 1].mean() == pytest.approx(outcomes.mean(), abs=1e-3)


def test_too_few_outcomes_are_refused_with_numbers() -> None:
    """What is wanted, what is there, and how many rows have no outcome: an error, never a map."""
    outcomes = np.array([0] * 400 + [1] * 19 + [UNLABELLED] * 81)
    logits = np.random.default_rng(0).normal(size=(500, 2))
    with pytest.raises(
        TrainingError, match="at least 50 times: 400 no_sale, 19 sale among 500 rows, 81 of them"
    ):
        recalibrate(PARENT, logits, outcomes, method="calibration", names=NAMES)
    with pytest.raises(TrainingError, match="by prior_shift, every outcome must be there at least 20 times"):
        recalibrate(PARENT, logits, outcomes, method="prior_shift", names=NAMES)
