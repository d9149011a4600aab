"""Fit the network that predicts fields which payoffs read and nobody knows yet when deciding.

What it predicts, and when that is exact, says services/training/predicted_fields.py. Probabilities stay probabilities
and payoffs stay payoffs, so that operating point, explanations and sensitivity go on as they are; the direct regression
of each action's utility (services/training/hidden_payoffs.py), whose outputs are neither, earns less on the data sets
of the benchmark. Must never be imported by serving's request path.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
    """The network of the hidden fields, and how much of their variance it explains where payoffs read them (R²)."""

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
    """Regress the fields on the features, on all rows that have a value; each part: columns, outcomes (n,).

    Then a straight line brings the predictions to the held-out rows of those outcomes whose payoffs read the field.
    Raises TrainingError where a field has fewer than 50 values to learn from, or 50 to be brought to.
    """
    scales = [_scale(name, training[0]) for name in names]
    network = FieldNetwork(names, settings.hidden, *(tuple(one) for one in zip(*scales, strict=True)))
    rows, held_out = (
        _labelled(*part, network, preprocessing=preprocessing) for part in (training, validation)
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
    needed = np.stack([is_needed(utility, name)[held_out.outcomes] for name in names], axis=1)
    value, counts = held_out.payoffs[..., _VALUE], (held_out.payoffs[..., _COUNTS] > 0) & needed
    lines = [_line(name, outputs[counts[:, k], k], value[counts[:, k], k]) for k, name in enumerate(names)]
    shifted = zip(network.mean, network.spread, lines, strict=True)
    network = replace(
        network,
        mean=tuple(mean + spread * line.start for mean, spread, line in shifted),
        spread=tuple(spread * line.slope for spread, line in zip(network.spread, lines, strict=True)),
    )
    explained = {name: line.explained for name, line in zip(names, lines, strict=True)}
    return FittedFields(network, architecture, fitted.weights, explained)


@dataclass(frozen=True)
class _Line:
    """The values on the outputs: start + slope x output, the slope not below 0, and the share of variance explained."""

    start: float
    slope: float
    explained: float


def _line(name: str, outputs: NDArray[np.floating[Any]], values: NDArray[np.float64]) -> _Line:
    """Least squares. Raises TrainingError for fewer than 50 values."""
    if len(values) < LEAST_ROWS:
        raise TrainingError(
            f"'{name}' must have a value in {LEAST_ROWS} validation rows whose payoffs read it: {len(values)}"
        )
    x = outputs.astype(np.float64)
    slope = max(0.0, float(np.cov(x, values)[0, 1] / x.var(ddof=1))) if x.std() > 0 else 0.0
    start = float(values.mean() - slope * x.mean())
    left = float(((values - start - slope * x) ** 2).mean())
    return _Line(start, slope, 1.0 - left / float(values.var()) if values.std() > 0 else 0.0)


def _scale(name: str, columns: Columns) -> tuple[float, float, float, float]:
    """Mean, spread, least and greatest of the values that there are."""
    values = np.asarray(columns[name], dtype=np.float64)
    known = values[np.isfinite(values)]
    if len(known) < LEAST_ROWS:
        raise TrainingError(f"'{name}' must have a value in {LEAST_ROWS} rows at least: {len(known)}")
    spread = float(known.std())
    return float(known.mean()), spread if spread > 0 else 1.0, float(known.min()), float(known.max())


def _labelled(
    columns: Columns,
    outcomes: NDArray[np.int64],
    network: FieldNetwork,
    *,
    preprocessing: Preprocessing,
) -> Labelled:
    """The fields in the place of payoffs: (n, K, 2), the scaled value and whether there is one."""
    targets = np.zeros((len(outcomes), len(network.names), 2))
    for k, name in enumerate(network.names):
        values = np.asarray(columns[name], dtype=np.float64)
        counts = np.isfinite(values)
        scaled = (values - network.mean[k]) / network.spread[k]
        targets[:, k, _VALUE] = np.where(counts, scaled, 0.0)
        targets[:, k, _COUNTS] = counts
    return Labelled(preprocessing.transform(columns), outcomes, targets)


def _field_regression(predicted: Tensor, outcomes: Tensor, targets: Tensor) -> Tensor:
    """Squared error (n,), mean over the fields (n, K), 0 where there is no value."""
    error = targets[..., _COUNTS] * (predicted - targets[..., _VALUE]) ** 2
    return torch.mean(error, dim=1)


_FIELD_REGRESSION = Objective("predicted_fields", lambda progress: _field_regression)
