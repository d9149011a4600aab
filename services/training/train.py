"""Train the candidates of one release and keep the best by what its decisions would have earned.

Each candidate (services/training/models.py) is fitted on `train` with early stopping on `validation`, calibrated on
`calibration`, then judged by the utility of its decisions on `validation`, under the operating point that it would be
released with: a rule that pays for its bounds is not compared with one that ignores them. The best is kept, on a tie
the first named; every other's distance to it is on record, paired on the same rows. The intervals say how sure the
judgement is; the alignment stage judges again on later rows. Where payoffs read a field that is known only after the
decision, a network that predicts it is fitted once and goes with every candidate: they learn and decide on its
predictions, and are judged by what the field turned out to be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from policies.operating.point_search import search_point
from policies.utility.utility import UtilitySpec, realised_utility
from services.training.boosted import BoostedSettings
from services.training.calibration import Calibration, calibration_error
from services.training.candidate import TrainedCandidate
from services.training.fit import Labelled, Progress, Settings
from services.training.forward import forward
from services.training.hidden_fields import FittedFields, fit_fields
from services.training.known_rows import TrainingContract, known_rows
from services.training.models import Fitter, Model
from services.training.plan import LAGRANGIAN, TrainingPlan
from services.training.predicted_fields import settled
from services.training.preprocessing import Columns, Preprocessing
from services.training.selection import Training, choose, interval_of, paired

__all__ = ["Training", "TrainingContract", "train"]


@dataclass(frozen=True)
class _Slice:
    """Rows to learn from, with the payoffs as a decision sees them; the columns as they turned out, and as it does."""

    labelled: Labelled
    columns: Columns
    decided_on: Columns


@dataclass(frozen=True)
class _Judged:
    """Calibrated, what its decisions earned on each validation row (n,), and which constraints they break there."""

    calibration: Calibration
    calibration_error: float | None
    broken: tuple[str, ...]
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
    plan, settings = plan or TrainingPlan(), settings or Settings()
    given = {"train": training, "validation": validation, "calibration": calibration}
    known = {name: known_rows(columns, contract, utility) for name, columns in given.items()}
    preprocessing = Preprocessing.fit(known["train"][0], contract)
    fields = None
    if utility.hidden:
        fields = fit_fields(
            known["train"],
            known["validation"],
            names=utility.hidden,
            preprocessing=preprocessing,
            utility=utility,
            seed=seed,
            settings=settings,
            on_progress=on_progress,
        )
    slices = {
        name: _slice(columns, outcomes, fields, preprocessing=preprocessing, utility=utility, plan=plan)
        for name, (columns, outcomes) in known.items()
    }
    fitter = Fitter(
        slices["train"].labelled,
        slices["validation"].labelled,
        preprocessing=preprocessing,
        utility=utility,
        settings=settings,
        boosted=boosted or BoostedSettings(),
        seed=seed,
        on_progress=on_progress,
    )
    models = {name: fitter.model(name) for name in plan.candidates}
    judged = {
        name: _judge(model, slices, utility, decides=name == LAGRANGIAN) for name, model in models.items()
    }
    means = paired({name: one.earned for name, one in judged.items()}, seed=seed)
    trained = []
    for name, model in models.items():
        mean = means.mean(name)
        architecture, weights = model.architecture, model.weights
        if fields is not None:
            architecture, weights = fields.beside(architecture, weights)
        trained.append(
            TrainedCandidate(
                loss_name=name,
                weights=weights,
                architecture=architecture,
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
                broken=judged[name].broken,
            )
        )
    rows = {name: len(part.labelled.outcomes) for name, part in slices.items()}
    found = choose(trained, means, rows=rows, needs_proof=plan.needs_proof)
    return found if fields is None else replace(found, predicted_fields=fields.explained)


def _slice(
    columns: Columns,
    outcomes: NDArray[np.int64],
    fields: FittedFields | None,
    *,
    preprocessing: Preprocessing,
    utility: UtilitySpec,
    plan: TrainingPlan,
) -> _Slice:
    decided_on = columns
    if fields is not None:
        decided_on = fields.filled_in(columns, preprocessing)
        columns = settled(columns, decided_on, fields.network.names)
    payoffs, weights = utility.payoffs(decided_on), plan.row_weights(columns)
    return _Slice(Labelled(preprocessing.transform(columns), outcomes, payoffs, weights), columns, decided_on)


def _judge(model: Model, slices: Mapping[str, _Slice], utility: UtilitySpec, *, decides: bool) -> _Judged:
    """Calibrate on the newest rows, unless the scores decide; then what the decisions earn on the validation rows."""
    newest, rows = slices["calibration"].labelled, slices["validation"]
    held_out = rows.labelled
    if decides:
        calibration = Calibration.none(len(utility.outcomes))
    else:
        logits = forward(model.architecture, model.weights, newest.encoded)
        calibration = Calibration.fit(logits, newest.outcomes)
    probabilities = calibration.apply(forward(model.architecture, model.weights, held_out.encoded))
    point = search_point(
        utility,
        rows.columns,
        probabilities=probabilities,
        outcomes=held_out.outcomes,
        decided_on=rows.decided_on,
    )
    actions = point.choose(held_out.payoffs, probabilities, utility=utility, columns=rows.decided_on)
    earned = realised_utility(utility.payoffs(rows.columns), actions, held_out.outcomes)
    error = None if decides else calibration_error(probabilities, held_out.outcomes)
    broken = () if point.proof is None else point.proof.broken
    return _Judged(calibration, error, broken, earned)
