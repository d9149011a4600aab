"""A bound on the false-positive rate: PAKDD <= .40, GMSC <= .10, held on test rows that nothing was tuned on.

Trimtab's rule: the operating point's search puts a price on a false positive, found on validation rows with a
Clopper-Pearson margin (policies/operating/point_search.py). Beside it: the same price at the point estimate,
without a margin; Lagrangian training (cooper), whose own decisions keep the bound softly; LightGBM with the one
threshold that just keeps the bound on validation rows; and, as the measure of what any rule could do with a model's
probabilities, the least price that would have kept the bound on the test rows themselves: for ours, for each usual
model and for the mean of all of them, each beside its own savings without the bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from peers import Entry, Inputs, Scored, bayes_actions, usual_models
from real_data import DataSet, Floats, Split
from trimtab_side import UTILITY, Trained, columns_of, contract_of

from policies.operating.point_search import search_point
from policies.utility.utility import UtilitySpec, load_utility
from services.training.lagrangian import fit_under_bounds
from services.training.rate_bounds import RateBound

BOUNDS = {"pakdd": 0.40, "gmsc": 0.10}
FREELY, HINDSIGHT = "without the bound", "best price in hindsight"
MEAN_OF_ALL = "mean of all"
FREE = "  - {name: earns, kind: utility, domain: revenue, atLeast: -1000000, rationale: Benchmark.}"


def false_positive_rate(data: DataSet, actions: NDArray[np.int64]) -> float:
    """Share of the zeros that are acted on."""
    return float((actions[data.outcomes == 0] == 1).mean())


def bounded_utility(data: DataSet, bound: float) -> UtilitySpec:
    """The data set's costs, and the bound as a constraint of the spec."""
    constraint = (
        "  - {name: false_positives, kind: rate_among, domain: revenue, action: act, among: 'no', "
        f"atMost: {bound}, rationale: Benchmark.}}"
    )
    text = UTILITY.format(name=data.name, unit=data.unit).replace(FREE, constraint)
    return load_utility(text, f"{data.name}/utility.yaml")


def priced(data: DataSet, p: Floats, price: float) -> NDArray[np.int64]:
    """Act where p x (what acting saves on a 1) >= (1 - p) x (what it costs on a 0, and the price)."""
    fp, fn, tp, tn = data.costs.T
    return (p * (fn - tp) >= (1 - p) * (fp - tn + price)).astype(np.int64)


def least_price(data: DataSet, p: Floats, bound: float) -> float:
    """The least price at which the rate on these very rows keeps the bound, by halving."""
    low, high = 0.0, float(data.costs.max() * 1e3)
    for _ in range(60):
        middle = (low + high) / 2
        keeps = false_positive_rate(data, priced(data, p, middle)) <= bound
        low, high = (low, middle) if keeps else (middle, high)
    return high


def in_hindsight(data: DataSet, name: str, p: Floats, fit_s: float) -> Iterator[Entry]:
    """A model's decisions without the bound, and with the least price that keeps it on these very rows (n,)."""
    yield Entry(f"{name}, {FREELY}", bayes_actions(data, p), fit_s)
    price = least_price(data, p, BOUNDS[data.name])
    yield Entry(f"{name}, {HINDSIGHT}", priced(data, p, price), fit_s)


def bounded_entries(
    split: Split, trained: Trained, *, seed: int, on_step: Callable[[str], None]
) -> Iterator[Entry]:
    """Trimtab without the bound, every rule under it, and what hindsight leaves to each model."""
    bound = BOUNDS[split.test.name]
    p_validation, p = (trained.probabilities(part) for part in (split.validation, split.test))
    yield from in_hindsight(split.test, "Trimtab", p[:, 1], trained.fit_s)
    utility = bounded_utility(split.fit, bound)
    started = time.perf_counter()
    point = search_point(
        utility, columns_of(split.validation), probabilities=p_validation, outcomes=split.validation.outcomes
    )
    actions = point.choose(split.test.payoffs, p)
    yield Entry("Trimtab, price with margin", actions, trained.fit_s + time.perf_counter() - started)
    price = least_price(split.validation, p_validation[:, 1], bound)
    yield Entry("the same without margin", priced(split.test, p[:, 1], price), trained.fit_s)
    on_step(f"{split.test.name}: Lagrangian training")
    started = time.perf_counter()
    network = fit_under_bounds(
        columns_of(split.fit),
        columns_of(split.validation),
        contract=contract_of(split.fit),
        utility=utility,
        bounds=(RateBound(action=1, among=0, at_most=bound),),
        seed=seed,
    )
    actions = network.choose(columns_of(split.test), split.test.payoffs)
    yield Entry("Trimtab, Lagrangian training", actions, time.perf_counter() - started)
    peers = list(usual_models(Inputs(split, seed)))
    yield _one_threshold(next(peer for peer in peers if peer.name == "LightGBM"), split, bound)
    for peer in peers:
        yield from in_hindsight(split.test, peer.name, peer.test, peer.fit_s)
    mean = np.mean([p[:, 1], *(peer.test for peer in peers)], axis=0)
    fit_s = trained.fit_s + sum(peer.fit_s for peer in peers)
    yield from in_hindsight(split.test, MEAN_OF_ALL, mean, fit_s)


def _one_threshold(peer: Scored, split: Split, bound: float) -> Entry:
    threshold = np.quantile(peer.validation[split.validation.outcomes == 0], 1 - bound)
    return Entry(f"{peer.name}, one threshold at the bound", (peer.test > threshold).astype(int), peer.fit_s)
