"""Cut rows that stand in time order into fit, validation, calibration and test: always later, never by chance.

Each slice has one use. The network sees `fit`; early stopping and the choice between candidates see `validation`;
calibration sees only the newest rows before the test, because base rates drift; `test` goes to alignment alone. The
slices after `fit` are wide on purpose: utility has heavy tails, and a narrow slice is one campaign with a base rate of
its own.
numpy only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.training.errors import TrainingError
from services.training.preprocessing import Columns

UNLABELLED = -1


@dataclass(frozen=True)
class TimePlan:
    """Where each slice ends, as a share of the rows; the test slice is what is left (50, 20, 15 and 15 %)."""

    fit: float = 0.5
    validation: float = 0.7
    calibration: float = 0.85

    def __post_init__(self) -> None:
        if not 0.0 < self.fit < self.validation < self.calibration < 1.0:
            raise TrainingError(f"slices must end in rising order, between 0 and 1: {self}")


@dataclass(frozen=True)
class TimeSlices:
    """Columns of the four slices, each still in time order."""

    fit: Columns
    validation: Columns
    calibration: Columns
    test: Columns


def time_slices(columns: Columns, plan: TimePlan) -> TimeSlices:
    """Cut (n,) columns, which must already be in time order. Raises TrainingError if a slice would be empty."""
    rows = len(next(iter(columns.values())))
    ends = [0, *(round(rows * share) for share in (plan.fit, plan.validation, plan.calibration)), rows]
    if min(np.diff(ends)) < 1:
        raise TrainingError(f"every slice must have a row: {rows} rows cut at {ends}")
    parts = [_rows(columns, slice(a, b)) for a, b in pairwise(ends)]
    return TimeSlices(*parts)


def outcome_indices(
    labels: NDArray[Any], *, label_outcomes: Mapping[str, str], outcomes: tuple[str, ...]
) -> NDArray[np.int64]:
    """Index (n,) of each row's outcome in the utility spec's order; UNLABELLED where the label is missing.

    `label_outcomes` is the contract's map from label values to outcomes. Raises TrainingError for a label that the map
    does not know, or an outcome that the spec does not.
    """
    strangers = sorted(set(label_outcomes.values()) - set(outcomes))
    if strangers:
        raise TrainingError(f"label outcomes must be among {list(outcomes)}: {strangers}")
    index = {label: outcomes.index(outcome) for label, outcome in label_outcomes.items()}
    result = np.full(len(labels), UNLABELLED, dtype=np.int64)
    for row, label in enumerate(labels.tolist()):
        if label is None or label != label or label == "":
            continue
        if str(label) not in index:
            raise TrainingError(f"label must be one of {sorted(index)}: {label!r} in row {row}")
        result[row] = index[str(label)]
    return result


def labelled_rows(columns: Columns, outcomes: NDArray[np.int64]) -> tuple[Columns, NDArray[np.int64]]:
    """Only the rows whose outcome is known. Raises TrainingError if there is none."""
    known = outcomes != UNLABELLED
    if not known.any():
        raise TrainingError("a slice must have a labelled row: every outcome is missing")
    return _rows(columns, known), outcomes[known]


def _rows(columns: Columns, which: slice | NDArray[np.bool_]) -> Columns:
    return {name: values[which] for name, values in columns.items()}
