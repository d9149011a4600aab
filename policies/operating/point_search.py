"""Finds the operating point on validation rows: prices that keep every constraint, an abstention band, and the proof.

Constraints that no price can steer to (a floor under the utility itself, a gap between groups that may not be treated
by rules of their own) are measured and said, not searched for. Where the others cannot all be kept, every bound is
eased by the same share until they can: the closest reachable point; which of them contradict each other on these rows
is found by dropping them one by one. What is proved is measured by the rule itself, as serving applies it.
Must never import: anything but numpy, scipy and policies; no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from policies.operating.abstention import AbstentionBand
from policies.operating.margins import METHODS, Margin, Tally, clopper_pearson, margin
from policies.operating.multipliers import Multipliers, find, find_roughly, finish, prices_for
from policies.operating.operating_point import GroupPrices, Matrix, OperatingPoint
from policies.operating.point_proof import Kept, PointProof
from policies.operating.scored_rows import Prices, ScoredRows, is_steerable, pieces, tally_of
from policies.operating.venn_abers import fit_bands
from policies.utility.constraints import Constraint
from policies.utility.utility import Columns, UtilitySpec

_EASINGS = 10  # halvings: the least easing to a thousandth
_ABSTENTIONS = 12

Arrays = NDArray[Any]


def search_point(
    utility: UtilitySpec,
    columns: Columns,
    *,
    probabilities: Arrays,
    outcomes: Arrays,
    decided_on: Columns | None = None,
) -> OperatingPoint:
    """The operating point for `utility` from validation rows: calibrated probabilities (n, O), outcomes (n,).

    `columns` hold the fields that payoffs and groups read, as they turned out; `decided_on`: the same as a decision
    sees them, where that differs. Raises UtilityError for rows that cannot be priced.
    """
    rows = ScoredRows.of(
        utility, columns, probabilities=probabilities, outcomes=outcomes, decided_on=decided_on
    )
    decided = columns if decided_on is None else decided_on
    steerable = [one for one in utility.constraints if is_steerable(one)]
    found, easing = Multipliers({}, True), 0.0
    conflict: tuple[str, ...] = ()
    if steerable:
        found = find(rows, steerable)
        if not found.are_kept:
            easing = _least_easing(rows, steerable)
            eased = find(rows, steerable, easing=easing)
            found = finish(rows, steerable, eased)  # a sample may have been wrong by a hair
            if found.are_kept:
                easing = 0.0
            else:
                found, conflict = eased, _conflict(rows, steerable)
    point = _point(utility, prices_for(rows, steerable, found.values))
    point = _abstaining(point, utility, decided, probabilities, outcomes, rows)
    tally, abstains = _measured(point, utility, decided, probabilities, rows)
    margins = {one: margin(one, tally, span=rows.span) for one in utility.constraints if not one.is_live}
    if conflict:  # what it came to on all rows
        easing = max(margins[one].excess for one in steerable)
    kept = tuple(
        _kept(one, found_margin, found.values.get(one.name, 0.0)) for one, found_margin in margins.items()
    )
    return replace(point, proof=PointProof(kept, conflict, easing, abstains))


def check_point(
    point: OperatingPoint,
    utility: UtilitySpec,
    columns: Columns,
    *,
    probabilities: Arrays,
    outcomes: Arrays,
    decided_on: Columns | None = None,
) -> OperatingPoint:
    """The same point; its proof says what it does on these later rows too; `decided_on` as in search_point.

    Raises UtilityError.
    """
    if point.proof is None:
        return point
    rows = ScoredRows.of(
        utility, columns, probabilities=probabilities, outcomes=outcomes, decided_on=decided_on
    )
    decided = columns if decided_on is None else decided_on
    tally, _ = _measured(point, utility, decided, probabilities, rows)
    values = {}
    for one in utility.constraints:
        if not one.is_live:
            value = margin(one, tally, span=rows.span).value
            values[one.name] = (value, one.is_held(value), len(rows))
    return replace(point, proof=point.proof.with_test(values))


def _least_easing(rows: ScoredRows, constraints: Sequence[Constraint]) -> float:
    """The least easing under which the bounds can be kept together, from above, to a thousandth."""
    low, high = 0.0, 1.0
    for _ in range(_EASINGS):
        middle = (low + high) / 2
        is_enough = find_roughly(rows, constraints, easing=middle).are_kept
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def _conflict(rows: ScoredRows, constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """Constraints that cannot be kept together, none of which can be left out of the conflict."""
    kept = list(constraints)
    for one in constraints:
        others = [other for other in kept if other is not one]
        if others and not find_roughly(rows, others).are_kept:
            kept = others
    return tuple(one.name for one in kept)


def _point(utility: UtilitySpec, prices: Prices) -> OperatingPoint:
    groups = {one.name: one for one in utility.constraints}
    return OperatingPoint(
        shift=(0.0,) * len(utility.actions),
        default_action=utility.default_index,
        prices=_matrix(prices.cells) if prices.cells.any() else (),
        stakeholder_prices=tuple(sorted(prices.stakeholders.items())),
        group_prices=tuple(
            GroupPrices(
                str(groups[name].group_field),
                groups[name].group_up_to,
                groups[name].group_value,
                _matrix(for_a),
                _matrix(for_b),
            )
            for name, (for_a, for_b) in prices.groups.items()
        ),
    )


def _abstaining(
    point: OperatingPoint,
    utility: UtilitySpec,
    columns: Columns,
    probabilities: Arrays,
    outcomes: Arrays,
    rows: ScoredRows,
) -> OperatingPoint:
    """With a band, where the spec asks for one: the least stake at which its share and every kept constraint stay kept.

    Referring fewer rows halves until nothing that was kept is broken; in the end nobody is referred.
    """
    if utility.abstain is None:
        return point
    action = utility.actions.index(utility.abstain.action)
    band = AbstentionBand(action, 0.0, fit_bands(np.asarray(probabilities, dtype=np.float64), outcomes))
    stakes = np.concatenate(list(_stakes(replace(point, abstention=band), utility, columns, probabilities)))
    uncertain = np.sort(stakes[stakes > 0])[::-1]
    count = min(len(uncertain), _most_events(len(rows), utility.abstain.at_most))
    tally, _ = _measured(point, utility, columns, probabilities, rows)
    before = _broken(utility, tally, rows)
    for _ in range(_ABSTENTIONS):
        if not count:
            break
        least = float(uncertain[count]) if count < len(uncertain) else 0.0
        tried = replace(point, abstention=replace(band, least_stake=least))
        tally, _ = _measured(tried, utility, columns, probabilities, rows)
        if _broken(utility, tally, rows) <= before:
            return tried
        count //= 2
    return point


def _most_events(rows: int, share: float) -> int:
    """The most of `rows` whose 95 % upper limit stays within the share."""
    low, high = 0, rows
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if clopper_pearson(middle, rows, 0.05)[1] <= share else (low, middle - 1)
    return low


def _broken(utility: UtilitySpec, tally: Tally, rows: ScoredRows) -> set[str]:
    return {
        one.name
        for one in utility.constraints
        if not one.is_live and margin(one, tally, span=rows.span).excess > 0
    }


def _stakes(
    point: OperatingPoint, utility: UtilitySpec, columns: Columns, probabilities: Arrays
) -> Iterator[NDArray[np.float64]]:
    """What is at stake in each row that would not get the abstention's action anyway; 0 in those that would."""
    band = point.abstention
    assert band is not None  # noqa: S101 — for the type checker: the only caller has set it
    plain = replace(point, abstention=None)
    for piece in pieces(len(probabilities)):
        some = {name: values[piece] for name, values in columns.items()}
        priced = plain.priced(utility.payoffs(some), utility=utility, columns=some)
        actions, _ = plain.choose_priced(priced, probabilities[piece])
        yield np.where(actions == band.action, 0.0, band.stake(priced, probabilities[piece], actions))


