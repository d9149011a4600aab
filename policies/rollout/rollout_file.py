"""What may stand in `rollout.yaml`: every key with its form and what it means.

The descriptions show in editors, through the JSON Schema that is made from these models. What a mistake would make
unsafe has no default. Words of other rollout controllers are refused with ours.
Source: gates.md semantics 1 to 10. Must never import: anything that reads a file or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from policies.language.other_words import GATE_WORDS, ROLLOUT_WORDS, STAGE_WORDS
from policies.language.quantities import Duration, Percentage, Span, Traffic
from policies.language.yaml_source import SERVICE_NAME, StrictModel

StageKind = Literal["offline", "shadow", "canary", "full", "probation"]
LiveKind = Literal["shadow", "canary", "probation"]
CompareTo = Literal["champion", "bound"]
OnInconclusive = Literal["rollback", "extend", "manual"]
AdvanceOn = Literal["gates", "bake", "readback"]
Outcome = Literal["hold", "rollback"]
Estimate = Literal["value", "lower", "upper"]
AppliesTo = Literal["first", "challenger", "all"]
Where = Literal["all", "disagreement"]

NAME = r"^[a-z][a-z0-9-]*$"


def _a_mapping(form: str) -> BeforeValidator:
    """Refuse anything but a mapping, in words that show the form."""

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            shown = "null" if value is None else repr(value)
            raise ValueError(f"must be a mapping like {form}: {shown[:40]}")
        return value

    return BeforeValidator(check)


class MarginFile(StrictModel):
    """How much worse than stable: `{ratio: 1.5}` (times stable's rate) or `{absolute: 0.30}` (the metric's unit)."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    ratio: float | None = Field(default=None, description="Times stable's rate, 1 or more. Proportions only.")
    absolute: float | None = Field(
        default=None,
        description="A difference in the metric's own unit: EUR a unit, or a difference of shares (0.02 = 2 points).",
    )


class ExpectedFile(StrictModel):
    """What planning reckons with: how long each gate needs at the expected traffic."""

    rate: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Proportions: the share of events to expect (stable's). Gaps: the share of units that are not "
        "given the default action.",
    )
    sd: float | None = Field(
        default=None,
        gt=0,
        description="Utility: standard deviation of one unit's realised payoff. Ratio metrics: of one acted-on "
        "unit's payoff.",
    )
    variance_left: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="With `where: disagreement`: share of the payoffs' variance that is left where only the units "
        "count on which candidate and champion act differently. A canary report shows it, as times fewer units.",
    )
    group_share: float | None = Field(
        default=None, gt=0, le=0.5, description="Gaps: share of units in the smaller of the two groups."
    )


Margin = Annotated[MarginFile, _a_mapping("{ratio: 1.5} or {absolute: 0.30}")]
Expected = Annotated[ExpectedFile, _a_mapping("{rate: 0.002} or {sd: 5.2}")]


class GateFile(StrictModel):
    """A gate: one metric, what it is compared with, and what follows from the result."""

    other_words: ClassVar[Mapping[str, str]] = GATE_WORDS

    name: str = Field(pattern=NAME, description="The gate's name, in lower case with dashes; unique.")
    metric: str = Field(
        description="What is measured. `trimtab policy explain` lists the metrics and what they mean."
    )
    compare_to: CompareTo = Field(
        description="bound: an absolute bound, `min` or `max` (or `when` in offline stages). champion: stable, "
        "measured at the same time, with `tolerance` and `niMargin`."
    )
    min: float | None = Field(
        default=None, description="compareTo bound: the least allowed value, inclusive."
    )
    max: float | None = Field(
        default=None, description="compareTo bound: the largest allowed value, inclusive."
    )
    when: str | None = Field(
        default=None,
        min_length=1,
        description="Offline gates only, in place of min or max: the condition to pass, in CEL, over "
        "`metrics.<name>`, `.lower` and `.upper`. Needs the extra `cel`.",
    )
    tolerance: Margin | None = Field(
        default=None,
        description="compareTo champion: roll back on evidence that the candidate is worse by more than this.",
    )
    ni_margin: Margin | None = Field(
        default=None,
        description="compareTo champion: advance on evidence that the candidate is not worse by this. Larger than "
        "`tolerance`; between the two lies what may stay undecided.",
    )
    min_samples: int = Field(
        default=0,
        ge=0,
        description="The gate passes only once it has seen this many units; it may fail sooner.",
    )
    window: Span | None = Field(
        default=None,
        description="Length of one block of evidence, at least a poll and at most a tenth of the bake; default: every "
        "poll is a block.",
    )
    required_from: Percentage | None = Field(
        default=None,
        description="Live gates: stages from this weight on cannot advance without it (shadow is 0%, full and "
        "probation 100%). Default: every stage that runs it. Below, its rollback side acts all the same.",
    )
    runs_in: tuple[LiveKind, ...] | None = Field(
        default=None,
        min_length=1,
        description="Live gates: the kinds of stages that run it; default: all that can measure its metric.",
    )
    weight: float = Field(
        default=1.0,
        ge=0.001,
        le=1000,
        description="Its share of alphaRollback, relative to the other live gates' weights.",
    )
    on_fail: Outcome = Field(
        description="What a failed gate does: rollback (offline: refuse the release), or hold."
    )
    on_missing: Outcome = Field(
        description="What missing evidence does once the longest bake is over. It holds until then, and never passes."
    )
    on_error: Outcome = Field(description="What unusable evidence does: NaN, a payoff outside its range.")
    dry_run: bool = Field(
        default=False,
        description="true: judged, shown and recorded, but it never acts, is never required, and takes no part of "
        "alphaRollback from the others. For trying a gate before it counts.",
    )
    where: Where | None = Field(
        default=None,
        description="Metric utility only. disagreement: compare on the units on which both releases would act "
        "differently; the others add noise only. Default: all.",
    )
    budget: Span | None = Field(
        default=None, description="Metric slow_share only: a request that takes longer is slow."
    )
    estimate: Estimate | None = Field(
        default=None,
        description="Offline gates: which end is held against the bound: the estimate, or an end of its 95 % interval.",
    )
    applies_to: AppliesTo | None = Field(
        default=None, description="Offline gates: to the first release only, to challengers only, or to all."
    )
    expected: Expected | None = Field(
        default=None, description="What planning reckons with; needed where compareTo is champion."
    )
    owner: str | None = Field(
        default=None, min_length=1, description="Who answers for this gate; default: the policy's owner."
    )
    rationale: str = Field(
        min_length=10, description="Why the gate is there and why its bound is where it is."
    )


