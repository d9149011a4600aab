"""Turn contract rows into the network's two inputs; the one implementation for training and serving.

Numbers are clipped to the range seen in fitting, heavy tails are taken through a signed logarithm, then
standardised; a missing number becomes the mean, with an indicator where fitting saw it missing. A category
that fitting saw too rarely, never, or not at all (missing) is index 0, whose embedding training keeps
meaningful by dropping categories at random. Clipping means that a value outside the fitted range (a new
`pdays` under drift) moves nothing by itself.

numpy only: serving imports this file, so it must never import torch, polars or pandas.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from services.training.errors import TrainingError

Columns = Mapping[str, NDArray[Any]]

UNKNOWN = 0
_NUMERIC_KINDS = frozenset({"number", "integer", "boolean"})
_CATEGORY_KINDS = frozenset({"category", "text"})
_LEAST_ROWS_PER_CATEGORY = 5
_CLIP_QUANTILES = (0.001, 0.999)
_HEAVY_TAIL_SKEW = 2.0


class FeatureColumn(Protocol):
    """What preprocessing reads of a contract's column."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def sensitive(self) -> bool: ...
    @property
    def allowed_uses(self) -> Sequence[str] | frozenset[str]: ...


class FeatureContract(Protocol):
    """What preprocessing reads of a data contract."""

    @property
    def columns(self) -> Sequence[FeatureColumn]: ...
    @property
    def feature_names(self) -> Sequence[str]: ...


def training_features(contract: FeatureContract) -> tuple[FeatureColumn, ...]:
    """Features the network may see, contract order; sensitive ones only where training is allowed."""
    by_name = {column.name: column for column in contract.columns}
    features = [by_name[name] for name in contract.feature_names]
    return tuple(c for c in features if not c.sensitive or "training" in c.allowed_uses)


@dataclass(frozen=True)
class Encoded:
    """The network inputs: `numeric` (n, d) float32, `categories` (n, k) int64, 0 is unknown or missing."""

    numeric: NDArray[np.float32]
    categories: NDArray[np.int64]


@dataclass(frozen=True)
class NumericFeature:
    """One number: clip to [low, high], signed log of x/log_scale if set, then (x - mean) / std."""

    name: str
    low: float
    high: float
    log_scale: float | None
    mean: float
    std: float
    indicator: bool

    @classmethod
    def fit(cls, name: str, values: NDArray[np.float64]) -> "NumericFeature":
        """Read range, tail and scale off (n,) float64 `values`, NaN where missing."""
        missing = np.isnan(values)
        present = values[~missing]
        if not present.size:
            return cls(name, 0.0, 0.0, None, 0.0, 1.0, indicator=False)
        low, high = (float(q) for q in np.quantile(present, _CLIP_QUANTILES))
        clipped = np.clip(present, low, high)
        log_scale = None
        if _skew(clipped) > _HEAVY_TAIL_SKEW:
            log_scale = float(np.median(np.abs(clipped[clipped != 0.0])))
            clipped = _signed_log(clipped, log_scale)
        std = float(clipped.std())
        return cls(
            name, low, high, log_scale, float(clipped.mean()), std if std > 1e-9 else 1.0, bool(missing.any())
        )

    def scaled(self, value: float) -> float:
        """One standardised number; `_Scaling` does the same with many. Raises ValueError where it is not finite."""
        if not math.isfinite(value):
            raise ValueError(f"'{self.name}' must be finite: {value}")
        clipped = min(max(value, self.low), self.high)
        if self.log_scale is not None:
            # not math.log1p: the two differ in the last bit
            clipped = math.copysign(float(np.log1p(abs(clipped) / self.log_scale)), clipped)
        return (clipped - self.mean) / self.std


