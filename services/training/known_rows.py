"""The rows that training and alignment may use: the outcome is known, and so is all that prices it.

numpy only.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec
from services.training.errors import TrainingError
from services.training.predicted_fields import is_needed
from services.training.preprocessing import Columns, FeatureContract
from services.training.time_slices import labelled_rows, outcome_indices


class TrainingContract(FeatureContract, Protocol):
    """What training reads of a data contract."""

    @property
    def label(self) -> str: ...
    @property
    def label_outcomes(self) -> Mapping[str, str]: ...


def known_rows(
    columns: Columns, contract: TrainingContract, utility: UtilitySpec
) -> tuple[Columns, NDArray[np.int64]]:
    """The rows whose outcome is known, and the outcomes' indices (n,) in the spec's order.

    Left out as well: rows that lack a field hidden when deciding which the payoffs of their own outcome read. Raises
    TrainingError where none is left.
    """
    found = outcome_indices(
        columns[contract.label], label_outcomes=contract.label_outcomes, outcomes=utility.outcomes
    )
    known, outcomes = labelled_rows(columns, found)
    is_priced = can_be_priced(known, outcomes, utility)
    if is_priced.all():
        return known, outcomes
    if not is_priced.any():
        raise TrainingError(
            f"a slice must have a row that can be priced: none has {', '.join(utility.hidden)}"
        )
    return {name: values[is_priced] for name, values in known.items()}, outcomes[is_priced]


def can_be_priced(columns: Columns, outcomes: NDArray[np.int64], utility: UtilitySpec) -> NDArray[np.bool_]:
    """(n,) whether no field hidden when deciding is missing that the payoffs of the row's own outcome read.

    `outcomes` (n,) are known. Raises TrainingError where there is no such column.
    """
    found = np.ones(len(outcomes), dtype=bool)
    for name in utility.hidden:
        if name not in columns:
            raise TrainingError(f"'{name}' must be among the columns: {sorted(columns)}")
        is_missing = np.isnan(np.asarray(columns[name], dtype=np.float64))
        found &= ~(is_missing & is_needed(utility, name)[outcomes])
    return found
