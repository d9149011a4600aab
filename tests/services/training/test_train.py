"""Training: learns, is repeatable, picks by utility, and hands over a candidate that scores without torch."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from policies.operating.operating_point import OperatingPoint
from policies.utility.utility import UtilitySpec, load_utility, realised_utility
from services.data.contract import Column
from services.training.calibration import Calibration, log_loss
from services.training.errors import TrainingError
from services.training.fit import Progress, Settings
from services.training.forward import Architecture, forward
from services.training.network import Network
from services.training.plan import TrainingPlan
from services.training.preprocessing import Preprocessing
from services.training.selection import choose, paired
from services.training.time_slices import TimePlan, labelled_rows, outcome_indices, time_slices
from services.training.train import Training, TrainingContract, train

QUICK = Settings(hidden=(16,), most_epochs=15, patience=4, learning_rate=1e-2)
Columns = dict[str, NDArray[Any]]


def run(columns: Columns, contract: TrainingContract, utility: UtilitySpec, **kwargs: Any) -> Training:
    slices = time_slices(columns, TimePlan())
    options = {"seed": 0, "settings": QUICK} | kwargs
    return train(
        slices.fit, slices.validation, slices.calibration, contract=contract, utility=utility, **options
    )


@pytest.fixture(scope="module")
def columns(toy_columns: Callable[..., Columns]) -> Columns:
    return toy_columns(6000, seed=7)


@pytest.fixture(scope="module")
def training(columns: Columns, toy_contract: TrainingContract, toy_utility: UtilitySpec) -> Training:
    return run(columns, toy_contract, toy_utility)


def test_it_learns_what_there_is_to_learn(
    training: Training, toy_columns: Callable[..., Columns], toy_utility: UtilitySpec
) -> None:
    """Losses fall; on fresh rows the probabilities are close to the true ones."""
    fresh = toy_columns(3000, seed=8)
    for candidate in training.candidates:
        assert candidate.history[candidate.best_epoch - 1].training_loss < candidate.history[0].training_loss
        error = np.abs(candidate.probabilities(fresh)[:, 1] - fresh["chance"])
        assert error.mean() < 0.05


def test_decisions_earn_nearly_what_the_true_probabilities_would(
    training: Training, toy_columns: Callable[..., Columns], toy_utility: UtilitySpec
) -> None:
    """The chosen candidate is within 5 % of the best possible utility on fresh rows, far above the trivial ones."""
    fresh = toy_columns(20_000, seed=9)
    payoffs, point = toy_utility.payoffs(fresh), OperatingPoint((0.0, 0.0))
    truth = np.column_stack([1 - fresh["chance"], fresh["chance"]])
    sold = (fresh["sold"] == "y").astype(np.int64)
    best, ours, everybody = (
        realised_utility(payoffs, actions, sold).mean()
        for actions in (
            point.choose(payoffs, truth),
            point.choose(payoffs, training.chosen.probabilities(fresh)),
            np.ones(len(sold), dtype=np.intp),
        )
    )
    assert ours > 0.95 * best
    assert ours > max(0.0, everybody) + 0.05


def test_the_better_on_validation_is_chosen_and_both_are_recorded(training: Training) -> None:
    """Two losses, one winner by validation utility, and a JSON record of both."""
    assert [c.loss_name for c in training.candidates] == ["cross_entropy", "payoff_weighted"]
    assert training.chosen.validation_utility == max(c.validation_utility for c in training.candidates)
    record = json.loads(json.dumps(training.record(), allow_nan=False))
    assert record["chosen"] == training.chosen.loss_name
    assert record["rows"] == {"train": 3000, "validation": 1200, "calibration": 900}
    measured = training.measured()
    low, high = measured["validation_utility"].lower, measured["validation_utility"].upper
    assert low is not None
    assert high is not None
    assert low < measured["validation_utility"].value < high
    assert 0 <= measured["calibration_error"].value < 0.1


def test_the_distance_to_every_other_is_paired_on_the_same_rows(training: Training) -> None:
    """The record says what the chosen earned more than each other, with an interval far sharper than two apart."""
    (comparison,) = training.comparisons
    other = next(c for c in training.candidates if c is not training.chosen)
    assert comparison.other == other.loss_name
    ahead = training.chosen.validation_utility - other.validation_utility
    assert comparison.difference == pytest.approx(ahead, abs=1e-9)
    low, high = comparison.interval
    assert low <= comparison.difference <= high
    assert high - low < 0.5 * (other.validation_interval[1] - other.validation_interval[0])


def test_where_proof_is_asked_for_the_first_named_stays_unless_clearly_beaten(
    columns: Columns, toy_contract: TrainingContract, toy_utility: UtilitySpec
) -> None:
    """A later candidate that is a little better is kept by default, and not where it needs proof; names are checked."""
    earned = {"a": np.tile([0.0, 1.0], 200), "b": np.tile([0.0, 1.0], 200), "c": np.tile([0.5, 1.0], 200)}
    earned["b"][0] = 1.0
    quick = replace(QUICK, most_epochs=1)
    one = run(
        columns, toy_contract, toy_utility, settings=quick, plan=TrainingPlan(("cross_entropy",))
    ).chosen
    three = [replace(one, loss_name=name, validation_utility=float(v.mean())) for name, v in earned.items()]
    means = paired(earned, seed=0)

    def kept(names: str, *, needs_proof: bool) -> str:
        some = [candidate for candidate in three if candidate.loss_name in names]
        return choose(some, means, rows={}, needs_proof=needs_proof).chosen.loss_name

    assert [kept("ab", needs_proof=False), kept("ab", needs_proof=True)] == ["b", "a"]
    assert [kept("abc", needs_proof=False), kept("abc", needs_proof=True)] == ["c", "c"]
    with pytest.raises(TrainingError, match="'candidates' must be one or more of"):
        TrainingPlan(("crossentropy",))


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_alone(
    training: Training, columns: Columns, toy_contract: TrainingContract, toy_utility: UtilitySpec
) -> None:
    """To the bit, whatever else drew random numbers; another seed gives others; torch's own state is untouched."""
    torch.manual_seed(123)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    again = run(columns, toy_contract, toy_utility)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    for name, weight in training.chosen.weights.items():
        np.testing.assert_array_equal(again.chosen.weights[name], weight)
    other = run(columns, toy_contract, toy_utility, seed=1, settings=replace(QUICK, most_epochs=1))
    assert (other.chosen.weights["layer.0.weight"] != training.chosen.weights["layer.0.weight"]).any()


