"""Everything that the alignment stage found on the evaluation rows, and what rests on the utility spec's numbers there.

numpy only: must never import torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.operating_point import OperatingPoint
from policies.sensitivity import sensitivity
from policies.sensitivity_result import Sensitivity
from policies.utility import Columns, UtilitySpec

VARIED_ROWS = 50_000

Floats = NDArray[np.float64]


def vary(
    utility: UtilitySpec,
    columns: Columns,
    *,
    probabilities: Floats,
    outcomes: NDArray[np.int64],
    operating_point: OperatingPoint,
    champion: NDArray[np.intp] | None,
    seed: int,
) -> Sensitivity | None:
    """The sensitivity study, on 50,000 rows drawn by the seed where there are more; None where nothing is in doubt.

    Raises UtilityError where a payoff has no finite value within the ranges.
    """
    rows: NDArray[np.intp] | slice = slice(None)
    if len(outcomes) > VARIED_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(outcomes), VARIED_ROWS, replace=False))
    return sensitivity(
        utility,
        {name: values[rows] for name, values in columns.items()},
        probabilities=probabilities[rows],
        outcomes=outcomes[rows],
        point=operating_point,
        champion=None if champion is None else champion[rows],
        seed=seed,
    )
