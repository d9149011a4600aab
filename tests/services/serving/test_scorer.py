"""The scorer: the same numbers as the torch network, the action of highest expected utility, or an error."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.operating.operating_point import OperatingPoint
from services.data.contract import DataContract
from services.serving.decider import Decider, Stamps
from services.serving.decision_log import DecisionLog
from services.serving.release import Release, ReleaseError, write_release
from services.serving.row_check import RowCheck
from services.serving.scorer import Scorer, ScorerError
from services.training.calibration import Calibration


@pytest.fixture(scope="module")
def scorer(release: Release) -> Scorer:
    return Scorer.load(release)


@pytest.fixture(scope="module")
def columns(contract: DataContract, scorer: Scorer, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return RowCheck(contract.columns, payoff_fields=scorer.utility.fields).columns(rows)


def test_the_forward_pass_equals_torch(scorer: Scorer, columns: dict[str, Any]) -> None:
    """The released weights give the same logits in numpy as in training's torch network, to 1e-5."""
    torch = pytest.importorskip("torch")
    from services.training.forward import forward
    from services.training.network import Network

    encoded = scorer.preprocessing.transform(columns)
    network = Network(scorer.architecture, dropout=0.0, category_dropout=0.0).eval()
    names = {n: f"{n}.weight" if n.startswith("embedding.") else n for n in scorer.weights}
    network.load_state_dict({names[n]: torch.from_numpy(w) for n, w in scorer.weights.items()})
    with torch.no_grad():
        expected = network(torch.from_numpy(encoded.numeric), torch.from_numpy(encoded.categories)).numpy()
    np.testing.assert_allclose(forward(scorer.architecture, scorer.weights, encoded), expected, atol=1e-5)


def test_a_row_gets_the_action_of_highest_expected_utility(scorer: Scorer, columns: dict[str, Any]) -> None:
    """Call iff P(subscribed) * gain > P(not) * 1 EUR, worked out by hand for 1,000 rows."""
    decisions = scorer.decide(columns)
    gain = 0.25 * 0.02463333 * np.clip(columns["balance"], 0, 5000) - 1
    subscribed = decisions.probabilities[:, 1]
    by_hand = subscribed * gain - (1 - subscribed)
    np.testing.assert_allclose(decisions.expected_utility[:, 1], by_hand, atol=1e-9)
    np.testing.assert_array_equal(decisions.actions, (by_hand > 0).astype(int))
    assert decisions.thresholds is not None
    np.testing.assert_array_equal(decisions.actions == 1, decisions.scores > decisions.thresholds)
    assert 0 < decisions.actions.sum() < len(decisions.actions)


def test_one_row_is_decided_as_in_a_batch(scorer: Scorer, columns: dict[str, Any]) -> None:
    """A row's probabilities and action do not depend on the rows beside it."""
    whole = scorer.decide(columns)
    for row in range(5):
        alone = scorer.decide({name: values[row : row + 1] for name, values in columns.items()})
        np.testing.assert_allclose(alone.probabilities[0], whole.probabilities[row], atol=1e-6)
        assert alone.actions[0] == whole.actions[row]


def test_what_is_not_finite_is_not_decided(scorer: Scorer, columns: dict[str, Any]) -> None:
    """A NaN among the probabilities is an error, never a decision."""
    probabilities = scorer.probabilities(columns)
    probabilities[3, 0] = np.nan
    with pytest.raises(ScorerError, match="must be finite"):
        scorer.choose(columns, probabilities)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcomes": ("subscribed", "not_subscribed")}, "outcomes of the network must be"),
        ({"calibration": Calibration.identity(3)}, "outcomes of the calibration must be 2: 3"),
        ({"weights": {"layer.0.weight": np.zeros((1, 1), np.float32)}}, "weights must have the shapes"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    parts: Any, policy_texts: dict[str, str], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """A release whose parts disagree with each other is refused when it is loaded."""
    release = write_release(
        tmp_path,
        service="telemarketing",
        candidate=replace(parts, **change),
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=policy_texts,
        provenance={},
        created_at=0.0,
    )
    with pytest.raises(ReleaseError, match=message):
        Scorer.load(release)


def test_a_release_that_answers_only_nan_never_becomes_ready(
    parts: Any, policy_texts: dict[str, str], tmp_path: Path, stamps: Stamps
) -> None:
    """Weights that are finite but overflow fail the warm-up, before a user's row is tried."""
    huge = {name: np.full_like(tensor, 3e38) for name, tensor in parts.weights.items()}
    release = write_release(
        tmp_path,
        service="telemarketing",
        candidate=replace(parts, weights=huge),
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=policy_texts,
        provenance={},
        created_at=0.0,
    )
    decider = Decider(release, log=DecisionLog(tmp_path / "logs", release.id, pid=1), stamps=stamps)
    with np.errstate(all="ignore"), pytest.raises(ScorerError, match="no made-up row can be decided"):
        decider.warm_up()