class BakeFile(StrictModel):
    """How long a stage lasts at least and at most."""

    min: Duration = Field(description="The stage does not advance sooner, however good the evidence.")
    max: Span = Field(description="After this, onInconclusive speaks.")


Bake = Annotated[BakeFile, _a_mapping("{min: 15m, max: 2h}")]


class StageFile(StrictModel):
    """A stage: the traffic the candidate gets, for how long, and what lets it go on."""

    other_words: ClassVar[Mapping[str, str]] = STAGE_WORDS

    name: str = Field(
        pattern=NAME, description="Offline: contract, training, alignment. Live: any name; unique."
    )
    kind: StageKind = Field(description="offline, then shadow (mirrored requests), canary, full, probation.")
    weight: Percentage | None = Field(
        default=None, description="Canary stages: the candidate's share of the units, like 5%. It only grows."
    )
    bake: Bake | None = Field(
        default=None, description="Live stages: least and longest time, like {min: 15m, max: 2h}."
    )
    on_inconclusive: OnInconclusive | None = Field(
        default=None,
        description="Live stages, when the longest bake ends undecided: rollback; extend (once as long again, then "
        "roll back); manual (wait for a person).",
    )
    advance_on: AdvanceOn = Field(
        description="gates: every gate required here passes. bake: time alone, at 1% or less. readback: full only."
    )
    approval: bool = Field(default=False, description="true: a person must promote it once its gates passed.")
    rationale: str | None = Field(
        default=None, min_length=10, description="Why; needed where a stage advances without a gate."
    )


class RolloutFile(StrictModel):
    """How a release reaches 100 % of live traffic, and what stops it."""

    other_words: ClassVar[Mapping[str, str]] = ROLLOUT_WORDS

    service: str = Field(pattern=SERVICE_NAME, description="The decision service: the name of the folder.")
    version: int = Field(ge=1, description="Raise it with every change.")
    owner: str = Field(min_length=1, description="Who answers for this policy.")
    review_by: date | None = Field(
        default=None, description="The lint warns once this day (YYYY-MM-DD) has passed."
    )
    alpha_rollback: float = Field(
        gt=0,
        le=0.2,
        description="Chance of rolling back a release that is not worse: per rollout, over all gates, stages, looks.",
    )
    alpha_advance: float = Field(
        gt=0,
        le=0.2,
        description="Chance that a required gate lets a release pass that is worse by its margin, per stage.",
    )
    maturity: Duration = Field(
        description="A decision counts for utility once it is this old (wall time) and the outcome feed has passed it."
    )
    time_scale: float | None = Field(
        default=None,
        gt=0,
        deprecated=True,
        description="Read by nothing: taken so that older files stay readable.",
    )
    poll: Span = Field(
        description="How often evidence is gathered and judged; at most a quarter of the lease."
    )
    lease: Span = Field(
        description="The canary's weight lapses to 0 when nobody has renewed it for this long."
    )
    expected_traffic: Traffic = Field(description="Requests to expect, like 200/s; planning reckons with it.")
    retrain_every: Span | None = Field(
        default=None,
        description="How often a new candidate comes. A rollout that lasts longer would never end before the next one.",
    )
    gates: tuple[GateFile, ...] = Field(min_length=1, description="Every gate, once.")
    stages: tuple[StageFile, ...] = Field(min_length=1, description="The stages, in order.")
