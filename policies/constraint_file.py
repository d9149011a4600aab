"""The shape of a constraint in `utility.yaml`: one pydantic model per kind, at the file's edge.

What a constraint means stands in `policies/constraints.py`. Bounds are inclusive; a rate, a precision and a gap are
shares from 0 to 1. Must never import: anything that does I/O.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from policies.constraints import Constraint
from policies.quantities import Span
from policies.yaml_source import StrictModel

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class GroupsFile(StrictModel):
    """Group a: the rows whose `field` is at most `upTo`, or is the text `value`. Group b: the others."""

    field: Text
    up_to: float | None = None
    value: Text | None = None

    @model_validator(mode="after")
    def _one_split(self) -> Self:
        if (self.up_to is None) == (self.value is None):
            raise ValueError("must have exactly one of 'upTo' (a number) and 'value' (a text)")
        return self


class _ConstraintFile(StrictModel):
    name: Name
    domain: str
    rationale: Text


class _OneBound(_ConstraintFile):
    at_most: Share | None = None
    at_least: Share | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("must have exactly one of 'atMost' and 'atLeast'")
        return self


class _Gap(_ConstraintFile):
    action: str
    groups: GroupsFile
    at_most: Share
    group_prices: bool = False


class UtilityConstraintFile(_ConstraintFile):
    kind: Literal["utility"]
    at_least: float


class StakeholderConstraintFile(_ConstraintFile):
    kind: Literal["stakeholder_utility"]
    stakeholder: str
    at_least: float


class ActionRateConstraintFile(_OneBound):
    kind: Literal["action_rate"]
    action: str


class RateAmongConstraintFile(_OneBound):
    kind: Literal["rate_among"]
    action: str
    among: str


class PrecisionConstraintFile(_ConstraintFile):
    kind: Literal["precision"]
    action: str
    outcome: str
    at_least: Share


class CapacityConstraintFile(_ConstraintFile):
    kind: Literal["capacity"]
    action: str
    at_most: int = Field(ge=0)
    per: Span
    decisions: int = Field(ge=1)


class ActionRateGapConstraintFile(_Gap):
    kind: Literal["action_rate_gap"]


class RateAmongGapConstraintFile(_Gap):
    kind: Literal["rate_among_gap"]
    among: str


class PrecisionGapConstraintFile(_ConstraintFile):
    kind: Literal["precision_gap"]
    action: str
    outcome: str
    groups: GroupsFile
    at_most: Share


class LatencyConstraintFile(_ConstraintFile):
    kind: Literal["latency"]
    at_most: Span
    share: float = Field(gt=0, lt=1)


ConstraintFile: TypeAlias = Annotated[
    UtilityConstraintFile
    | StakeholderConstraintFile
    | ActionRateConstraintFile
    | RateAmongConstraintFile
    | PrecisionConstraintFile
    | CapacityConstraintFile
    | ActionRateGapConstraintFile
    | RateAmongGapConstraintFile
    | PrecisionGapConstraintFile
    | LatencyConstraintFile,
    Field(discriminator="kind"),
]


def constraint_of(one: ConstraintFile, *, error_budget: float) -> Constraint:
    """The constraint as the engine holds it; `error_budget` is its own part of its domain's."""
    groups: GroupsFile | None = getattr(one, "groups", None)
    return Constraint(
        name=one.name,
        kind=one.kind,
        domain=one.domain,
        rationale=one.rationale,
        at_least=getattr(one, "at_least", None),
        at_most=getattr(one, "at_most", None),
        stakeholder=getattr(one, "stakeholder", None),
        action=getattr(one, "action", None),
        among=getattr(one, "among", None),
        outcome=getattr(one, "outcome", None),
        group_field=groups.field if groups is not None else None,
        group_up_to=groups.up_to if groups is not None else None,
        group_value=groups.value if groups is not None else None,
        group_prices=getattr(one, "group_prices", False),
        period_s=getattr(one, "per", None),
        decisions=getattr(one, "decisions", None),
        share=getattr(one, "share", None),
        error_budget=error_budget,
    )
