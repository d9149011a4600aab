"""What a release must stand before it goes live: other customers, worse data, less capacity; each with a bound.

A scenario is a hypothesis in a sentence, what is measured under it, and an inclusive bound, with an owner. It is
applied to the alignment stage's rows by services/alignment/scenarios.py. What cannot be measured does not hold.
Must never import: anything but numpy and policies; no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from policies.language.digest import canonical_sha256
from policies.language.yaml_mistakes import did_you_mean
from policies.language.yaml_source import Document, Issue, Path, PolicyError, load_document, parse
from policies.utility.scenario_file import RESAMPLED, Measure, RowsFile, ScenarioFile, ScenariosFile
from policies.utility.utility import UtilitySpec


@dataclass(frozen=True)
class Rows:
    """Which rows: `field` at most `up_to`, at least `at_least`, or the text `value`; exactly one is set."""

    field: str
    up_to: float | None = None
    at_least: float | None = None
    value: str | None = None

    def among(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """`(n,)`: which rows are meant; a missing value is none of them."""
        column = columns[self.field]
        if self.value is not None:
            return np.asarray(np.asarray(column, dtype=object) == self.value, dtype=bool)
        numbers = np.asarray(column, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            if self.at_least is not None:
                return np.asarray(numbers >= self.at_least, dtype=bool)
            return np.asarray(numbers <= np.float64(self.up_to or 0.0), dtype=bool)

    def __str__(self) -> str:
        if self.value is not None:
            return f"{self.field} = {self.value}"
        return (
            f"{self.field} <= {self.up_to:g}"
            if self.up_to is not None
            else f"{self.field} >= {self.at_least:g}"
        )


@dataclass(frozen=True)
class CovariateShift:
    """Rows that come `times` as often."""

    rows: Rows
    times: float


@dataclass(frozen=True)
class PriorShift:
    """An outcome that comes `times` as often."""

    outcome: str
    times: float


@dataclass(frozen=True)
class Noise:
    """Fields read wrongly: `size` standard deviations, or the share of swapped texts."""

    fields: tuple[str, ...]
    size: float


@dataclass(frozen=True)
class MissingFields:
    """Fields that do not come in this share of rows."""

    fields: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class DemandSpike:
    """`times` as many decisions as `decisions` in a period, of which `action` can be carried out in `capacity`."""

    action: str
    decisions: int
    capacity: int
    times: float


@dataclass(frozen=True)
class DelayedLabels:
    """Rows `by_s` seconds and more after the first."""

    by_s: float


@dataclass(frozen=True)
class Nudges:
    """Fields bent by at most so much (field, amount), each row to what costs most."""

    amounts: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Slice:
    """These rows alone."""

    rows: Rows


Shape: TypeAlias = (
    CovariateShift | PriorShift | Noise | MissingFields | DemandSpike | DelayedLabels | Nudges | Slice
)


@dataclass(frozen=True)
class Scenario:
    """One hypothesis: under `shape`, `measure` keeps `at_least` or `at_most`, or the constraint keeps its own bound.

    `applies_to`: releases that are `trained`, or `all`, those that are only recalibrated, too.
    """

    name: str
    kind: str
    shape: Shape
    hypothesis: str
    measure: Measure
    at_least: float | None
    at_most: float | None
    constraint: str | None
    owner: str
    dry_run: bool
    applies_to: Literal["all", "trained"] = "all"

    def is_held(self, value: float | None) -> bool:
        """Whether a measured value keeps the bound; a missing or non-finite one does not."""
        if value is None or not math.isfinite(value):
            return False
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class ScenarioSet:
    """A checked `scenarios.yaml`; `digest` covers the meaning, not the layout."""

    service: str
    version: int
    owner: str
    scenarios: tuple[Scenario, ...]
    digest: str

    def for_recalibrated(self) -> ScenarioSet:
        """Those that a release must stand, too, whose weights are older."""
        kept = tuple(one for one in self.scenarios if one.applies_to == "all")
        return replace(self, scenarios=kept)


@dataclass(frozen=True)
class KnownField:
    """A field of a row as a scenario may speak of it; `categories` None: any text, or a number."""

    is_number: bool
    categories: tuple[str, ...] | None = None


def load_scenarios(text: str, source: str) -> ScenarioSet:
    """Read a `scenarios.yaml`; `source` names it in messages. Raises PolicyError with every mistake and its place."""
    document = load_document(text, source)
    file = parse(document, ScenariosFile)
    names = [one.name for one in file.scenarios]
    repeated = [
        document.issue(("scenarios", at, "name"), f"must be unique: '{name}'")
        for at, name in enumerate(names)
        if name in names[:at]
    ]
    flips = [
        document.issue(
            ("scenarios", at, "measure"),
            f"cannot be 'flipped' under {one.kind}: it chooses rows and changes none",
        )
        for at, one in enumerate(file.scenarios)
        if one.measure == "flipped" and one.kind in RESAMPLED
    ]
    if repeated or flips:
        raise PolicyError((*repeated, *flips))
    return ScenarioSet(
        service=file.service,
        version=file.version,
        owner=file.owner,
        scenarios=tuple(_scenario(one) for one in file.scenarios),
        digest=canonical_sha256(document.data),
    )


def scenario_errors_beside(
    utility: UtilitySpec, found: ScenarioSet, document: Document, *, fields: Mapping[str, KnownField]
) -> tuple[Issue, ...]:
    """Names that the utility spec or the contract (`fields`, those of a request) do not know, and wrong kinds of field.

    `document` is the text that `found` was read from.
    """
    issues: list[Issue] = []
    for at, one in enumerate(found.scenarios):
        here: Path = ("scenarios", at)
        issues += _names(utility, one, document, here)
        issues += _fields(one, document, here, fields)
    return tuple(issues)


def _names(utility: UtilitySpec, one: Scenario, document: Document, here: Path) -> Iterator[Issue]:
    shape = one.shape
    if isinstance(shape, PriorShift):
        yield from _one_of(document, (*here, "outcome"), shape.outcome, utility.outcomes)
    if isinstance(shape, DemandSpike):
        others = [action for action in utility.actions if action != utility.default_action]
        yield from _one_of(document, (*here, "action"), shape.action, others)
    if one.constraint is not None:
        known = [constraint.name for constraint in utility.constraints if not constraint.is_live]
        yield from _one_of(document, (*here, "constraint"), one.constraint, known)


def _fields(
    one: Scenario, document: Document, here: Path, fields: Mapping[str, KnownField]
) -> Iterator[Issue]:
    shape = one.shape
    if isinstance(shape, CovariateShift | Slice):
        path, rows = (*here, "rows"), shape.rows
        yield from _one_of(document, (*path, "field"), rows.field, fields)
        known = fields.get(rows.field)
        if known is not None and known.is_number != (rows.value is None):
            wanted = "'upTo' or 'from', it is a number" if known.is_number else "'value', it is a text"
            yield document.issue((*path, "field"), f"must be compared by {wanted}: '{rows.field}'")
        elif known is not None and known.categories is not None and rows.value is not None:
            yield from _one_of(document, (*path, "value"), rows.value, known.categories)
    elif isinstance(shape, Noise | MissingFields):
        for number, name in enumerate(shape.fields):
            yield from _one_of(document, (*here, "fields", number), name, fields)
        texts = [name for name in shape.fields if name in fields and not fields[name].is_number]
        if isinstance(shape, Noise) and texts and shape.size > 1:
            message = f"must be at most 1, the share of swapped rows, with texts ({', '.join(texts)}): {shape.size:g}"
            yield document.issue((*here, "size"), message)
    elif isinstance(shape, Nudges):
        for number, (name, _) in enumerate(shape.amounts):
            path = (*here, "nudges", number, "field")
            yield from _one_of(document, path, name, [key for key in fields if fields[key].is_number])


def _one_of(document: Document, path: Path, value: str, known: Collection[str]) -> Iterator[Issue]:
    if value not in known:
        listed = ", ".join(f"'{name}'" for name in known) or "nothing, there is none"
        yield document.issue(path, f"must be one of {listed}: '{value}'{did_you_mean(value, tuple(known))}")


def _scenario(one: ScenarioFile) -> Scenario:
    return Scenario(
        name=one.name,
        kind=one.kind,
        shape=_shape(one),
        hypothesis=one.hypothesis,
        measure=one.measure,
        at_least=one.at_least,
        at_most=one.at_most,
        constraint=one.constraint,
        owner=one.owner,
        dry_run=one.dry_run,
        applies_to=one.applies_to,
    )


def _shape(one: ScenarioFile) -> Shape:
    match one.kind:
        case "covariate_shift":
            return CovariateShift(_rows(one.rows), one.times)
        case "prior_shift":
            return PriorShift(one.outcome, one.times)
        case "noise":
            return Noise(one.fields, one.size)
        case "missing_fields":
            return MissingFields(one.fields, one.share)
        case "demand_spike":
            return DemandSpike(one.action, one.decisions, one.capacity, one.times)
        case "delayed_labels":
            return DelayedLabels(one.by)
        case "adversarial":
            return Nudges(tuple((nudge.field, nudge.amount) for nudge in one.nudges))
        case "slice":
            return Slice(_rows(one.rows))


def _rows(one: RowsFile) -> Rows:
    return Rows(one.field, one.up_to, one.from_, one.value)
