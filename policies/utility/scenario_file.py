"""The shape of `scenarios.yaml`: one pydantic model per kind of scenario, at the file's edge.

What a scenario means stands in `policies/utility/scenarios.py`. Bounds are inclusive.
Must never import: anything that does I/O.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from policies.language.quantities import Span
from policies.language.yaml_source import SERVICE_NAME, StrictModel
from policies.utility.constraint_file import Name, Text

Measure = Literal["utility", "gain_over_trivial", "regret", "flipped", "constraint"]
RESAMPLED = ("covariate_shift", "prior_shift", "delayed_labels", "slice")
"""Kinds that choose other rows; the others change rows or what is done with them."""


class RowsFile(StrictModel):
    """Rows whose `field` is at most `upTo`, at least `from`, or the text `value`."""

    field: Text = Field(description="A field of the row.")
    up_to: float | None = Field(default=None, description="At most this number, inclusive.")
    from_: float | None = Field(default=None, alias="from", description="At least this number, inclusive.")
    value: Text | None = Field(default=None, description="This text.")

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        if sum(one is not None for one in (self.up_to, self.from_, self.value)) != 1:
            raise ValueError("must have exactly one of 'upTo', 'from' (numbers) and 'value' (a text)")
        return self


class NudgeFile(StrictModel):
    """A field that somebody can bend."""

    field: Text = Field(description="A field of the row; a number.")
    amount: float = Field(gt=0, description="By how much at most, up or down, within the contract's bounds.")


class _ScenarioFile(StrictModel):
    name: Name = Field(description="The scenario's name; unique.")
    hypothesis: Text = Field(description="What is expected, in a plain sentence.")
    measure: Measure = Field(
        description="What is measured under the scenario. utility: mean per decision; gain_over_trivial: over the "
        "best trivial policy, per decision; regret: lost per 1,000 decisions to the best point; flipped: the share of "
        "decisions that turn out otherwise; constraint: a constraint of utility.yaml keeps its bound."
    )
    at_least: float | None = Field(default=None, description="The least value that keeps the hypothesis.")
    at_most: float | None = Field(default=None, description="The greatest value that keeps the hypothesis.")
    constraint: Text | None = Field(
        default=None, description="With `measure: constraint`: its name; the bound is its own."
    )
    owner: Text = Field(description="Who answers for the hypothesis.")
    dry_run: bool = Field(
        default=False, description="Judged and shown, and not counted among the failed scenarios."
    )
    applies_to: Literal["all", "trained"] = Field(
        default="all",
        description="`trained`: not judged where a release is only recalibrated, on the few rows that came since: "
        "its weights stood it when they were trained.",
    )

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.measure == "constraint") != (self.constraint is not None):
            raise ValueError("must have 'constraint' with 'measure: constraint', and only then")
        sides = (self.at_least is not None) + (self.at_most is not None)
        if sides != (0 if self.measure == "constraint" else 1):
            raise ValueError(
                "must have exactly one of 'atLeast' and 'atMost' (none of them with 'measure: constraint')"
            )
        return self


class CovariateShiftFile(_ScenarioFile):
    """Other customers come: some rows so many times as often, against the others."""

    kind: Literal["covariate_shift"] = Field(description="Other customers come.")
    rows: RowsFile = Field(description="Which rows.")
    times: float = Field(ge=0.01, le=100, description="How many times as often as now, against the others.")


class PriorShiftFile(_ScenarioFile):
    """An outcome comes so many times as often, among customers who look the same."""

    kind: Literal["prior_shift"] = Field(description="An outcome comes more or less often.")
    outcome: str = Field(description="The outcome.")
    times: float = Field(ge=0.01, le=100, description="How many times as often as now, against the others.")


class NoiseFile(_ScenarioFile):
    """Fields are recorded wrongly; what is earned rests on the true ones."""

    kind: Literal["noise"] = Field(description="Fields are recorded wrongly.")
    fields: tuple[Text, ...] = Field(min_length=1, description="Which fields.")
    size: float = Field(
        gt=0,
        description="Numbers: standard deviations of the field; texts: the share of rows with another row's text.",
    )


class MissingFieldsFile(_ScenarioFile):
    """Fields do not come; a row that the service then refuses gets the default action."""

    kind: Literal["missing_fields"] = Field(description="Fields do not come.")
    fields: tuple[Text, ...] = Field(min_length=1, description="Which fields, all of them together.")
    share: float = Field(gt=0, le=1, description="In which share of rows.")


class DemandSpikeFile(_ScenarioFile):
    """More decisions in a period than the capacity of an action serves: first come, first served."""

    kind: Literal["demand_spike"] = Field(description="More decisions come than can be carried out.")
    action: str = Field(description="The action with a capacity; who comes too late gets the default action.")
    decisions: int = Field(gt=0, description="Decisions in a usual period.")
    capacity: int = Field(gt=0, description="How often the action can be carried out in a period.")
    times: float = Field(gt=1, description="How many times as many decisions come in the period.")


class DelayedLabelsFile(_ScenarioFile):
    """Outcomes come later, so releases are older when they decide: only rows so much later than the first count."""

    kind: Literal["delayed_labels"] = Field(description="Outcomes, and so releases, come later.")
    by: Span = Field(description="By how much later.")


class AdversarialFile(_ScenarioFile):
    """Somebody bends fields within bounds, each row to what costs most."""

    kind: Literal["adversarial"] = Field(description="Somebody bends fields within bounds.")
    nudges: tuple[NudgeFile, ...] = Field(
        min_length=1, max_length=3, description="Which fields, and how far; three at most."
    )


class SliceFile(_ScenarioFile):
    """Rare rows where a mistake is dear, looked at alone."""

    kind: Literal["slice"] = Field(description="Rare rows alone.")
    rows: RowsFile = Field(description="Which rows.")


ScenarioFile: TypeAlias = Annotated[
    CovariateShiftFile
    | PriorShiftFile
    | NoiseFile
    | MissingFieldsFile
    | DemandSpikeFile
    | DelayedLabelsFile
    | AdversarialFile
    | SliceFile,
    Field(discriminator="kind"),
]


class ScenariosFile(StrictModel):
    """The whole of `scenarios.yaml`."""

    service: str = Field(pattern=SERVICE_NAME, description="The decision service; the name of its folder.")
    version: int = Field(ge=1, description="Raised with every change.")
    owner: Text = Field(description="Who answers for the file.")
    scenarios: tuple[ScenarioFile, ...] = Field(min_length=1, description="The scenarios.")
