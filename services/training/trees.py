"""Gradient-boosted trees as plain arrays, evaluated in numpy: what a release holds of a boosted peer.

No pickle and no boosting library at serving: nodes are rows of arrays in the weights file. All trees lie end to end;
a node sends a row to `left` where its input is at most the threshold or, for a category, in the node's set; a leaf
points to itself and carries a value. Children stand after their parents, so that every walk ends; `check` holds
untrusted arrays to that. Arrays, under `trees.`:

    feature, left, right, set_of (nodes,) int32   input index (numbers first, then categories); set_of -1: a number
    threshold, value (nodes,) float32             a float64 threshold is rounded down: the same for float32 inputs
    root, outcome (trees,) int32                  first node of each tree, and the logit that it adds to
    sets (sets, widest) uint8                     1 where the category goes left

numpy only: serving imports this file, so it must never import torch or lightgbm.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.training.errors import TrainingError
from services.training.preprocessing import Encoded

Arrays = Mapping[str, NDArray[Any]]

_CELLS_AT_ONCE = 2_000_000
_PER_NODE = ("feature", "left", "right", "set_of", "threshold", "value")


@dataclass(frozen=True)
class TreeShape:
    """How many nodes, trees and category sets there are, and how many categories the widest column has."""

    nodes: int
    trees: int
    sets: int
    widest: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array."""
        per_node = {f"trees.{name}": (self.nodes,) for name in _PER_NODE}
        per_tree = {f"trees.{name}": (self.trees,) for name in ("root", "outcome")}
        return {**per_node, **per_tree, "trees.sets": (self.sets, self.widest)}

    def check(self, arrays: Arrays, *, inputs: int, outcomes: int) -> None:
        """Raise TrainingError unless every index stays in bounds and every walk ends. Shapes were checked before."""
        itself = np.arange(self.nodes)
        left, right, set_of = (arrays[f"trees.{name}"] for name in ("left", "right", "set_of"))
        is_leaf = (left == itself) & (right == itself)
        bounds = (
            ("feature", 0, inputs),
            ("set_of", -1, self.sets),
            ("root", 0, self.nodes),
            ("outcome", 0, outcomes),
            ("left", 0, self.nodes),
            ("right", 0, self.nodes),
        )
        for name, low, stop in bounds:
            values = arrays[f"trees.{name}"]
            if values.dtype.kind != "i" or ((values < low) | (values >= stop)).any():
                raise TrainingError(f"'trees.{name}' must be integers from {low} to {stop - 1}")
        if not (is_leaf | ((left > itself) & (right > itself))).all():
            raise TrainingError("children of a tree's node must stand after it")
        if (set_of[is_leaf] != -1).any():
            raise TrainingError("a leaf must have no category set")

    def to_json(self) -> dict[str, int]:
        """Plain JSON-safe dict; TreeShape(**document) gives back an equal object."""
        return asdict(self)


def tree_logits(arrays: Arrays, encoded: Encoded, *, outcomes: int) -> NDArray[np.float32]:
    """The sum of the trees per outcome, (n, O) float32, of the encoded rows; uncalibrated."""
    inputs = np.concatenate([encoded.numeric, encoded.categories.astype(np.float32)], axis=1)
    roots, outcome = arrays["trees.root"], arrays["trees.outcome"]
    at_once = max(1, _CELLS_AT_ONCE // max(1, len(roots)))
    adds_to = np.eye(outcomes, dtype=np.float64)[outcome]
    parts = [
        _walk(arrays, inputs[start : start + at_once]) @ adds_to for start in range(0, len(inputs), at_once)
    ]
    logits = np.concatenate(parts) if parts else np.empty((0, outcomes))
    return logits.astype(np.float32)


def _walk(arrays: Arrays, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """The leaf value (n, trees) that each row reaches in each tree."""
    feature, threshold, set_of, sets = (
        arrays[f"trees.{name}"] for name in ("feature", "threshold", "set_of", "sets")
    )
    rows = np.arange(len(inputs))[:, None]
    node = np.broadcast_to(arrays["trees.root"], (len(inputs), len(arrays["trees.root"])))
    while True:
        seen = inputs[rows, feature[node]]
        goes_left = seen <= threshold[node]
        if len(sets):
            which = set_of[node]
            is_category = which >= 0
            goes_left[is_category] = sets[which[is_category], seen[is_category].astype(np.int64)]
        after = np.where(goes_left, arrays["trees.left"][node], arrays["trees.right"][node])
        if np.array_equal(after, node):
            return np.asarray(arrays["trees.value"][node], dtype=np.float64)
        node = after
