"""Calibration: probabilities that mean what they say, for any number of outcomes."""

import json

import numpy as np
import pytest

from services.training.calibration import Calibration, calibration_error, log_loss, softmax
from services.training.errors import TrainingError


def overconfident(rows: int, outcomes: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits three times too large and shifted, with outcomes drawn from the true ones."""
    draw = np.random.default_rng(seed)
    true = draw.normal(size=(rows, outcomes))
    happened = (softmax(true).cumsum(axis=1) < draw.random((rows, 1))).sum(axis=1)
    return 3.0 * true + np.arange(outcomes), happened


@pytest.mark.parametrize("outcomes", [2, 3, 5])
def test_calibration_mends_overconfidence(outcomes: int) -> None:
    """On later rows of the same kind, log loss and Brier score fall, and slope and bias are the true ones."""
    logits, happened = overconfident(4000, outcomes, seed=1)
    calibration = Calibration.fit(logits, happened)
    later, then = overconfident(4000, outcomes, seed=2)
    raw, mended = softmax(later), calibration.apply(later)
    hot = np.eye(outcomes)[then]
    assert log_loss(mended, then) < log_loss(raw, then) - 0.1
    assert ((mended - hot) ** 2).sum(axis=1).mean() < ((raw - hot) ** 2).sum(axis=1).mean() - 0.02
    assert calibration_error(mended, then) < 0.03
    assert calibration.slope == pytest.approx(1 / 3, abs=0.03)
    np.testing.assert_allclose(calibration.bias, -np.arange(outcomes) / 3, atol=0.15)


def test_the_fitted_base_rate_is_the_slices_own() -> None:
    """The mean probability on the calibration rows is the observed share, which is what a drifted base rate needs."""
    logits, happened = overconfident(5000, 2, seed=3)
    mean = Calibration.fit(logits, happened).apply(logits)[:, 1].mean()
    assert mean == pytest.approx(happened.mean(), abs=0.002)


def test_a_ranking_that_is_the_wrong_way_round_is_not_turned() -> None:
    """Scores that contradict the slice keep their order but lose nearly all their weight."""
    logits, happened = overconfident(3000, 2, seed=4)
    calibration = Calibration.fit(-logits, happened)
    assert calibration.slope == 0.01
    assert calibration.apply(-logits)[:, 1].std() < 0.02


def test_one_outcome_only_stays_finite() -> None:
    """A slice without a single event gives small probabilities, not zeros or NaN."""
    logits, _ = overconfident(300, 2, seed=5)
    p = Calibration.fit(logits, np.zeros(300, dtype=np.int64)).apply(logits)
    assert np.isfinite(p).all()
    assert 0 < p[:, 1].mean() < 0.05


def test_json_round_trip_and_refusals() -> None:
    """What is written is read back equal; anything else is refused."""
    calibration = Calibration(0.7, (0.0, -1.25))
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration
    with pytest.raises(TrainingError, match="must agree"):
        Calibration.fit(np.zeros((3, 2)), np.zeros(2, dtype=int))
    with pytest.raises(TrainingError, match="finite"):
        Calibration.fit(np.full((3, 2), np.nan), np.zeros(3, dtype=int))
    with pytest.raises(TrainingError, match="not a calibration"):
        Calibration.from_json({})
