"""Groups of people named by the utility spec's constraints: how often each is acted on, and what it brings.

A group's mean is a ratio of two means over all rows (taken and member, over member), so that groups are resampled with
everything else. numpy only.
"""

import numpy as np
from numpy.typing import NDArray

from policies.gates.evidence import Measured
from policies.utility.constraints import Constraint
from policies.utility.utility import Columns, UtilitySpec
from services.alignment.bootstrap import Floats, PairedMeans, interval
from services.alignment.errors import AlignmentError
from services.alignment.report import HINDSIGHT, GroupRow


def add_groups(
    book: PairedMeans,
    constraint: Constraint,
    columns: Columns,
    *,
    actions: NDArray[np.intp],
    utility: UtilitySpec,
    in_force: str,
) -> None:
    """Per group: membership, action taken and utility as columns over all rows; their ratios are group means."""
    try:
        in_a = constraint.in_group_a(columns)
    except ValueError as error:
        raise AlignmentError(str(error)) from error
    taken = actions == utility.actions.index(str(constraint.action))
    was_best = book.columns[in_force] >= book.columns[HINDSIGHT]
    for name, member in zip(constraint.group_names, (in_a, ~in_a), strict=True):
        book.add(f"{constraint.name}: {name}", member)
        book.add(f"{constraint.name}: {name} taken", member & taken)
        book.add(f"{constraint.name}: {name} utility", np.where(member, book.columns[in_force], 0.0))
        book.add(f"{constraint.name}: {name} hindsight", np.where(member, book.columns[HINDSIGHT], 0.0))
        book.add(f"{constraint.name}: {name} decided best", member & was_best)


def _ratio(book: PairedMeans, part: str, whole: str) -> tuple[float, Floats]:
    """Group mean and its resampled values; a resample without the group is left out."""
    resampled = book.resampled[whole]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = book.resampled[part] / resampled
    mean = book.means[part] / book.means[whole] if book.means[whole] else float("nan")
    return mean, values


def group_gap(book: PairedMeans, constraint: Constraint) -> Measured | None:
    """Absolute difference of the groups' action rates; None if a group has no row."""
    a, b = (f"{constraint.name}: {name}" for name in constraint.group_names)
    (rate_a, values_a), (rate_b, values_b) = _ratio(book, f"{a} taken", a), _ratio(book, f"{b} taken", b)
    difference = values_a - values_b
    difference = difference[np.isfinite(difference)]
    if not np.isfinite(rate_a - rate_b) or not len(difference):
        return None
    low, high = interval(difference)
    lower = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
    return Measured(abs(rate_a - rate_b), lower, max(abs(low), abs(high)), book.n)


def group_rows(book: PairedMeans, constraint: Constraint) -> list[GroupRow]:
    found = []
    for name in constraint.group_names:
        whole = f"{constraint.name}: {name}"
        rows = int(book.columns[whole].sum())
        utility, values = _ratio(book, f"{whole} utility", whole)
        measured = Measured(utility, *interval(values[np.isfinite(values)]), rows) if rows else None
        rate, hindsight, best = (
            _ratio(book, f"{whole} {part}", whole)[0] for part in ("taken", "hindsight", "decided best")
        )
        found.append(GroupRow(constraint.name, name, rows, rate, measured, best, hindsight - utility))
    return found
