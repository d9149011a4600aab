"""Fit the network that predicts fields which payoffs read and nobody knows yet when deciding.

What it predicts, and when that is exact, says services/training/predicted_fields.py. Probabilities stay probabilities
and payoffs stay payoffs, so that operating point, explanations and sensitivity go on as they are; the direct regression
of each action's utility (services/training/hidden_payoffs.py), whose outputs are neither, earns less on the data sets
of the benchmark. Must never be imported by serving's request path.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.utility.utility import UtilitySpec
from services.training.errors import TrainingError
from services.training.fit import Labelled, Progress, Settings, fit
from services.training.forward import Architecture, Weights, forward, with_fields
from services.training.losses import Objective
from services.training.network import architecture_for
from services.training.predicted_fields import FieldNetwork, is_needed
from services.training.preprocessing import Columns, Preprocessing

_VALUE, _COUNTS = 0, 1
LEAST_ROWS = 50  # with a value, to learn a field from


@dataclass(frozen=True)
class FittedFields:
    """The network of the hidden fields, and how much of their variance it explains on the validation rows (R²)."""

    network: FieldNetwork
    architecture: Architecture
    weights: Mapping[str, NDArray[Any]]
    explained: Mapping[str, float]

    def filled_in(self, columns: Columns, preprocessing: Preprocessing) -> Columns:
        """The columns (n,) with the fields as predicted."""
        outputs = forward(self.architecture, self.weights, preprocessing.transform(columns))
        return {**columns, **self.network.values(outputs)}

    def beside(self, architecture: Architecture, weights: Weights) -> tuple[Architecture, Weights]:
        """A network for the outcomes, with this one beside it."""
        return with_fields(architecture, weights, fields=self.network, field_weights=self.weights)


def fit_fields(
    training: tuple[Columns, NDArray[np.int64]],
    validation: tuple[Columns, NDArray[np.int64]],
    *,
    names: tuple[str, ...],
    preprocessing: Preprocessing,
    utility: UtilitySpec,
    seed: int,
    settings: Settings,
    on_progress: Callable[[Progress], None] = lambda event: None,
) -> FittedFields:
    """Regress the fields on the features, on the rows of outcomes that need them; each part: columns, outcomes (n,).

    Raises TrainingError where a field has fewer than 50 values to learn from.
    """
    scales = [_scale(name, *training, utility=utility) for name in names]
    network = FieldNetwork(names, settings.hidden, *(tuple(one) for one in zip(*scales, strict=True)))
    rows, held_out = (
        _labelled(part, network, preprocessing=preprocessing, utility=utility)
        for part in (training, validation)
    )
    architecture = architecture_for(preprocessing, outcomes=len(names), hidden=settings.hidden)
    fitted = fit(
        rows,
        held_out,
        architecture=architecture,
        objective=_FIELD_REGRESSION,
        settings=settings,
        seed=seed,
        on_progress=on_progress,
    )
    outputs = forward(architecture, fitted.weights, held_out.encoded)
    value, counts = held_out.payoffs[..., _VALUE], held_out.payoffs[..., _COUNTS] > 0
    explained = {
        name: 1.0 - float(((value - outputs)[counts[:, k], k] ** 2).mean() / value[counts[:, k], k].var())
        for k, name in enumerate(names)
        if value[counts[:, k], k].std() > 0
    }
    return FittedFields(network, architecture, fitted.weights, explained)


def _scale(
    name: str, columns: Columns, outcomes: NDArray[np.int64], *, utility: UtilitySpec
) -> tuple[float, float, float, float]:
    """Mean, spread, least and greatest of the values that count."""
    values = np.asarray(columns[name], dtype=np.float64)
    counted = values[is_needed(utility, name)[outcomes] & np.isfinite(values)]
    if len(counted) < LEAST_ROWS:
        raise TrainingError(f"'{name}' must have a value in {LEAST_ROWS} rows at least: {len(counted)}")
    spread = float(counted.std())
    return float(counted.mean()), spread if spread > 0 else 1.0, float(counted.min()), float(counted.max())


def _labelled(
    part: tuple[Columns, NDArray[np.int64]],
    network: FieldNetwork,
    *,
    preprocessing: Preprocessing,
    utility: UtilitySpec,
) -> Labelled:
    """The fields in the place of payoffs: (n, K, 2), the scaled value and whether it counts."""
    columns, outcomes = part
    targets = np.zeros((len(outcomes), len(network.names), 2))
    for k, name in enumerate(network.names):
        values = np.asarray(columns[name], dtype=np.float64)
        counts = is_needed(utility, name)[outcomes] & np.isfinite(values)
        scaled = (values - network.mean[k]) / network.spread[k]
        targets[:, k, _VALUE] = np.where(counts, scaled, 0.0)
        targets[:, k, _COUNTS] = counts
    return Labelled(preprocessing.transform(columns), outcomes, targets)


def _field_regression(predicted: Tensor, outcomes: Tensor, targets: Tensor) -> Tensor:
    """Squared error (n,), mean over the fields (n, K), 0 where a value does not count."""
    error = targets[..., _COUNTS] * (predicted - targets[..., _VALUE]) ** 2
    return torch.mean(error, dim=1)


_FIELD_REGRESSION = Objective("predicted_fields", lambda progress: _field_regression)
