"""Utility in the order of time: a rule that earns on average may have stopped earning in the last months.

Rows with event times fall into calendar months (UTC) where there are LEAST_MONTHS, else, as those without, into tenths
of the rows as they stand. A fold of few rows says little, so each has its interval (normal, over its rows). numpy only.
"""

import numpy as np
from numpy.typing import NDArray

from policies.gates.evidence import Measured
from services.alignment.bootstrap import Floats, PairedMeans
from services.alignment.report import HINDSIGHT, FoldRow

TENTHS = 10
LEAST_MONTHS = 6
_Z = 1.959964


def fold_rows(book: PairedMeans, acted: NDArray[np.bool_], moments: Floats | None) -> tuple[FoldRow, ...]:
    """A row per month of `moments` (n,), epoch s, or per tenth; `acted` (n,): not left to the default action."""
    names, fold = _folds(book.n, moments)
    found = []
    for at, name in enumerate(names):
        member = fold == at
        if member.any():
            champion = book.columns.get("champion")
            found.append(
                FoldRow(
                    name=name,
                    rows=int(member.sum()),
                    action_rate=float(acted[member].mean()),
                    utility=_mean(book.columns["in force"][member]),
                    champion=None if champion is None else _mean(champion[member]),
                    hindsight=float(book.columns[HINDSIGHT][member].mean()),
                )
            )
    return tuple(found)


def _folds(n: int, moments: Floats | None) -> tuple[list[str], NDArray[np.intp]]:
    tenth = (np.arange(n) * TENTHS // n).astype(np.intp)
    if moments is None:
        return [f"{number + 1} of {TENTHS}" for number in range(TENTHS)], tenth
    times = moments.astype("datetime64[s]")
    months, month = np.unique(times.astype("datetime64[M]"), return_inverse=True)
    if len(months) >= LEAST_MONTHS:
        return [str(one) for one in months], month.astype(np.intp)
    firsts = times[np.minimum(np.searchsorted(tenth, np.arange(TENTHS)), n - 1)]
    days = [str(first) for first in firsts.astype("datetime64[D]")]
    if len(set(days)) < len(
        days
    ):  # live decisions of a few days: the day alone would not tell the folds apart
        days = [str(first).replace("T", " ") for first in firsts]
    return [f"from {day}" for day in days], tenth


def _mean(values: Floats) -> Measured:
    mean, error = float(values.mean()), float(_Z * values.std() / np.sqrt(len(values)))
    return Measured(mean, mean - error, mean + error, len(values))
