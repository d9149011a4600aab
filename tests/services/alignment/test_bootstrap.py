"""The bootstrap: intervals that cover, pairs that stay paired, quick enough to wait for."""

import time

import numpy as np
import pytest

from services.alignment.bootstrap import PairedMeans, measured_mean, resampled_means


def test_the_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    """Over 400 samples of a skewed variable, 90–99 % of the intervals hold the true mean."""
    draw = np.random.default_rng(0)
    hits = 0
    for sample in range(400):
        found = measured_mean(draw.exponential(2.0, size=300), seed=sample, resamples=300)
        assert found.lower is not None
        assert found.upper is not None
        hits += found.lower <= 2.0 <= found.upper
    assert 0.90 <= hits / 400 <= 0.99


def test_resampled_spread_is_the_standard_error() -> None:
    """The spread of resampled means agrees with σ/√n, an independent oracle, and the seed fixes them."""
    values = np.random.default_rng(1).normal(3.0, 2.0, size=(2000, 1))
    means = resampled_means(values, seed=4, resamples=2000)
    assert means.std() == pytest.approx(values.std() / np.sqrt(2000), rel=0.08)
    np.testing.assert_array_equal(means, resampled_means(values, seed=4, resamples=2000))
    assert (means != resampled_means(values, seed=5, resamples=2000)).all()


def test_chunks_change_nothing_that_matters() -> None:
    """More rows than fit in one chunk still give one mean per resample, around the sample's mean."""
    values = np.random.default_rng(2).normal(size=(30_000, 2))
    means = resampled_means(values, seed=0, resamples=200)
    assert means.shape == (200, 2)
    np.testing.assert_allclose(means.mean(axis=0), values.mean(axis=0), atol=0.002)


def test_differences_are_paired() -> None:
    """Two columns that differ by a constant differ by it in every resample; equal ones by exactly zero."""
    values = np.random.default_rng(3).normal(size=500)
    book = PairedMeans()
    for name, column in (("a", values), ("same", values.copy()), ("more", values + 0.5)):
        book.add(name, column)
    book.run(seed=0, resamples=100)
    more = book.difference("more", "a")
    np.testing.assert_allclose([more.value, more.lower, more.upper], 0.5)
    same = book.difference("same", "a")
    assert (same.value, same.lower, same.upper) == (0.0, 0.0, 0.0)


def test_ten_thousand_rows_take_about_a_second() -> None:
    """10,000 rows × 1,000 resamples × 100 statistics stay in the order of a second (a shared core gets five)."""
    values = np.random.default_rng(4).normal(size=(10_000, 100))
    before = time.process_time()
    resampled_means(values, seed=0)
    assert time.process_time() - before < 5.0


def test_no_rows_is_an_error() -> None:
    """A mean of nothing is refused, never zero."""
    with pytest.raises(ValueError, match="n > 0"):
        resampled_means(np.empty((0, 1)), seed=0)
