"""What a service asks of its training: which candidates, how sure a better one must be, and how much each row counts.

`policies/<service>/training.yaml` is optional; without it training is as it always was: the usual two networks, the
higher validation utility kept, every row counting the same. Row weights read the labelling context that the contract's
columns carry (a reviewer's confidence, what the review cost, where the label came from); they weigh fitting and early
stopping alone. Calibration and every judgement of utility count each row once: a decision is a decision, however its
label was found. Must never import torch: the file is linted by who does not train.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from policies.language.digest import canonical_sha256
from policies.language.expression import Expression, ExpressionError, compile_expression
from policies.language.yaml_mistakes import did_you_mean
from policies.language.yaml_source import (
    SERVICE_NAME,
    Document,
    Issue,
    PolicyError,
    StrictModel,
    load_document,
    parse,
)
from services.training.errors import TrainingError
from services.training.preprocessing import Columns

NETWORKS = ("cross_entropy", "payoff_weighted", "threshold_local", "annealed_utility")
BOOSTED, BOOSTED_AVERAGE = "boosted", "boosted_average"
LAGRANGIAN = "lagrangian"
CANDIDATES = (*NETWORKS, BOOSTED, BOOSTED_AVERAGE, LAGRANGIAN)
USUAL_CANDIDATES = NETWORKS[:2]

_Weight = Annotated[float, Field(ge=0.0)]


class FactorFile(StrictModel):
    """One factor of a row's weight: an expression over numbers, or a number for each value of a category."""

    expression: str | None = Field(
        default=None, description="Over the row's numbers, as in utility.yaml; >= 0."
    )
    field: str | None = Field(default=None, description="A category of the contract, with `values`.")
    values: dict[str, _Weight] | None = Field(default=None, description="The factor for each of its values.")
    missing: _Weight = Field(description="The factor where the signal is missing.")
    why: str = Field(min_length=1, description="Why rows with this signal teach more, or less.")


class PlanFile(StrictModel):
    """What a service asks of its training; without the file, all stands as its defaults say."""

    service: str = Field(pattern=SERVICE_NAME, description="The decision service: the name of the folder.")
    candidates: tuple[str, ...] = Field(
        default=USUAL_CANDIDATES,
        min_length=1,
        description="Simplest first; the highest validation utility is kept.",
    )
    needs_proof: bool = Field(
        default=False, description="Keep another than the first only if its paired interval lies above 0."
    )
    row_weights: tuple[FactorFile, ...] = Field(default=(), description="Factors, multiplied.")


@dataclass(frozen=True)
class Factor:
    """Either `expression`, or `field` with `values`; `missing` where the signal is."""

    expression: Expression | None
    field: str | None
    values: Mapping[str, float]
    missing: float

    @property
    def fields(self) -> frozenset[str]:
        """What the factor reads of a row."""
        return self.expression.fields if self.expression is not None else frozenset({str(self.field)})

    def weights(self, columns: Columns) -> NDArray[np.float64]:
        """The factor of each row (n,), finite and >= 0. Raises TrainingError naming field and row."""
        if self.expression is None:
            return np.array(
                [self._of(value, row) for row, value in enumerate(columns[str(self.field)].tolist())]
            )
        numbers = {name: np.asarray(columns[name], dtype=np.float64) for name in self.fields}
        is_known = ~np.any([np.isnan(values) for values in numbers.values()], axis=0)
        result = np.full(len(is_known), self.missing)
        try:
            if is_known.any():
                result[is_known] = self.expression.evaluate({k: v[is_known] for k, v in numbers.items()})
        except ExpressionError as error:
            raise TrainingError(f"row weight `{self.expression.text}`: {error}") from error
        if (result < 0).any():
            row = int(np.flatnonzero(result < 0)[0])
            raise TrainingError(
                f"row weight `{self.expression.text}` must be >= 0: {result[row]:g} in row {row}"
            )
        return result

    def _of(self, value: Any, row: int) -> float:
        if value is None or value != value:
            return self.missing
        if str(value) not in self.values:
            raise TrainingError(
                f"row weight of '{self.field}' must be given for every value: {value!r} in row {row}"
            )
        return self.values[str(value)]


