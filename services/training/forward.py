"""The network in numpy: the same function as services/training/network.py, for whoever has no torch.

Serving answers with this one (a numpy forward beats eager torch on single rows and starts in a third of the
time); a test holds the two together to 1e-5. Weights, all float32: `embedding.<j>` (cardinality, width) per
category column, `layer.<i>.weight` (out, in) and `layer.<i>.bias` (out,). Input: numeric columns, then the
embeddings in column order; ReLU between layers, none after the last; output: one logit per outcome. A network may have
a boosted peer (services/training/trees.py): then the output is the logarithm of the two models' mean probability, in
which the peer has the share `peer_share`; with a share of 1 the network is only there for its shape. And it may have
a second network beside it, on the same inputs and under `fields.`, for fields that payoffs read and nobody knows yet
(services/training/predicted_fields.py).

numpy only: must never import torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.training.errors import TrainingError
from services.training.predicted_fields import FieldNetwork
from services.training.preprocessing import Columns, Encoded, Preprocessing
from services.training.trees import TreeShape, tree_logits

Weights = Mapping[str, NDArray[Any]]

_FIELDS = "fields."


@dataclass(frozen=True)
class Architecture:
    """Widths: numeric inputs, cardinality and embedding per category, hidden layers, outcomes; and what stands beside:
    a peer's trees, the network of fields not known yet."""

    numeric: int
    cardinalities: tuple[int, ...]
    embeddings: tuple[int, ...]
    hidden: tuple[int, ...]
    outcomes: int
    trees: TreeShape | None = None
    peer_share: float = 0.0
    fields: FieldNetwork | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.peer_share <= 1.0 or (self.peer_share > 0.0) != (self.trees is not None):
            raise TrainingError(f"'peer_share' must be in (0, 1] with trees, 0 without: {self.peer_share}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of every layer of units, the input and the logits included."""
        return (self.numeric + sum(self.embeddings), *self.hidden, self.outcomes)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight the network has."""
        shapes: dict[str, tuple[int, ...]] = {
            f"embedding.{j}": pair
            for j, pair in enumerate(zip(self.cardinalities, self.embeddings, strict=True))
        }
        for i, (inward, outward) in enumerate(pairwise(self.widths)):
            shapes[f"layer.{i}.weight"] = (outward, inward)
            shapes[f"layer.{i}.bias"] = (outward,)
        if self.of_fields is not None:
            shapes |= {_FIELDS + name: shape for name, shape in self.of_fields.shapes().items()}
        return shapes | (self.trees.shapes() if self.trees is not None else {})

    @property
    def of_fields(self) -> "Architecture | None":
        """The second network by itself: the same inputs, one output a field."""
        if self.fields is None:
            return None
        return Architecture(
            numeric=self.numeric,
            cardinalities=self.cardinalities,
            embeddings=self.embeddings,
            hidden=self.fields.hidden,
            outcomes=len(self.fields.names),
        )

    def check(self, weights: Weights) -> None:
        """Raise TrainingError unless `weights` are exactly this network's, finite, of the right shapes."""
        found = {name: array.shape for name, array in weights.items()}
        if found != self.shapes():
            raise TrainingError(f"weights must have the shapes {self.shapes()}: {found}")
        bad = sorted(name for name, array in weights.items() if not np.isfinite(array).all())
        if bad:
            raise TrainingError(f"weights must be finite: {bad}")
        if self.trees is not None:
            inputs = self.numeric + len(self.cardinalities)
            self.trees.check(weights, inputs=inputs, outcomes=self.outcomes)

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe dict; `from_json` gives back an equal object."""
        lists = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if v is not None}
        if self.trees is None:
            del lists["peer_share"]
        if self.fields is not None:
            lists["fields"] = self.fields.to_json()
        return {"version": 1, "kind": "embedding_mlp", "activation": "relu", **lists}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Architecture":
        """Read what `to_json` wrote. Raises TrainingError if it is not that."""
        try:
            known = (document["version"], document["kind"], document["activation"])
            if known != (1, "embedding_mlp", "relu"):
                raise TrainingError(f"the network must be version 1, embedding_mlp, relu: {known}")
            tuples = {
                k: tuple(int(v) for v in document[k]) for k in ("cardinalities", "embeddings", "hidden")
            }
            trees = TreeShape(**document["trees"]) if "trees" in document else None
            fields = FieldNetwork.from_json(document["fields"]) if "fields" in document else None
            return cls(
                numeric=int(document["numeric"]),
                outcomes=int(document["outcomes"]),
                trees=trees,
                peer_share=float(document.get("peer_share", 0.0)),
                fields=fields,
                **tuples,
            )
        except (KeyError, TypeError) as error:
            raise TrainingError(f"not a network document: {error!r}") from error


def forward(architecture: Architecture, weights: Weights, encoded: Encoded) -> NDArray[np.float32]:
    """Logits (n, O) float32 of the encoded rows; uncalibrated."""
    if architecture.trees is None:
        return _network(architecture, weights, encoded)
    peer = _log_softmax(tree_logits(weights, encoded, outcomes=architecture.outcomes))
    if architecture.peer_share == 1.0:
        return peer
    own = _log_softmax(_network(architecture, weights, encoded))
    mean = np.logaddexp(own + np.log1p(-architecture.peer_share), peer + np.log(architecture.peer_share))
    return np.asarray(mean, dtype=np.float32)


def filled_in(
    architecture: Architecture, weights: Weights, preprocessing: Preprocessing, columns: Columns
) -> Columns:
    """The columns (n,) as a decision sees them: fields not known yet as predicted, whatever `columns` say of them."""
    if architecture.fields is None or architecture.of_fields is None:
        return columns
    own = {name.removeprefix(_FIELDS): w for name, w in weights.items() if name.startswith(_FIELDS)}
    outputs = _network(architecture.of_fields, own, preprocessing.transform(columns))
    return {**columns, **architecture.fields.values(outputs)}


def with_fields(
    architecture: Architecture, weights: Weights, *, fields: FieldNetwork, field_weights: Weights
) -> tuple[Architecture, Weights]:
    """The same network with the one for the fields beside it."""
    beside = {_FIELDS + name: array for name, array in field_weights.items()}
    return replace(architecture, fields=fields), {**weights, **beside}


def _network(architecture: Architecture, weights: Weights, encoded: Encoded) -> NDArray[np.float32]:
    tables = [weights[f"embedding.{j}"] for j in range(len(architecture.embeddings))]
    if len(encoded.categories) == 1:  # slices are much cheaper than look-ups, and most requests have one row
        embedded = [
            table[at : at + 1] for table, at in zip(tables, encoded.categories[0].tolist(), strict=True)
        ]
    else:
        embedded = [table[column] for table, column in zip(tables, encoded.categories.T, strict=True)]
    units: NDArray[np.float32] = np.concatenate([encoded.numeric, *embedded], axis=1)
    last = len(architecture.widths) - 2
    for i in range(last + 1):
        units = units @ weights[f"layer.{i}.weight"].T
        units += weights[f"layer.{i}.bias"]
        if i < last:
            np.maximum(units, np.float32(0.0), out=units)
    return units


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
