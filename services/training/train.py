"""Train the candidates of one release and keep the better: cross-entropy against payoff-weighted cross-entropy.

Each is fitted on `train` with early stopping on `validation`, calibrated on `calibration`, then judged by what its
decisions (the action of highest expected utility, row by row) would have earned on `validation`. On a tie the first,
simpler loss wins. The interval says how sure the judgement is; the alignment stage judges again on later rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policies.evidence import Measured
from policies.operating_point import OperatingPoint
from policies.utility import UtilitySpec, realised_utility
from services.alignment.bootstrap import interval, resampled_means
from services.training.calibration import Calibration, calibration_error
from services.training.candidate import TrainedCandidate
from services.training.fit import Fitted, Labelled, Progress, Settings, fit
from services.training.forward import Architecture, forward
from services.training.losses import loss_named
from services.training.network import architecture_for
from services.training.preprocessing import Columns, FeatureContract, Preprocessing
from services.training.time_slices import labelled_rows, outcome_indices

LOSS_NAMES = ("cross_entropy", "payoff_weighted")


class TrainingContract(FeatureContract, Protocol):
    """What training reads of a data contract."""

    @property
    def label(self) -> str: ...
    @property
    def label_outcomes(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Training:
    """All candidates, the chosen one among them, and the rows each slice brought."""

    candidates: tuple[TrainedCandidate, ...]
    chosen: TrainedCandidate
    rows: Mapping[str, int]

    def measured(self) -> dict[str, Measured]:
        """The chosen candidate's metrics for the training gates."""
        chosen = self.chosen
        lower, upper = chosen.validation_interval
        return {
            "validation_utility": Measured(chosen.validation_utility, lower, upper, chosen.validation_rows),
            "calibration_error": Measured(chosen.calibration_error, n=chosen.validation_rows),
        }

    def record(self) -> dict[str, object]:
        """What the ledger and the reports keep: JSON-safe, without the weights."""
        return {
            "chosen": self.chosen.loss_name,
            "rows": dict(self.rows),
            "candidates": [candidate.record() for candidate in self.candidates],
        }


@dataclass(frozen=True)
class _Slice:
    columns: Columns
    rows: Labelled


def train(
    training: Columns,
    validation: Columns,
    calibration: Columns,
    *,
    contract: TrainingContract,
    utility: UtilitySpec,
    seed: int,
    on_progress: Callable[[Progress], None] = lambda event: None,
    settings: Settings | None = None,
) -> Training:
    """Train, calibrate and judge one candidate per loss.

    Columns map names to (n,) arrays and hold the contract's features, its label, and the fields that the payoffs read.
    Rows without a label are left out. Raises TrainingError, and UtilityError for rows that cannot be priced.
    """
    settings = settings or Settings()
    slices = {"train": training, "validation": validation, "calibration": calibration}
    known = {name: _known(columns, contract, utility) for name, columns in slices.items()}
    preprocessing = Preprocessing.fit(known["train"][0], contract)
    parts = {
        name: _Slice(columns, Labelled(preprocessing.transform(columns), outcomes, utility.payoffs(columns)))
        for name, (columns, outcomes) in known.items()
    }
    architecture = architecture_for(preprocessing, outcomes=len(utility.outcomes), hidden=settings.hidden)
    candidates = []
    for loss_name in LOSS_NAMES:
        fitted = fit(
            parts["train"].rows,
            parts["validation"].rows,
            architecture=architecture,
            objective=loss_named(loss_name),
            settings=settings,
            seed=seed,
            on_progress=on_progress,
        )
        candidates.append(
            _candidate(loss_name, fitted, parts, architecture, preprocessing, utility, seed=seed)
        )
    chosen = max(candidates, key=lambda candidate: candidate.validation_utility)
    return Training(
        tuple(candidates), chosen, {name: len(part.rows.outcomes) for name, part in parts.items()}
    )


def _known(
    columns: Columns, contract: TrainingContract, utility: UtilitySpec
) -> tuple[Columns, NDArray[np.int64]]:
    outcomes = outcome_indices(
        columns[contract.label], label_outcomes=contract.label_outcomes, outcomes=utility.outcomes
    )
    return labelled_rows(columns, outcomes)


def _candidate(
    loss_name: str,
    fitted: Fitted,
    parts: Mapping[str, _Slice],
    architecture: Architecture,
    preprocessing: Preprocessing,
    utility: UtilitySpec,
    *,
    seed: int,
) -> TrainedCandidate:
    """Calibrate a fitted network and judge it by the utility of its decisions on the validation rows."""
    newest, judged = parts["calibration"].rows, parts["validation"].rows
    calibration = Calibration.fit(forward(architecture, fitted.weights, newest.encoded), newest.outcomes)
    probabilities = calibration.apply(forward(architecture, fitted.weights, judged.encoded))
    point = OperatingPoint((0.0,) * len(utility.actions), utility.default_index)
    actions = point.choose(judged.payoffs, probabilities)
    earned = realised_utility(judged.payoffs, actions, judged.outcomes)
    return TrainedCandidate(
        loss_name=loss_name,
        weights=fitted.weights,
        architecture=architecture,
        preprocessing=preprocessing,
        calibration=calibration,
        outcomes=utility.outcomes,
        validation_utility=float(earned.mean()),
        validation_interval=interval(resampled_means(earned[:, None], seed=seed)[:, 0]),
        validation_rows=len(judged.outcomes),
        calibration_error=calibration_error(probabilities, judged.outcomes),
        best_epoch=fitted.best_epoch,
        history=fitted.history,
        seed=seed,
    )
