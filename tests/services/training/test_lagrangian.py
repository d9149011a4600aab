"""Lagrangian training: a network whose own decisions keep bounds on rates."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from policies.operating.point_search import search_point
from policies.utility.utility import UtilitySpec, load_utility
from services.alignment.bootstrap import PairedMeans
from services.training.calibration import Calibration
from services.training.errors import TrainingError
from services.training.fit import Settings
from services.training.lagrangian import excess, fit_under_bounds
from services.training.plan import TrainingPlan
from services.training.rate_bounds import RateBound, rate_bounds
from services.training.selection import choose
from services.training.time_slices import TimePlan, time_slices
from services.training.train import TrainingContract, train

Columns = dict[str, NDArray[Any]]


def test_the_excess_is_the_rate_less_its_bound() -> None:
    """Among the rows that count, per bound; a batch without such rows says nothing."""
    chances = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    bounds = (RateBound(1, 0, 0.25), RateBound(1, None, 0.5), RateBound(1, 2, 0.5))
    found = excess(chances, torch.tensor([0, 0, 1]), bounds)
    np.testing.assert_allclose(found, [0.45 - 0.25, 1.4 / 3 - 0.5, 0.0], atol=1e-6)


def test_the_networks_own_decisions_keep_the_bound(
    toy_columns: Callable[..., Columns], toy_contract: TrainingContract, toy_utility: UtilitySpec
) -> None:
    """Where free training calls too many who do not buy, bounded training does not, and its multiplier says why."""
    pytest.importorskip("cooper")
    slices = time_slices(toy_columns(5000, seed=7), TimePlan())

    def rate_under(at_most: float) -> tuple[float, float]:
        network = fit_under_bounds(
            slices.fit,
            slices.validation,
            contract=toy_contract,
            utility=toy_utility,
            bounds=(RateBound(action=1, among=0, at_most=at_most),),
            seed=0,
            settings=Settings(hidden=(16,), most_epochs=15, learning_rate=1e-2, batch_rows=128),
        )
        assert network.keeps_bounds
        actions = network.choose(slices.test, toy_utility.payoffs(slices.test))
        unsold = slices.test["sold"] == "n"
        assert network.rates[0] <= at_most
        return float((actions[unsold] == 1).mean()), network.multipliers[0]

    free, no_price = rate_under(1.0)
    bound, price = rate_under(0.15)
    assert free > 0.25
    assert bound < 0.19  # 0.15 held on validation rows; test rows scatter
    assert price > no_price == 0.0


BOUNDS = """constraints:
  - {name: calls, kind: action_rate, domain: compliance, action: call, atMost: 0.5, rationale: Test.}
  - {name: wasted, kind: rate_among, domain: compliance, action: call, among: no_sale, atMost: 0.15, rationale: Test.}
  - {name: staff, kind: capacity, domain: compliance, action: call, atMost: 40, per: 1d, decisions: 100, rationale: T.}
  - {name: reach, kind: rate_among, domain: compliance, action: call, among: sale, atLeast: 0.1, rationale: Test.}
"""


@pytest.fixture(scope="module")
def bounded(toy_utility_text: str) -> UtilitySpec:
    start, stop = toy_utility_text.index("constraints:"), toy_utility_text.index("changelog:")
    return load_utility(toy_utility_text[:start] + BOUNDS + toy_utility_text[stop:], "toy.yaml")


def test_the_spec_says_which_bounds_are_trained_for(bounded: UtilitySpec, toy_utility: UtilitySpec) -> None:
    """Upper bounds on rates, and a capacity as the share that it is; floors and gaps are left to the price."""
    assert rate_bounds(bounded) == (RateBound(1, None, 0.5), RateBound(1, 0, 0.15), RateBound(1, None, 0.4))
    assert rate_bounds(toy_utility) == ()


def test_it_is_a_candidate_like_others_whose_scores_are_no_probabilities(
    toy_columns: Callable[..., Columns], toy_contract: TrainingContract, bounded: UtilitySpec
) -> None:
    """Judged under the point it would be released with, uncalibrated, without a calibration error to show; under that
    point its decisions keep the bounds on later rows. Whoever breaks a bound stands behind, whatever it earns."""
    pytest.importorskip("cooper")
    slices = time_slices(toy_columns(8000, seed=7), TimePlan())
    trained = train(
        slices.fit,
        slices.validation,
        slices.calibration,
        contract=toy_contract,
        utility=bounded,
        seed=0,
        plan=TrainingPlan(("cross_entropy", "lagrangian")),
        settings=Settings(hidden=(16,), most_epochs=15, learning_rate=1e-2, batch_rows=128),
    )
    priced, found = trained.candidates
    assert found.calibration == Calibration.none(2) == Calibration.from_json(found.calibration.to_json())
    assert found.calibration_error is None
    assert priced.calibration_error is not None
    assert found.broken == priced.broken == ()
    assert abs(found.validation_utility - priced.validation_utility) < 0.05
    worse = replace(found, broken=("wasted",), validation_utility=9.0)
    means = PairedMeans()
    for name in ("cross_entropy", "lagrangian"):
        means.add(name, np.zeros(100))
    means.run(seed=0, resamples=10)
    assert choose([worse, priced], means, rows={}, needs_proof=False).chosen is priced
    held_out, test = slices.validation, slices.test
    sold = (held_out["sold"] == "y").astype(np.int64)
    point = search_point(bounded, held_out, probabilities=found.probabilities(held_out), outcomes=sold)
    actions = point.choose(bounded.payoffs(test), found.probabilities(test))
    assert (actions[test["sold"] == "n"] == 1).mean() <= 0.15
    assert (actions == 1).mean() <= 0.4


def test_without_a_bound_there_is_nothing_to_train_for(
    toy_columns: Callable[..., Columns], toy_contract: TrainingContract, toy_utility: UtilitySpec
) -> None:
    """A spec without an upper bound on a rate is refused, and the key that is missing is named."""
    slices = time_slices(toy_columns(500, seed=7), TimePlan())
    with pytest.raises(TrainingError, match="'lagrangian' needs an upper bound on a rate or a capacity"):
        train(
            slices.fit,
            slices.validation,
            slices.calibration,
            contract=toy_contract,
            utility=toy_utility,
            seed=0,
            plan=TrainingPlan(("lagrangian",)),
        )
