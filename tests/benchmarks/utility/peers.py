"""The peers: usual models with a per-row Bayes threshold and with one tuned threshold, fairlearn's, and empulse's.

All see the same rows as Trimtab: fit on the first part, stop early, calibrate (Platt, as Trimtab does) and tune on
the second. Trees get raw numbers and native categories, logistic regression standardised numbers and one-hot
categories. fairlearn knows no payoffs: its ThresholdOptimizer balances accuracy, its ExponentiatedGradient gets the
mean costs. empulse (AGPL) is run here and nowhere else; where it is not installed, its lines are left out and it is
said so.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_data import DataSet, Floats, Split
from sklearn.base import BaseEstimator, ClassifierMixin
from trimtab_side import columns_of, contract_of

from services.training.calibration import Calibration
from services.training.preprocessing import Preprocessing

LEAST_LOSS = 1e-7
TREES_OF_EXPONENTIATED_GRADIENT = 50
MOST_GRADIENT_STEPS = 10


@dataclass(frozen=True)
class Entry:
    """One line of the table: actions (n,) on the test rows, and the seconds that fitting took."""

    name: str
    actions: NDArray[Any]
    fit_s: float


@dataclass(frozen=True)
class Inputs:
    """A split as the peers' libraries want it."""

    split: Split
    seed: int

    @cached_property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.fit(columns_of(self.split.fit), contract_of(self.split.fit))

    def trees(self, data: DataSet) -> Floats:
        """Raw numbers, then category indices."""
        numbers = [data.features[f.name] for f in self.preprocessing.numeric]
        encoded = self.preprocessing.transform(data.features)
        return np.column_stack([*numbers, encoded.categories]).astype(float)

    @cached_property
    def categorical(self) -> list[int]:
        first = len(self.preprocessing.numeric)
        return list(range(first, first + len(self.preprocessing.categories)))

    def linear(self, data: DataSet) -> Floats:
        """Standardised numbers, then one column per category."""
        encoded = self.preprocessing.transform(data.features)
        widths = self.preprocessing.cardinalities
        hot = [np.eye(width)[encoded.categories[:, j]][:, 1:] for j, width in enumerate(widths)]
        return np.column_stack([encoded.numeric, *hot]).astype(float)


@dataclass(frozen=True)
class Scored:
    """Calibrated P(1) of validation and test rows."""

    name: str
    validation: Floats
    test: Floats
    fit_s: float


def bayes_actions(data: DataSet, p: Floats) -> NDArray[np.int64]:
    """Act where p x (what acting saves on a 1) is at least (1 - p) x (what it costs on a 0), row by row."""
    fp, fn, tp, tn = data.costs.T
    return (p * (fn - tp) >= (1 - p) * (fp - tn)).astype(np.int64)


def tuned_threshold(data: DataSet, p: Floats) -> float:
    """The one threshold of least cost on these rows, over 400 quantiles of p, acting always and never included."""
    thresholds = np.concatenate([[0.0], np.quantile(p, np.linspace(0, 1, 400)), [np.inf]])
    return float(min(thresholds, key=lambda t: data.cost(p >= t).sum()))


def calibrated(raw: Floats, outcomes: NDArray[np.int64], *others: Floats) -> list[Floats]:
    """Platt on `raw` probabilities (n,), applied to themselves and to others."""

    def logits(p: Floats) -> Floats:
        p = np.clip(p, LEAST_LOSS, 1 - LEAST_LOSS)
        return np.column_stack([np.zeros(len(p)), np.log(p / (1 - p))])

    platt = Calibration.fit(logits(raw), outcomes)
    return [platt.apply(logits(p))[:, 1] for p in (raw, *others)]


def usual_models(inputs: Inputs) -> Iterator[Scored]:
    """Logistic regression, LightGBM, HistGradientBoosting."""
    for name, model in (
        ("logistic regression", _logistic),
        ("LightGBM", _lightgbm),
        ("HistGradientBoosting", _histogram),
    ):
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predict = model(inputs)
            raw = predict(inputs.split.validation)
            validation, test = calibrated(raw, inputs.split.validation.outcomes, predict(inputs.split.test))
        yield Scored(name, validation, test, time.perf_counter() - started)


def two_rules(scored: Scored, split: Split) -> Iterator[Entry]:
    """A model's probabilities under the per-row threshold and under one tuned threshold."""
    yield Entry(f"{scored.name}, per-row Bayes", bayes_actions(split.test, scored.test), scored.fit_s)
    threshold = tuned_threshold(split.validation, scored.validation)
    yield Entry(f"{scored.name}, one tuned threshold", (scored.test >= threshold).astype(int), scored.fit_s)


Predict = Callable[[DataSet], Floats]


def _logistic(inputs: Inputs) -> Predict:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1.0, max_iter=500)
    model.fit(inputs.linear(inputs.split.fit), inputs.split.fit.outcomes)
    return lambda data: model.predict_proba(inputs.linear(data))[:, 1]


