"""Promises of recalibration: it finds a shift of the base rates, also from acted rows alone, and never guesses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from policies.operating.operating_point import OperatingPoint
from policies.utility.utility import UtilitySpec, realised_utility
from services.training.base_rates import shifted_base_rates
from services.training.calibration import Calibration, log_loss
from services.training.errors import TrainingError
from services.training.recalibrate import Method, complete, recalibrate
from services.training.time_slices import UNLABELLED

WITH_OUTCOMES: tuple[Method, ...] = ("calibration", "prior_shift")
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


@pytest.mark.parametrize("method", WITH_OUTCOMES)
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


@pytest.mark.parametrize("method", WITH_OUTCOMES)
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
    filled = complete(found.calibration, logits, seen, seed=7)
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


def shifted(rows: int, now: tuple[float, ...], *, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits (n, O) of a model that knows each outcome's scores and thinks the outcomes equally frequent, and outcomes
    that are not; its calibration adds the logarithms of the rates it was fitted at."""
    draw = np.random.default_rng(seed)
    outcomes = draw.choice(len(now), size=rows, p=now)
    score = draw.normal(1.5 * outcomes, 1.0)
    return -0.5 * (score[:, None] - 1.5 * np.arange(len(now))) ** 2, outcomes.astype(np.int64)


@pytest.mark.parametrize(
    ("before", "now"),
    [((0.9, 0.1), (0.6, 0.4)), ((0.5, 0.3, 0.2), (0.2, 0.2, 0.6)), ((0.5, 0.5), (0.99, 0.01))],
)
def test_base_rates_are_found_without_an_outcome(before: tuple[float, ...], now: tuple[float, ...]) -> None:
    """The estimate is the likeliest shares of the mixture (an independent search finds none better), within four of its
    own standard errors of the truth; the recalibrated map has it as its mean, and predicts the outcomes that nobody
    showed it better than its parent does."""
    logits, outcomes = shifted(8_000, now, seed=11)
    parent = Calibration(1.0, tuple(np.log(np.array(before) / before[0]).tolist()))
    found = shifted_base_rates(parent.apply(logits), before)
    assert (np.abs(np.array(found.rates) - now) < 4 * np.array(found.errors)).all()
    assert max(found.errors) < 0.03

    parts = np.exp(logits)
    likeliest = minimize(
        lambda free: -np.log(parts @ softmax(np.concatenate([[0.0], free]))).sum(),
        np.zeros(len(now) - 1),
        tol=1e-10,
    )
    expected = softmax(np.concatenate([[0.0], likeliest.x]))
    assert found.rates == pytest.approx(expected.tolist(), abs=5e-4)

    made = recalibrate(
        parent,
        logits,
        np.full(8_000, UNLABELLED),
        method="prior_shift_em",
        names=tuple("abc"[: len(now)]),
        rates_before=before,
    )
    assert made.base_rates == pytest.approx(found.rates, abs=1e-3)
    assert (made.seen, made.loss_before, made.calibration.slope) == ((0,) * len(now), None, parent.slope)
    assert log_loss(made.calibration.apply(logits), outcomes) < log_loss(parent.apply(logits), outcomes)


def test_the_error_of_a_base_rate_is_what_chance_makes() -> None:
    """Over 200 samples the estimates spread as their standard errors say, within a quarter."""
    before, now = (0.8, 0.2), (0.5, 0.5)
    parent = Calibration(1.0, (0.0, float(np.log(before[1] / before[0]))))
    found = [shifted_base_rates(parent.apply(shifted(500, now, seed=seed)[0]), before) for seed in range(200)]
    spread = np.std([one.rates[1] for one in found])
    assert spread == pytest.approx(np.mean([one.errors[1] for one in found]), rel=0.25)


def test_scores_that_tell_too_little_are_refused_with_what_they_tell() -> None:
    """Scores that hardly differ between the outcomes leave the rates open: no map, but the interval."""
    draw = np.random.default_rng(2)
    outcomes = (draw.random(4_000) < 0.3).astype(np.int64)
    score = draw.normal(0.1 * outcomes, 1.0)
    logits = -0.5 * (score[:, None] - 0.1 * np.arange(2)) ** 2
    with pytest.raises(TrainingError, match=r"tell the base rates too little: no_sale .* ± .* within ± 5%"):
        recalibrate(
            Calibration.identity(2),
            logits,
            outcomes,
            method="prior_shift_em",
            names=NAMES,
            rates_before=(0.5, 0.5),
        )


def test_base_rates_need_rows_and_a_start() -> None:
    """Fewer than 200 rows, a rate of nothing, and a release that does not say its rates: errors that say so."""
    logits, outcomes = shifted(300, (0.5, 0.5), seed=1)
    with pytest.raises(TrainingError, match="at least 200 rows: 199"):
        shifted_base_rates(PARENT.apply(logits[:199]), (0.5, 0.5))
    with pytest.raises(TrainingError, match="above 0 and sum to 1"):
        shifted_base_rates(PARENT.apply(logits), (1.0, 0.0))
    with pytest.raises(TrainingError, match="it does not say so"):
        recalibrate(PARENT, logits, outcomes, method="prior_shift_em", names=NAMES)


def test_scores_that_decide_are_not_recalibrated() -> None:
    """A network trained to decide has no probabilities; it is said, whatever outcomes there are."""
    outcomes = np.array([0, 1] * 100)
    with pytest.raises(TrainingError, match="are no probabilities to recalibrate"):
        recalibrate(
            Calibration.none(2), np.zeros((200, 2)), outcomes, method="calibration", names=("no", "yes")
        )
