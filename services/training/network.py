"""The network in torch: embeddings for categories beside standardised numbers, a small ReLU perceptron,
softmax logits.

Trains with category dropout: now and then a category is shown as unknown (index 0), so that the unknown
embedding means something when time brings categories that fitting never saw. Exported weights are named and
shaped as services/training/forward.py expects. Must never be imported by serving's request path.
"""

import math
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from services.training.forward import Architecture
from services.training.preprocessing import UNKNOWN, Preprocessing

_MOST_EMBEDDING_UNITS = 6


def architecture_for(preprocessing: Preprocessing, *, outcomes: int, hidden: tuple[int, ...]) -> Architecture:
    """Shape a network for encoded rows: an embedding as wide as the square root of its cardinality, at most
    6.
    """
    embeddings = tuple(min(_MOST_EMBEDDING_UNITS, math.isqrt(c) + 1) for c in preprocessing.cardinalities)
    return Architecture(
        preprocessing.numeric_width, preprocessing.cardinalities, embeddings, hidden, outcomes
    )


class Network(nn.Module):
    """The network of one Architecture; random numbers come from torch's generator, so seed it first."""

    def __init__(self, architecture: Architecture, *, dropout: float, category_dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.category_dropout = category_dropout
        pairs = zip(architecture.cardinalities, architecture.embeddings, strict=True)
        self.embedding = nn.ModuleList(nn.Embedding(rows, width) for rows, width in pairs)
        widths = architecture.widths
        self.layer = nn.ModuleList(nn.Linear(inward, outward) for inward, outward in pairwise(widths))
        for embedding in self.embedding:
            nn.init.normal_(cast(Tensor, embedding.weight), std=0.1)

    def forward(self, numeric: Tensor, categories: Tensor) -> Tensor:
        """Logits (n, O) from numeric (n, d) float32 and categories (n, k) int64."""
        if self.training and self.category_dropout > 0.0:
            hidden = torch.rand(categories.shape) < self.category_dropout
            categories = categories.masked_fill(hidden, UNKNOWN)
        embedded = [embedding(categories[:, j]) for j, embedding in enumerate(self.embedding)]
        units = torch.cat([numeric, *embedded], dim=1)
        for i, layer in enumerate(self.layer):
            units = layer(units)
            if i < len(self.layer) - 1:
                units = functional.dropout(torch.relu(units), self.dropout, self.training)
        return units

    def export(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the weights by the names that `Architecture.shapes` lists."""
        weights = {f"embedding.{j}": cast(Tensor, e.weight) for j, e in enumerate(self.embedding)}
        for i, layer in enumerate(self.layer):
            weights[f"layer.{i}.weight"] = cast(Tensor, layer.weight)
            weights[f"layer.{i}.bias"] = cast(Tensor, layer.bias)
        return {name: np.array(w.detach().numpy(), dtype=np.float32) for name, w in weights.items()}
