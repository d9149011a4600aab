"""What training hands over: a calibrated network, all that scoring a row needs, and its record.

numpy only: serving writes these parts into a release and reads them back; must never import torch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.training.calibration import Calibration
from services.training.forward import Architecture, Weights, filled_in, forward
from services.training.preprocessing import Columns, Preprocessing


@dataclass(frozen=True)
class Epoch:
    """One pass over the fitting rows: losses in the units of the loss trained with; lower is better."""

    epoch: int
    training_loss: float
    validation_loss: float


@dataclass(frozen=True)
class TrainedCandidate:
    """One trained network; `validation_utility` per decision in the spec unit, higher is better.

    `calibration_error` None: its scores are no probabilities. `broken`: constraints that its decisions break on the
    validation rows, under the operating point found there.
    """

    loss_name: str
    weights: Weights
    architecture: Architecture
    preprocessing: Preprocessing
    calibration: Calibration
    outcomes: tuple[str, ...]
    validation_utility: float
    validation_interval: tuple[float, float]
    validation_rows: int
    calibration_error: float | None
    best_epoch: int
    history: tuple[Epoch, ...]
    seed: int
    broken: tuple[str, ...] = ()

    def probabilities(self, columns: Columns) -> NDArray[np.float64]:
        """Calibrated probabilities (n, O) of the outcomes, in the order of `outcomes`."""
        logits = forward(self.architecture, self.weights, self.preprocessing.transform(columns))
        return self.calibration.apply(logits)

    def decided_on(self, columns: Columns) -> Columns:
        """The columns as a decision sees them: fields not known yet as predicted."""
        return filled_in(self.architecture, self.weights, self.preprocessing, columns)

    def record(self) -> dict[str, object]:
        """What the ledger and the reports keep of this candidate: JSON-safe, without the weights."""
        return {
            "loss": self.loss_name,
            "validation_utility": self.validation_utility,
            "validation_interval": list(self.validation_interval),
            "validation_rows": self.validation_rows,
            "calibration_error": self.calibration_error,
            "broken": list(self.broken),
            "calibration": self.calibration.to_json(),
            "best_epoch": self.best_epoch,
            "epochs": len(self.history),
            "seed": self.seed,
            "history": [vars(e) | {} for e in self.history],
        }
