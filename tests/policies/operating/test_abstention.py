"""Venn-Abers intervals and what is at stake over them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from policies.operating.abstention import greatest_mean
from policies.operating.venn_abers import fit_band, fit_bands


def scores(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    p = draw.beta(1.0, 3.0, rows)
    return p, draw.random(rows) < p


def test_the_interval_holds_what_happens_and_narrows_with_more_rows() -> None:
    """By bins of fresh rows the observed rate lies within the mean interval, 4 standard errors allowed."""
    fresh, happened = scores(20_000, 1)
    widths = []
    for rows in (300, 5000):
        band = fit_band(*scores(rows, 2))
        lower, upper = band.interval(fresh)
        assert (lower <= upper).all()
        for part in np.array_split(np.argsort(fresh), 10):
            error = 4 * np.sqrt(0.25 / len(part))
            assert lower[part].mean() - error < happened[part].mean() < upper[part].mean() + error
        widths.append((upper - lower).mean())
    assert widths[1] < 0.6 * widths[0]


def test_the_fit_is_isotonic_regression_with_the_row_added() -> None:
    """Four rows by hand: at 0.5 between (0.2, no), (0.4, yes), (0.6, no), (0.8, yes)."""
    band = fit_band(np.array([0.2, 0.4, 0.6, 0.8]), np.array([False, True, False, True]))
    at = band.at.index(0.4)
    assert band.lower[at] == pytest.approx(1 / 3)  # 0.4: yes and no, pooled with the no at 0.6
    assert band.upper[at] == pytest.approx(2 / 3)
    assert (band.lower[0], band.upper[-1]) == (0.0, 1.0)
    assert list(band.lower) == sorted(band.lower)
    assert list(band.upper) == sorted(band.upper)


def test_a_mistaken_model_gets_an_interval_where_the_rows_are() -> None:
    """Scores that are half the truth: the interval lies around the truth or reaches it from the score."""
    p, happened = scores(20_000, 3)
    lower, upper = fit_band(p / 2, happened).interval(np.array([0.2]))
    assert lower[0] <= 0.2
    assert 0.36 < upper[0] < 0.5


def test_three_outcomes_have_a_band_each() -> None:
    """Two outcomes need one band, three need three."""
    draw = np.random.default_rng(4)
    p = draw.dirichlet([2, 1, 1], 500)
    outcomes = (p.cumsum(axis=1) < draw.random((500, 1))).sum(axis=1)
    assert len(fit_bands(p, outcomes)) == 3
    assert len(fit_bands(p[:, :2], outcomes.clip(0, 1))) == 1
    with pytest.raises(ValueError, match="one row at least"):
        fit_bands(p[:0], outcomes[:0])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(0, 10_000))
def test_the_greatest_mean_is_that_of_a_linear_programme(outcomes: int, seed: int) -> None:
    """Over the distributions within the bounds, against scipy's linprog."""
    draw = np.random.default_rng(seed)
    p = draw.dirichlet(np.ones(outcomes), 3)
    lower = p - draw.uniform(0, 0.3, p.shape) * p
    upper = p + draw.uniform(0, 0.5, p.shape) * (1 - p)
    gains = draw.normal(size=p.shape)
    for row, value in enumerate(greatest_mean(gains, lower, upper)):
        best = linprog(
            -gains[row],
            A_eq=np.ones((1, outcomes)),
            b_eq=[1.0],
            bounds=list(zip(lower[row], upper[row], strict=True)),
        )
        assert value == pytest.approx(-best.fun, abs=1e-9)
