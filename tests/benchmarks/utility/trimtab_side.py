"""Trimtab's own entries: the product's training, calibration, selection and operating point, as a release has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from real_data import Columns, DataSet, Split

from policies.operating.operating_point import OperatingPoint
from policies.utility.utility import UtilitySpec, load_utility
from services.data.columns import Column
from services.training.fit import Settings
from services.training.plan import TrainingPlan
from services.training.train import Training, train

UTILITY = """
service: {name}
version: 1
owner: Benchmark
reviewBy: 2030-01-01
unit: {unit}
actions: [leave, act]
outcomes: ["no", "yes"]
defaultAction: leave
outcomeKnownAfter: [leave, act]
range: {{low: -1000000, high: 1000000}}
stakeholders:
  - name: house
    weight: 1
    why: The usual costs of the data set.
    payoffs:
      leave: {{"no": "0 - cost_tn", "yes": "0 - cost_fn"}}
      act: {{"no": "0 - cost_fp", "yes": "0 - cost_tp"}}
domains:
  - {{name: revenue, owner: Benchmark, errorBudget: 0.05}}
constraints:
  - {{name: earns, kind: utility, domain: revenue, atLeast: -1000000, rationale: Benchmark.}}
changelog:
  - {{version: 1, date: 2026-01-01, who: Benchmark, why: Benchmark.}}
"""
COSTS = ("cost_fp", "cost_fn", "cost_tp", "cost_tn")
LABEL = "label"
OURS, OURS_BOOSTED = "Trimtab, networks", "Trimtab, networks and trees"
OURS_TUNED = "Trimtab, networks, one tuned threshold"


@dataclass(frozen=True)
class Contract:
    """What training reads of a data contract."""

    columns: tuple[Column, ...]
    label: str = LABEL

    @property
    def label_outcomes(self) -> dict[str, str]:
        return {"0": "no", "1": "yes"}

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.role == "feature")


def contract_of(data: DataSet) -> Contract:
    """Numbers and categories as the data set has them."""
    features = (
        Column(name, "number" if values.dtype.kind == "f" else "category", False, "feature")
        for name, values in data.features.items()
    )
    return Contract((*features, Column(LABEL, "category", False, "label")))


def columns_of(data: DataSet) -> Columns:
    """Features, label and costs, as rows of a contract."""
    costs = dict(zip(COSTS, data.costs.T, strict=True))
    return {**data.features, **costs, LABEL: data.outcomes.astype(str).astype(object)}


def utility_of(data: DataSet, *, hidden: Sequence[str] = ()) -> UtilitySpec:
    """The data set's costs as a utility spec: the same file that a service would have."""
    text = UTILITY.format(name=data.name, unit=data.unit)
    if hidden:
        text = text.replace("range:", f"hiddenWhenDeciding: [{', '.join(hidden)}]\nrange:", 1)
    return load_utility(text, f"{data.name}/utility.yaml")


@dataclass(frozen=True)
class Trained:
    """What the product made of a split, and how long fitting took."""

    training: Training
    fit_s: float

    def probabilities(self, data: DataSet, name: str | None = None) -> NDArray[np.float64]:
        """Calibrated (n, 2), of the chosen candidate or of the one named."""
        chosen = self.training.chosen
        if name is not None:
            chosen = next(c for c in self.training.candidates if c.loss_name == name)
        return chosen.probabilities(columns_of(data))

    def actions(self, data: DataSet, name: str | None = None) -> NDArray[np.intp]:
        """The per-row Bayes operating point on those probabilities, and on costs as a decision sees them."""
        seen = self.training.chosen.decided_on(columns_of(data))
        payoffs = utility_of(data).payoffs(seen)
        return OperatingPoint((0.0, 0.0), 0).choose(payoffs, self.probabilities(data, name))


def train_split(
    split: Split,
    *,
    seed: int,
    candidates: Sequence[str],
    hidden: Sequence[str] = (),
    settings: Settings | None = None,
    on_epoch: Callable[[], None] = lambda: None,
) -> Trained:
    """Fit on the split's first part; stop, calibrate and choose on its second. The third is not touched.

    `hidden`: costs that nobody knows when deciding.
    """
    started = time.perf_counter()
    held_out = columns_of(split.validation)
    training = train(
        columns_of(split.fit),
        held_out,
        held_out,
        contract=contract_of(split.fit),
        utility=utility_of(split.fit, hidden=hidden),
        seed=seed,
        plan=TrainingPlan(tuple(candidates)),
        settings=settings,
        on_progress=lambda event: on_epoch(),
    )
    return Trained(training, time.perf_counter() - started)
