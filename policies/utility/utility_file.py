"""The shape of `utility.yaml`: pydantic models of the file's edge.

The checks between its keys stand in `policies/utility/utility_mistakes.py`, what it means in
`policies/utility/utility.py`. Must never import: anything that does I/O.
"""

from __future__ import annotations

from datetime import date
from typing import Literal, Self

from pydantic import Field, model_validator

from policies.language.yaml_source import SERVICE_NAME, StrictModel
from policies.utility.constraint_file import ConstraintFile, Name, Text

Day = date  # for a field that is named `date`


class RangeFile(StrictModel):
    """Both ends, inclusive."""

    low: float = Field(description="The lower end, inclusive.")
    high: float = Field(description="The upper end, inclusive.")


class MeasuredFile(StrictModel):
    """What tells a quantity afterwards: the sum of an amount over the decisions that carry it, per the sum of `per`."""

    amount: Name = Field(description="A measured amount that outcomes or a file of rows carry, by this name.")
    per: Text | None = Field(
        default=None,
        description="An expression over the row and the other quantities, at least 0; left out: per decision.",
    )


class QuantityFile(StrictModel):
    """A number that payoffs read by its name, with how far it may be off."""

    name: Name = Field(description="The name that payoffs read it by.")
    value: float = Field(description="The number.")
    unit: Text = Field(description="What it is measured in.")
    why: Text = Field(description="Where it comes from.")
    sensitivity: RangeFile | None = Field(
        default=None, description="How far it may be off; the range holds the value. Left out: not in doubt."
    )
    measured: MeasuredFile | None = Field(
        default=None,
        description="What tells it afterwards, for `trimtab utility reestimate`; it moves no decision.",
    )


class PayoffSensitivityFile(StrictModel):
    """How far one payoff may be off: multiplied by a `factor`, or with an `amount` added, in its own unit."""

    action: str = Field(description="Whose payoff: the action.")
    outcome: str = Field(description="Whose payoff: the outcome.")
    factor: RangeFile | None = Field(
        default=None, description="The payoff may be multiplied by anything in this range; it holds 1."
    )
    amount: RangeFile | None = Field(
        default=None,
        description="Anything in this range may be added, in the stakeholder's unit; it holds 0.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.factor is None) == (self.amount is None):
            raise ValueError("must have exactly one of 'factor' and 'amount'")
        return self


class SensitivityFile(StrictModel):
    """How far a stakeholder's numbers may be off; the what-ifs try the ends."""

    weight: RangeFile | None = Field(
        default=None, description="The range that the weight may lie in; it holds the weight."
    )
    payoffs: tuple[PayoffSensitivityFile, ...] = Field(
        default=(), description="Payoffs that are in doubt, each with its range."
    )


class StakeholderFile(StrictModel):
    """One who bears the consequences: what each action is worth to them, once the outcome is known."""

    name: Name = Field(description="The stakeholder's name; unique.")
    weight: float = Field(
        ge=0,
        description="What one of their units is worth in the unit of the file; 0: heard and reported, not priced.",
    )
    why: Text = Field(description="Why these payoffs and this weight, in words.")
    unit: Text | None = Field(default=None, description="The unit of their payoffs; default: the file's.")
    payoffs: dict[str, dict[str, float | str]] = Field(
        description="By action, then by outcome: a number, or an expression over the row "
        "(`0.25 * clip(balance, 0, 5000) - 1`)."
    )
    sensitivity: SensitivityFile | None = Field(default=None, description="How far the numbers may be off.")


class DomainFile(StrictModel):
    """Who answers for a domain's bounds."""

    name: Name = Field(description="The domain's name; unique.")
    owner: Text = Field(description="Who answers for it.")
    error_budget: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="The chance that any of its bounds is broken though said to hold; split over its constraints.",
    )


class HypothesisFile(StrictModel):
    """What somebody expects, registered before it is evaluated."""

    name: Name = Field(description="The hypothesis' name; unique.")
    statement: Text = Field(description="In words.")
    metric: Name = Field(
        description="A metric of the alignment stage, a stakeholder's utility or a constraint."
    )
    at_least: float | None = Field(
        default=None, description="The least value expected, inclusive; this or atMost."
    )
    at_most: float | None = Field(
        default=None, description="The largest value expected, inclusive; this or atLeast."
    )
    owner: Text = Field(description="Who registered it.")
    registered: date = Field(description="The day (YYYY-MM-DD), not after the newest change.")

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("must have exactly one of 'atLeast' and 'atMost'")
        return self


class SatisfactionFile(StrictModel):
    """How satisfied users are, measured elsewhere."""

    metric: Name = Field(description="Its name there.")
    source: Text = Field(description="Where it is measured.")
    unit: Text = Field(description="Its unit.")
    better: Literal["higher", "lower"] = Field(description="Which direction is better.")
    owner: Text = Field(description="Who answers for it.")


class AbstainFile(StrictModel):
    """Rows whose best action is uncertain get this action."""

    action: str = Field(description="The action, e.g. to refer to a person.")
    at_most: float = Field(gt=0, le=1, description="The largest share of decisions that may abstain.")
    rationale: Text = Field(description="Why.")


class ChangeFile(StrictModel):
    """One entry of the changelog."""

    version: int = Field(ge=1, description="The version it made.")
    date: Day = Field(description="The day (YYYY-MM-DD).")
    who: Text = Field(description="Who agreed.")
    why: Text = Field(description="What changed, and why.")


class UtilityFile(StrictModel):
    """What a decision is worth, in the terms of those who bear the consequences."""

    service: str = Field(pattern=SERVICE_NAME, description="The decision service: the name of the folder.")
    version: int = Field(ge=1, description="Raise it with every change, and add to the changelog.")
    owner: Text = Field(description="Who answers for this file.")
    review_by: date = Field(description="The lint warns once this day (YYYY-MM-DD) has passed: prices age.")
    unit: Text = Field(description="The unit of utility, per decision.")
    actions: tuple[Name, ...] = Field(min_length=2, description="What can be decided.")
    outcomes: tuple[Name, ...] = Field(
        min_length=2, description="What can come of it: the contract's label outcomes."
    )
    default_action: str = Field(description="Taken in a tie, and where nothing is known.")
    outcome_known_after: tuple[str, ...] = Field(
        min_length=1, description="The actions after which the outcome is learned."
    )
    hidden_when_deciding: tuple[Name, ...] = Field(
        default=(),
        description="Fields that payoffs read and nobody knows yet when deciding: releases predict them.",
    )
    range: RangeFile = Field(
        description="Every weighted payoff lies within, inclusive. The canary's tests rest on it: keep it tight."
    )
    quantities: tuple[QuantityFile, ...] = Field(
        default=(), description="Numbers that several payoffs read by name."
    )
    stakeholders: tuple[StakeholderFile, ...] = Field(
        min_length=1, description="Those who bear the consequences."
    )
    domains: tuple[DomainFile, ...] = Field(description="Who answers for which bounds.")
    constraints: tuple[ConstraintFile, ...] = Field(
        description="What the decisions keep to, whatever they earn."
    )
    abstain: AbstainFile | None = Field(
        default=None, description="When to leave the decision to another action."
    )
    user_satisfaction: SatisfactionFile | None = Field(
        default=None, description="How satisfied users are, measured elsewhere."
    )
    hypotheses: tuple[HypothesisFile, ...] = Field(
        default=(), description="What is expected, registered beforehand."
    )
    changelog: tuple[ChangeFile, ...] = Field(
        min_length=1, description="Newest first; the first entry's version is the file's."
    )