def _measured(
    point: OperatingPoint, utility: UtilitySpec, columns: Columns, probabilities: Arrays, rows: ScoredRows
) -> tuple[Tally, float]:
    """The tally of the rule itself, and the share of rows on which it abstains."""
    abstained = 0

    def chosen() -> Iterator[tuple[slice, Arrays]]:
        nonlocal abstained
        plain = replace(point, abstention=None)
        for piece in pieces(len(rows)):
            some = {name: values[piece] for name, values in columns.items()}
            priced = point.priced(utility.payoffs(some), utility=utility, columns=some)
            actions, _ = point.choose_priced(priced, probabilities[piece])
            if point.abstention is not None:
                abstained += int((actions != plain.choose_priced(priced, probabilities[piece])[0]).sum())
            yield piece, actions

    tally = tally_of(chosen(), rows, means=tuple(rows.realised))
    return tally, abstained / len(rows)


def _kept(one: Constraint, found: Margin, price: float) -> Kept:
    note = ""
    if not is_steerable(one):
        note = (
            "the point earns the most that the other bounds leave"
            if one.kind == "utility"
            else "measured only: groups are not treated by rules of their own (groupPrices)"
        )
    verdict: Literal["kept", "unsure", "broken"] = "broken"
    if one.is_held(found.value):
        verdict = "kept" if found.excess <= 0 else "unsure"
    return Kept(
        constraint=one.name,
        required=one.bound_text,
        method=METHODS.get(one.kind, "Clopper-Pearson"),
        confidence=1 - one.error_budget,
        price=price,
        value=found.value,
        limit=found.limit,
        rows=found.rows,
        verdict=verdict,
        note=note,
    )


def _matrix(cells: NDArray[np.float64]) -> Matrix:
    return tuple(tuple(float(x) for x in row) for row in cells)
