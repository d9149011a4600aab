"""What rests on the numbers of the utility spec, as panels: a tornado, its table, and the brittle dependencies.

Draws numbers that policies/utility/sensitivity.py found; computes none of its own. Must never import: evidently,
plotly, torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from policies.utility.sensitivity_result import Point, Sensitivity, Swing
from services.reports.panels import Ends, Panel, Table, Tornado

TITLE = "What rests on the utility spec's numbers"


def sensitivity_panels(found: Sensitivity) -> tuple[Panel, ...]:
    """The tornado, the table behind it, and the brittle dependencies where there are any."""
    panels: list[Panel] = [tornado_of(found), _table(found)]
    if found.brittle:
        panels.append(_brittle(found))
    return tuple(panels)


def tornado_of(found: Sensitivity, *, title: str = TITLE) -> Tornado:
    """Lost per 1,000 decisions, share of flipped decisions, and the typical threshold or the utility."""
    swings = found.swings
    lost = Ends(
        f"lost, {found.unit} per 1,000 decisions",
        0.0,
        np.array([1000 * one.low.loss for one in swings]),
        np.array([1000 * one.high.loss for one in swings]),
    )
    flipped = Ends(
        "decisions that flip, %",
        0.0,
        np.array([100 * one.low.flipped for one in swings]),
        np.array([100 * one.high.flipped for one in swings]),
    )
    utility = Ends(
        f"earned, {found.unit} a decision",
        found.utility,
        np.array([one.low.utility for one in swings]),
        np.array([one.high.utility for one in swings]),
    )
    columns = [lost, flipped]
    if found.threshold is not None:
        stands = found.threshold
        low, high = (
            np.array([stands if end.threshold is None else end.threshold for end in ends])
            for ends in ([one.low for one in swings], [one.high for one in swings])
        )
        columns.append(Ends("typical threshold", stands, low, high))
    return Tornado(
        title=title,
        names=tuple(_name(one) for one in swings),
        columns=(*columns, utility),
        value=max((one.worst_loss for one in swings), default=0.0),
        note=joint_sentence(found),
    )


def joint_sentence(found: Sensitivity) -> str:
    """What happens when all numbers are off at once, in words."""
    joint = found.joint
    turned = ", ".join(f"{name} in {share:.0%}" for name, share in joint.turned.items())
    return (
        f"All at once ({joint.points} points of a Latin hypercube over the ranges, {found.n:,} rows): half of the time "
        f"at most {joint.flipped[0]:.1%} of decisions flip and {1000 * joint.loss[0]:.1f} {found.unit} are lost per "
        f"1,000 decisions; in 19 of 20 at most {joint.flipped[1]:.1%} and {1000 * joint.loss[1]:.1f}. "
        f"The order turns with {turned} of the points."
    )


def brittle_sentence(found: Sensitivity) -> str:
    """Whether a few per cent of any number matter."""
    step = f"{found.step_share:.0%}"
    if found.brittle:
        names = ", ".join(one.parameter.name for one in found.brittle)
        return f"Brittle: {step} of {names} turns a ranking or flips more than {found.most_flipped:.0%} of decisions."
    worst = max(one.near_flipped for one in found.swings)
    return f"Nothing is brittle: {step} of any number flips at most {worst:.1%} of decisions and turns no ranking."


def header(found: Sensitivity) -> tuple[str, ...]:
    """Of the tornado's table."""
    unit = found.unit
    return (
        "number",
        "stated",
        "range",
        f"lost at its ends, {unit} per 1,000",
        "realised",
        "decisions that flip",
        "typical threshold",
        f"earned, {unit} a decision",
        f"{found.step_share:.0%} of it flips",
        "the order turns with",
    )


def rows(found: Sensitivity) -> tuple[tuple[str, ...], ...]:
    """Of the tornado's table, both ends in each cell."""
    return tuple(
        (
            one.parameter.name,
            f"{one.parameter.stated:g} {one.parameter.unit}",
            f"{one.parameter.low:g} … {one.parameter.high:g}",
            _both(one, lambda end: f"{1000 * end.loss:.1f}"),
            _both(one, lambda end: f"{1000 * end.realised_loss:+.1f}"),
            _both(one, lambda end: f"{end.flipped:.1%}"),
            _both(one, lambda end: "–" if end.threshold is None else f"{end.threshold:.3f}"),
            _both(one, lambda end: f"{end.utility:+.4f}"),
            f"{one.near_flipped:.1%}",
            turns(one),
        )
        for one in found.swings
    )


def turns(one: Swing) -> str:
    """`champion at 1.79`, or `nobody`: rivals with which the order turns within the range, and where."""
    found = [f"{turn.rival} at {turn.value:.4g}" for turn in one.turns if turn.value is not None]
    return ", ".join(found) or "nobody in its range"


def _table(found: Sensitivity) -> Table:
    return Table(
        title=f"{TITLE}: the numbers",
        header=header(found),
        rows=rows(found),
        value=max((one.worst_flipped for one in found.swings), default=0.0),
        note="Lost: deciding by the stated number where the end of its range is true, by the model's probabilities; "
        f"realised: on the rows' outcomes, below 0 where the mistake happened to pay. {brittle_sentence(found)}",
    )


def _brittle(found: Sensitivity) -> Table:
    return Table(
        title="Brittle dependencies",
        header=("number", "stated", "a change of", "flips", "turns the order with"),
        rows=tuple(
            (
                one.parameter.name,
                f"{one.parameter.stated:g} {one.parameter.unit}",
                f"±{one.step:.4g}",
                f"{one.near_flipped:.1%} of decisions",
                ", ".join(one.near_turns) or "nobody",
            )
            for one in found.brittle
        ),
        value=float(len(found.brittle)),
    )


def _both(one: Swing, text: Callable[[Point], str]) -> str:
    return f"{text(one.low)} … {text(one.high)}"


def _name(one: Swing) -> str:
    return (
        f"{one.parameter.name} = {one.parameter.stated:.4g}, {one.parameter.low:g} … {one.parameter.high:g}"
    )
