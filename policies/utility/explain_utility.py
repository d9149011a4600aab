"""A utility spec in plain sentences, for the people who answer for it and need not read YAML.

It says what the engine does, from the same fields that the engine reads. Must never import: anything that does I/O or
reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np

from policies.gates.explain import Section, duration
from policies.utility.constraints import Constraint
from policies.utility.sensitivity import STEP
from policies.utility.spec_parts import Stakeholder
from policies.utility.thresholds import Region, Typical, TypicalRow, number, regions, typical_rows
from policies.utility.utility import UtilitySpec
from policies.utility.varied_payoffs import Parameter, VariedPayoffs

_TYPICAL = (
    "Typical values (10, 50 and 90 of 100 lie at or below) are of {}. This is the action of the best expected payoff; "
    "where a bound below would be broken, the operating point of a release shifts it."
)


def explain_utility(
    utility: UtilitySpec, typical: Sequence[Typical], *, today: date, typical_of: str
) -> tuple[Section, ...]:
    """The whole spec; `typical_of` says where the typical values come from. Raises UtilityError as payoffs do."""
    rows = typical_rows(utility, typical)
    sections = [
        Section(f"{utility.service}, version {utility.version}", _summary(utility, today)),
        *(Section(_heading(one, utility), _stakeholder(one, utility, rows)) for one in utility.stakeholders),
        Section("What follows for a decision", (*_implied(utility, rows), _TYPICAL.format(typical_of))),
        Section("What the decisions must keep to, whatever they earn", _constraints(utility)),
        Section(
            "Which numbers are in doubt, those first that move decisions most", _doubts(utility, typical)
        ),
        Section("Which of them are measured afterwards", _measured(utility)),
        Section("What was expected before it was measured", _expected(utility)),
        Section(
            "Changes, newest first",
            tuple(f"Version {one.version}, {one.date}, {one.who}: {one.why}" for one in utility.changelog),
        ),
    ]
    return tuple(section for section in sections if section.lines)


def region_sentence(found: Sequence[Region], *, outcome: str) -> str:
    """`call from P(subscribed) = 0.36 on, leave below`, or `always leave`."""
    if len(found) == 1:
        return f"{found[0].action}, whatever P({outcome}) is"
    parts = [f"{one.action} from P({outcome}) = {one.start:.3f} on" for one in reversed(found[1:])]
    return f"{', '.join(parts)}, {found[0].action} below"


def _summary(utility: UtilitySpec, today: date) -> tuple[str, ...]:
    due = " It is overdue." if utility.review_by < today else ""
    low, high = utility.range
    lines = [
        f"Owned by {utility.owner}; to be reviewed by {utility.review_by}.{due}",
        f"Each decision is {_listed(utility.actions, 'or')}; then it turns out as {_listed(utility.outcomes, 'or')}, "
        f"which is seen only after {_listed(utility.outcome_known_after)}. "
        f"Between equals it is {utility.default_action}.",
        f"What a decision is worth is counted in {utility.unit} and must lie between {low:g} and {high:g}.",
    ]
    if utility.abstain is not None:
        one = utility.abstain
        lines.append(
            f"Where the best action is uncertain it is {one.action}, in at most {_percent(one.at_most)} of decisions: "
            f"{one.rationale}"
        )
    if utility.satisfaction is not None:
        met = utility.satisfaction
        lines.append(
            f"Users' satisfaction is {met.metric}, in {met.unit}, {met.better} is better; from {met.source} "
            f"({met.owner})."
        )
    return tuple(lines)


def _heading(one: Stakeholder, utility: UtilitySpec) -> str:
    if not one.weight:
        return f"What the {one.name} gains and loses: measured, but with weight 0 it moves no decision"
    times = "" if one.weight == 1 and one.unit == utility.unit else f", times {one.weight:g}"
    return f"What the {one.name} gains and loses, in {one.unit}{times}"


def _stakeholder(one: Stakeholder, utility: UtilitySpec, rows: Sequence[TypicalRow]) -> tuple[str, ...]:
    """One line for each cell that is not nothing, with its value at typical rows."""
    lines = [one.why]
    for action, cells in zip(utility.actions, one.payoffs, strict=True):
        for outcome, cell in zip(utility.outcomes, cells, strict=True):
            if not cell.fields:
                value = float(cell.evaluate({"": np.zeros(1)})[0])
                if value:
                    lines.append(f"{action}, {outcome}: {_gain(value)}{_formula(cell.text, value)}.")
                continue
            seen = {}
            for row in rows:
                own = {field: row.values[field] for field in sorted(cell.fields)}
                value = float(cell.evaluate({name: np.array([x]) for name, x in own.items()})[0])
                seen[tuple(own.items())] = value
            values = "; ".join(
                f"at {', '.join(f'{name} {number(x)}' for name, x in at)} {_gain(value)}"
                for at, value in sorted(seen.items())
            )
            lines.append(f"{action}, {outcome}: {cell.text}; {values}.")
    if len(lines) == 1:
        lines.append("Nothing, whatever is done.")
    return tuple(lines)


def _formula(text: str, value: float) -> str:
    try:
        return "" if float(text) == value else f" ({text})"
    except ValueError:
        return f" ({text})"


def _gain(value: float) -> str:
    return f"gains {number(value)}" if value > 0 else f"loses {number(-value)}" if value < 0 else "0"


def _implied(utility: UtilitySpec, rows: Sequence[TypicalRow]) -> tuple[str, ...]:
    if len(utility.outcomes) == 2:
        outcome = utility.outcomes[1]
        return tuple(f"{row.name}: {region_sentence(row.regions, outcome=outcome)}." for row in rows)
    lines = []
    for row in rows:
        table = np.array(row.payoffs)
        sure = [
            f"{utility.actions[int(table[:, o].argmax())]} if {outcome} were certain"
            for o, outcome in enumerate(utility.outcomes)
        ]
        lines.append(f"{row.name}: {_listed(sure)}; between, whatever has the higher expected payoff.")
    return tuple(lines)


def _constraints(utility: UtilitySpec) -> tuple[str, ...]:
    lines = []
    for one in utility.constraints:
        domain = utility.domains[one.domain]
        lines.append(
            f"{one.name}: {_bounded(one, utility)}. {domain.owner} answers for it ({one.domain}); it may be broken "
            f"though it was said to hold in at most {_percent(one.error_budget)} of cases. {one.rationale}"
        )
    return tuple(lines)


def _bounded(one: Constraint, utility: UtilitySpec) -> str:
    """What is bounded, and by how much, in words."""
    word, found = ("at least", one.at_least) if one.at_least is not None else ("at most", one.at_most)
    bound = found or 0.0
    share = f"{word} {_percent(bound)}"
    if one.kind == "utility":
        return f"a decision earns {word} {bound:g} {utility.unit} on average"
    if one.kind == "stakeholder_utility":
        (who,) = (s for s in utility.stakeholders if s.name == one.stakeholder)
        return f"a decision brings the {who.name} {word} {bound:g} {who.unit} on average"
    if one.kind == "capacity":
        period = duration(one.period_s or 0)
        return f"{one.action} {word} {bound:g} times in {one.decisions} decisions, which come in {period}"
    if one.kind == "latency":
        return f"{_percent(one.share or 0)} of answers come within {duration(bound)}"
    what = {
        "action_rate": f"{one.action}",
        "rate_among": f"{one.action} among those who turn out {one.among}",
        "precision": f"{one.outcome} among those with {one.action}",
    }[one.kind.removesuffix("_gap")]
    if one.kind.endswith("_gap"):
        a, b = one.group_names
        own = "; groups may be decided by rules of their own to hold it" if one.group_prices else ""
        return f"the share of {what} differs by {word} {100 * bound:g} points between {a} and {b}{own}"
    return f"the share of {what} is {share}"


def _doubts(utility: UtilitySpec, typical: Sequence[Typical]) -> tuple[str, ...]:
    """Each number with its range and what the median row's threshold would be at its ends."""
    columns = {one.field: np.array([one.median]) for one in typical} or {"": np.zeros(1)}
    varied = VariedPayoffs(utility, columns)
    lines = []
    for k, one in enumerate(varied.parameters):
        text = _in_doubt(one)
        moved = 0.0
        if len(utility.outcomes) == 2 and len(utility.actions) == 2:
            stated, low, high = (_turning(varied, k, x, utility) for x in (one.stated, one.low, one.high))
            moved = abs(low - high)
            near = _turning(varied, k, one.stated + _step(one), utility)
            if moved:
                text += (
                    f". At the medians {utility.actions[1]} from {_from(stated)}; at its low end {_from(low)}, at its "
                    f"high end {_from(high)}, after a change of {100 * STEP:g} % {_from(near)}"
                )
            else:
                text += ". No typical threshold moves"
        lines.append((moved, f"{text}.{_why(one, utility)}"))
    return tuple(text for _, text in sorted(lines, key=lambda found: -found[0]))


