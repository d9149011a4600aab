"""Fit a gradient-boosted peer on the network's own inputs, and turn it into the arrays of services/training/trees.py.

LightGBM is an optional extra (`pip install 'trimtab[boosted]'`) and needed here only, never for serving. One thread and
a fixed seed: the same rows give the same trees. Source: Ke et al., "LightGBM", NIPS 2017.
Must never be imported by serving's request path.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.training.errors import TrainingError
from services.training.fit import Labelled
from services.training.preprocessing import Encoded
from services.training.trees import TreeShape

_STOP_AFTER = 50


@dataclass(frozen=True)
class BoostedSettings:
    """How to boost. Early stopping: after 50 rounds without a better log loss on the validation rows."""

    most_rounds: int = 1000
    learning_rate: float = 0.05
    leaves: int = 31
    least_rows_in_leaf: int = 50
    l2: float = 1.0
    column_share: float = 0.8
    category_smoothing: float = 50.0
    category_l2: float = 30.0
    least_rows_per_category_group: int = 200


@dataclass(frozen=True)
class BoostedTrees:
    """The arrays, their shape, and how many rounds of how many were kept."""

    shape: TreeShape
    arrays: Mapping[str, NDArray[Any]]
    rounds: int


def fit_trees(
    training: Labelled,
    validation: Labelled,
    *,
    cardinalities: tuple[int, ...],
    outcomes: int,
    settings: BoostedSettings,
    seed: int,
) -> BoostedTrees:
    """Boost on `training`, stop on `validation`. Raises TrainingError where lightgbm is not installed."""
    try:
        import lightgbm
    except ImportError as error:
        raise TrainingError("boosted trees need lightgbm: pip install 'trimtab[boosted]'") from error
    numbers = training.encoded.numeric.shape[1]
    categorical = [numbers + j for j in range(len(cardinalities))]
    is_binary = outcomes == 2
    parameters = {
        "objective": "binary" if is_binary else "multiclass",
        **({} if is_binary else {"num_class": outcomes}),
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.least_rows_in_leaf,
        "lambda_l2": settings.l2,
        "feature_fraction": settings.column_share,
        "cat_smooth": settings.category_smoothing,
        "cat_l2": settings.category_l2,
        "min_data_per_group": settings.least_rows_per_category_group,
        "seed": seed,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    rows, held_out = (
        lightgbm.Dataset(
            inputs_of(part.encoded),
            label=part.outcomes,
            weight=part.weights,
            categorical_feature=categorical,
            free_raw_data=False,
        )
        for part in (training, validation)
    )
    booster = lightgbm.train(
        parameters,
        rows,
        num_boost_round=settings.most_rounds,
        valid_sets=[held_out],
        callbacks=[lightgbm.early_stopping(_STOP_AFTER, verbose=False)],
    )
    document = booster.dump_model(num_iteration=booster.best_iteration)
    shape, arrays = tree_arrays(document, numbers=numbers, cardinalities=cardinalities, is_binary=is_binary)
    return BoostedTrees(shape, arrays, int(booster.best_iteration))


def inputs_of(encoded: Encoded) -> NDArray[np.float32]:
    """Numbers, then category indices, (n, d + k) float32: the columns that `feature` counts."""
    return np.concatenate([encoded.numeric, encoded.categories.astype(np.float32)], axis=1)


def tree_arrays(
    document: Mapping[str, Any], *, numbers: int, cardinalities: tuple[int, ...], is_binary: bool
) -> tuple[TreeShape, dict[str, NDArray[Any]]]:
    """A LightGBM model, as `Booster.dump_model` states it, as arrays: nodes in pre-order, trees end to end."""
    nodes = _Nodes()
    roots, adds_to = [], []
    per_round = document["num_tree_per_iteration"]
    for at, tree in enumerate(document["tree_info"]):
        roots.append(nodes.add(tree["tree_structure"]))
        adds_to.append(1 if is_binary else at % per_round)
    widest = max(cardinalities, default=0)
    sets = np.zeros((len(nodes.sets), widest), dtype=np.uint8)
    for row, members in zip(sets, nodes.sets, strict=True):
        row[members] = 1
    columns = np.array(nodes.rows, dtype=np.float64).reshape(-1, 6)
    feature, left, right, set_of = columns[:, :4].astype(np.int32).T
    arrays: dict[str, NDArray[Any]] = {
        "feature": feature,
        "left": left,
        "right": right,
        "set_of": set_of,
        "threshold": _rounded_down(columns[:, 4]),
        "value": columns[:, 5].astype(np.float32),
        "root": np.array(roots, dtype=np.int32),
        "outcome": np.array(adds_to, dtype=np.int32),
        "sets": sets,
    }
    shape = TreeShape(len(columns), len(roots), len(sets), widest)
    return shape, {f"trees.{name}": np.ascontiguousarray(array) for name, array in arrays.items()}


class _Nodes:
    """Collects nodes as rows (feature, left, right, set_of, threshold, value), and category sets."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self.sets: list[list[int]] = []

    def add(self, node: Mapping[str, Any]) -> int:
        """Append a node and all below it; the node's index."""
        at = len(self.rows)
        self.rows.append([0, at, at, -1, 0.0, float(node.get("leaf_value", 0.0))])
        if "split_index" not in node:
            return at
        row = self.rows[at]
        row[0] = node["split_feature"]
        if node["decision_type"] == "==":
            row[3] = len(self.sets)
            self.sets.append([int(category) for category in str(node["threshold"]).split("||")])
        elif node["decision_type"] == "<=":
            row[4] = float(node["threshold"])
        else:
            raise TrainingError(f"a split must be <= or ==: {node['decision_type']!r}")
        row[1] = self.add(node["left_child"])
        row[2] = self.add(node["right_child"])
        return at


def _rounded_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The greatest float32 at most each value: no float32 lies between, so x <= value keeps its meaning."""
    rounded = np.clip(values, -3.4e38, 3.4e38).astype(np.float32)
    above = rounded.astype(np.float64) > values
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    return rounded
