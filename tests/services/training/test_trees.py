"""Boosted trees as arrays: what numpy answers is what the boosting library would, and bad arrays are refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec
from services.training.boosted import inputs_of, tree_arrays
from services.training.calibration import softmax
from services.training.errors import TrainingError
from services.training.fit import Settings
from services.training.forward import Architecture, forward
from services.training.plan import BOOSTED, BOOSTED_AVERAGE, TrainingPlan
from services.training.preprocessing import Encoded
from services.training.time_slices import TimePlan, time_slices
from services.training.train import TrainingContract, train
from services.training.trees import TreeShape, tree_logits

Columns = dict[str, NDArray[Any]]


def by_hand() -> tuple[TreeShape, dict[str, NDArray[Any]]]:
    """Tree 1, to outcome 1: number <= 0.5 ? 1 : (category in {0, 2} ? 2 : 3). Tree 2, to outcome 0: always 10."""
    arrays: dict[str, NDArray[Any]] = {
        "feature": np.array([0, 0, 1, 0, 0, 0], np.int32),
        "left": np.array([1, 1, 3, 3, 4, 5], np.int32),
        "right": np.array([2, 1, 4, 3, 4, 5], np.int32),
        "set_of": np.array([-1, -1, 0, -1, -1, -1], np.int32),
        "threshold": np.array([0.5, 0, 0, 0, 0, 0], np.float32),
        "value": np.array([0, 1, 0, 2, 3, 10], np.float32),
        "root": np.array([0, 5], np.int32),
        "outcome": np.array([1, 0], np.int32),
        "sets": np.array([[1, 0, 1]], np.uint8),
    }
    return TreeShape(nodes=6, trees=2, sets=1, widest=3), {f"trees.{k}": v for k, v in arrays.items()}


def test_each_row_walks_to_its_own_leaf() -> None:
    """Thresholds are inclusive on the left, categories go by their set, values add up per outcome."""
    shape, arrays = by_hand()
    encoded = Encoded(np.array([[0.5], [0.6], [0.6], [9.0]], np.float32), np.array([[1], [0], [1], [2]]))
    shape.check(arrays, inputs=2, outcomes=2)
    np.testing.assert_array_equal(
        tree_logits(arrays, encoded, outcomes=2), [[10, 1], [10, 2], [10, 3], [10, 2]]
    )


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("feature", 0, 2, "'trees.feature'"),
        ("set_of", 2, 1, "'trees.set_of'"),
        ("root", 1, -1, "'trees.root'"),
        ("outcome", 0, 2, "'trees.outcome'"),
        ("right", 0, 6, "'trees.right'"),
        ("left", 2, 0, "must stand after it"),
        ("set_of", 1, 0, "a leaf must have no category set"),
    ],
)
def test_arrays_that_could_lead_astray_are_refused(name: str, at: int, value: int, message: str) -> None:
    """An index out of bounds or a child before its parent (a walk without end) is an error that names it."""
    shape, arrays = by_hand()
    arrays[f"trees.{name}"][at] = value
    with pytest.raises(TrainingError, match=message):
        shape.check(arrays, inputs=2, outcomes=2)


@pytest.mark.parametrize("outcomes", [2, 3])
def test_numpy_answers_what_lightgbm_would(outcomes: int) -> None:
    """On fresh rows, categories never seen among them, raw scores agree to float32; any number of outcomes."""
    lightgbm = pytest.importorskip("lightgbm")
    draw = np.random.default_rng(1)

    def encoded(rows: int) -> Encoded:
        return Encoded(draw.normal(size=(rows, 3)).astype(np.float32), draw.integers(0, 12, size=(rows, 2)))

    rows = encoded(3000)
    score = rows.numeric[:, 0] + 2 * (rows.categories[:, 0] % 3 == 0) + draw.normal(scale=0.3, size=3000)
    labels = np.digitize(score, [0.5, 1.5][: outcomes - 1])
    data = lightgbm.Dataset(inputs_of(rows), label=labels, categorical_feature=[3, 4])
    kind = {"objective": "binary"} if outcomes == 2 else {"objective": "multiclass", "num_class": outcomes}
    booster = lightgbm.train({**kind, "verbosity": -1, "num_threads": 1, "min_data_per_group": 20}, data, 30)
    shape, arrays = tree_arrays(
        booster.dump_model(), numbers=3, cardinalities=(14, 12), is_binary=outcomes == 2
    )
    assert shape.sets > 0
    shape.check(arrays, inputs=5, outcomes=outcomes)
    fresh = encoded(500)
    fresh.categories[:50, 0] = 13
    theirs = booster.predict(inputs_of(fresh), raw_score=True)
    ours = tree_logits(arrays, fresh, outcomes=outcomes)
    np.testing.assert_allclose(ours[:, 1] if outcomes == 2 else ours, theirs, atol=1e-5)


def test_trees_alone_or_averaged_are_candidates_like_any_other(
    toy_columns: Callable[..., Columns], toy_contract: TrainingContract, toy_utility: UtilitySpec
) -> None:
    """Both are trained and recorded like any other, and answer from the arrays alone."""
    pytest.importorskip("lightgbm")
    columns = toy_columns(3000, seed=3)
    slices = time_slices(columns, TimePlan())
    result = train(
        slices.fit,
        slices.validation,
        slices.calibration,
        contract=toy_contract,
        utility=toy_utility,
        seed=0,
        plan=TrainingPlan(("cross_entropy", BOOSTED, BOOSTED_AVERAGE)),
        settings=Settings(hidden=(8,), most_epochs=3),
    )
    network, trees, both = result.candidates
    assert json.loads(json.dumps(result.record()))["candidates"][2]["loss"] == BOOSTED_AVERAGE
    assert Architecture.from_json(json.loads(json.dumps(both.architecture.to_json()))) == both.architecture
    both.architecture.check(both.weights)
    trees.architecture.check(trees.weights)
    encoded = both.preprocessing.transform(columns)
    peer = softmax(tree_logits(both.weights, encoded, outcomes=2).astype(np.float64))
    alone = softmax(forward(network.architecture, network.weights, encoded).astype(np.float64))
    answered = softmax(forward(both.architecture, both.weights, encoded).astype(np.float64))
    np.testing.assert_allclose(answered, (peer + alone) / 2, atol=1e-5)
    alone = softmax(forward(trees.architecture, trees.weights, encoded).astype(np.float64))
    np.testing.assert_allclose(alone, peer, atol=1e-5)
    with pytest.raises(TrainingError, match="'peer_share' must be in"):
        replace(both.architecture, trees=None)
    with pytest.raises(TrainingError, match="weights must have the shapes"):
        replace(both.architecture, trees=None, peer_share=0.0).check(both.weights)
