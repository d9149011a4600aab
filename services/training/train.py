"""Train the candidates of one release and keep the best by what its decisions would have earned.

Each candidate (services/training/models.py) is fitted on `train` with early stopping on `validation`, calibrated on
`calibration`, then judged by the utility of its decisions (the action of highest expected utility, row by row) on
`validation`. The best is kept, on a tie the first named; every other's distance to it is on record, paired on the same
rows. The intervals say how sure the judgement is; the alignment stage judges again on later rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policies.operating.operating_point import OperatingPoint
from policies.utility.utility import UtilitySpec, realised_utility
from services.training.boosted import BoostedSettings
from services.training.calibration import Calibration, calibration_error
from services.training.candidate import TrainedCandidate
from services.training.fit import Labelled, Progress, Settings
from services.training.forward import forward
from services.training.models import Fitter, Model
from services.training.plan import TrainingPlan
from services.training.preprocessing import Columns, FeatureContract, Preprocessing
from services.training.selection import Training, choose, interval_of, paired
from services.training.time_slices import labelled_rows, outcome_indices

__all__ = ["Training", "TrainingContract", "known_rows", "train"]


class TrainingContract(FeatureContract, Protocol):
    """What training reads of a data contract."""

    @property
    def label(self) -> str: ...
    @property
    def label_outcomes(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class _Judged:
    """Calibrated, and what its decisions earned on each validation row (n,)."""

    calibration: Calibration
    calibration_error: float
    earned: NDArray[np.float64]


def train(
    training: Columns,
    validation: Columns,
    calibration: Columns,
    *,
    contract: TrainingContract,
    utility: UtilitySpec,
    seed: int,
    plan: TrainingPlan | None = None,
    on_progress: Callable[[Progress], None] = lambda event: None,
    settings: Settings | None = None,
    boosted: BoostedSettings | None = None,
) -> Training:
    """Train, calibrate and judge the candidates of the `plan`; without one, the usual two.

    Columns map names to (n,) arrays and hold the contract's features, its label, and the fields that the payoffs read.
    Rows without a label are left out. Raises TrainingError, and UtilityError for rows that cannot be priced.
    """
    plan = plan or TrainingPlan()
    slices = {"train": training, "validation": validation, "calibration": calibration}
    known = {name: known_rows(columns, contract, utility) for name, columns in slices.items()}
    preprocessing = Preprocessing.fit(known["train"][0], contract)
    parts = {
        name: Labelled(
            preprocessing.transform(columns), outcomes, utility.payoffs(columns), plan.row_weights(columns)
        )
        for name, (columns, outcomes) in known.items()
    }
    fitter = Fitter(
        parts["train"],
        parts["validation"],
        preprocessing=preprocessing,
        outcomes=len(utility.outcomes),
        settings=settings or Settings(),
        boosted=boosted or BoostedSettings(),
        seed=seed,
        on_progress=on_progress,
    )
    models = {name: fitter.model(name) for name in plan.candidates}
    judged = {name: _judge(model, parts, utility) for name, model in models.items()}
    means = paired({name: one.earned for name, one in judged.items()}, seed=seed)
    trained = []
    for name, model in models.items():
        mean = means.mean(name)
        trained.append(
            TrainedCandidate(
                loss_name=name,
                weights=model.weights,
                architecture=model.architecture,
                preprocessing=preprocessing,
                calibration=judged[name].calibration,
                outcomes=utility.outcomes,
                validation_utility=mean.value,
                validation_interval=interval_of(mean),
                validation_rows=mean.n,
                calibration_error=judged[name].calibration_error,
                best_epoch=model.best_epoch,
                history=model.history,
                seed=seed,
            )
        )
    rows = {name: len(part.outcomes) for name, part in parts.items()}
    return choose(trained, means, rows=rows, needs_proof=plan.needs_proof)


def known_rows(
    columns: Columns, contract: TrainingContract, utility: UtilitySpec
) -> tuple[Columns, NDArray[np.int64]]:
    """The rows whose outcome is known, and the outcomes' indices (n,) in the spec's order. Raises TrainingError."""
    outcomes = outcome_indices(
        columns[contract.label], label_outcomes=contract.label_outcomes, outcomes=utility.outcomes
    )
    return labelled_rows(columns, outcomes)


def _judge(model: Model, parts: Mapping[str, Labelled], utility: UtilitySpec) -> _Judged:
    """Calibrate on the newest rows; then what the decisions earn on the validation rows."""
    newest, held_out = parts["calibration"], parts["validation"]
    calibration = Calibration.fit(forward(model.architecture, model.weights, newest.encoded), newest.outcomes)
    probabilities = calibration.apply(forward(model.architecture, model.weights, held_out.encoded))
    point = OperatingPoint((0.0,) * len(utility.actions), utility.default_index)
    actions = point.choose(held_out.payoffs, probabilities)
    earned = realised_utility(held_out.payoffs, actions, held_out.outcomes)
    return _Judged(calibration, calibration_error(probabilities, held_out.outcomes), earned)
