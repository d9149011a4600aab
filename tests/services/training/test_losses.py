"""Losses: the weights come from the utility spec's payoffs and from nowhere else."""

import numpy as np
import pytest
import torch

from policies.utility.utility import UtilitySpec
from services.training.losses import LOSSES, loss_named, payoff_weighted_cross_entropy, stakes

SIZES = np.array([0.0, 1.0, 4.0, 50.0])


def test_stakes_are_the_specs_payoff_differences(toy_utility: UtilitySpec) -> None:
    """For two actions the stake is |gain if it happens − gain if it does not|, capped as the spec caps it."""
    payoffs = toy_utility.payoffs({"size": SIZES})
    by_hand = np.clip(SIZES, 0, 10)
    np.testing.assert_allclose(stakes(torch.from_numpy(payoffs)).numpy(), by_hand)


def test_the_stake_turns_an_error_of_probability_into_lost_utility(toy_utility: UtilitySpec) -> None:
    """Utility lost by the wrong action is stake × |p − threshold|, the independent oracle of the weight."""
    payoffs = toy_utility.payoffs({"size": SIZES[1:]})
    stake = stakes(torch.from_numpy(payoffs)).numpy()
    gain = payoffs[:, 1] - payoffs[:, 0]
    for p in (0.05, 0.3, 0.9):
        lost = np.abs(gain[:, 1] * p + gain[:, 0] * (1 - p))
        np.testing.assert_allclose(lost, stake * np.abs(p - 1 / np.clip(SIZES[1:], 0, 10)))


def test_three_actions_take_their_widest_pair() -> None:
    """With more actions and outcomes, the stake is the largest over the pairs."""
    payoffs = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [5.0, -5.0, 0.0]]])
    assert stakes(payoffs).item() == 11.0  # action 2 less action 1: 4, −7, −3


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_every_loss_gives_one_value_per_row_and_a_gradient(
    name: str, progress: float, toy_utility: UtilitySpec
) -> None:
    """A loss has shape (n,) at every moment of the fit, moves the logits, and is finite where nothing is at stake."""
    logits = torch.zeros((4, 2), requires_grad=True)
    payoffs = torch.from_numpy(toy_utility.payoffs({"size": SIZES})).float()
    value = loss_named(name).at(progress)(logits, torch.tensor([0, 1, 0, 1]), payoffs)
    assert value.shape == (4,)
    assert torch.isfinite(value).all()
    value.mean().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


def test_weighted_is_stake_times_unweighted(toy_utility: UtilitySpec) -> None:
    """A row with twice at stake counts twice; a row with nothing at stake does not count."""
    payoffs = torch.from_numpy(toy_utility.payoffs({"size": np.array([0.0, 2.0, 4.0])})).float()
    value = payoff_weighted_cross_entropy(torch.zeros((3, 2)), torch.tensor([1, 1, 1]), payoffs)
    np.testing.assert_allclose(value.numpy(), np.log(2) * np.array([0.0, 2.0, 4.0]), rtol=1e-6)


def test_an_unknown_loss_says_what_exists() -> None:
    """A misspelled loss is refused with the names there are."""
    with pytest.raises(KeyError, match="cross_entropy"):
        loss_named("crossentropy")
