"""Scores rows with a release and picks the action of each: the one reference for what a release decides.

Preprocessing, network and calibration are training's own numpy code; the payoffs, the expected utility and
the choice are the policies'. This file only strings them together, in the order training and alignment do,
and refuses to answer with anything that is not finite or not an action of the utility spec. Must never
import torch or bentoml: a torch import costs the service 8 s and 200 MB (facts.md).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from policies.operating.operating_point import OperatingPoint, threshold_of
from policies.utility.utility import UtilityError, UtilitySpec, expected_utility, load_utility
from services.serving.release import WEIGHTS, Release, ReleaseError
from services.training.calibration import Calibration
from services.training.errors import TrainingError
from services.training.forward import Architecture, Weights, filled_in, forward
from services.training.preprocessing import Preprocessing


class ScorerError(RuntimeError):
    """The model answered with something that must not be acted on."""


@dataclass(frozen=True)
class Decisions:
    """What was decided for n rows.

    `actions` (n,) index the spec's actions; `probabilities` (n, O); `expected_utility` (n, A) in the spec's
    unit per decision, higher is better. `scores` (n,): with two outcomes the probability of the second,
    which `thresholds` (n,) is compared with (infinite where no probability changes the action); else the
    chosen action's expected utility, and no thresholds; none either while actions are switched off. `lead`
    (n,) >= 0: how far, in the unit and under the operating point's prices, the row is from another action;
    infinite where only one is left. `predicted` (n,) by field: what stood for values that nobody knows yet.
    """

    actions: NDArray[np.intp]
    probabilities: NDArray[np.float64]
    expected_utility: NDArray[np.float64]
    scores: NDArray[np.float64]
    thresholds: NDArray[np.float64] | None
    lead: NDArray[np.float64]
    predicted: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Scorer:
    """A release, loaded and checked."""

    preprocessing: Preprocessing
    architecture: Architecture
    weights: Weights
    calibration: Calibration
    operating_point: OperatingPoint
    utility: UtilitySpec

    @classmethod
    def load(cls, release: Release) -> "Scorer":
        """Load a release that `read_release` has verified.

        Raises: ReleaseError when its parts do not fit together; PolicyError when its utility spec is not
        valid.
        """
        utility_file = release.folder / "utility.yaml"
        utility = load_utility(utility_file.read_text(encoding="utf-8"), str(utility_file))
        network = _document(release, "network.json")
        try:
            scorer = cls(
                preprocessing=Preprocessing.from_json(_document(release, "preprocessing.json")),
                architecture=Architecture.from_json(network),
                weights=load_file(release.folder / WEIGHTS),
                calibration=Calibration.from_json(_document(release, "calibration.json")),
                operating_point=OperatingPoint.from_json(_document(release, "operating_point.json")),
                utility=utility,
            )
            scorer.architecture.check(scorer.weights)
        except (TrainingError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ReleaseError(f"{release.folder}: {error}") from error
        scorer._check_fit(release, outcome_names=network.get("outcome_names"))
        return scorer

    def probabilities(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Calibrated probabilities (n, O) of the spec's outcomes, each row summing to 1."""
        logits = forward(self.architecture, self.weights, self.preprocessing.transform(columns))
        return self.calibration.apply(logits)

    def decide(
        self, columns: Mapping[str, NDArray[Any]], *, allowed: NDArray[np.bool_] | None = None
    ) -> Decisions:
        """Decide n rows given as contract columns (n,); allowed (A,): the actions not switched off, None is all.

        Raises: ScorerError when a probability or utility is not finite, or an action is unknown.
        """
        return self.choose(columns, self.probabilities(columns), allowed=allowed)

    def choose(
        self,
        columns: Mapping[str, NDArray[Any]],
        probabilities: NDArray[np.float64],
        *,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Decisions:
        """The operating point's action for n rows of which the `probabilities` (n, O) are known already.

        Raises: ScorerError as `decide` does.
        """
        if not np.isfinite(probabilities).all():
            raise ScorerError("the model's probabilities must be finite")
        try:
            columns = self.decided_on(columns)
            payoffs = self.utility.payoffs(columns)
            expected = expected_utility(payoffs, probabilities)
            priced = self.operating_point.priced(payoffs, utility=self.utility, columns=columns)
            actions, lead = self.operating_point.choose_priced(priced, probabilities, allowed=allowed)
        except UtilityError as error:
            raise ScorerError(f"the rows cannot be priced: {error}") from error
        if not np.isfinite(expected).all():
            raise ScorerError("the expected utilities must be finite")
        if not ((actions >= 0) & (actions < len(self.utility.actions))).all():
            raise ScorerError(f"every action must be one of {', '.join(self.utility.actions)}")
        is_binary = probabilities.shape[1] == 2
        scores = probabilities[:, 1] if is_binary else expected[np.arange(len(actions)), actions]
        thresholds = None if allowed is not None else _thresholds(priced)
        predicted = {name: columns[name] for name in self.predicted_fields}
        return Decisions(actions, probabilities, expected, scores, thresholds, lead, predicted)

    def decided_on(self, columns: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """The columns (n,) as a decision sees them: fields not known yet as predicted, whatever `columns` say."""
        return filled_in(self.architecture, self.weights, self.preprocessing, columns)

    @property
    def predicted_fields(self) -> tuple[str, ...]:
        """Fields that payoffs read and the release predicts, because nobody knows them yet when deciding."""
        return () if self.architecture.fields is None else self.architecture.fields.names

    @property
    def needed_fields(self) -> tuple[str, ...]:
        """Fields that a row must carry for its price: what payoffs and the operating point read; not the predicted."""
        read = {*self.utility.fields, *self.operating_point.fields}
        return tuple(sorted(read - set(self.predicted_fields)))

    def _check_fit(self, release: Release, *, outcome_names: object) -> None:
        outcomes = list(self.utility.outcomes)
        checks: tuple[tuple[str, object, object], ...] = (
            ("outcomes of the network", outcomes, outcome_names),
            ("logits of the network", len(outcomes), self.architecture.outcomes),
            ("actions of the operating point", len(self.utility.actions), len(self.operating_point.shift)),
            ("outcomes of the calibration", len(outcomes), len(self.calibration.bias)),
            ("predicted fields", self.utility.hidden, self.predicted_fields),
            ("numeric inputs", self.preprocessing.numeric_width, self.architecture.numeric),
            ("cardinalities", self.preprocessing.cardinalities, self.architecture.cardinalities),
        )
        for what, expected, found in checks:
            if found != expected:
                raise ReleaseError(f"{release.folder}: {what} must be {expected}: {found}")


def _thresholds(priced: NDArray[np.float64]) -> NDArray[np.float64] | None:
    if priced.shape[1:] != (2, 2):
        return None
    try:
        return threshold_of(priced)
    except UtilityError:  # action 1 gains less under outcome 1: there is no such threshold to show
        return None


def _document(release: Release, name: str) -> dict[str, Any]:
    document = json.loads((release.folder / name).read_bytes())
    if not isinstance(document, dict):
        raise ReleaseError(f"{release.folder / name}: must be a JSON object")
    return document
