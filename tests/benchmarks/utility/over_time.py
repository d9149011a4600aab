"""Bank in the order of time: a fixed model against recalibration and against retraining, decile by decile.

The first fit sees the first 60 % of the rows. After it time goes on in blocks of 2.5 % (about 950 calls, some weeks):
before each block, whoever may adapt sees the outcomes of the blocks before it, and of nothing later. Two cases: the
outcomes of ALL rows (a bank that learns from other channels, or calls everybody it records), or only those of CALLS
that the very policy made itself, from the first fit on. Recalibration refits Platt's two numbers on the newest rows;
retraining fits the whole model again before each decile, and recalibrates within it. Nobody chooses anything on the
rows that are judged. Savings are against the better of calling all and calling none in that very decile, which no one
knows in advance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from peers import bayes_actions
from real_data import DataSet, Floats, Split
from trimtab_side import columns_of, train_split

from services.training.calibration import Calibration
from services.training.candidate import TrainedCandidate
from services.training.forward import forward

FIRST_FIT, BLOCK = 0.60, 0.025
NEWEST_ROWS, LEAST_ROWS = 1_500, 100
HELD_OUT = 0.20  # of what retraining sees: its newest rows, to stop and calibrate on
RESAMPLES = 500

POLICIES = (
    ("fixed model", False, False, True),
    ("recalibration, all outcomes", True, False, True),
    ("recalibration, outcomes of calls only", True, False, False),
    ("retraining, all outcomes", True, True, True),
    ("retraining, outcomes of calls only", True, True, False),
)


@dataclass(frozen=True)
class DecileResult:
    """Savings of one policy in one decile (share of 1), the bootstrap's standard error over rows, calls made."""

    policy: str
    decile: int
    savings: float
    se: float
    called: float


@dataclass
class _Policy:
    """One way of going on; `actions` holds what it did so far, -1 before the first fit."""

    data: DataSet
    seed: int
    candidates: tuple[str, ...]
    recalibrates: bool
    retrains: bool
    sees_all: bool
    actions: NDArray[np.int64] = field(init=False)
    model: TrainedCandidate = field(init=False)
    calibration: Calibration = field(init=False)

    def start(self, end: int, first: TrainedCandidate) -> None:
        self.actions = np.full(len(self.data), -1)
        self.model, self.calibration = first, first.calibration

    def go_on(self, start: int, stop: int, *, is_new_decile: bool) -> None:
        """Adapt to what is known before row `start`, then decide rows up to `stop`."""
        seen = self._seen(start)
        if self.retrains and is_new_decile and len(seen) > 0:
            self.model = fit_on(self.data.rows(seen), seed=self.seed, candidates=self.candidates)
            self.calibration = self.model.calibration
        if self.recalibrates:
            newest = seen[-NEWEST_ROWS:]
            if len(newest) >= LEAST_ROWS:
                rows = self.data.rows(newest)
                self.calibration = Calibration.fit(self._logits(rows), rows.outcomes)
        rows = self.data.rows(np.arange(start, stop))
        p = self.calibration.apply(self._logits(rows))[:, 1]
        self.actions[start:stop] = bayes_actions(rows, p)

    def _seen(self, start: int) -> NDArray[np.int64]:
        known = np.arange(start)
        return known if self.sees_all else known[self.actions[:start] != 0]

    def _logits(self, rows: DataSet) -> NDArray[np.float32]:
        encoded = self.model.preprocessing.transform(columns_of(rows))
        return forward(self.model.architecture, self.model.weights, encoded)


def fit_on(rows: DataSet, *, seed: int, candidates: tuple[str, ...]) -> TrainedCandidate:
    """Fit on the older rows; stop, choose and calibrate on the newest fifth."""
    cut = round(len(rows) * (1 - HELD_OUT))
    order = np.arange(len(rows))
    split = Split(rows.rows(order[:cut]), rows.rows(order[cut:]), rows.rows(order[cut:]))
    return train_split(split, seed=seed, candidates=candidates).training.chosen


def run(
    data: DataSet, *, seed: int, candidates: tuple[str, ...], on_step: Callable[[str], None]
) -> list[DecileResult]:
    """Every policy in every decile after the first fit."""
    n = len(data)
    begin = round(FIRST_FIT * n)
    first = fit_on(data.rows(np.arange(begin)), seed=seed, candidates=candidates)
    edges = np.rint(np.linspace(begin, n, round((1 - FIRST_FIT) / BLOCK) + 1)).astype(int)
    blocks_per_decile = round(0.1 / BLOCK)
    results = []
    for name, recalibrates, retrains, sees_all in POLICIES:
        on_step(f"bank over time: {name}")
        policy = _Policy(data, seed, candidates, recalibrates, retrains, sees_all)
        policy.start(begin, first)
        for block, (start, stop) in enumerate(pairwise(edges)):
            policy.go_on(int(start), int(stop), is_new_decile=block % blocks_per_decile == 0 and block > 0)
        for decile in range((len(edges) - 1) // blocks_per_decile):
            rows = np.arange(edges[decile * blocks_per_decile], edges[(decile + 1) * blocks_per_decile])
            results.append(_judged(name, decile, data.rows(rows), policy.actions[rows]))
    return results


def _judged(policy: str, at: int, rows: DataSet, actions: NDArray[np.int64]) -> DecileResult:
    decile = round(FIRST_FIT * 10) + 1 + at
    return DecileResult(
        policy, decile, rows.savings(actions), row_error(rows, actions), float((actions == 1).mean())
    )


def row_error(rows: DataSet, actions: NDArray[np.int64]) -> float:
    """Of the savings, over resampled rows; cost and trivial costs are resampled together."""
    costs = np.column_stack([rows.cost(a) for a in (actions, np.zeros(len(rows)), np.ones(len(rows)))])
    generator = np.random.default_rng(0)
    drawn: list[Floats] = [
        costs[generator.integers(0, len(rows), len(rows))].sum(axis=0) for _ in range(RESAMPLES)
    ]
    table = np.array(drawn)
    return float((1 - table[:, 0] / table[:, 1:].min(axis=1)).std(ddof=1))


def text(results: list[DecileResult]) -> str:
    """Policies by deciles: savings in percent, mean over seeds, and the mean standard error over rows."""
    deciles = sorted({one.decile for one in results})
    rows = ["bank in the order of time, by decile: savings % against the best trivial policy (share called)"]
    rows.append(f"{'':38s}" + "".join(f"{f'decile {d}':>24s}" for d in deciles))
    for policy in dict.fromkeys(one.policy for one in results):
        cells = []
        for decile in deciles:
            mean, se, called = summary(results, policy, decile)
            cells.append(f"{f'{mean:.1f} ± {se:.1f} ({called:.0%})':>24s}")
        rows.append(f"{policy:38s}" + "".join(cells))
    return "\n".join(rows)


def summary(results: list[DecileResult], policy: str, decile: int) -> tuple[float, float, float]:
    """Mean savings and standard error in percent, and the share called, over seeds."""
    some = [one for one in results if (one.policy, one.decile) == (policy, decile)]
    return (
        100 * float(np.mean([one.savings for one in some])),
        100 * float(np.mean([one.se for one in some])),
        float(np.mean([one.called for one in some])),
    )
