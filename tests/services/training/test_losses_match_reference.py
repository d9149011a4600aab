"""Losses against the reference utility: over random payoff matrices of 2–5 actions × 2–4 outcomes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from policies.utility.utility import best_action, expected_utility, realised_utility
from services.training.calibration import softmax
from services.training.losses import (
    annealed_utility,
    cross_entropy,
    local_and_everywhere,
    payoff_weighted_cross_entropy,
    softened,
    threshold_local,
    utility_regression,
)

Floats = NDArray[np.float64]
ROWS = 6


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices of a few numbers: a second thread only waits, twenty times as long where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Problem:
    """Random logits (n, O), outcomes (n,) and payoffs (n, A, O); every row has its own matrix."""

    logits: Floats
    outcomes: NDArray[np.int64]
    payoffs: Floats

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.tensor(self.logits), torch.tensor(self.outcomes), torch.tensor(self.payoffs)

    @property
    def probabilities(self) -> Floats:
        return softmax(self.logits)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    actions, outcomes = draw(st.integers(2, 5)), draw(st.integers(2, 4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.integers(-2, 4))
    return Problem(
        generator.normal(scale=2.0, size=(ROWS, outcomes)),
        generator.integers(0, outcomes, ROWS),
        scale * generator.normal(size=(ROWS, actions, outcomes)),
    )


def is_clear(problem: Problem) -> bool:
    """No two actions within a thousandth of the payoffs' spread: at a tie the limit is the mean of the tied."""
    ordered = np.sort(expected_utility(problem.payoffs, problem.probabilities), axis=1)
    return bool((ordered[:, -1] - ordered[:, -2] > 1e-3 * problem.payoffs.std()).all())


@settings(max_examples=100, deadline=None)
@given(problems())
def test_in_the_hard_limit_the_loss_is_the_reference_utility(problem: Problem) -> None:
    """At temperature 0, and already near it, both losses are minus what the reference's best action realises."""
    assume(is_clear(problem))
    actions = best_action(problem.payoffs, problem.probabilities)
    reference = realised_utility(problem.payoffs, actions, problem.outcomes)
    for temperature in (0.0, 1e-6):
        for loss in (annealed_utility, threshold_local):
            value = loss(*problem.tensors, temperature=temperature).numpy()
            np.testing.assert_allclose(
                -value, reference, rtol=1e-6, atol=1e-9 * np.abs(problem.payoffs).max()
            )


@settings(max_examples=60, deadline=None)
@given(problems(), st.floats(0.02, 1.0))
def test_soft_choices_average_the_reference(problem: Problem, temperature: float) -> None:
    """At any temperature the loss is minus the reference utility averaged over the action probabilities."""
    log_chances, _ = softened(
        torch.tensor(problem.logits), torch.tensor(problem.payoffs), temperature=temperature
    )
    by_action = [
        realised_utility(problem.payoffs, np.full(ROWS, a), problem.outcomes)
        for a in range(problem.payoffs.shape[1])
    ]
    averaged = (np.exp(log_chances.numpy()) * np.column_stack(by_action)).sum(axis=1)
    value = annealed_utility(*problem.tensors, temperature=temperature).numpy()
    np.testing.assert_allclose(-value, averaged, rtol=1e-9, atol=1e-12 * np.abs(problem.payoffs).max())


LOSSES_TO_CHECK: tuple[Callable[[Tensor, Tensor, Tensor], Tensor], ...] = (
    cross_entropy,
    payoff_weighted_cross_entropy,
    *(
        partial(loss, temperature=t)
        for loss in (annealed_utility, threshold_local, local_and_everywhere)
        for t in (0.3, 0.1)
    ),
)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_gradients_match_finite_differences(problem: Problem) -> None:
    """The gradient in every logit is the central difference, to 1e-5 of the gradient's own size."""
    logits, outcomes, payoffs = problem.tensors
    for loss in LOSSES_TO_CHECK:
        assert_gradient(lambda x, loss=loss: loss(x, outcomes, payoffs), logits)  # type: ignore[misc]
    predicted = torch.tensor(problem.payoffs.mean(axis=2))
    assert_gradient(lambda x: utility_regression(x, outcomes, payoffs), predicted)


def assert_gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> None:
    """Of one loss per row: rows do not touch each other, so that a column is shifted in all of them at once."""
    point = at.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(function(point).sum(), point)
    step = 1e-5 * max(1.0, float(at.abs().max()))
    numeric = torch.zeros_like(at)
    for column in range(at.shape[1]):
        shift = torch.zeros_like(at)
        shift[:, column] = step
        numeric[:, column] = (function(at + shift) - function(at - shift)) / (2 * step)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5 * (1e-6 + float(gradient.abs().max())))


@settings(max_examples=100, deadline=None)
@given(problems(), st.floats(0.02, 1.0), st.integers(0, 2**32 - 1))
def test_the_threshold_local_loss_is_proper(problem: Problem, temperature: float, seed: int) -> None:
    """Whatever the true probabilities, telling them costs least on average: no other report beats them."""
    other = torch.tensor(np.random.default_rng(seed).normal(scale=2.0, size=problem.logits.shape))
    truth = torch.tensor(problem.logits)
    for loss in (threshold_local, local_and_everywhere):
        told, lied = (
            mean_over_outcomes(partial(loss, temperature=temperature), x, problem) for x in (truth, other)
        )
        assert (told <= lied + 1e-9 * np.abs(problem.payoffs).max()).all()


def test_the_annealed_loss_is_not_proper_where_it_is_soft() -> None:
    """Why threshold_local exists: at temperature 0.3 the annealed utility rewards a report bolder than the truth."""
    matrix = np.array([[[0.0, 0.0], [-1.0, 1.0]]])
    problem = Problem(np.log([[0.4, 0.6]]), np.zeros(1, dtype=np.int64), matrix)
    bolder = torch.tensor(np.log([[0.1, 0.9]]))
    soft = partial(annealed_utility, temperature=0.3)
    assert mean_over_outcomes(soft, bolder, problem) < mean_over_outcomes(
        soft, torch.tensor(problem.logits), problem
    )


def mean_over_outcomes(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], logits: Tensor, problem: Problem
) -> Floats:
    """Expected loss (n,) when outcomes follow the problem's probabilities and `logits` are reported."""
    rows, count = problem.logits.shape
    losses = [
        loss(logits, torch.full((rows,), o), torch.tensor(problem.payoffs)).numpy() for o in range(count)
    ]
    return np.asarray((np.column_stack(losses) * problem.probabilities).sum(axis=1))


@settings(max_examples=30, deadline=None)
@given(problems())
def test_regression_is_least_at_the_mean_payoff(problem: Problem) -> None:
    """Over the outcomes' true chances, predicting each action's expected utility costs least."""
    means = expected_utility(problem.payoffs, problem.probabilities)
    spread = problem.payoffs.std()

    def cost(predicted: Floats) -> Floats:
        return mean_over_outcomes(utility_regression, torch.tensor(predicted), problem)

    for shift in (-0.1, 0.1):
        np.testing.assert_allclose(
            cost(means + shift * spread), cost(means) + (shift * spread) ** 2, rtol=1e-6
        )
