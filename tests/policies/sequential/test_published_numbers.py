"""Promises: the numbers that gates.md publishes come out of this code, to the digits that are given there."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import betaln

from policies.sequential.mixture import (
    bound_two_sided,
    log_e_one_sided,
    log_e_two_sided,
    rho_one_sided,
    rho_two_sided,
)
from policies.sequential.proportions import interval_of_rate
from policies.sequential.spending import (
    Spending,
    SpendingError,
    boundaries,
    crossed_by,
    obrien_fleming,
    pocock,
)

LIMIT = math.log(20)
TWO, ONE = rho_two_sided(100, 0.05), rho_one_sided(100, 0.05)


# Oracles: uniform boundaries that no gate uses. log E of the sum s at intrinsic time v, from the defining mixture
# E = ∫ exp(λ·s − ψ(λ)·v) dF(λ) by quadrature, F the conjugate prior (Howard et al. 2021, section 3 and appendix).


def _mixed(
    log_weight: Callable[[float], float], log_gain: Callable[[float], float], low: float, high: float
) -> float:
    """ln of the gain's mean under the weight, both on [low, high]."""
    top = max(log_weight(low + (high - low) * i / 400) for i in range(1, 400))
    whole = quad(lambda u: math.exp(log_weight(u) - top), low, high, limit=400, epsabs=0, epsrel=1e-11)[0]
    part = quad(
        lambda u: math.exp(log_weight(u) + log_gain(u) - top), low, high, limit=400, epsabs=0, epsrel=1e-11
    )[0]
    return math.log(part / whole)


def gamma_exponential(s: float, v: float, *, rho: float, c: float) -> float:
    """ψ(λ) = (−ln(1−cλ) − cλ)/c²; u = 1 − cλ is Gamma(ρ/c², ρ/c²), cut to (0, 1]."""
    a = rho / c**2
    return _mixed(
        lambda u: (a - 1) * math.log(u) - a * u,
        lambda u: v / c**2 * math.log(u) + (1 - u) * (c * s + v) / c**2,
        1e-12,
        1.0,
    )


def gamma_poisson(s: float, v: float, *, rho: float, c: float) -> float:
    """ψ(λ) = (e^{cλ} − cλ − 1)/c²; u = e^{cλ} is Gamma(ρ/c², ρ/c²), cut to [1, ∞)."""
    a = rho / c**2
    return _mixed(
        lambda u: (a - 1) * math.log(u) - a * u,
        lambda u: (s * c + v) / c**2 * math.log(u) - v * (u - 1) / c**2,
        1.0,
        30.0,
    )


def beta_binomial(s: float, v: float, *, rho: float, g: float, h: float) -> float:
    """Steps of +h or −g with g + h = 1; the share of steps up is Beta with mean g and precision (ρ − gh)/gh."""
    r, n = rho - g * h, v / (g * h)
    a, b, up = r / h, r / g, s + n * g
    return float(betaln(a + up, b + n - up) - betaln(a, b)) - up * math.log(g) - (n - up) * math.log(h)


def test_normal_mixtures() -> None:
    """F1: the confidence-sequence authors' own unit tests (v=100, s=10, v_opt=100, α=.05)."""
    assert pytest.approx(12.60056, abs=5e-6) == TWO
    assert log_e_two_sided(10, 100, rho=TWO) == pytest.approx(-0.6510052, abs=5e-7)
    assert bound_two_sided(100, rho=TWO, alpha=0.05) == pytest.approx(30.35209, abs=5e-6)
    assert log_e_one_sided(10, 100, rho=ONE) == pytest.approx(-0.06502391, abs=5e-8)
    bound = brentq(lambda s: log_e_one_sided(s, 100, rho=ONE) - LIMIT, 1, 100)
    assert bound == pytest.approx(27.66071, abs=5e-6)


