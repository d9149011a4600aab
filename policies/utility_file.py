"""The shape of `utility.yaml`: pydantic models of the file's edge, and the checks between its keys.

What it means stands in `policies/utility.py`; nothing else should import this module.
Must never import: anything that does I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from policies.expression import ExpressionError, compile_expression
from policies.yaml_mistakes import did_you_mean
from policies.yaml_source import SERVICE_NAME, Document, Issue, Path, StrictModel

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]


class RangeFile(StrictModel):
    low: float
    high: float


class StakeholderFile(StrictModel):
    name: Name
    weight: float = Field(ge=0)
    why: Text
    payoffs: dict[str, dict[str, float | str]]


class DomainFile(StrictModel):
    name: Name
    owner: Text


class GroupsFile(StrictModel):
    field: Text
    up_to: float


class _ConstraintFile(StrictModel):
    name: Name
    domain: str
    rationale: Text


class UtilityConstraintFile(_ConstraintFile):
    kind: Literal["utility"]
    at_least: float


class StakeholderConstraintFile(_ConstraintFile):
    kind: Literal["stakeholder_utility"]
    stakeholder: str
    at_least: float


class ActionRateConstraintFile(_ConstraintFile):
    kind: Literal["action_rate"]
    action: str
    at_most: float = Field(ge=0, le=1)


class ActionRateGapConstraintFile(_ConstraintFile):
    kind: Literal["action_rate_gap"]
    action: str
    groups: GroupsFile
    at_most: float = Field(ge=0, le=1)


ConstraintFile = Annotated[
    UtilityConstraintFile
    | StakeholderConstraintFile
    | ActionRateConstraintFile
    | ActionRateGapConstraintFile,
    Field(discriminator="kind"),
]


class ChangeFile(StrictModel):
    version: int = Field(ge=1)
    date: date
    who: Text
    why: Text


class UtilityFile(StrictModel):
    service: str = Field(pattern=SERVICE_NAME)
    version: int = Field(ge=1)
    owner: Text
    review_by: date
    unit: Text
    actions: tuple[Name, ...] = Field(min_length=2)
    outcomes: tuple[Name, ...] = Field(min_length=2)
    default_action: str
    outcome_known_after: tuple[str, ...] = Field(min_length=1)
    range: RangeFile
    stakeholders: tuple[StakeholderFile, ...] = Field(min_length=1)
    domains: tuple[DomainFile, ...]
    constraints: tuple[ConstraintFile, ...]
    changelog: tuple[ChangeFile, ...] = Field(min_length=1)


def cross_check(file: UtilityFile, document: Document) -> tuple[Issue, ...]:
    """Every mistake between the keys: unknown or repeated names, missing cells, bad expressions."""
    return tuple(
        issue
        for issues in (
            _repeated_names(file, document),
            _references(file, document),
            _cells(file, document),
            _rest(file, document),
        )
        for issue in issues
    )


def _repeated_names(file: UtilityFile, document: Document) -> Iterator[Issue]:
    lists: tuple[tuple[str, Sequence[str], bool], ...] = (
        ("actions", file.actions, False),
        ("outcomes", file.outcomes, False),
        ("stakeholders", [s.name for s in file.stakeholders], True),
        ("domains", [d.name for d in file.domains], True),
        ("constraints", [c.name for c in file.constraints], True),
    )
    for key, names, is_mapping in lists:
        for at, name in enumerate(names):
            if name in names[:at]:
                path: Path = (key, at, "name") if is_mapping else (key, at)
                yield document.issue(path, f"must be unique: '{name}'")


def _references(file: UtilityFile, document: Document) -> Iterator[Issue]:
    yield from _one_of(document, ("defaultAction",), file.default_action, file.actions)
    for at, action in enumerate(file.outcome_known_after):
        yield from _one_of(document, ("outcomeKnownAfter", at), action, file.actions)
    domains = [domain.name for domain in file.domains]
    stakeholders = [stakeholder.name for stakeholder in file.stakeholders]
    for at, constraint in enumerate(file.constraints):
        here: Path = ("constraints", at)
        yield from _one_of(document, (*here, "domain"), constraint.domain, domains)
        if isinstance(constraint, StakeholderConstraintFile):
            yield from _one_of(document, (*here, "stakeholder"), constraint.stakeholder, stakeholders)
        if isinstance(constraint, ActionRateConstraintFile | ActionRateGapConstraintFile):
            yield from _one_of(document, (*here, "action"), constraint.action, file.actions)


def _one_of(document: Document, path: Path, value: str, known: Iterable[str]) -> Iterator[Issue]:
    names = tuple(known)
    if value not in names:
        listed = ", ".join(f"'{name}'" for name in names)
        yield document.issue(path, f"must be one of {listed}: '{value}'{did_you_mean(value, names)}")


def _cells(file: UtilityFile, document: Document) -> Iterator[Issue]:
    for at, stakeholder in enumerate(file.stakeholders):
        here: Path = ("stakeholders", at, "payoffs")
        yield from _same_keys(document, here, tuple(stakeholder.payoffs), file.actions)
        for action, row in stakeholder.payoffs.items():
            yield from _same_keys(document, (*here, action), tuple(row), file.outcomes)
            for outcome, cell in row.items():
                if isinstance(cell, str):
                    try:
                        compile_expression(cell)
                    except ExpressionError as error:
                        yield document.issue((*here, action, outcome), str(error))


def _same_keys(
    document: Document, path: Path, found: Sequence[str], wanted: Sequence[str]
) -> Iterator[Issue]:
    for key in found:
        if key not in wanted:
            message = f"unknown key '{key}'{did_you_mean(key, wanted)} (known: {', '.join(wanted)})"
            yield document.issue((*path, key), message, of_key=True)
    for key in wanted:
        if key not in found:
            yield document.issue((*path, key), "is missing")


def _rest(file: UtilityFile, document: Document) -> Iterator[Issue]:
    low, high = file.range.low, file.range.high
    for action in file.actions:
        for outcome in file.outcomes:
            parts = [(s.weight, s.payoffs.get(action, {}).get(outcome)) for s in file.stakeholders]
            numbers = [weight * cell for weight, cell in parts if weight and isinstance(cell, float)]
            if len(numbers) == sum(1 for weight, _ in parts if weight) and not low <= sum(numbers) <= high:
                message = f"must hold the payoff {action} x {outcome}, {sum(numbers):g}: [{low:g}, {high:g}]"
                yield document.issue(("range",), message, of_key=True)
    if not file.range.low < file.range.high:
        yield document.issue(("range", "high"), f"must be > low ({file.range.low:g}): {file.range.high:g}")
    if not any(stakeholder.weight > 0 for stakeholder in file.stakeholders):
        yield document.issue(("stakeholders",), "must hold one weight > 0 at least", of_key=True)
    newest = file.changelog[0].version
    if newest != file.version:
        yield document.issue(
            ("changelog", 0, "version"),
            f"must be the file's version ({file.version}), newest first: {newest}",
        )