@dataclass(frozen=True)
class TrainingPlan:
    """A checked training.yaml; `TrainingPlan()` is what holds without one."""

    candidates: tuple[str, ...] = USUAL_CANDIDATES
    needs_proof: bool = False
    factors: tuple[Factor, ...] = ()
    digest: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.candidates if name not in CANDIDATES]
        if unknown or not self.candidates or len(set(self.candidates)) != len(self.candidates):
            raise TrainingError(
                f"'candidates' must be one or more of {list(CANDIDATES)}, each once: {list(self.candidates)}"
            )

    def row_weights(self, columns: Columns) -> NDArray[np.float64] | None:
        """How much each row (n,) counts, None where all count the same. Raises TrainingError."""
        if not self.factors:
            return None
        weights = np.prod([factor.weights(columns) for factor in self.factors], axis=0)
        if not weights.any():
            raise TrainingError("some row must have a weight above 0: all are 0")
        return np.asarray(weights, dtype=np.float64)


def plan_schema() -> dict[str, Any]:
    """The JSON Schema of training.yaml, for editors."""
    schema = PlanFile.model_json_schema(by_alias=True)
    schema["properties"]["candidates"]["items"]["enum"] = list(CANDIDATES)
    return schema


def load_plan(text: str, source: str, *, service: str, fields: Mapping[str, str]) -> TrainingPlan:
    """Read a `training.yaml`; `fields` are the contract's columns by name with their kind, the label left out.

    Raises PolicyError with every mistake at once, each with file, line and column.
    """
    document = load_document(text, source)
    file = parse(document, PlanFile)
    issues = list(_mistakes(file, document, service))
    factors = []
    for at, factor in enumerate(file.row_weights):
        path = ("rowWeights", at)
        if (factor.expression is None) == (factor.field is None) or (factor.field is None) != (
            factor.values is None
        ):
            issues.append(document.issue(path, "must have either expression, or field and values"))
            continue
        try:
            expression = compile_expression(factor.expression) if factor.expression is not None else None
        except ExpressionError as error:
            issues.append(document.issue((*path, "expression"), str(error)))
            continue
        found = Factor(expression, factor.field, dict(factor.values or {}), factor.missing)
        key = "expression" if expression is not None else "field"
        issues += [document.issue((*path, key), message) for message in _strangers(found, fields)]
        factors.append(found)
    if issues:
        raise PolicyError(tuple(sorted(issues, key=lambda i: (i.line, i.column))))
    return TrainingPlan(file.candidates, file.needs_proof, tuple(factors), canonical_sha256(document.data))


def _mistakes(file: PlanFile, document: Document, service: str) -> list[Issue]:
    issues = []
    if file.service != service:
        issues.append(
            document.issue(("service",), f"must be the folder's service {service!r}: {file.service!r}")
        )
    for at, name in enumerate(file.candidates):
        if name not in CANDIDATES:
            hint = did_you_mean(name, CANDIDATES)
            issues.append(
                document.issue(("candidates", at), f"must be one of {', '.join(CANDIDATES)}{hint}: {name!r}")
            )
        elif name in file.candidates[:at]:
            issues.append(document.issue(("candidates", at), f"is named twice: {name!r}"))
    return issues


def _strangers(factor: Factor, fields: Mapping[str, str]) -> list[str]:
    """What is wrong with the fields that a factor reads."""
    if not factor.fields:
        return ["must read at least one column of the contract"]
    wanted = (
        ("category", "text") if factor.expression is None else ("number", "integer", "boolean", "timestamp")
    )
    found = []
    for name in sorted(factor.fields):
        if name not in fields:
            found.append(
                f"must read columns of the contract, not the label: {name!r}{did_you_mean(name, tuple(fields))}"
            )
        elif fields[name] not in wanted:
            found.append(f"must read a column of kind {' or '.join(wanted)}: '{name}' is a {fields[name]}")
    return found