def test_progress_counts_every_epoch_and_ends_once_per_candidate(
    columns: Columns, toy_contract: TrainingContract, toy_utility: UtilitySpec
) -> None:
    """A progress bar gets epochs 1, 2, … of each loss, and one event that says done."""
    seen: list[Progress] = []
    result = run(columns, toy_contract, toy_utility, on_progress=seen.append)
    for candidate in result.candidates:
        events = [e for e in seen if e.loss_name == candidate.loss_name]
        assert [e.epoch for e in events] == list(range(1, len(candidate.history) + 1))
        assert [e.done for e in events] == [False] * (len(events) - 1) + [True]
        assert events[-1].best_epoch == candidate.best_epoch
        validation = [e.validation_loss for e in candidate.history]
        assert candidate.best_epoch == int(np.argmin(validation)) + 1


def test_the_numpy_forward_is_the_torch_forward(training: Training, columns: Columns) -> None:
    """The function that serving answers with equals the trained network to 1e-5."""
    candidate = training.chosen
    network = Network(candidate.architecture, dropout=0.1, category_dropout=0.05).eval()
    state = {
        name + (".weight" if name.startswith("embedding") else ""): weight
        for name, weight in candidate.weights.items()
    }
    network.load_state_dict({name: torch.from_numpy(weight) for name, weight in state.items()})
    encoded = candidate.preprocessing.transform(columns)
    with torch.no_grad():
        theirs = network(torch.from_numpy(encoded.numeric), torch.from_numpy(encoded.categories)).numpy()
    ours = forward(candidate.architecture, candidate.weights, encoded)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert Architecture.from_json(json.loads(json.dumps(candidate.architecture.to_json()))) == (
        candidate.architecture
    )
    candidate.architecture.check(candidate.weights)


def test_calibration_improves_log_loss_after_a_drift(
    columns: Columns,
    toy_columns: Callable[..., Columns],
    toy_contract: TrainingContract,
    toy_utility: UtilitySpec,
) -> None:
    """When the base rate drops after fitting, the newest slice mends the probabilities of the rows after it."""
    drifted = {name: values.copy() for name, values in columns.items()}
    late = np.arange(6000) >= 4200
    drifted["sold"][late & (np.random.default_rng(0).random(6000) < 0.5)] = "n"
    candidate = run(drifted, toy_contract, toy_utility).candidates[0]
    test = time_slices(drifted, TimePlan()).test
    sold = (test["sold"] == "y").astype(np.int64)
    logits = forward(candidate.architecture, candidate.weights, candidate.preprocessing.transform(test))
    raw = log_loss(Calibration.identity(2).apply(logits), sold)
    assert log_loss(candidate.probabilities(test), sold) < raw - 0.02


