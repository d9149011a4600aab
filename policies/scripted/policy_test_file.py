"""What may stand in `tests.yaml`: cases of evidence with the verdict that the policy is expected to give on them.

The descriptions show in editors, through the JSON Schema that is made from these models.
Must never import: anything that reads a file or a clock.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from policies.language.quantities import Duration, Span
from policies.language.yaml_source import SERVICE_NAME, StrictModel
from policies.rollout.verdict import Decision, GateStatus, ReasonCode


class GivenFile(StrictModel):
    """What one metric shows: series per arm in live stages, a measurement in offline ones."""

    canary: str | None = Field(
        default=None,
        description="Live stages: the candidate, poll by poll, like `0/10 x60 then 3/10` (see policies/README.md).",
    )
    stable: str | None = Field(
        default=None,
        description="Live stages: stable at the same polls; needed where a gate compares with it.",
    )
    value: float | Literal["nan"] | None = Field(
        default=None, description="Offline stages: the estimate; nan is a measurement that went wrong."
    )
    lower: float | None = Field(default=None, description="Offline stages: lower end of the 95 % interval.")
    upper: float | None = Field(default=None, description="Offline stages: upper end of the 95 % interval.")
    n: int | None = Field(default=None, ge=0, description="Offline stages: the rows that it rests on.")


class AlarmFile(StrictModel):
    """Something that forces a rollback without a test."""

    at: Span = Field(description="Time since the stage began.")
    reason: Literal["canary_ejected", "canary_unhealthy"] = Field(description="What the proxy did or saw.")
    detail: str = Field(default="as the test says", min_length=1, description="What the alarm says.")


class ExpectFile(StrictModel):
    """The verdict that is expected."""

    at: Duration | None = Field(
        default=None, description="Live stages: of the poll at exactly this time since the stage began."
    )
    by: Duration | None = Field(
        default=None, description="Live stages: of some poll at this time or earlier, in the same stage."
    )
    decision: Decision = Field(description="ADVANCE, HOLD or ROLLBACK.")
    reason: ReasonCode | None = Field(default=None, description="The verdict's reason.")
    gates: dict[str, GateStatus] = Field(
        default_factory=dict,
        description="Gates by name, each with its result at that poll: pass, fail, inconclusive, no_data or error.",
    )
    detail_contains: str | None = Field(
        default=None, min_length=1, description="Text that the verdict's sentence must contain."
    )


class EvidenceFile(StrictModel):
    """What a stage is given."""

    given: dict[str, GivenFile] = Field(
        default_factory=dict, description="Evidence by metric. A metric that is not given brings nothing."
    )
    units: str | None = Field(
        default=None,
        description="Canary stages: canary units of all units, poll by poll, like `5/100`. Default: exactly by weight.",
    )
    alarms: tuple[AlarmFile, ...] = Field(default=(), description="Alarms, each at its time.")


class StageCaseFile(EvidenceFile):
    """One stage of a test: what it is given, and what is expected."""

    stage: str = Field(description="The stage, by its name in rollout.yaml.")
    expect: tuple[ExpectFile, ...] = Field(min_length=1, description="The verdicts that are expected.")


class CaseFile(EvidenceFile):
    """One test: one stage (`stage`, `given`, `expect`), or several after one another (`stages`)."""

    name: str = Field(min_length=1, description="What the policy promises here, in a few words; unique.")
    first_release: bool = Field(
        default=False, description="Offline stages: whether the service has no champion yet."
    )
    stage: str | None = Field(default=None, description="The stage, by its name in rollout.yaml.")
    expect: tuple[ExpectFile, ...] = Field(default=(), description="The verdicts that are expected.")
    stages: tuple[StageCaseFile, ...] = Field(
        default=(),
        description="Several live stages after one another, each entered when the one before advanced.",
    )


class TestsFile(StrictModel):
    """The whole of `tests.yaml`."""

    __test__ = False  # no class of tests, whatever pytest makes of its name

    service: str = Field(pattern=SERVICE_NAME, description="The decision service; the name of its folder.")
    tests: tuple[CaseFile, ...] = Field(min_length=1, description="The tests.")
