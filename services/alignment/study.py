"""Everything that the alignment stage found on the evaluation rows: the report, what rests on numbers, the scenarios.

numpy only: must never import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.gates.evidence import Measured
from policies.operating.operating_point import OperatingPoint
from policies.utility.scenarios import ScenarioSet
from policies.utility.sensitivity import sensitivity
from policies.utility.sensitivity_result import Sensitivity
from policies.utility.utility import Columns, UtilitySpec
from services.alignment.align import align
from services.alignment.report import AlignmentReport
from services.alignment.scenario_rows import Bench
from services.alignment.scenarios import ScenarioReport, run_scenarios

VARIED_ROWS = 50_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AlignmentStudy:
    """What the stage is judged by and what its report shows; None: no number is in doubt, or no scenarios are set."""

    report: AlignmentReport
    sensitivity: Sensitivity | None
    scenarios: ScenarioReport | None

    def measured(self) -> Mapping[str, Measured]:
        """The metrics of the alignment gates."""
        found = self.report.measured()
        return found if self.scenarios is None else {**found, **self.scenarios.measured()}

    def record(self) -> dict[str, object]:
        """What the ledger keeps: JSON-safe."""
        return {
            **self.report.record(),
            "sensitivity": None if self.sensitivity is None else self.sensitivity.to_json(),
            "scenarios": None if self.scenarios is None else self.scenarios.record(),
        }


def study(
    bench: Bench, *, champion: NDArray[np.intp] | None, scenarios: ScenarioSet | None, seed: int
) -> AlignmentStudy:
    """All of it on the bench's rows; `champion` (n,): the actions there of the release in force.

    Raises AlignmentError and UtilityError as align and vary do.
    """
    decided_on = bench.sees(bench.columns)
    return AlignmentStudy(
        report=align(
            probabilities=bench.probabilities,
            columns=bench.columns,
            outcomes=bench.outcomes,
            utility=bench.utility,
            operating_point=bench.operating_point,
            champion=champion,
            moments=bench.times,
            decided_on=decided_on,
            seed=seed,
        ),
        sensitivity=vary(
            bench.utility,
            bench.columns,
            probabilities=bench.probabilities,
            outcomes=bench.outcomes,
            operating_point=bench.operating_point,
            champion=champion,
            decided_on=decided_on,
            seed=seed,
        ),
        scenarios=None if scenarios is None else run_scenarios(scenarios, bench, seed=seed),
    )


def vary(
    utility: UtilitySpec,
    columns: Columns,
    *,
    probabilities: Floats,
    outcomes: NDArray[np.int64],
    operating_point: OperatingPoint,
    champion: NDArray[np.intp] | None,
    decided_on: Columns | None = None,
    seed: int,
) -> Sensitivity | None:
    """The sensitivity study, on 50,000 rows drawn by the seed where there are more; None where nothing is in doubt.

    `decided_on`: the columns as a decision sees them, where that differs.
    Raises UtilityError where a payoff has no finite value within the ranges.
    """
    rows: NDArray[np.intp] | slice = slice(None)
    if len(outcomes) > VARIED_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(outcomes), VARIED_ROWS, replace=False))
    return sensitivity(
        utility,
        {name: values[rows] for name, values in columns.items()},
        probabilities=probabilities[rows],
        outcomes=outcomes[rows],
        point=operating_point,
        champion=None if champion is None else champion[rows],
        decided_on=None
        if decided_on is None
        else {name: values[rows] for name, values in decided_on.items()},
        seed=seed,
    )
