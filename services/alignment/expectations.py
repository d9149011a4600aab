"""What people had said beforehand, held against what came: domains with their constraints, registered hypotheses.

numpy only.
"""

from collections.abc import Sequence
from typing import Literal

from policies.gates.evidence import Measured
from policies.utility.constraints import ConstraintResult
from policies.utility.spec_parts import Hypothesis
from policies.utility.utility import UtilitySpec
from services.alignment.report import AlignmentReport, DomainRow, HypothesisRow


def domain_rows(utility: UtilitySpec, results: Sequence[ConstraintResult]) -> tuple[DomainRow, ...]:
    """Per domain how many of its constraints are kept, and the one with the least room, as a share of its bound."""
    found = []
    for name, domain in utility.domains.items():
        own = [result for result in results if result.constraint.domain == name]
        tightest = min(own, key=_room, default=None)
        found.append(
            DomainRow(
                name=name,
                owner=domain.owner,
                error_budget=domain.error_budget,
                kept=sum(result.is_held for result in own),
                of=len(own),
                tightest="–" if tightest is None else tightest.sentence(),
            )
        )
    return tuple(found)


def _room(result: ConstraintResult) -> float:
    """How far the value is inside its bound, as a share of it; unmeasured: none at all."""
    if result.value is None:
        return float("-inf")
    one = result.constraint
    if one.at_most is not None:
        return (one.at_most - result.value) / max(abs(one.at_most), 1e-9)
    bound = one.at_least or 0.0
    return (result.value - bound) / max(abs(bound), 1e-9)


def hypothesis_rows(utility: UtilitySpec, report: AlignmentReport) -> tuple[HypothesisRow, ...]:
    """Each hypothesis of the spec against the alignment metric or constraint that it names."""
    measured = report.measured()
    measured |= {
        result.constraint.name: Measured(result.value, n=result.n)
        for result in report.constraints
        if result.value is not None
    }
    return tuple(
        HypothesisRow(
            name=one.name,
            statement=one.statement,
            owner=one.owner,
            registered=one.registered.isoformat(),
            expected=f"{one.metric} "
            + (f">= {one.at_least:g}" if one.at_least is not None else f"<= {one.at_most:g}"),
            measured=measured.get(one.metric),
            verdict=_verdict(one, measured.get(one.metric)),
        )
        for one in utility.hypotheses
    )


def _verdict(one: Hypothesis, found: Measured | None) -> Literal["kept", "refuted", "open", "not measured"]:
    if found is None or found.value is None:
        return "not measured"
    low = found.value if found.lower is None else found.lower
    high = found.value if found.upper is None else found.upper
    if one.at_least is not None:
        inside, outside = low >= one.at_least, high < one.at_least
    else:
        bound = float("inf") if one.at_most is None else one.at_most
        inside, outside = high <= bound, low > bound
    return "kept" if inside else "refuted" if outside else "open"
