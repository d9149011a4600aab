"""Which candidate of a release is kept, and how sure that is: validation utility, paired row by row.

All candidates judged the same validation rows, so their differences are compared pair by pair on shared resamples,
which is far sharper than two intervals side by side. The highest is kept, on a tie the first named; with `needs_proof`
another than the first is kept only where its paired interval over the first lies above 0. One whose decisions break a
constraint on those rows stands behind all that break fewer. Nothing here sees test rows.
numpy only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from policies.gates.evidence import Measured
from services.alignment.bootstrap import RESAMPLES, PairedMeans
from services.training.candidate import TrainedCandidate


@dataclass(frozen=True)
class Comparison:
    """What the chosen candidate earned more than `other`, per decision, on the same validation rows; 95 % interval."""

    other: str
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Training:
    """All candidates, the chosen one among them, and the rows each slice brought.

    `predicted_fields`: of each field hidden when deciding, the share of its variance that the prediction explains on
    validation rows whose payoffs read it.
    """

    candidates: tuple[TrainedCandidate, ...]
    chosen: TrainedCandidate
    rows: Mapping[str, int]
    comparisons: tuple[Comparison, ...] = ()
    predicted_fields: Mapping[str, float] = field(default_factory=dict)

    def measured(self) -> dict[str, Measured]:
        """The chosen candidate's metrics for the training gates; no calibration error where nothing was calibrated."""
        chosen = self.chosen
        lower, upper = chosen.validation_interval
        found = {
            "validation_utility": Measured(chosen.validation_utility, lower, upper, chosen.validation_rows)
        }
        if chosen.calibration_error is not None:
            found["calibration_error"] = Measured(chosen.calibration_error, n=chosen.validation_rows)
        return found

    def record(self) -> dict[str, object]:
        """What the ledger and the reports keep: JSON-safe, without the weights."""
        return {
            "chosen": self.chosen.loss_name,
            "rows": dict(self.rows),
            "predicted_fields": dict(self.predicted_fields),
            "candidates": [candidate.record() for candidate in self.candidates],
            "chosen_less_others": [
                {"other": one.other, "difference": one.difference, "interval": list(one.interval)}
                for one in self.comparisons
            ],
        }


def paired(earned: Mapping[str, NDArray[np.float64]], *, seed: int) -> PairedMeans:
    """Means and differences of what each candidate's decisions earned, (n,) by name, on one set of resamples."""
    means = PairedMeans()
    for name, values in earned.items():
        means.add(name, values)
    means.run(seed=seed, resamples=RESAMPLES)
    return means


def choose(
    candidates: Sequence[TrainedCandidate],
    means: PairedMeans,
    *,
    rows: Mapping[str, int],
    needs_proof: bool,
) -> Training:
    """The chosen among `candidates`, simplest first, with its distance to every other."""
    fewest = min(len(candidate.broken) for candidate in candidates)
    lawful = [candidate for candidate in candidates if len(candidate.broken) == fewest]
    first = lawful[0]
    eligible = [
        candidate
        for candidate in lawful
        if candidate is first or not needs_proof or _is_above(means, candidate.loss_name, first.loss_name)
    ]
    chosen = max(eligible, key=lambda candidate: candidate.validation_utility)
    comparisons = []
    for other in candidates:
        if other is not chosen:
            ahead = means.difference(chosen.loss_name, other.loss_name)
            comparisons.append(Comparison(other.loss_name, ahead.value, interval_of(ahead)))
    return Training(tuple(candidates), chosen, rows, tuple(comparisons))


def interval_of(measured: Measured) -> tuple[float, float]:
    """The measured interval; the value alone where there is none."""
    lower, upper = measured.lower, measured.upper
    return (measured.value if lower is None else lower, measured.value if upper is None else upper)


def _is_above(means: PairedMeans, name: str, other: str) -> bool:
    return interval_of(means.difference(name, other))[0] > 0.0
