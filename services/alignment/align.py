"""Judge a release's decisions on later rows by the stakeholders' utility: is its operating point the right one?

Everything is measured on the same rows and the same resamples, so differences are paired. The evaluation rows must be
later than all rows that training and calibration saw, and must carry every outcome (also where the release would not
have acted), which recorded data do and live traffic does not.
numpy only: must never import torch.
"""

import numpy as np
from numpy.typing import NDArray

from policies.constraints import measure_constraints
from policies.evidence import Measured
from policies.operating_point import OperatingPoint
from policies.utility import Columns, UtilitySpec, realised_utility
from services.alignment.bootstrap import RESAMPLES, PairedMeans, interval
from services.alignment.errors import AlignmentError
from services.alignment.groups import add_groups, group_gap, group_rows
from services.alignment.near_threshold import near_threshold
from services.alignment.report import AlignmentReport, PolicyRow, StakeholderRow, UtilityCurve
from services.alignment.rules import Rule, rules

DECISIONS = 1000.0  # the alignment gap is per this many

Floats = NDArray[np.float64]


def align(
    *,
    probabilities: Floats,
    columns: Columns,
    outcomes: NDArray[np.int64],
    utility: UtilitySpec,
    operating_point: OperatingPoint,
    champion: NDArray[np.intp] | None = None,
    seed: int,
    resamples: int = RESAMPLES,
) -> AlignmentReport:
    """Judge `operating_point` on calibrated `probabilities` (n, O) and known `outcomes` (n,), indices.

    `columns` hold the fields of the payoffs and the group fields of the constraints; `champion` (n,) are the actions of
    the release in force on these rows. Raises AlignmentError for rows that do not agree or lack an outcome.
    """
    _check(probabilities, outcomes, utility, champion)
    payoffs = utility.payoffs(columns)
    priced = operating_point.priced(payoffs, utility=utility, columns=columns)
    in_force, _ = operating_point.choose_priced(priced, probabilities)
    tried = rules(payoffs, probabilities, utility=utility, in_force=in_force)
    book = PairedMeans()
    for rule in tried:
        book.add(rule.name, realised_utility(payoffs, rule.actions, outcomes))
    actions = tried[0].actions
    own = _stakeholders(utility, columns, actions, outcomes)
    theirs = {} if champion is None else _stakeholders(utility, columns, champion, outcomes)
    if champion is not None:
        book.add("champion", realised_utility(payoffs, champion, outcomes))
    for name, values in own.items():
        book.add(f"stakeholder {name}", values)
    for name, values in theirs.items():
        book.add(f"champion's stakeholder {name}", values)
    grouped = [c for c in utility.constraints if c.group_field is not None]
    for constraint in grouped:
        add_groups(book, constraint, columns, actions=actions, utility=utility, in_force=tried[0].name)
    book.run(seed=seed, resamples=resamples)

    trivial = [rule for rule in tried if rule.kind == "always"]
    best_trivial = max(trivial, key=lambda rule: book.means[rule.name])
    constant = [rule for rule in tried if rule.kind == "threshold"]
    best_constant = max(constant, key=lambda rule: book.means[rule.name], default=None)
    gaps = {c.name: gap for c in grouped if (gap := group_gap(book, c)) is not None}
    has_champion = champion is not None
    return AlignmentReport(
        n=len(outcomes),
        unit=utility.unit,
        in_force=_policy(book, "in force", actions, utility),
        champion=None if champion is None else _policy(book, "champion", champion, utility),
        trivial=tuple(_policy(book, rule.name, rule.actions, utility) for rule in trivial),
        best_trivial=best_trivial.name,
        best_constant_threshold=None
        if best_constant is None
        else _policy(book, best_constant.name, best_constant.actions, utility),
        best_rule=_best(book, tried).name,
        gain_over_trivial=book.difference("in force", best_trivial.name),
        gain_over_champion=book.difference("in force", "champion") if has_champion else None,
        alignment_gap=_alignment_gap(book, tried),
        disagreement=None if champion is None else float((actions != champion).mean()),
        group_gaps=gaps,
        groups=tuple(row for c in grouped for row in group_rows(book, c)),
        stakeholders=tuple(
            StakeholderRow(
                one.name,
                one.weight,
                book.mean(f"stakeholder {one.name}"),
                book.mean(f"champion's stakeholder {one.name}") if has_champion else None,
            )
            for one in utility.stakeholders
        ),
        constraints=measure_constraints(
            utility.constraints,
            columns,
            actions=actions,
            action_names=utility.actions,
            outcomes=outcomes,
            outcome_names=utility.outcomes,
            utilities=book.columns["in force"],
            stakeholder_utilities=own,
        ),
        near_threshold=near_threshold(priced, probabilities, outcomes),
        curves=_curves(book, tried, utility),
    )


