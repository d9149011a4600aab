"""What a release was made of, as its provenance says it; one that was packed before releases said so says less.

Rows count as what a release was made of where its weights, its map to probabilities or its operating point were found
on them; those of its alignment stage only judged it.
Must never import: prefect, torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from services.data.splits import to_arrays
from services.serving.release import Release
from services.training.time_slices import TimePlan, labelled_rows, outcome_indices, time_slices

if TYPE_CHECKING:
    import polars as pl

    from policies.utility.utility import UtilitySpec
    from services.data.contract import DataContract


def made_of(rows: pl.DataFrame, contract: DataContract, utility: UtilitySpec) -> dict[str, object]:
    """For the provenance of a trained release, from its rows in the order of time: up to which event time (epoch s) it
    is made of them, and how often each outcome came where it was calibrated.
    """
    newest = time_slices(to_arrays(rows, contract), TimePlan()).calibration
    labels = outcome_indices(
        newest[contract.label], label_outcomes=contract.label_outcomes, outcomes=utility.outcomes
    )
    _, outcomes = labelled_rows(newest, labels)
    shares = np.bincount(outcomes, minlength=len(utility.outcomes)) / len(outcomes)
    return {
        "through": float(np.max(newest[contract.event_time])),
        "base_rates": dict(zip(utility.outcomes, shares.tolist(), strict=True)),
    }


def weights_made_at(release: Release) -> float:
    """When its weights were trained, epoch s: those of a recalibrated release are older than itself. Earlier decisions
    may have been among the rows that it was trained on."""
    return float(str(release.provenance.get("weights_made_at", release.created_at)))


def weights_job(release: Release) -> str:
    """The job that trained its weights, whose snapshot is in the home."""
    return str(release.provenance.get("weights_job", release.provenance.get("job")))


def rows_through(release: Release) -> float | None:
    """The event time (epoch s) up to which its weights were made of rows; None where it does not say."""
    through = _mapping(release.provenance.get("made_of")).get("through")
    return None if through is None else float(str(through))


def base_rates(release: Release, outcomes: tuple[str, ...]) -> tuple[float, ...] | None:
    """How often each of the `outcomes` came on the rows that its map to probabilities was fitted on; None where it does
    not say."""
    newest = release.provenance.get("recalibration", release.provenance.get("made_of"))
    rates = _mapping(_mapping(newest).get("base_rates"))
    return tuple(float(str(rates[name])) for name in outcomes) if set(outcomes) == set(rates) else None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
