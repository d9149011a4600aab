"""Fits what the candidates are made of, each part once: networks by their loss, and boosted trees beside them.

A candidate is a network trained with a loss of services/training/losses.py; `boosted`, gradient-boosted trees alone; or
`boosted_average`, these averaged with the network trained with cross-entropy; or `lagrangian`, a network trained to
keep the spec's bounds on rates by itself. Whatever it is, it leaves here as one architecture and one set of arrays,
uncalibrated. Must never be imported by serving's request path.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec
from services.training.boosted import BoostedSettings, BoostedTrees, fit_trees
from services.training.candidate import Epoch
from services.training.errors import TrainingError
from services.training.fit import Labelled, Progress, Settings, fit
from services.training.forward import Architecture
from services.training.lagrangian import fit_bounded
from services.training.losses import loss_named
from services.training.network import architecture_for
from services.training.plan import BOOSTED, BOOSTED_AVERAGE, LAGRANGIAN
from services.training.preprocessing import Preprocessing
from services.training.rate_bounds import rate_bounds


@dataclass(frozen=True)
class Model:
    """Fitted, not yet calibrated; `best_epoch` counts boosting rounds where trees were fitted last."""

    architecture: Architecture
    weights: Mapping[str, NDArray[Any]]
    best_epoch: int
    history: tuple[Epoch, ...] = ()


class Fitter:
    """Fits on `training`, stops early on `validation`; both encoded by `preprocessing`."""

    def __init__(
        self,
        training: Labelled,
        validation: Labelled,
        *,
        preprocessing: Preprocessing,
        utility: UtilitySpec,
        settings: Settings,
        boosted: BoostedSettings,
        seed: int,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._training, self._validation = training, validation
        self._preprocessing, self._utility = preprocessing, utility
        self._outcomes = len(utility.outcomes)
        self._settings, self._boosted = settings, boosted
        self._seed, self._on_progress = seed, on_progress
        self._networks: dict[str, Model] = {}

    def model(self, name: str) -> Model:
        """The candidate of this name, one of CANDIDATES. Raises TrainingError as fitting does."""
        if name == BOOSTED:
            blank = self._architecture(hidden=())
            weights = {key: np.zeros(shape, dtype=np.float32) for key, shape in blank.shapes().items()}
            return self._beside_trees(Model(blank, weights, best_epoch=0), share=1.0)
        if name == BOOSTED_AVERAGE:
            return self._beside_trees(self._network("cross_entropy"), share=0.5)
        return self._bounded() if name == LAGRANGIAN else self._network(name)

    def _bounded(self) -> Model:
        bounds = rate_bounds(self._utility)
        if not bounds:
            raise TrainingError(
                f"'{LAGRANGIAN}' needs an upper bound on a rate or a capacity in utility.yaml"
            )
        architecture = self._architecture(hidden=self._settings.hidden)
        fitted = fit_bounded(
            self._training,
            self._validation,
            architecture=architecture,
            bounds=bounds,
            default_action=self._utility.default_index,
            settings=self._settings,
            seed=self._seed,
        )
        return Model(architecture, fitted.weights, fitted.epoch)

    def _architecture(self, *, hidden: tuple[int, ...]) -> Architecture:
        return architecture_for(self._preprocessing, outcomes=self._outcomes, hidden=hidden)

    def _network(self, loss_name: str) -> Model:
        if loss_name not in self._networks:
            architecture = self._architecture(hidden=self._settings.hidden)
            fitted = fit(
                self._training,
                self._validation,
                architecture=architecture,
                objective=loss_named(loss_name),
                settings=self._settings,
                seed=self._seed,
                on_progress=self._on_progress,
            )
            self._networks[loss_name] = Model(architecture, fitted.weights, fitted.best_epoch, fitted.history)
        return self._networks[loss_name]

    @cached_property
    def _trees(self) -> BoostedTrees:
        return fit_trees(
            self._training,
            self._validation,
            cardinalities=self._preprocessing.cardinalities,
            outcomes=self._outcomes,
            settings=self._boosted,
            seed=self._seed,
        )

    def _beside_trees(self, model: Model, *, share: float) -> Model:
        trees = self._trees
        architecture = replace(model.architecture, trees=trees.shape, peer_share=share)
        return Model(architecture, {**model.weights, **trees.arrays}, trees.rounds)
