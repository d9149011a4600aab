"""Hidden payoffs: the network learns what each action would earn from features alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec, load_utility, realised_utility
from services.training.errors import TrainingError
from services.training.fit import Settings
from services.training.hidden_payoffs import UtilityRegressor, fit_utilities
from services.training.time_slices import TimePlan, time_slices
from services.training.train import TrainingContract

Columns = dict[str, NDArray[Any]]
QUICK = Settings(hidden=(16,), most_epochs=15, patience=4, learning_rate=1e-2)


@pytest.fixture(scope="module")
def without_size(toy_contract: Any) -> TrainingContract:
    """The payoff's only field is no input."""
    return replace(toy_contract, columns=tuple(c for c in toy_contract.columns if c.name != "size"))


def fitted(columns: Columns, contract: TrainingContract, utility: UtilitySpec) -> UtilityRegressor:
    slices = time_slices(columns, TimePlan())
    return fit_utilities(
        slices.fit, slices.validation, contract=contract, utility=utility, seed=0, settings=QUICK
    )


def test_it_predicts_what_a_call_would_earn_on_average(
    toy_columns: Callable[..., Columns], without_size: TrainingContract, toy_utility: UtilitySpec
) -> None:
    """With size hidden and independent of the rest, the gain of calling is P(sale) x its mean size - 1, in EUR."""
    regressor = fitted(toy_columns(8000, seed=7), without_size, toy_utility)
    fresh = toy_columns(20_000, seed=9)
    mean_size = np.clip(fresh["size"], 0, 10).mean()
    gains = regressor.gains(fresh)
    assert (gains[:, 0] == 0.0).all()
    assert np.abs(gains[:, 1] - (fresh["chance"] * mean_size - 1)).mean() < 0.12
    assert "size" not in regressor.preprocessing.feature_names
    sold, payoffs = (fresh["sold"] == "y").astype(np.int64), toy_utility.payoffs(fresh)
    ours, best = (
        realised_utility(payoffs, actions, sold).mean()
        for actions in (regressor.choose(fresh), (fresh["chance"] * mean_size > 1).astype(np.int64))
    )
    assert ours > 0.95 * best > 0.1


def test_payoffs_that_never_differ_are_refused(
    toy_columns: Callable[..., Columns], without_size: TrainingContract, toy_utility_text: str
) -> None:
    """Where all actions earn the same there is nothing to learn, and it is said."""
    bought = 'call: {no_sale: -1, sale: "clip(size, 0, 10) - 1"}'
    text = toy_utility_text.replace(bought, "call: {no_sale: 0, sale: 0}")
    with pytest.raises(TrainingError, match="must differ between actions"):
        fitted(toy_columns(500, seed=1), without_size, load_utility(text, "toy.yaml"))