def lightgbm_classifier(inputs: Inputs, *, rounds: int = 1000) -> Any:
    """LightGBM as all entries use it, unfitted: Trimtab's own settings (services/training/boosted.py), found by
    validation log loss, so that the peer is not weaker for its settings.
    """
    from lightgbm import LGBMClassifier

    return LGBMClassifier(
        n_estimators=rounds,
        learning_rate=0.05,
        num_leaves=31,
        min_child_samples=50,
        reg_lambda=1.0,
        colsample_bytree=0.8,
        cat_smooth=50.0,
        cat_l2=30.0,
        min_data_per_group=200,
        random_state=inputs.seed,
        n_jobs=1,
        verbosity=-1,
    )


def _lightgbm(inputs: Inputs) -> Predict:
    import lightgbm

    model, split = lightgbm_classifier(inputs), inputs.split
    model.fit(
        inputs.trees(split.fit),
        split.fit.outcomes,
        categorical_feature=inputs.categorical,
        eval_set=[(inputs.trees(split.validation), split.validation.outcomes)],
        callbacks=[lightgbm.early_stopping(50, verbose=False)],
    )
    return lambda data: model.predict_proba(inputs.trees(data))[:, 1]


def _histogram(inputs: Inputs) -> Predict:
    from sklearn.ensemble import HistGradientBoostingClassifier

    widest = max(inputs.preprocessing.cardinalities, default=0)
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=1000,
        min_samples_leaf=50,
        l2_regularization=1.0,
        early_stopping=True,
        n_iter_no_change=50,
        categorical_features=inputs.categorical if widest <= 255 else None,
        random_state=inputs.seed,
    )
    split = inputs.split
    model.fit(
        inputs.trees(split.fit),
        split.fit.outcomes,
        X_val=inputs.trees(split.validation),
        y_val=split.validation.outcomes,
    )
    return lambda data: model.predict_proba(inputs.trees(data))[:, 1]


def fairlearn_entries(inputs: Inputs, scored: Scored) -> Iterator[Entry]:
    """ThresholdOptimizer on `scored`'s probabilities; ExponentiatedGradient over LightGBM with the mean costs."""
    from fairlearn.postprocessing import ThresholdOptimizer
    from fairlearn.reductions import DemographicParity, ErrorRate, ExponentiatedGradient

    split = inputs.split
    started = time.perf_counter()
    optimizer = ThresholdOptimizer(
        estimator=Given(),
        constraints="demographic_parity",
        objective="balanced_accuracy_score",
        prefit=True,
        predict_method="predict_proba",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.fit(
            scored.validation[:, None], split.validation.outcomes, sensitive_features=split.validation.group
        )
        actions = optimizer.predict(
            scored.test[:, None], sensitive_features=split.test.group, random_state=inputs.seed
        )
    yield Entry("fairlearn ThresholdOptimizer", actions, scored.fit_s + time.perf_counter() - started)

    started = time.perf_counter()
    fp, fn, tp, tn = split.fit.costs.mean(axis=0)
    costs = np.array([fp - tn, fn - tp])
    fp, fn = (costs / costs.max()).tolist()
    gradient = ExponentiatedGradient(
        lightgbm_classifier(inputs, rounds=TREES_OF_EXPONENTIATED_GRADIENT),
        constraints=DemographicParity(difference_bound=0.05),
        objective=ErrorRate(costs={"fp": fp, "fn": fn}),
        max_iter=MOST_GRADIENT_STEPS,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gradient.fit(inputs.trees(split.fit), split.fit.outcomes, sensitive_features=split.fit.group)
        actions = gradient.predict(inputs.trees(split.test), random_state=inputs.seed)
    yield Entry("fairlearn ExponentiatedGradient", actions, time.perf_counter() - started)


class Given(ClassifierMixin, BaseEstimator):
    """An estimator whose input is already the probability: what ThresholdOptimizer post-processes."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, rows: Floats, outcomes: Any) -> Given:
        return self

    def predict_proba(self, rows: Any) -> Floats:
        p = np.asarray(rows, dtype=float)[:, 0]
        return np.column_stack([1 - p, p])


def empulse_entries(inputs: Inputs) -> Iterator[Entry]:
    """CSThreshold and CSBoost over LightGBM. Raises ImportError where empulse is not installed."""
    from empulse.models import CSBoostClassifier, CSThresholdClassifier

    split = inputs.split
    x, y = inputs.trees(split.fit), split.fit.outcomes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        threshold = CSThresholdClassifier(
            lightgbm_classifier(inputs, rounds=150), calibrator="sigmoid", random_state=inputs.seed
        )
        threshold.fit(x, y, **_costs(split.fit))
        fit_s = time.perf_counter() - started
        actions = threshold.predict(inputs.trees(split.test), **_costs(split.test))
        yield Entry("empulse CSThreshold", np.asarray(actions), fit_s)
        started = time.perf_counter()
        boost = CSBoostClassifier(lightgbm_classifier(inputs, rounds=150))
        boost.fit(x, y, **_costs(split.fit))
        fit_s = time.perf_counter() - started
        scores = boost.predict_proba(inputs.trees(split.test))[:, 1]
        yield Entry("empulse CSBoost", (scores >= 0.5).astype(int), fit_s)


def _costs(data: DataSet) -> dict[str, Floats]:
    fp, fn, tp, tn = data.costs.T
    return {"fp_cost": fp, "fn_cost": fn, "tp_cost": tp, "tn_cost": tn}