def _in_doubt(one: Parameter) -> str:
    cell = f"What the {one.owner} gains by {one.action}, {one.outcome}"
    if one.kind == "factor":
        return f"{cell} may be off by a factor from {one.low:g} to {one.high:g}"
    if one.kind == "amount":
        return f"{cell} may be off by {one.low:g} to {one.high:g} {one.unit}"
    return f"{one.name} is {one.stated:g} {one.unit}, perhaps anything from {one.low:g} to {one.high:g}"


def _turning(varied: VariedPayoffs, k: int, value: float, utility: UtilitySpec) -> float:
    """The probability at which the median row's action turns; 1 where it never does."""
    values = varied.stated.copy()
    values[k] = value
    found = regions(varied.at(values)[0], utility)
    return found[1].start if len(found) > 1 else 1.0


def _step(one: Parameter) -> float:
    width = STEP * (abs(one.stated) or one.high - one.low)
    return width if one.stated + width <= one.high else -width


def _from(chance: float) -> str:
    return "never" if chance >= 1 else f"P = {chance:.3f}"


def _why(one: Parameter, utility: UtilitySpec) -> str:
    reasons = {quantity.name: quantity.why for quantity in utility.quantities}
    return f" {reasons[one.owner]}" if one.kind == "quantity" else ""


def _measured(utility: UtilitySpec) -> tuple[str, ...]:
    lines = []
    for one in utility.quantities:
        if one.measured is not None:
            per = one.measured.per
            what = "the mean of" if per is None else f"over the sum of {per.text}, the sum of"
            lines.append(f"{one.name}: {what} the amount {one.measured.amount} that outcomes carry.")
    return tuple(lines)


def _expected(utility: UtilitySpec) -> tuple[str, ...]:
    lines = []
    for one in utility.hypotheses:
        bound = f"at least {one.at_least:g}" if one.at_least is not None else f"at most {one.at_most:g}"
        lines.append(f"{one.statement} ({one.metric} {bound}; {one.owner}, {one.registered})")
    return tuple(lines)


def _listed(parts: Sequence[str], word: str = "and") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