def _check(
    probabilities: Floats,
    outcomes: NDArray[np.int64],
    utility: UtilitySpec,
    champion: NDArray[np.intp] | None,
) -> None:
    n = len(outcomes)
    if not n:
        raise AlignmentError("alignment needs at least one row: 0")
    if probabilities.shape != (n, len(utility.outcomes)):
        raise AlignmentError(f"probabilities must be ({n}, {len(utility.outcomes)}): {probabilities.shape}")
    if champion is not None and champion.shape != (n,):
        raise AlignmentError(f"the champion's actions must be ({n},): {champion.shape}")
    unknown = (outcomes < 0) | (outcomes >= len(utility.outcomes))
    if unknown.any():
        raise AlignmentError(f"every outcome must be known: row {int(unknown.argmax())} has none")


def _stakeholders(
    utility: UtilitySpec, columns: Columns, actions: NDArray[np.intp], outcomes: NDArray[np.int64]
) -> dict[str, Floats]:
    payoffs = utility.stakeholder_payoffs(columns)
    return {name: realised_utility(own, actions, outcomes) for name, own in payoffs.items()}


def _policy(book: PairedMeans, name: str, actions: NDArray[np.intp], utility: UtilitySpec) -> PolicyRow:
    return PolicyRow(name, book.mean(name), float((actions != utility.default_index).mean()))


def _best(book: PairedMeans, tried: tuple[Rule, ...]) -> Rule:
    """The rule that earned most; in a tie the one in force, which stands first."""
    return max(tried, key=lambda rule: book.means[rule.name])


def _alignment_gap(book: PairedMeans, tried: tuple[Rule, ...]) -> Measured:
    """Best less in force, per 1,000 decisions.

    The upper bound looks for the best rule anew in each resample; the lower one keeps the rule found on all rows, cut
    off at 0. So the interval is wide on both sides rather than too sure of a rule picked on the rows it is judged by.
    """
    best = _best(book, tried)
    in_force = book.resampled[tried[0].name]
    anew = np.max([book.resampled[rule.name] for rule in tried], axis=0) - in_force
    value = DECISIONS * max(0.0, book.difference(best.name, tried[0].name).value)
    lower = DECISIONS * interval(book.resampled[best.name] - in_force)[0]
    upper = DECISIONS * interval(anew)[1]
    rows = len(book.columns[best.name])
    return Measured(value, min(max(0.0, lower), value), max(upper, value), rows)


def _curves(book: PairedMeans, tried: tuple[Rule, ...], utility: UtilitySpec) -> tuple[UtilityCurve, ...]:
    """One curve over constant thresholds where there are any, and one over shifts where one action can be shifted."""
    found = []
    kinds = {"threshold": "constant threshold", "shifted": f"shift in {utility.unit}"}
    for kind, turns_on in kinds.items():
        points = [rule for rule in tried if rule.kind == kind]
        if not points or (kind == "shifted" and len(utility.actions) > 2):
            continue
        points.sort(key=lambda rule: rule.setting)
        found.append(
            UtilityCurve(
                turns_on=turns_on,
                setting=np.array([rule.setting for rule in points]),
                utility=np.array([book.means[rule.name] for rule in points]),
                action_rate=np.array([(rule.actions != utility.default_index).mean() for rule in points]),
            )
        )
    return tuple(found)
