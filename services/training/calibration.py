"""Map a network's logits to probabilities that mean what they say, on a time slice of their own.

Multinomial Platt scaling with one slope: softmax(slope * logits + bias), bias per outcome; for two outcomes
this is Platt's sigmoid. The slope mends over-confidence, the bias the drift of the base rates. A weak pull
towards "no change" keeps a small slice from inventing a correction.
Source: Platt 1999; Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.

numpy only: serving imports this file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.training.errors import TrainingError

_PRIOR_ROWS = 1.0  # strength of the pull towards slope 1, bias 0, in rows
_NEWTON_STEPS = 50
LEAST_SLOPE = 0.01
Kind = Literal["multinomial_platt", "none"]
KINDS: tuple[Kind, ...] = ("multinomial_platt", "none")


@dataclass(frozen=True)
class Calibration:
    """probabilities = softmax(slope * logits + bias); bias has one entry per outcome.

    kind "none": scores of a network that was trained to decide (services/training/lagrangian.py); they are read where
    probabilities are read, and are none.
    """

    slope: float
    bias: tuple[float, ...]
    kind: Kind = "multinomial_platt"

    @classmethod
    def none(cls, outcomes: int) -> "Calibration":
        """Scores over `outcomes` outcomes that must not be calibrated."""
        return cls(1.0, (0.0,) * outcomes, "none")

    @classmethod
    def identity(cls, outcomes: int) -> "Calibration":
        """Plain softmax over `outcomes` outcomes."""
        return cls(1.0, (0.0,) * outcomes)

    @classmethod
    def fit(cls, logits: NDArray[np.floating[Any]], outcomes: NDArray[np.integer[Any]]) -> "Calibration":
        """Least log loss on (n, O) `logits` and (n,) outcome indices, by Newton's method on a convex loss.

        A slope at or below 0 would turn the ranking round: then the slope is fixed at LEAST_SLOPE and only
        the bias is fitted.
        Raises TrainingError without rows, on bad shapes, or on non-finite logits.
        """
        scores = np.asarray(logits, dtype=np.float64)
        labels = np.asarray(outcomes)
        _check(scores, labels)
        free = _newton(scores, labels, np.concatenate([[1.0], np.zeros(scores.shape[1])]), fixed_slope=False)
        if free[0] <= LEAST_SLOPE:
            start = np.concatenate([[LEAST_SLOPE], np.zeros(scores.shape[1])])
            free = _newton(scores, labels, start, fixed_slope=True)
        bias = free[1:] - free[1]
        return cls(float(free[0]), tuple(float(b) for b in bias))

    def with_new_base_rate(
        self, logits: NDArray[np.floating[Any]], outcomes: NDArray[np.integer[Any]]
    ) -> "Calibration":
        """The same slope; the bias moved to the least log loss on (n, O) `logits` and (n,) outcome indices.

        Under a pure shift of the base rates the logarithm of each class's odds moves by a constant, and this finds it.
        Raises TrainingError as `fit` does.
        """
        scores = self.slope * np.asarray(logits, dtype=np.float64) + np.asarray(self.bias)
        labels = np.asarray(outcomes)
        _check(scores, labels)
        moved = _newton(scores, labels, np.concatenate([[1.0], np.zeros(scores.shape[1])]), fixed_slope=True)
        bias = np.asarray(self.bias) + moved[1:]
        return Calibration(self.slope, tuple(float(b) for b in bias - bias[0]))

    def apply(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """(n, O) probabilities, rows summing to 1, from (n, O) logits."""
        return softmax(self.slope * np.asarray(logits, dtype=np.float64) + np.asarray(self.bias))

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe dict; `from_json` gives back an equal object."""
        return {"version": 1, "kind": self.kind, "slope": self.slope, "bias": list(self.bias)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Calibration":
        """Read what `to_json` wrote. Raises TrainingError if it is not that."""
        try:
            if document["version"] != 1 or document["kind"] not in KINDS:
                raise TrainingError(
                    f"'kind' of the calibration must be one of {', '.join(KINDS)}: {document['kind']}"
                )
            return cls(float(document["slope"]), tuple(float(b) for b in document["bias"]), document["kind"])
        except (KeyError, TypeError) as error:
            raise TrainingError(f"not a calibration document: {error!r}") from error


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row-wise softmax of (n, O) logits, safe against overflow."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def log_loss(probabilities: NDArray[np.float64], outcomes: NDArray[np.integer[Any]]) -> float:
    """Mean negative log probability of what happened, in nats; lower is better."""
    chosen = probabilities[np.arange(len(outcomes)), outcomes]
    return float(-np.log(np.clip(chosen, 1e-12, 1.0)).mean())


def calibration_error(
    probabilities: NDArray[np.float64], outcomes: NDArray[np.integer[Any]], *, bins: int = 10
) -> float:
    """Expected calibration error over equally filled bins, mean over outcomes; 0 is perfect."""
    errors = []
    for outcome in range(probabilities.shape[1]):
        order = np.argsort(probabilities[:, outcome], kind="stable")
        happened = (outcomes == outcome).astype(np.float64)
        gaps = [
            len(part) * abs(float(probabilities[part, outcome].mean() - happened[part].mean()))
            for part in np.array_split(order, bins)
            if len(part)
        ]
        errors.append(sum(gaps) / len(outcomes))
    return float(np.mean(errors))


def _check(scores: NDArray[np.float64], labels: NDArray[Any]) -> None:
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise TrainingError(f"logits (n, O) and outcomes (n,) must agree: {scores.shape}, {labels.shape}")
    if not np.isfinite(scores).all():
        raise TrainingError("logits must be finite")


def _loss(parameters: NDArray[np.float64], scores: NDArray[np.float64], labels: NDArray[Any]) -> float:
    shifted = parameters[0] * scores + parameters[1:]
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(labels)), labels] - np.log(np.exp(shifted).sum(axis=1))
    away = parameters - np.concatenate([[1.0], np.zeros(len(parameters) - 1)])
    return float(-chosen.sum() + 0.5 * _PRIOR_ROWS * (away**2).sum())


