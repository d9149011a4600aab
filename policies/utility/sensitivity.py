"""How much rests on the numbers of a utility spec: each over its range alone, and all at once.

Probabilities, operating point and the decisions of rivals stay as they are; the payoffs vary. So it says which
decisions flip, how far thresholds move, what is lost where the stated numbers are wrong, and at which value the order
with the champion or a trivial policy turns. Jointly: points of a Latin hypercube, uniform over the ranges.
Source: Saltelli et al., "Global Sensitivity Analysis", 2008, ch. 1 (one at a time is not enough); McKay, Beckman and
Conover, Technometrics 1979 (Latin hypercube). Must never import: anything but numpy, scipy and policies; no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import qmc

from policies.operating.operating_point import OperatingPoint, threshold_of
from policies.utility.sensitivity_result import Joint, Point, Sensitivity, Swing, Turn
from policies.utility.utility import Columns, Floats, UtilityError, UtilitySpec, highest
from policies.utility.varied_payoffs import VariedPayoffs

POINTS = 256
STEP = 0.05
MOST_FLIPPED = 0.02
_GRID = 9  # values looked at over a range before a root is searched between two of them
_QUANTILES = (0.5, 0.95, 1.0)

Actions = NDArray[np.intp]


def sensitivity(
    utility: UtilitySpec,
    columns: Columns,
    *,
    probabilities: Floats,
    outcomes: NDArray[np.int64],
    point: OperatingPoint,
    champion: Actions | None = None,
    decided_on: Columns | None = None,
    seed: int,
    points: int = POINTS,
    step: float = STEP,
    most_flipped: float = MOST_FLIPPED,
) -> Sensitivity | None:
    """The study on n rows with `probabilities` (n, O) and known `outcomes` (n,); None where nothing is in doubt.

    `champion` (n,): the actions of the release in force. `decided_on`: the columns as a decision sees them, where
    payoffs read a field known only later: decisions and expectations are by these. `step`: the few per cent of a stated
    value (of the range's width where 0 is stated) that should change nothing; `most_flipped`: the share of decisions
    that may flip then. Raises UtilityError as OperatingPoint.choose does, and where a payoff has no finite value within
    the ranges.
    """
    seen = columns if decided_on is None else decided_on
    study = _Study(utility, columns, seen, probabilities, outcomes, point)
    if not study.varied.parameters:
        return None
    rivals = {f"always {name}": np.full(len(outcomes), i) for i, name in enumerate(utility.actions)}
    if champion is not None:
        rivals = {"champion": champion, **rivals}
    stated = study.at(study.varied.stated)
    leads = stated.leads(rivals)
    swings = [_swing(study, k, rivals=rivals, step=step) for k in range(len(study.varied.parameters))]
    return Sensitivity(
        n=len(outcomes),
        unit=utility.unit,
        utility=stated.utility,
        threshold=_typical(stated.priced),
        step_share=step,
        most_flipped=most_flipped,
        swings=tuple(sorted(swings, key=lambda one: (-one.worst_loss, -one.worst_flipped))),
        joint=_joint(study, rivals, leads, seed=seed, points=points),
        leads=leads,
    )


class _Study:
    """What stays the same while payoffs vary: rows, probabilities, the rule and what it decides by the stated spec."""

    def __init__(
        self,
        utility: UtilitySpec,
        columns: Columns,
        decided_on: Columns,
        probabilities: Floats,
        outcomes: NDArray[np.int64],
        rule: OperatingPoint,
    ) -> None:
        self.varied = VariedPayoffs(utility, decided_on)
        self.settled = self.varied if decided_on is columns else VariedPayoffs(utility, columns)
        self.utility, self.columns, self.rule = utility, decided_on, rule
        self.probabilities, self.chances = probabilities, np.ascontiguousarray(probabilities.T)
        self.outcomes, self.rows = outcomes, np.arange(len(outcomes))
        payoffs = self.varied.at(self.varied.stated)
        self.decided = rule.choose(payoffs, probabilities, utility=utility, columns=decided_on)

    def at(self, values: Floats) -> _Truth:
        """What is true if the parameters have `values` (k,)."""
        payoffs = self.varied.at(values)
        table = payoffs.transpose(1, 2, 0)
        expected = np.einsum("aon,on->an", table, self.chances)
        if self.settled is not self.varied:
            table = self.settled.at(values).transpose(1, 2, 0)
        if self.rule.is_priced:
            payoffs = self.rule.priced(payoffs, utility=self.utility, columns=self.columns)
            actions, _ = self.rule.choose_priced(payoffs, self.probabilities)
        else:
            actions = highest(expected.T, default_action=self.rule.default_action)
        return _Truth(self, payoffs, expected, table[:, self.outcomes, self.rows], actions)

    def with_one(self, k: int, value: float) -> Floats:
        values = self.varied.stated.copy()
        values[k] = value
        return values


@dataclass(frozen=True)
class _Truth:
    """One way the numbers may be: what the rule prices (n, A, O), expected and realised payoffs (A, n), decisions."""

    study: _Study
    priced: Floats
    expected: Floats
    realised: Floats
    actions: Actions

    @property
    def utility(self) -> float:
        """What the stated decisions earn, per decision."""
        return float(self.realised[self.study.decided, self.study.rows].mean())

    @property
    def flipped(self) -> float:
        return float((self.actions != self.study.decided).mean())

    @property
    def loss(self) -> float:
        rows = self.study.rows
        return float((self.expected[self.actions, rows] - self.expected[self.study.decided, rows]).mean())

    def point(self, value: float) -> Point:
        own = float(self.realised[self.actions, self.study.rows].mean())
        return Point(
            value=value,
            flipped=self.flipped,
            threshold=_typical(self.priced),
            utility=self.utility,
            loss=self.loss,
            realised_loss=own - self.utility,
        )

    def leads(self, rivals: Mapping[str, Actions]) -> dict[str, float]:
        """By how much the stated decisions earn more than each rival's, per decision."""
        own = self.utility
        return {
            name: own - float(self.realised[actions, self.study.rows].mean())
            for name, actions in rivals.items()
        }


def _typical(priced: Floats) -> float | None:
    """The median threshold of the rows that have one within (0, 1)."""
    if priced.shape[1:] != (2, 2):
        return None
    try:
        thresholds = threshold_of(priced)
    except UtilityError:  # action 1 gains less under outcome 1: no threshold from below
        return None
    reachable = thresholds[(thresholds > 0) & (thresholds < 1)]
    return float(np.median(reachable)) if len(reachable) else None


def _swing(study: _Study, k: int, *, rivals: Mapping[str, Actions], step: float) -> Swing:
    one = study.varied.parameters[k]
    grid = np.unique(np.append(np.linspace(one.low, one.high, _GRID), one.stated))
    truths = {value: study.at(study.with_one(k, value)) for value in grid.tolist()}
    leads = [truth.leads(rivals) for truth in truths.values()]
    width = step * (abs(one.stated) if one.stated else one.high - one.low)
    near = [
        study.at(study.with_one(k, value))
        for value in (one.stated - width, one.stated + width)
        if one.low <= value <= one.high
    ]
    stated, near_leads = truths[one.stated].leads(rivals), [truth.leads(rivals) for truth in near]
    return Swing(
        parameter=one,
        low=truths[one.low].point(one.low),
        high=truths[one.high].point(one.high),
        turns=tuple(
            Turn(name, _turn(study, k, {name: actions}, grid=grid, leads=[lead[name] for lead in leads]))
            for name, actions in rivals.items()
        ),
        step=width,
        near_flipped=max((truth.flipped for truth in near), default=0.0),
        near_turns=tuple(
            name for name in rivals if any(_is_turned(lead[name], stated[name]) for lead in near_leads)
        ),
    )


def _is_turned(lead: float, stated: float) -> bool:
    """Whether the other one is ahead; from a tie nothing turns."""
    return lead * stated < 0


def _turn(
    study: _Study, k: int, rival: Mapping[str, Actions], *, grid: Floats, leads: Sequence[float]
) -> float | None:
    """The root of the lead over a rival that is nearest to the stated value, among the grid's intervals."""
    one = study.varied.parameters[k]

    def lead(value: float) -> float:
        (found,) = study.at(study.with_one(k, value)).leads(rival).values()
        return found

    roots = [
        float(brentq(lead, grid[i], grid[i + 1], xtol=1e-6 * (one.high - one.low)))
        for i in range(len(grid) - 1)
        if leads[i] * leads[i + 1] < 0
    ]
    return min(roots, key=lambda root: abs(root - one.stated), default=None)


def _joint(
    study: _Study, rivals: Mapping[str, Actions], leads: Mapping[str, float], *, seed: int, points: int
) -> Joint:
    parameters = study.varied.parameters
    low, high = (np.array([getattr(one, end) for one in parameters]) for end in ("low", "high"))
    unit = qmc.LatinHypercube(len(parameters), rng=np.random.default_rng(seed)).random(points)
    flipped, loss = np.empty(points), np.empty(points)
    turned = dict.fromkeys(rivals, 0)
    for i, values in enumerate(low + unit * (high - low)):
        truth = study.at(values)
        flipped[i], loss[i] = truth.flipped, truth.loss
        for name, lead in truth.leads(rivals).items():
            turned[name] += _is_turned(lead, leads[name])
    shares = {name: count / points for name, count in turned.items()}
    return Joint(points, _quantiles(flipped), _quantiles(loss), shares)


def _quantiles(values: Floats) -> tuple[float, float, float]:
    median, high, most = np.quantile(values, _QUANTILES)
    return float(median), float(high), float(most)
