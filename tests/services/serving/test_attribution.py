"""Contributions of features: they add up, and agree with finite differences, with captum and with all orders."""

from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from services.serving.attribution import Model
from services.training.calibration import Calibration
from services.training.forward import Architecture
from services.training.preprocessing import CategoryFeature, Encoded, NumericFeature, Preprocessing
from services.training.trees import TreeShape

KINDS = ("ab", "abcd")  # the categories of two columns


def made_up(*, outcomes: int = 2, is_boosted: bool = False, seed: int = 3) -> Model:
    """Three numbers, the second with an indicator, and two categories; random weights of a network 24-12."""
    preprocessing = Preprocessing(
        numeric=tuple(NumericFeature(f"n{i}", -3.0, 3.0, None, 0.0, 1.0, indicator=i == 1) for i in range(3)),
        categories=tuple(CategoryFeature(f"c{i}", tuple(kinds)) for i, kinds in enumerate(KINDS)),
    )
    architecture = Architecture(4, preprocessing.cardinalities, (2, 3), (24, 12), outcomes)
    random = np.random.default_rng(seed)
    weights: dict[str, Any] = {
        name: random.normal(0, 0.6, shape).astype(np.float32) for name, shape in architecture.shapes().items()
    }
    if is_boosted:
        architecture = replace(architecture, trees=TreeShape(3, 1, 0, 0), peer_share=0.5)
        trees = {
            "feature": np.zeros(3, np.int32),
            "left": np.array([1, 1, 2], np.int32),
            "right": np.array([2, 1, 2], np.int32),
            "set_of": np.full(3, -1, np.int32),
            "threshold": np.full(3, 0.5, np.float32),
            "value": np.array([0, -2, 2], np.float32),
            "root": np.zeros(1, np.int32),
            "outcome": np.ones(1, np.int32),
            "sets": np.zeros((0, 0), np.uint8),
        }
        weights |= {f"trees.{name}": array for name, array in trees.items()}
    bias = tuple(random.normal(0, 1, outcomes).tolist())
    return Model(preprocessing, architecture, weights, Calibration(0.8, bias))


def row(seed: int) -> Encoded:
    random = np.random.default_rng(seed)
    numeric = random.normal(0, 1.5, (1, 4)).astype(np.float32)
    numeric[0, 2] = seed % 2
    return Encoded(numeric, np.array([[random.integers(3), random.integers(5)]], np.int64))


def log_odds_of_units(model: Model, units: Any, outcome: int) -> Any:
    """The log-odds (n,) from the first layer's inputs (n, 9), written out again in float64."""
    last = len(model.architecture.widths) - 2
    for i in range(last + 1):
        units = units @ model.weights[f"layer.{i}.weight"].T.astype(float) + model.weights[f"layer.{i}.bias"]
        units = np.maximum(units, 0.0) if i < last else units
    scaled = model.calibration.slope * units + np.asarray(model.calibration.bias)
    return scaled[:, outcome] - np.log(np.exp(np.delete(scaled, outcome, axis=1)).sum(axis=1))


def ends(model: Model, encoded: Encoded) -> tuple[Any, Any]:
    """The first layer's input of the baseline and of the row."""
    chosen = ([0, 0], encoded.categories[0])
    first = [np.concatenate([model.weights[f"embedding.{j}"][c[j]] for j in range(2)]) for c in chosen]
    start = np.concatenate([np.zeros(4), first[0]]).astype(float)
    return start, np.concatenate([encoded.numeric[0], first[1]]).astype(float)


def by_feature(along: Any) -> Any:
    """(9,) per input to (5,) per feature: the indicator belongs to the second number."""
    return np.add.reduceat(along, [0, 1, 3, 4, 6])


@pytest.mark.parametrize(("outcomes", "is_boosted"), [(2, False), (4, False), (2, True), (3, True)])
def test_contributions_add_up(outcomes: int, is_boosted: bool) -> None:
    """Their sum is the row's log-odds less the baseline's, to 1e-5, for 40 rows and every outcome."""
    model = made_up(outcomes=outcomes, is_boosted=is_boosted)
    for seed in range(40):
        for outcome in range(outcomes):
            found = model.attribute(row(seed), outcome)
            assert found.method == ("sampled_shapley" if is_boosted else "integrated_gradients")
            assert found.contributions.sum() == pytest.approx(found.at_row - found.at_baseline, abs=1e-5)


