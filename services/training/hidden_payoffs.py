"""Decide where the payoffs are known in training but hidden at decision time: regress what each action would earn.

Without the row's payoffs no expected utility can be computed from probabilities, and one threshold for all is a poor
substitute; the network learns the payoffs along with the chances. It predicts, per action, how much more than the
default action it earns (what is common to all actions cancels, and with it most of the variance), in the spec's unit.
It is measured, and not released: to predict the hidden fields and price with them (services/training/hidden_fields.py)
earns more on the benchmark's data sets, and keeps probabilities, thresholds and prices.
Source: direct cost estimation, Zadrozny and Elkan, "Learning and Making Decisions When Costs and Probabilities are Both
Unknown", KDD 2001. Must never be imported by serving's request path.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec, highest
from services.training.errors import TrainingError
from services.training.fit import Labelled, Progress, Settings, fit
from services.training.forward import Architecture, Weights, forward
from services.training.known_rows import TrainingContract, known_rows
from services.training.losses import UTILITY_REGRESSION
from services.training.network import architecture_for
from services.training.preprocessing import Columns, Preprocessing


@dataclass(frozen=True)
class UtilityRegressor:
    """A network whose outputs are utilities; `scale` is the spec's unit per output unit."""

    preprocessing: Preprocessing
    architecture: Architecture
    weights: Weights
    scale: float
    default_action: int

    def gains(self, columns: Columns) -> NDArray[np.float64]:
        """Predicted utility of each action less the default action's, (n, A), in the spec's unit; higher is better."""
        outputs = forward(self.architecture, self.weights, self.preprocessing.transform(columns))
        outputs = outputs.astype(np.float64)
        return np.asarray(self.scale * (outputs - outputs[:, [self.default_action]]))

    def choose(self, columns: Columns) -> NDArray[np.intp]:
        """The action of highest predicted utility, (n,); the default action in a tie."""
        return highest(self.gains(columns), default_action=self.default_action)


def fit_utilities(
    training: Columns,
    validation: Columns,
    *,
    contract: TrainingContract,
    utility: UtilitySpec,
    seed: int,
    settings: Settings | None = None,
    on_progress: Callable[[Progress], None] = lambda event: None,
) -> UtilityRegressor:
    """Regress the utility of every action on the contract's features, with early stopping on `validation`.

    Columns also hold the label and what the payoffs read; neither is an input. Rows without a label are left out.
    Raises TrainingError, and UtilityError for rows that cannot be priced.
    """
    settings = settings or Settings()
    known = [known_rows(columns, contract, utility) for columns in (training, validation)]
    preprocessing = Preprocessing.fit(known[0][0], contract)
    gains = [_gains(utility, columns) for columns, _ in known]
    happened = gains[0][np.arange(len(gains[0])), :, known[0][1]]
    scale = float(np.sqrt((happened**2).mean()))
    if not scale > 0.0:
        raise TrainingError("payoffs must differ between actions somewhere: all gains are 0")
    rows, held_out = (
        Labelled(preprocessing.transform(columns), outcomes, gain / scale)
        for (columns, outcomes), gain in zip(known, gains, strict=True)
    )
    architecture = architecture_for(preprocessing, outcomes=len(utility.actions), hidden=settings.hidden)
    fitted = fit(
        rows,
        held_out,
        architecture=architecture,
        objective=UTILITY_REGRESSION,
        settings=settings,
        seed=seed,
        on_progress=on_progress,
    )
    return UtilityRegressor(preprocessing, architecture, fitted.weights, scale, utility.default_index)


def _gains(utility: UtilitySpec, columns: Columns) -> NDArray[np.float64]:
    """Payoffs (n, A, O) less the default action's."""
    payoffs = utility.payoffs(columns)
    return np.asarray(payoffs - payoffs[:, [utility.default_index], :])