def _newton(
    scores: NDArray[np.float64], labels: NDArray[Any], start: NDArray[np.float64], *, fixed_slope: bool
) -> NDArray[np.float64]:
    """Newton with halving steps: the prior makes the Hessian positive definite."""
    rows, count = scores.shape
    happened = np.zeros_like(scores)
    happened[np.arange(rows), labels] = 1.0
    centre = np.concatenate([[1.0], np.zeros(count)])
    parameters = start
    for _ in range(_NEWTON_STEPS):
        p = softmax(parameters[0] * scores + parameters[1:])
        residual = p - happened
        gradient = np.concatenate([[(residual * scores).sum()], residual.sum(axis=0)])
        gradient = gradient + _PRIOR_ROWS * (parameters - centre)
        mean_score = (p * scores).sum(axis=1)
        hessian = _PRIOR_ROWS * np.eye(count + 1)
        hessian[0, 0] += ((p * scores**2).sum(axis=1) - mean_score**2).sum()
        cross = (p * (scores - mean_score[:, None])).sum(axis=0)
        hessian[0, 1:] += cross
        hessian[1:, 0] += cross
        hessian[1:, 1:] += np.diag(p.sum(axis=0)) - p.T @ p
        if fixed_slope:
            gradient[0] = 0.0
            hessian[0, 1:] = hessian[1:, 0] = 0.0
        step = np.linalg.solve(hessian, gradient)
        before, size = _loss(parameters, scores, labels), 1.0
        while size > 1e-6 and _loss(parameters - size * step, scores, labels) > before:
            size /= 2.0
        parameters = parameters - size * step
        if float(np.abs(size * step).max()) < 1e-10:
            break
    return parameters