def test_the_other_uniform_boundaries() -> None:
    """Gamma-exponential and gamma-Poisson (c=2) and beta-binomial (.2, .8), by their defining integrals."""
    assert gamma_exponential(10, 100, rho=ONE, c=2) == pytest.approx(-0.2490165, abs=1e-6)
    bound = brentq(lambda s: gamma_exponential(s, 100, rho=ONE, c=2) - LIMIT, 1, 100)
    assert bound == pytest.approx(33.02017, abs=1e-5)
    assert gamma_poisson(10, 100, rho=ONE, c=2) == pytest.approx(-0.06991219, abs=1e-6)
    bound = brentq(lambda s: gamma_poisson(s, 100, rho=ONE, c=2) - LIMIT, 1, 100)
    assert bound == pytest.approx(30.1949, abs=1e-4)
    assert beta_binomial(10, 100, rho=TWO, g=0.2, h=0.8) == pytest.approx(-0.6941012, abs=1e-6)


def test_the_displayed_interval_of_a_rate_is_a_beta_binomial_boundary() -> None:
    """At the ends of a displayed rate's interval the Beta(½, ½) mixture of likelihood ratios has E = 1/α."""
    ends = interval_of_rate(135, 625, alpha=0.05)
    assert ends is not None
    for p in ends:
        log_e = betaln(135.5, 490.5) - betaln(0.5, 0.5) - 135 * math.log(p) - 490 * math.log1p(-p)
        assert log_e == pytest.approx(LIMIT, abs=1e-6)


PEEKING = {2: 0.083, 3: 0.107, 4: 0.126, 5: 0.142, 10: 0.193, 20: 0.248, 50: 0.320, 100: 0.374}


@pytest.mark.parametrize(("looks", "chance"), PEEKING.items())
def test_peeking(looks: int, chance: float) -> None:
    """F5's recursion: |z| > 1.96 at some of K looks (Armitage, McPherson, Rowe 1969)."""
    times = [(look + 1) / looks for look in range(looks)]
    crossed = crossed_by(times, [1.959964] * looks, two_sided=True)
    assert crossed[0] == pytest.approx(0.05, abs=1e-6)
    assert crossed[-1] == pytest.approx(chance, abs=5e-4)


@pytest.mark.parametrize(
    ("spent", "bounds"),
    [
        (obrien_fleming, (4.877, 3.357, 2.680, 2.290, 2.031)),
        (pocock, (2.438, 2.427, 2.410, 2.397, 2.386)),
    ],
)
def test_spending_boundaries(spent: Spending, bounds: tuple[float, ...]) -> None:
    """F5: Lan & DeMets' boundaries for five looks, two-sided .05; together they spend exactly α."""
    times = (0.2, 0.4, 0.6, 0.8, 1.0)
    found = boundaries(times, alpha=0.05, spent=spent, two_sided=True)
    assert found == pytest.approx(bounds, abs=5.1e-4)
    assert crossed_by(times, found, two_sided=True)[-1] == pytest.approx(0.05, abs=1e-7)


def test_one_sided_boundaries_keep_alpha_in_a_simulation() -> None:
    """F5 one-sided at uneven looks: 20,000 simulated walks cross in 5 %, within Monte-Carlo error."""
    times = np.array([0.1, 0.35, 0.5, 1.0])
    bounds = boundaries(times.tolist(), alpha=0.05, spent=pocock)
    steps = np.random.default_rng(5).normal(size=(20_000, 4)) * np.sqrt(np.diff(times, prepend=0))
    z = np.cumsum(steps, axis=1) / np.sqrt(times)
    crossed = (z >= np.array(bounds)).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 20_000))


@pytest.mark.parametrize("times", [(), (0.5, 0.5), (0.5, 1.1), (0.0, 1.0)])
def test_looks_that_cannot_be_planned_are_refused(times: tuple[float, ...]) -> None:
    """Looks must rise within (0, 1]."""
    with pytest.raises(SpendingError, match="must rise"):
        boundaries(times, alpha=0.05, spent=pocock)
