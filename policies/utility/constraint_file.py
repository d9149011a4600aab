"""The shape of a constraint in `utility.yaml`: one pydantic model per kind, at the file's edge.

What a constraint means stands in `policies/utility/constraints.py`. Bounds are inclusive; a rate, a precision and
a gap are shares from 0 to 1. Must never import: anything that does I/O.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from policies.language.quantities import Span
from policies.language.yaml_source import StrictModel
from policies.utility.constraints import Constraint

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class GroupsFile(StrictModel):
    """Group a: the rows whose `field` is at most `upTo`, or is the text `value`. Group b: the others."""

    field: Text = Field(description="The field of the row that tells the groups apart.")
    up_to: float | None = Field(default=None, description="Group a: at most this number; this or value.")
    value: Text | None = Field(default=None, description="Group a: this text; this or upTo.")

    @model_validator(mode="after")
    def _one_split(self) -> Self:
        if (self.up_to is None) == (self.value is None):
            raise ValueError("must have exactly one of 'upTo' (a number) and 'value' (a text)")
        return self


class _ConstraintFile(StrictModel):
    name: Name = Field(description="The constraint's name; unique.")
    domain: str = Field(description="The domain whose owner answers for it.")
    rationale: Text = Field(description="Why the bound is there and why it is where it is.")


class _OneBound(_ConstraintFile):
    at_most: Share | None = Field(
        default=None, description="The largest share allowed, inclusive; this or atLeast."
    )
    at_least: Share | None = Field(
        default=None, description="The least share allowed, inclusive; this or atMost."
    )

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("must have exactly one of 'atMost' and 'atLeast'")
        return self


class _Gap(_ConstraintFile):
    action: str = Field(description="The action whose rates are compared.")
    groups: GroupsFile = Field(description="How the rows fall into two groups.")
    at_most: Share = Field(description="The widest difference allowed, inclusive.")
    group_prices: bool = Field(
        default=False, description="Whether the operating point may differ by group to keep the bound."
    )


class UtilityConstraintFile(_ConstraintFile):
    """Mean weighted payoff per decision."""

    kind: Literal["utility"] = Field(description="Mean weighted payoff per decision.")
    at_least: float = Field(description="The least mean allowed, inclusive.")


class StakeholderConstraintFile(_ConstraintFile):
    """Mean payoff of one stakeholder per decision, unweighted."""

    kind: Literal["stakeholder_utility"] = Field(
        description="Mean payoff of one stakeholder per decision, unweighted."
    )
    stakeholder: str = Field(description="Whose.")
    at_least: float = Field(description="The least mean allowed, inclusive.")


class ActionRateConstraintFile(_OneBound):
    """Share of decisions with an action."""

    kind: Literal["action_rate"] = Field(description="Share of decisions with this action.")
    action: str = Field(description="The action.")


class RateAmongConstraintFile(_OneBound):
    """Share of decisions with an action, among the rows of one outcome."""

    kind: Literal["rate_among"] = Field(
        description="Share of decisions with this action among the rows with that outcome."
    )
    action: str = Field(description="The action.")
    among: str = Field(description="The outcome.")


class PrecisionConstraintFile(_ConstraintFile):
    """Share of an outcome among the rows that got an action."""

    kind: Literal["precision"] = Field(description="Share of that outcome among the rows with this action.")
    action: str = Field(description="The action.")
    outcome: str = Field(description="The outcome.")
    at_least: Share = Field(description="The least share allowed, inclusive.")


class CapacityConstraintFile(_ConstraintFile):
    """How many times an action can be taken in a time."""

    kind: Literal["capacity"] = Field(description="How many times an action can be taken in a time.")
    action: str = Field(description="The action.")
    at_most: int = Field(ge=0, description="At most so many times.")
    per: Span = Field(description="In this time, like 1d.")
    decisions: int = Field(ge=1, description="The decisions to expect in that time.")


class ActionRateGapConstraintFile(_Gap):
    """Difference of two groups' action rates."""

    kind: Literal["action_rate_gap"] = Field(description="Difference of the two groups' action rates.")


class RateAmongGapConstraintFile(_Gap):
    """Difference of two groups' action rates among the rows of one outcome."""

    kind: Literal["rate_among_gap"] = Field(
        description="Difference of the two groups' action rates among the rows with that outcome."
    )
    among: str = Field(description="The outcome.")


class PrecisionGapConstraintFile(_ConstraintFile):
    """Difference of two groups' precision."""

    kind: Literal["precision_gap"] = Field(description="Difference of the two groups' precision.")
    action: str = Field(description="The action.")
    outcome: str = Field(description="The outcome.")
    groups: GroupsFile = Field(description="How the rows fall into two groups.")
    at_most: Share = Field(description="The widest difference allowed, inclusive.")


class LatencyConstraintFile(_ConstraintFile):
    """How long a share of the requests may take."""

    kind: Literal["latency"] = Field(description="How long a share of the requests may take.")
    at_most: Span = Field(description="At most this time, like 250ms.")
    share: float = Field(gt=0, lt=1, description="This share of the requests, e.g. 0.99.")


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
