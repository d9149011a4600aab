"""Fields known only after the decision: predicted where payoffs read them, judged by what they turned out to be."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec, load_utility, realised_utility
from services.data.columns import Column
from services.training.errors import TrainingError
from services.training.fit import Settings
from services.training.forward import Architecture, filled_in
from services.training.known_rows import known_rows
from services.training.plan import TrainingPlan
from services.training.predicted_fields import is_needed, settled
from services.training.time_slices import TimePlan, time_slices
from services.training.train import Training, TrainingContract, train

Columns = dict[str, NDArray[Any]]
DAY = 86_400.0
QUICK = Settings(hidden=(16,), most_epochs=15, patience=4, learning_rate=1e-2)


def bought(columns: Columns) -> NDArray[np.bool_]:
    return np.asarray(columns["sold"] == "y")


@pytest.fixture(scope="module")
def shop(toy_contract: Any) -> TrainingContract:
    """The size of an order is known a day after the call, of those who bought."""
    later = Column("size", "number", False, "excluded", available_at_s=DAY)
    columns = (*(c for c in toy_contract.columns if c.name != "size"), later)
    return replace(toy_contract, columns=columns)


@pytest.fixture(scope="module")
def hiding(toy_utility_text: str) -> UtilitySpec:
    """The same payoffs, over a size that nobody knows when deciding."""
    return load_utility(
        toy_utility_text.replace("range: {", "hiddenWhenDeciding: [size]\nrange: {"), "toy.yaml"
    )


@pytest.fixture(scope="module")
def orders(toy_columns: Callable[..., Columns]) -> Callable[..., Columns]:
    """Sizes grow with warmth, which is seen; who bought nothing has none."""

    def make(rows: int, *, seed: int) -> Columns:
        columns = toy_columns(rows, seed=seed)
        columns["mean_size"] = np.clip(2.0 + columns["warmth"], 0.2, None)
        noise = np.random.default_rng(seed + 1).uniform(0.5, 1.5, rows)
        columns["true_size"] = columns["mean_size"] * noise
        columns["size"] = np.where(bought(columns), columns["true_size"], np.nan)
        return columns

    return make


@pytest.fixture(scope="module")
def trained(orders: Callable[..., Columns], shop: TrainingContract, hiding: UtilitySpec) -> Training:
    slices = time_slices(orders(8000, seed=7), TimePlan())
    return train(
        slices.fit,
        slices.validation,
        slices.calibration,
        contract=shop,
        utility=hiding,
        seed=0,
        plan=TrainingPlan(("cross_entropy",)),
        settings=QUICK,
    )


def test_a_field_is_needed_under_the_outcomes_whose_payoffs_read_it(hiding: UtilitySpec) -> None:
    """What a row without a sale would have been worth needs no size."""
    assert hiding.hidden == ("size",)
    assert is_needed(hiding, "size").tolist() == [False, True]


def test_a_decision_sees_the_mean_size_of_those_who_buy(
    trained: Training, orders: Callable[..., Columns]
) -> None:
    """The predicted size follows the mean size given the row, and the size that a row brings is never looked at."""
    fresh = orders(4000, seed=9)
    seen = trained.chosen.decided_on(fresh)
    assert np.abs(np.asarray(seen["size"]) - fresh["mean_size"]).mean() < 0.2
    lied = trained.chosen.decided_on({**fresh, "size": fresh["true_size"] * 100})
    np.testing.assert_array_equal(lied["size"], seen["size"])
    assert "size" not in trained.chosen.preprocessing.feature_names
    assert 0.3 < trained.record()["predicted_fields"]["size"] < 0.95  # type: ignore[index]


def test_it_earns_nearly_what_one_earns_who_knows_chances_and_mean_sizes(
    trained: Training, orders: Callable[..., Columns], hiding: UtilitySpec
) -> None:
    """Deciding on predictions loses little to the best rule without the size, and is judged by the true size."""
    fresh = orders(20_000, seed=11)
    payoffs = hiding.payoffs({**fresh, "size": fresh["true_size"]})
    outcomes = bought(fresh).astype(np.int64)
    probabilities = trained.chosen.probabilities(fresh)
    believed = hiding.payoffs(trained.chosen.decided_on(fresh))
    ours = (probabilities[:, None, :] * believed).sum(axis=2).argmax(axis=1)
    best = (fresh["chance"] * fresh["mean_size"] > 1).astype(np.int64)
    earned = [realised_utility(payoffs, actions, outcomes).mean() for actions in (ours, best)]
    assert earned[0] > 0.95 * earned[1] > 0.1
    lower, upper = trained.chosen.validation_interval
    assert lower - 0.05 < earned[0] < upper + 0.05


def test_values_of_other_outcomes_teach_but_do_not_mislead(
    orders: Callable[..., Columns], shop: TrainingContract, hiding: UtilitySpec
) -> None:
    """Where everybody's size is known but who does not buy would have ordered half, what is predicted is the size of
    those who buy."""
    columns = orders(8000, seed=7)
    columns["size"] = columns["true_size"] * np.where(bought(columns), 1.0, 0.5)
    slices = time_slices(columns, TimePlan())
    chosen = train(
        slices.fit,
        slices.validation,
        slices.calibration,
        contract=shop,
        utility=hiding,
        seed=0,
        plan=TrainingPlan(("cross_entropy",)),
        settings=QUICK,
    ).chosen
    fresh = orders(4000, seed=9)
    predicted = np.asarray(chosen.decided_on(fresh)["size"])
    assert predicted.mean() == pytest.approx(fresh["mean_size"].mean(), rel=0.1)


def test_architecture_and_weights_state_the_field_network(
    trained: Training, orders: Callable[..., Columns]
) -> None:
    """What a release holds is JSON and arrays; read back, it predicts the same, and other shapes are refused."""
    chosen, fresh = trained.chosen, orders(50, seed=3)
    architecture = Architecture.from_json(json.loads(json.dumps(chosen.architecture.to_json())))
    assert architecture == chosen.architecture
    architecture.check(chosen.weights)
    again = filled_in(architecture, chosen.weights, chosen.preprocessing, fresh)
    np.testing.assert_array_equal(again["size"], chosen.decided_on(fresh)["size"])
    with pytest.raises(TrainingError, match="must have the shapes"):
        architecture.check({k: v for k, v in chosen.weights.items() if not k.startswith("fields.")})


def test_a_buyer_without_a_size_cannot_be_priced_and_is_left_out(
    orders: Callable[..., Columns], shop: TrainingContract, hiding: UtilitySpec
) -> None:
    """Who bought nothing needs no size; settled columns are what is known, else what was predicted."""
    columns = orders(200, seed=1)
    lost = np.flatnonzero(bought(columns))[:7]
    columns["size"][lost] = np.nan
    known, outcomes = known_rows(columns, shop, hiding)
    assert len(outcomes) == 193
    assert not np.isnan(known["size"][outcomes == 1]).any()
    filled = settled(known, {"size": np.full(193, 5.0)}, ("size",))
    np.testing.assert_array_equal(filled["size"], np.where(outcomes == 1, known["size"], 5.0))


def test_too_few_values_are_refused(
    orders: Callable[..., Columns], shop: TrainingContract, hiding: UtilitySpec
) -> None:
    """49 sizes teach no network, and the field is named."""
    slices = time_slices(orders(8000, seed=7), TimePlan())
    fit: Columns = {k: np.array(v) for k, v in slices.fit.items()}
    sold = np.flatnonzero(bought(fit))
    fit["sold"][sold[49:]], fit["size"][sold[49:]] = "n", np.nan
    with pytest.raises(TrainingError, match="'size' must have a value in 50 rows at least: 49"):
        train(
            fit,
            slices.validation,
            slices.calibration,
            contract=shop,
            utility=hiding,
            seed=0,
            settings=QUICK,
        )


def test_nothing_is_predicted_where_nothing_is_hidden(
    toy_columns: Callable[..., Columns], toy_contract: TrainingContract, toy_utility: UtilitySpec
) -> None:
    """Without such a field the release holds what it always held, and columns pass as they are."""
    slices = time_slices(toy_columns(1500, seed=7), TimePlan())
    found = train(
        slices.fit,
        slices.validation,
        slices.calibration,
        contract=toy_contract,
        utility=toy_utility,
        seed=0,
        plan=TrainingPlan(("cross_entropy",)),
        settings=replace(QUICK, most_epochs=2),
    ).chosen
    assert "fields" not in found.architecture.to_json()
    assert found.decided_on(slices.test) is slices.test