@dataclass(frozen=True)
class CategoryFeature:
    """One category: `values[i]` has index i + 1, everything else has index 0."""

    name: str
    values: tuple[str, ...]

    @property
    def cardinality(self) -> int:
        """Number of indices, the unknown one included."""
        return len(self.values) + 1

    @classmethod
    def fit(cls, name: str, values: NDArray[Any]) -> "CategoryFeature":
        """Keep the categories with at least five rows, in alphabetical order."""
        counts: dict[str, int] = {}
        for value in values.tolist():
            text = _category_text(value)
            if text is not None:
                counts[text] = counts.get(text, 0) + 1
        return cls(name, tuple(sorted(v for v, rows in counts.items() if rows >= _LEAST_ROWS_PER_CATEGORY)))

    @cached_property
    def _index(self) -> Mapping[str | None, int]:
        return {value: i + 1 for i, value in enumerate(self.values)}

    def index(self, value: object) -> int:
        """The value's index."""
        return self._index.get(value if type(value) is str else _category_text(value), UNKNOWN)

    def indices(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Index of each of the (n,) `values`."""
        sent = values.tolist()
        with suppress(TypeError):  # one of them is unknown, None or nothing that could be known
            return np.fromiter(map(self._index.get, sent), np.int64, len(sent))
        return np.array([self.index(value) for value in sent], dtype=np.int64)


@dataclass(frozen=True)
class _Scaling:
    """The d numbers' scales side by side, (d, 1) each, so that all are transformed at once: for a single row, the
    number of numpy's calls is what costs. `tails` (k,) index the numbers with a log scale, `indicated` those with an
    indicator; `order` puts each indicator behind its number."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    tails: NDArray[np.intp]
    log_scale: NDArray[np.float64]
    indicated: NDArray[np.intp]
    order: NDArray[np.intp]

    @classmethod
    def of(cls, features: Sequence[NumericFeature]) -> "_Scaling":
        """The scales of the features, in their order."""
        indicated = [i for i, f in enumerate(features) if f.indicator]
        place = [*range(len(features)), *(i + 0.5 for i in indicated)]
        return cls(
            np.array([[f.low] for f in features]),
            np.array([[f.high] for f in features]),
            np.array([[f.mean] for f in features]),
            np.array([[f.std] for f in features]),
            np.array([i for i, f in enumerate(features) if f.log_scale is not None], dtype=np.intp),
            np.array([[f.log_scale] for f in features if f.log_scale is not None]),
            np.array(indicated, dtype=np.intp),
            np.argsort(place),
        )

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Standardise (d, n) `values`, NaN for missing: (n, d and the indicators); missing becomes 0, the mean."""
        scaled = np.minimum(np.maximum(values, self.low), self.high)
        if len(self.tails):
            scaled[self.tails] = _signed_log(scaled[self.tails], self.log_scale)
        scaled = (scaled - self.mean) / self.std
        missing = np.isnan(values)
        scaled[missing] = 0.0
        if len(self.indicated):
            scaled = np.concatenate([scaled, missing[self.indicated]])[self.order]
        return np.ascontiguousarray(scaled.T, dtype=np.float32)


@dataclass(frozen=True)
class Preprocessing:
    """Everything learned from the fitting rows that a later row needs to be encoded the same way."""

    numeric: tuple[NumericFeature, ...]
    categories: tuple[CategoryFeature, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns that `transform` reads."""
        return tuple(f.name for f in self.numeric) + tuple(f.name for f in self.categories)

    @property
    def numeric_width(self) -> int:
        """d of `Encoded.numeric`: one per number, and one per missing indicator."""
        return len(self.numeric) + sum(f.indicator for f in self.numeric)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Indices per category column, the unknown one included."""
        return tuple(f.cardinality for f in self.categories)

    @classmethod
    def fit(cls, columns: Columns, contract: FeatureContract) -> "Preprocessing":
        """Learn the encoding of the contract's training features from the fitting rows.

        `columns` maps each feature to an (n,) array; missing is NaN or None.
        Raises TrainingError for a feature absent from `columns`, or of a kind no network input exists for.
        """
        numeric: list[NumericFeature] = []
        categories: list[CategoryFeature] = []
        for feature in training_features(contract):
            values = _column(columns, feature.name)
            if feature.kind in _NUMERIC_KINDS:
                numeric.append(NumericFeature.fit(feature.name, numbers(feature.name, values)))
            elif feature.kind in _CATEGORY_KINDS:
                categories.append(CategoryFeature.fit(feature.name, values))
            else:
                kinds = sorted(_NUMERIC_KINDS | _CATEGORY_KINDS)
                raise TrainingError(
                    f"'{feature.name}' must be of a kind in {kinds} to be a feature: {feature.kind}"
                )
        if not numeric and not categories:
            raise TrainingError("the contract must leave at least one feature for training: none")
        return cls(tuple(numeric), tuple(categories))

    @cached_property
    def _scaling(self) -> _Scaling:
        return _Scaling.of(self.numeric)

    def transform(self, columns: Columns) -> Encoded:
        """Encode (n,) columns: every name in `feature_names`; others are ignored. Raises TrainingError."""
        rows = len(_column(columns, self.feature_names[0]))
        numeric, categories = np.empty((rows, 0), np.float32), np.empty((rows, 0), np.int64)
        if self.numeric:
            numeric = self._scaling.transform(self._numbers(columns))
        if self.categories:
            indices = [feature.indices(_column(columns, feature.name)) for feature in self.categories]
            categories = np.stack(indices, axis=1)
        return Encoded(numeric=numeric, categories=categories)

    def _numbers(self, columns: Columns) -> NDArray[np.float64]:
        """The numeric columns, (d, n)."""
        found = [_column(columns, feature.name) for feature in self.numeric]
        with suppress(TypeError, ValueError):
            values = np.array(found, dtype=np.float64)
            if not np.isinf(values).any():
                return values
        # One of them is at fault: it says so by name.
        return np.stack([numbers(f.name, column) for f, column in zip(self.numeric, found, strict=True)])

    def encode_row(self, row: Mapping[str, Any]) -> Encoded:
        """What `transform` gives for one row, to the last bit, at a third of the time: plain numbers, no columns.

        A field that the row does not have is missing. Raises ValueError or TypeError for what is no finite number.
        """
        numeric: list[float] = []
        for feature in self.numeric:
            value = row.get(feature.name)
            numeric.append(0.0 if value is None else feature.scaled(float(value)))
            if feature.indicator:
                numeric.append(float(value is None))
        indices = [feature.index(row.get(feature.name)) for feature in self.categories]
        return Encoded(np.array([numeric], dtype=np.float32), np.array([indices], dtype=np.int64))

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe dict; `from_json` gives back an equal object."""
        return {
            "version": 1,
            "numeric": [dict(vars(f)) for f in self.numeric],
            "categories": [{"name": f.name, "values": list(f.values)} for f in self.categories],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Preprocessing":
        """Read what `to_json` wrote. Raises TrainingError if it is not that."""
        try:
            if document["version"] != 1:
                raise TrainingError(f"'version' of the preprocessing must be 1: {document['version']}")
            return cls(
                tuple(NumericFeature(**feature) for feature in document["numeric"]),
                tuple(CategoryFeature(f["name"], tuple(f["values"])) for f in document["categories"]),
            )
        except (KeyError, TypeError) as error:
            raise TrainingError(f"not a preprocessing document: {error!r}") from error


def numbers(name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) float64, NaN for missing, from numbers, booleans or None. Raises TrainingError."""
    try:
        result = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"'{name}' must hold numbers: {error}") from error
    if np.isinf(result).any():
        raise TrainingError(
            f"'{name}' must be finite or missing: infinite in row {int(np.isinf(result).argmax())}"
        )
    return result


def _column(columns: Columns, name: str) -> NDArray[Any]:
    try:
        return columns[name]
    except KeyError as error:
        raise TrainingError(f"'{name}' must be among the columns: {sorted(columns)}") from error


def _is_nan(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and value != value


def _category_text(value: object) -> str | None:
    """One spelling per category whatever array it came in; None when missing."""
    if value is None or _is_nan(value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _skew(values: NDArray[np.float64]) -> float:
    centred = values - values.mean()
    spread = float(values.std())
    return abs(float((centred**3).mean())) / spread**3 if spread > 1e-9 else 0.0


def _signed_log(values: NDArray[np.float64], scale: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(values) * np.log1p(np.abs(values) / scale)
