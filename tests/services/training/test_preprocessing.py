"""Preprocessing: one encoding for training and serving, whatever is missing, new or extreme."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from services.data.contract import Column
from services.training.errors import TrainingError
from services.training.preprocessing import Preprocessing, training_features


@dataclass(frozen=True)
class Features:
    """What preprocessing reads of a contract, and no more."""

    columns: tuple[Column, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


CONTRACT = Features(
    (
        Column("income", "number", False, "feature"),
        Column("tail", "number", True, "feature"),
        Column("owner", "boolean", True, "feature"),
        Column("town", "category", False, "feature"),
        Column("sex", "category", True, "feature", sensitive=True, allowed_uses=("audit",)),
    )
)


def fitted() -> tuple[Preprocessing, dict[str, np.ndarray]]:
    draw = np.random.default_rng(1)
    columns = {
        "income": np.where(draw.random(500) < 0.1, np.nan, draw.normal(50, 10, 500)),
        "tail": np.exp(draw.normal(0, 2, 500)),
        "owner": draw.random(500) < 0.5,
        "town": draw.choice(["a", "b", "c"], 500).astype(object),
        "sex": draw.choice(["f", "m"], 500).astype(object),
    }
    columns["town"][:2] = "rare"
    return Preprocessing.fit(columns, CONTRACT), columns


def test_sensitive_features_not_allowed_for_training_stay_out() -> None:
    """A sensitive column without `training` among its uses never becomes an input."""
    assert [c.name for c in training_features(CONTRACT)] == ["income", "tail", "owner", "town"]
    assert "sex" not in fitted()[0].feature_names


def test_json_round_trip_encodes_identically() -> None:
    """Serving reads the JSON that training wrote and encodes every row to the same bits."""
    preprocessing, columns = fitted()
    again = Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json(), allow_nan=False)))
    assert again == preprocessing
    np.testing.assert_array_equal(again.transform(columns).numeric, preprocessing.transform(columns).numeric)
    np.testing.assert_array_equal(
        again.transform(columns).categories, preprocessing.transform(columns).categories
    )


def test_one_row_encodes_as_in_the_batch() -> None:
    """A row served alone, as Python objects, gets the encoding it had among 500 in training."""
    preprocessing, columns = fitted()
    batch = preprocessing.transform(columns)
    for row in range(0, 500, 50):
        value = {k: v[row].item() if hasattr(v[row], "item") else v[row] for k, v in columns.items()}
        if np.isnan(value["income"]):
            value["income"] = None
        alone = preprocessing.transform({k: np.array([v], dtype=object) for k, v in value.items()})
        np.testing.assert_array_equal(alone.numeric[0], batch.numeric[row])
        np.testing.assert_array_equal(alone.categories[0], batch.categories[row])
        plain = preprocessing.encode_row({k: v for k, v in value.items() if v is not None})
        np.testing.assert_array_equal(plain.numeric[0], batch.numeric[row])
        np.testing.assert_array_equal(plain.categories[0], batch.categories[row])
        assert (plain.numeric.dtype, plain.categories.dtype) == (batch.numeric.dtype, batch.categories.dtype)


def test_missing_numbers_become_the_mean_and_say_so() -> None:
    """Missing is 0 after standardising, with an indicator of 1; only columns seen missing have one."""
    preprocessing, columns = fitted()
    encoded = preprocessing.transform(columns)
    missing = np.isnan(columns["income"])
    assert preprocessing.numeric_width == 4
    np.testing.assert_array_equal(encoded.numeric[missing, 0], 0.0)
    np.testing.assert_array_equal(encoded.numeric[:, 1], missing)


def test_unknown_rare_and_missing_categories_are_index_zero() -> None:
    """New, rare (below five rows) and missing categories share index 0; known ones do not."""
    preprocessing, columns = fitted()
    columns = {k: v[:5].copy() for k, v in columns.items()}
    columns["town"] = np.array(["atlantis", None, float("nan"), "rare", "a"], dtype=object)
    assert preprocessing.transform(columns).categories[:, 0].tolist() == [0, 0, 0, 0, 1]


def test_extremes_are_clipped_and_tails_logged() -> None:
    """A value a million times the largest seen moves no further than the largest; the tail is log-scaled."""
    preprocessing, columns = fitted()
    tail = next(f for f in preprocessing.numeric if f.name == "tail")
    assert tail.log_scale is not None
    far = {"tail": np.array([columns["tail"].max(), columns["tail"].max() * 1e6])}
    first, second = Preprocessing((tail,), ()).transform(far).numeric[:, 0]
    assert first == second < 5


def test_a_constant_column_says_nothing_even_when_it_changes() -> None:
    """A number that never varied in fitting stays 0 whatever comes later."""
    preprocessing, columns = fitted()
    columns["tail"] = np.full(500, -1.0)
    constant = Preprocessing.fit(columns, CONTRACT)
    columns["tail"] = np.full(500, 300.0)
    assert (constant.transform(columns).numeric[:, 2] == 0).all()
    assert preprocessing.numeric_width == constant.numeric_width


def test_what_cannot_be_encoded_is_refused_by_name() -> None:
    """A missing column, text among numbers and infinity raise errors that name the field."""
    preprocessing, columns = fitted()
    with pytest.raises(TrainingError, match="'tail' must be among the columns"):
        preprocessing.transform({k: v for k, v in columns.items() if k != "tail"})
    with pytest.raises(TrainingError, match="'tail' must hold numbers"):
        preprocessing.transform(columns | {"tail": np.array(["x"] * 500, dtype=object)})
    with pytest.raises(TrainingError, match="'tail' must be finite"):
        preprocessing.transform(columns | {"tail": np.full(500, np.inf)})
    with pytest.raises(TrainingError, match="not a preprocessing document"):
        Preprocessing.from_json({"version": 1})
