"""Lagrangian training: a network whose own decisions keep bounds on rates."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec
from services.training.fit import Settings
from services.training.lagrangian import RateBound, excess, fit_under_bounds
from services.training.time_slices import TimePlan, time_slices
from services.training.train import TrainingContract

Columns = dict[str, NDArray[Any]]


def test_the_excess_is_the_rate_less_its_bound() -> None:
    """Among the rows that count, per bound; a batch without such rows says nothing."""
    chances = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    bounds = (RateBound(1, 0, 0.25), RateBound(1, None, 0.5), RateBound(1, 2, 0.5))
    found = excess(chances, torch.tensor([0, 0, 1]), bounds)
    np.testing.assert_allclose(found, [0.45 - 0.25, 1.4 / 3 - 0.5, 0.0], atol=1e-6)


def test_the_networks_own_decisions_keep_the_bound(
    toy_columns: Callable[..., Columns], toy_contract: TrainingContract, toy_utility: UtilitySpec
) -> None:
    """Where free training calls too many who do not buy, bounded training does not, and its multiplier says why."""
    pytest.importorskip("cooper")
    slices = time_slices(toy_columns(5000, seed=7), TimePlan())

    def rate_under(at_most: float) -> tuple[float, float]:
        network = fit_under_bounds(
            slices.fit,
            slices.validation,
            contract=toy_contract,
            utility=toy_utility,
            bounds=(RateBound(action=1, among=0, at_most=at_most),),
            seed=0,
            settings=Settings(hidden=(16,), most_epochs=15, learning_rate=1e-2, batch_rows=128),
        )
        assert network.keeps_bounds
        actions = network.choose(slices.test, toy_utility.payoffs(slices.test))
        unsold = slices.test["sold"] == "n"
        assert network.rates[0] <= at_most
        return float((actions[unsold] == 1).mean()), network.multipliers[0]

    free, no_price = rate_under(1.0)
    bound, price = rate_under(0.15)
    assert free > 0.25
    assert bound < 0.19  # 0.15 held on validation rows; test rows scatter
    assert price > no_price == 0.0
