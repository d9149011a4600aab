"""What payoffs may come to for the rows that the contract lets in: texts, doubtful divisions, a range that may be left.

Told when the files are read, so that no request is the first to find it. Source of the bounds:
policies/language/expression_bounds.py. Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from policies.language.expression import compile_expression
from policies.language.expression_bounds import UNBOUNDED, Bounds, bounds_of
from policies.language.yaml_source import Document, Issue, Path
from policies.utility.utility import UtilitySpec

_ROUNDING = 1e-9


def text_fields(utility: UtilitySpec, document: Document, texts: Mapping[str, str]) -> tuple[Issue, ...]:
    """Payoffs that read a field which is no number; `texts` gives the kind of each such field."""
    return tuple(
        document.issue(_cell(at, action, outcome), f"must read numbers: '{field}' is a {texts[field]}")
        for at, stakeholder in enumerate(utility.stakeholders)
        for action, row in zip(utility.actions, stakeholder.payoffs, strict=True)
        for outcome, cell in zip(utility.outcomes, row, strict=True)
        for field in sorted(cell.fields & set(texts))
    )


def doubtful_payoffs(
    utility: UtilitySpec, document: Document, fields: Mapping[str, tuple[float, float]]
) -> tuple[Issue, ...]:
    """Where a row may have no finite payoff, or one outside the declared range; `fields`: ends that the contract sets.

    Quantities are what they are stated to be, and anything within their sensitivity ranges. One issue a cell, at its
    place, and one for each end of the range, with the payoff that leaves it furthest.
    """
    found: list[Issue] = []
    ranges = {one.name: one.range or (one.value, one.value) for one in utility.quantities}
    low, high = math.inf, -math.inf
    lowest = highest = ""
    for a, action in enumerate(utility.actions):
        for o, outcome in enumerate(utility.outcomes):
            ends = (0.0, 0.0)
            for at, stakeholder in enumerate(utility.stakeholders):
                cell = stakeholder.payoffs[a][o]
                bounds, path = bounds_of(cell, fields), _cell(at, action, outcome)
                found += _doubts(bounds, path, document, "which the contract lets in")
                if not bounds.faults:
                    varied = bounds_of(compile_expression(cell.text), {**fields, **ranges})
                    found += _doubts(varied, path, document, "which the ranges of its quantities let in")
                if stakeholder.weight:
                    ends = (
                        ends[0] + stakeholder.weight * bounds.low,
                        ends[1] + stakeholder.weight * bounds.high,
                    )
            if ends[0] < low:
                low, lowest = ends[0], f"{action} x {outcome}"
            if ends[1] > high:
                high, highest = ends[1], f"{action} x {outcome}"
    if found:
        return tuple(found)  # a range means nothing where there is no value
    for key, is_left, value, payoff in (
        ("low", low < utility.range[0] - _ROUNDING, low, lowest),
        ("high", high > utility.range[1] + _ROUNDING, high, highest),
    ):
        if is_left:
            end = f"{value:,.6g} {utility.unit}" if math.isfinite(value) else "any number"
            text = f"may be left by the payoff {payoff}, which may come to {end} for a row that the contract lets in"
            found.append(document.issue(("range", key), text))
    return tuple(found)


def _doubts(bounds: Bounds, path: Path, document: Document, why: str) -> list[Issue]:
    return [
        document.issue_within(path, 1, one.column, message=f"{one.message}, {why}")
        for one in bounds.faults[:1]
    ]


def _cell(at: int, action: str, outcome: str) -> Path:
    return ("stakeholders", at, "payoffs", action, outcome)


def field_ends(minimum: float | None, maximum: float | None) -> tuple[float, float]:
    """The ends of a field, infinite where the contract sets none."""
    return UNBOUNDED[0] if minimum is None else minimum, UNBOUNDED[1] if maximum is None else maximum