@pytest.mark.parametrize("outcomes", [2, 3])
def test_gradients_agree_with_finite_differences(outcomes: int) -> None:
    """Central differences at 4,000 points of the line, in a forward pass written apart: the same to 2e-3."""
    model, step = made_up(outcomes=outcomes), 1e-5
    at = (np.arange(4000)[:, None] + 0.5) / 4000
    for seed in range(3):
        start, end = ends(model, row(seed))
        units, along = start + at * (end - start), np.zeros(9)
        for i in range(9):
            moved = np.eye(9)[i] * step
            up, down = (log_odds_of_units(model, units + sign * moved, 1) for sign in (1, -1))
            along[i] = ((up - down) / (2 * step)).mean() * (end - start)[i]
        np.testing.assert_allclose(model.attribute(row(seed), 1).contributions, by_feature(along), atol=2e-3)


def test_gradients_agree_with_captum() -> None:
    """captum's integrated gradients of the same network in torch, 8,000 steps: the same to 1e-3."""
    attr = pytest.importorskip("captum.attr")
    torch = pytest.importorskip("torch")
    model = made_up(outcomes=3)
    weights = {name: torch.from_numpy(w).double() for name, w in model.weights.items()}

    def log_odds(units: Any) -> Any:
        for i in range(3):
            units = units @ weights[f"layer.{i}.weight"].T + weights[f"layer.{i}.bias"]
            units = torch.relu(units) if i < 2 else units
        scaled = model.calibration.slope * units + torch.tensor(model.calibration.bias)
        return scaled[:, 1] - torch.logsumexp(scaled[:, [0, 2]], dim=1)

    for seed in range(2):
        start, end = (torch.from_numpy(one)[None] for one in ends(model, row(seed)))
        reference = attr.IntegratedGradients(log_odds).attribute(
            end, start, n_steps=8_000, method="riemann_middle"
        )
        found = model.attribute(row(seed), 1).contributions
        np.testing.assert_allclose(found, by_feature(reference.numpy()[0]), atol=1e-3)


def test_sampled_orders_come_near_all_orders() -> None:
    """With a boosted peer the 4 orders give every feature its Shapley value over all 120 orders, to 0.25 nats."""
    model = made_up(is_boosted=True)
    known = np.array(list(product([False, True], repeat=5)))
    orders = list(permutations(range(5)))
    for seed in range(10):
        encoded, exact = row(seed), np.zeros(5)
        numeric = np.where(known[:, [0, 1, 1, 2]], encoded.numeric, 0).astype(np.float32)
        mixed = Encoded(numeric, np.where(known[:, 3:], encoded.categories, 0))
        worth = model.log_odds(mixed, 1).reshape((2,) * 5)
        for order in orders:
            held = [0] * 5
            for feature in order:
                before = worth[tuple(held)]
                held[feature] = 1
                exact[feature] += (worth[tuple(held)] - before) / len(orders)
        np.testing.assert_allclose(model.attribute(encoded, 1).contributions, exact, atol=0.25)


def test_the_baseline_itself_is_explained_by_nothing() -> None:
    """A row that is the baseline has no contribution, and a feature that is as in the baseline has none."""
    for model in (made_up(), made_up(is_boosted=True)):
        nothing = Encoded(np.zeros((1, 4), np.float32), np.zeros((1, 2), np.int64))
        assert not model.attribute(nothing, 1).contributions.any()
        one = Encoded(np.array([[0, 2, 0, 0]], np.float32), np.array([[1, 0]], np.int64))
        assert np.flatnonzero(model.attribute(one, 1).contributions).tolist() == [1, 3]


def test_a_row_is_always_explained_alike() -> None:
    """The orders are fixed: the same row gives the same contributions, bit by bit."""
    model = made_up(is_boosted=True)
    first, second = (model.attribute(row(8), 1).contributions for _ in range(2))
    np.testing.assert_array_equal(first, second)
