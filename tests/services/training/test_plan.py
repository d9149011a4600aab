"""training.yaml: named candidates, and rows that count by the context of their label."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.language.yaml_source import PolicyError
from policies.utility.utility import UtilitySpec
from services.training.errors import TrainingError
from services.training.fit import Settings
from services.training.losses import LOSSES
from services.training.plan import NETWORKS, USUAL_CANDIDATES, TrainingPlan, load_plan
from services.training.time_slices import TimePlan, time_slices
from services.training.train import TrainingContract, train

Columns = dict[str, NDArray[Any]]

PLAN = """
service: toy
candidates: [cross_entropy, boosted_average]
needsProof: true
rowWeights:
  - expression: clip(confidence, 0.2, 1)
    missing: 0.5
    why: A reviewer who is unsure teaches less.
  - field: source
    values: {audited: 1, inferred: 0.4}
    missing: 0.4
    why: Inferred labels are often wrong.
"""
FIELDS: Mapping[str, str] = {"confidence": "number", "source": "category", "region": "category"}


def read(text: str) -> TrainingPlan:
    return load_plan(text, "training.yaml", service="toy", fields=FIELDS)


def test_factors_multiply_and_missing_signals_have_their_own() -> None:
    """A row counts its factors' product; a missing signal counts what the file says, never NaN."""
    plan = read(PLAN)
    assert (plan.candidates, plan.needs_proof) == (("cross_entropy", "boosted_average"), True)
    weights = plan.row_weights(
        {
            "confidence": np.array([1.0, 0.1, np.nan, 0.6]),
            "source": np.array(["audited", "inferred", "audited", None], dtype=object),
        }
    )
    np.testing.assert_allclose(weights, [1.0, 0.2 * 0.4, 0.5, 0.6 * 0.4])


def test_without_a_file_training_is_as_it_always_was() -> None:
    """The usual two networks, no proof, no weights; the names of networks are the losses there are."""
    plan = TrainingPlan()
    assert (plan.candidates, plan.needs_proof, plan.row_weights({})) == (USUAL_CANDIDATES, False, None)
    assert set(NETWORKS) == set(LOSSES)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "service: toy",
            "service: joy",
            "training.yaml:2:10: .*must be the folder's service 'toy': 'joy'",
        ),
        ("boosted_average", "boosted_averag", "did you mean 'boosted_average'"),
        ("[cross_entropy, boosted_average]", "[boosted, boosted]", "is named twice: 'boosted'"),
        ("clip(confidence, 0.2, 1)", "clip(confidnce, 0.2, 1)", "did you mean 'confidence'"),
        ("clip(confidence, 0.2, 1)", "clip(region, 0.2, 1)", "'region' is a category"),
        ("clip(confidence, 0.2, 1)", "0.5 + 0.1", "must read at least one column"),
        ("clip(confidence, 0.2, 1)", "clip(confidence, 0.2", "training.yaml:6:"),
        ("field: source", "field: confidence", "'confidence' is a number"),
        (
            "values: {audited: 1, inferred: 0.4}\n",
            "expression: confidence\n",
            "either expression, or field and",
        ),
        ("inferred: 0.4", "inferred: -1", "greater than or equal to 0|>= 0"),
        ("missing: 0.5", "mising: 0.5", "did you mean 'missing'"),
    ],
)
def test_every_mistake_is_named_with_its_place(old: str, new: str, message: str) -> None:
    """Misspelled names, unknown columns, wrong kinds and negative weights are refused when the file is read."""
    assert old in PLAN
    with pytest.raises(PolicyError, match=message):
        read(PLAN.replace(old, new))


def test_weights_that_cannot_be_are_refused_by_row() -> None:
    """A negative weight, a value without a factor, and weights that are all 0 are errors of training."""
    plan = read(PLAN.replace("clip(confidence, 0.2, 1)", "confidence - 0.5"))
    source = np.array(["audited", "audited"], dtype=object)
    with pytest.raises(TrainingError, match=r"must be >= 0: -0\.4 in row 1"):
        plan.row_weights({"confidence": np.array([0.6, 0.1]), "source": source})
    with pytest.raises(TrainingError, match="'source' must be given for every value: 'guessed' in row 0"):
        plan.row_weights({"confidence": np.ones(1), "source": np.array(["guessed"], dtype=object)})
    with pytest.raises(TrainingError, match="all are 0"):
        plan.row_weights({"confidence": np.array([0.5, 0.5]), "source": source})


def test_rows_that_count_nothing_teach_nothing(
    toy_columns: Callable[..., Columns], toy_contract: TrainingContract, toy_utility: UtilitySpec
) -> None:
    """With wrong labels weighed 0, the probabilities are those of the right labels; unweighted they are not."""
    columns = toy_columns(6000, seed=7)
    wrong = np.random.default_rng(0).random(6000) < 0.4
    columns["sold"][wrong] = "y"
    columns["confidence"] = np.where(wrong, 0.0, 1.0)
    slices = time_slices(columns, TimePlan())
    right = ~wrong[4200:5100]
    calibration = {name: values[right] for name, values in slices.calibration.items()}
    plan = read(PLAN.split("  - field")[0].replace("clip(confidence, 0.2, 1)", "confidence"))
    fresh, errors = toy_columns(3000, seed=8), []
    for one in (replace(plan, candidates=("cross_entropy",)), TrainingPlan(("cross_entropy",))):
        trained = train(
            slices.fit,
            slices.validation,
            calibration,
            contract=toy_contract,
            utility=toy_utility,
            seed=0,
            plan=one,
            settings=Settings(hidden=(16,), most_epochs=10, learning_rate=1e-2),
        )
        errors.append(np.abs(trained.chosen.probabilities(fresh)[:, 1] - fresh["chance"]).mean())
    assert errors[0] < 0.04
    assert errors[0] < errors[1]