def test_immature_rows_are_left_out_never_negative(
    columns: Columns, toy_contract: TrainingContract, toy_utility: UtilitySpec
) -> None:
    """A missing label removes the row; an unknown one, or a slice without any, is an error."""
    part = {name: values[:1200].copy() for name, values in columns.items()}
    part["sold"][:100] = None
    quick = replace(QUICK, most_epochs=1)
    assert run(part, toy_contract, toy_utility, settings=quick).rows["train"] == 500
    with pytest.raises(TrainingError, match="label must be one of"):
        outcome_indices(np.array(["?"]), label_outcomes={"y": "a"}, outcomes=("a",))
    with pytest.raises(TrainingError, match="label outcomes must be among"):
        outcome_indices(np.array(["y"]), label_outcomes={"y": "b"}, outcomes=("a",))
    with pytest.raises(TrainingError, match="labelled row"):
        labelled_rows({"x": np.zeros(2)}, np.array([-1, -1]))


def test_slices_follow_time_and_lose_no_row() -> None:
    """Each slice is later than the one before; together they are all the rows; bad plans are refused."""
    slices = time_slices({"t": np.arange(101)}, TimePlan(0.5, 0.7, 0.85))
    parts = (slices.fit, slices.validation, slices.calibration, slices.test)
    np.testing.assert_array_equal(np.concatenate([p["t"] for p in parts]), np.arange(101))
    assert [len(p["t"]) for p in parts] == [50, 21, 15, 15]
    with pytest.raises(TrainingError, match="rising order"):
        TimePlan(0.7, 0.6, 0.8)
    with pytest.raises(TrainingError, match="must have a row"):
        time_slices({"t": np.arange(2)}, TimePlan())


THREE = """
service: three
version: 1
owner: Test
reviewBy: 2027-06-30
unit: EUR
actions: [wait, mail, call]
outcomes: [nothing, small, large]
defaultAction: wait
outcomeKnownAfter: [mail, call]
range: {low: -2, high: 8}
stakeholders:
  - name: shop
    weight: 1
    why: Test.
    payoffs:
      wait: {nothing: 0, small: 0, large: 0}
      mail: {nothing: -0.5, small: 1, large: 1}
      call: {nothing: -2, small: 0, large: 8}
domains:
  - {name: revenue, owner: Test}
constraints:
  - {name: earns, kind: utility, domain: revenue, atLeast: 0, rationale: Test.}
changelog:
  - {version: 1, date: 2026-01-01, who: Test, why: Test.}
"""


def test_three_outcomes_and_three_actions_train_the_same_way(
    columns: Columns, toy_contract: TrainingContract
) -> None:
    """Nothing in training knows that the main job has two outcomes."""
    utility = load_utility(THREE, "three.yaml")
    kinds = np.array(["0", "1", "2"], dtype=object)
    three = columns | {"sold": kinds[np.digitize(columns["warmth"], [0.0, 1.0])]}
    contract = replace(cast(Any, toy_contract), label_outcomes={"0": "nothing", "1": "small", "2": "large"})
    result = run(three, contract, utility)
    p = result.chosen.probabilities(three)
    assert p.shape == (6000, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert result.chosen.validation_utility > 1.0  # always calling earns about −0.2, always mailing 0.25


BANK = Path(__file__).parents[3] / "policies" / "telemarketing" / "utility.yaml"


def test_a_slice_of_the_real_calls_trains_and_earns(toy_contract: TrainingContract) -> None:
    """On real rows the whole path runs, stays finite, and ends calibrated on the newest slice."""
    calls = pytest.importorskip("services.rehearsal.bank_marketing").read_calls()[9000:13000]
    real = {name: calls[name].to_numpy() for name in calls.columns}
    names = ("balance", "day", "campaign", "job", "contact", "month", "poutcome")
    kinds = ("number", "integer", "integer", "category", "category", "category", "category")
    features = tuple(Column(n, k, True, "feature") for n, k in zip(names, kinds, strict=True))
    contract = replace(
        toy_contract,
        columns=features,
        label="y",
        label_outcomes={"no": "not_subscribed", "yes": "subscribed"},
    )
    utility = load_utility(BANK.read_text(encoding="utf-8"), "utility.yaml")
    result = run(real, contract, utility, settings=Settings(most_epochs=4))
    newest = time_slices(real, TimePlan()).calibration
    for candidate in result.candidates:
        mean = candidate.probabilities(newest)[:, 1].mean()
        assert mean == pytest.approx((newest["y"] == "yes").mean(), abs=0.005)
        assert Preprocessing.from_json(candidate.preprocessing.to_json()) == candidate.preprocessing
        assert np.isfinite(candidate.validation_utility)
