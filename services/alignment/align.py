"""Judge a release's decisions on later rows by the stakeholders' utility: is its operating point the right one?

Everything is measured on the same rows and the same resamples, so differences are paired. The evaluation rows must be
later than all rows that training and calibration saw, and must carry every outcome (also where the release would not
have acted), which recorded data do and live traffic does not.
numpy only: must never import torch.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from policies.gates.evidence import Measured
from policies.operating.operating_point import OperatingPoint
from policies.utility.constraints import measure_constraints
from policies.utility.utility import Columns, UtilitySpec, expected_utility, realised_utility
from services.alignment.bootstrap import RESAMPLES, PairedMeans, interval
from services.alignment.errors import AlignmentError
from services.alignment.expectations import domain_rows, hypothesis_rows
from services.alignment.groups import add_groups, group_gap, group_rows
from services.alignment.near_threshold import near_threshold
from services.alignment.report import (
    HINDSIGHT,
    AlignmentReport,
    Misplacement,
    PolicyRow,
    StakeholderRow,
    UtilityCurve,
)
from services.alignment.rule_families import Family, JudgedRows, constant_thresholds, misplaced, shifts
from services.alignment.rules import Rule, rules
from services.alignment.time_folds import fold_rows

DECISIONS = 1000.0  # the alignment gap is per this many
IN_FORCE = "in force"

Floats = NDArray[np.float64]


def align(
    *,
    probabilities: Floats,
    columns: Columns,
    outcomes: NDArray[np.int64],
    utility: UtilitySpec,
    operating_point: OperatingPoint,
    champion: NDArray[np.intp] | None = None,
    moments: Floats | None = None,
    decided_on: Columns | None = None,
    seed: int,
    resamples: int = RESAMPLES,
) -> AlignmentReport:
    """Judge `operating_point` on calibrated `probabilities` (n, O) and known `outcomes` (n,), indices.

    `columns` hold the fields of the payoffs and the group fields of the constraints; `champion` (n,) are the actions of
    the release in force on these rows; `moments` (n,) their event times, epoch s, in rising order. `decided_on`: the
    columns as a decision sees them, where payoffs read a field known only later; what is earned is by `columns`.
    Raises AlignmentError for rows that do not agree or lack an outcome.
    """
    _check(probabilities, outcomes, utility, champion)
    payoffs = utility.payoffs(columns)
    seen = columns if decided_on is None else decided_on
    believed = payoffs if seen is columns else utility.payoffs(seen)
    priced = operating_point.priced(believed, utility=utility, columns=seen)
    actions, _ = operating_point.choose_priced(priced, probabilities)
    tried = rules(believed, probabilities, utility=utility, in_force=actions)
    book = PairedMeans()
    for rule in tried:
        book.add(rule.name, realised_utility(payoffs, rule.actions, outcomes))
    book.add(HINDSIGHT, payoffs[np.arange(len(outcomes)), :, outcomes].max(axis=1))
    own_payoffs = utility.stakeholder_payoffs(columns)
    own_believed = own_payoffs if seen is columns else utility.stakeholder_payoffs(seen)
    own = {name: realised_utility(theirs, actions, outcomes) for name, theirs in own_payoffs.items()}
    if champion is not None:
        book.add("champion", realised_utility(payoffs, champion, outcomes))
        for name, theirs in own_payoffs.items():
            book.add(f"champion's stakeholder {name}", realised_utility(theirs, champion, outcomes))
    for name, values in own.items():
        book.add(f"stakeholder {name}", values)
    grouped = [c for c in utility.constraints if c.group_field is not None and c.action is not None]
    for constraint in grouped:
        add_groups(book, constraint, columns, actions=actions, utility=utility, in_force=IN_FORCE)
    rows = JudgedRows(payoffs, probabilities, outcomes, book.starts, utility, believed)
    families = _families(rows)
    off = misplaced(rows, priced)
    for family in families if off is None else (*families, off):
        for at, name in enumerate(family.names):
            book.add_sums(name, family.sums[:, at])
    book.run(seed=seed, resamples=resamples)

    trivial = [rule for rule in tried if rule.kind == "always"]
    best_trivial = max(trivial, key=lambda rule: book.means[rule.name])
    constant = _best_constant(book, families)
    gap, best_rule = _alignment_gap(book, tried, families)
    rate_gaps = [(c.name, group_gap(book, c)) for c in grouped if c.kind == "action_rate_gap"]
    results = measure_constraints(
        utility.constraints,
        columns,
        actions=actions,
        action_names=utility.actions,
        outcomes=outcomes,
        outcome_names=utility.outcomes,
        utilities=book.columns[IN_FORCE],
        stakeholder_utilities=own,
    )
    found = AlignmentReport(
        n=len(outcomes),
        unit=utility.unit,
        in_force=_policy(book, IN_FORCE, actions, utility),
        champion=None if champion is None else _policy(book, "champion", champion, utility),
        trivial=tuple(_policy(book, rule.name, rule.actions, utility) for rule in trivial),
        best_trivial=best_trivial.name,
        best_constant_threshold=constant,
        best_rule=best_rule,
        gain_over_trivial=book.difference(IN_FORCE, best_trivial.name),
        gain_over_champion=None if champion is None else book.difference(IN_FORCE, "champion"),
        alignment_gap=gap,
        disagreement=None if champion is None else float((actions != champion).mean()),
        group_gaps={name: apart for name, apart in rate_gaps if apart is not None},
        groups=tuple(row for c in grouped for row in group_rows(book, c)),
        stakeholders=tuple(
            StakeholderRow(
                one.name,
                one.weight,
                book.mean(f"stakeholder {one.name}"),
                None if champion is None else book.mean(f"champion's stakeholder {one.name}"),
                _agreement(actions, own_believed[one.name], probabilities),
            )
            for one in utility.stakeholders
        ),
        constraints=results,
        near_threshold=near_threshold(priced, probabilities, outcomes),
        curves=tuple(_curve(book, family, utility) for family in families if _is_drawn(family, utility)),
        regrets=_regrets(book, constant, has_champion=champion is not None),
        domains=domain_rows(utility, results),
        folds=fold_rows(book, actions != utility.default_index, moments),
        misplacement=None if off is None else _misplacement(book, off, utility),
        hypotheses=(),
        proof=operating_point.proof,
    )
    return replace(found, hypotheses=hypothesis_rows(utility, found))


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


def _policy(book: PairedMeans, name: str, actions: NDArray[np.intp], utility: UtilitySpec) -> PolicyRow:
    return PolicyRow(name, book.mean(name), float((actions != utility.default_index).mean()))


def _families(rows: JudgedRows) -> tuple[Family, ...]:
    is_binary = rows.payoffs.shape[1:] == (2, 2)
    return (*((constant_thresholds(rows),) if is_binary else ()), *shifts(rows))


def _best_constant(book: PairedMeans, families: tuple[Family, ...]) -> PolicyRow | None:
    for family in families:
        if family.kind == "threshold":
            at = int(np.argmax([book.means[name] for name in family.names]))
            return PolicyRow(family.names[at], book.mean(family.names[at]), float(family.action_rate[at]))
    return None


def _alignment_gap(
    book: PairedMeans, tried: tuple[Rule, ...], families: tuple[Family, ...]
) -> tuple[Measured, str]:
    """Best less in force, per 1,000 decisions, and the best; in a tie the one in force.

    The upper bound looks for the best rule anew in each resample; the lower one keeps the rule found on all rows, cut
    off at 0. So the interval is wide on both sides rather than too sure of a rule picked on the rows it is judged by.
    """
    names = [rule.name for rule in tried] + [name for family in families for name in family.names]
    best = max(names, key=lambda name: book.means[name])
    rounding = 1e-12 * (1.0 + abs(book.means[IN_FORCE]))
    if book.means[best] <= book.means[IN_FORCE] + rounding:
        best = IN_FORCE
    in_force = book.resampled[IN_FORCE]
    anew = np.max([book.resampled[name] for name in names], axis=0) - in_force
    value = DECISIONS * max(0.0, book.difference(best, IN_FORCE).value)
    lower = DECISIONS * interval(book.resampled[best] - in_force)[0]
    upper = DECISIONS * interval(anew)[1]
    return Measured(value, min(max(0.0, lower), value), max(upper, value), book.n), best


def _agreement(actions: NDArray[np.intp], theirs: Floats, probabilities: Floats) -> float:
    """The share of decisions that nobody with these payoffs alone would change."""
    expected = expected_utility(theirs, probabilities)
    taken = expected[np.arange(len(actions)), actions]
    return float((taken >= expected.max(axis=1) - 1e-9).mean())


def _regrets(book: PairedMeans, constant: PolicyRow | None, *, has_champion: bool) -> dict[str, Measured]:
    """What each rival earned more per decision than the point in force; negative: less."""
    rivals = {HINDSIGHT: HINDSIGHT}
    if has_champion:
        rivals = {"champion": "champion", **rivals}
    if constant is not None:
        rivals = {"best constant threshold": constant.name, **rivals}
    return {name: book.difference(rival, IN_FORCE) for name, rival in rivals.items()}


def _misplacement(book: PairedMeans, off: Family, utility: UtilitySpec) -> Misplacement:
    lost = [DECISIONS * (book.resampled[IN_FORCE] - book.resampled[name]) for name in off.names]
    ends = np.array([interval(values) for values in lost])
    value = DECISIONS * (book.means[IN_FORCE] - np.array([book.means[name] for name in off.names]))
    is_binary = len(utility.actions) == len(utility.outcomes) == 2
    near = min(0.01 if is_binary else 1.0, float(off.setting[-1]))
    return Misplacement(
        of="in probability" if is_binary else f"in {utility.unit}",
        off_by=off.setting,
        lost=value,
        low=ends[:, 0],
        high=ends[:, 1],
        near_off=near,
        near=float(np.interp([-near, near], off.setting, value).mean()),
    )


def _is_drawn(family: Family, utility: UtilitySpec) -> bool:
    """Shifts of one action of several are no curve on which the operating point lies."""
    return family.kind == "threshold" or len(utility.actions) == 2


def _curve(book: PairedMeans, family: Family, utility: UtilitySpec) -> UtilityCurve:
    return UtilityCurve(
        turns_on="constant threshold" if family.kind == "threshold" else f"shift in {utility.unit}",
        setting=family.setting,
        utility=np.array([book.means[name] for name in family.names]),
        action_rate=family.action_rate,
    )
