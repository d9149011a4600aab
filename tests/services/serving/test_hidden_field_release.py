"""A release whose payoffs read a field that nobody knows when deciding: it predicts the field and prices with it."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.operating.operating_point import OperatingPoint
from services.data.contract import DataContract
from services.serving.decider import Decider, Stamps
from services.serving.decision_log import DecisionLog
from services.serving.explanation import Explainer
from services.serving.release import Release, ReleaseError, write_release
from services.serving.request_mark import RequestMark
from services.serving.row_check import RowCheck, RowRefused
from services.serving.scorer import Scorer
from services.training.forward import with_fields
from services.training.predicted_fields import FieldNetwork

DURATION = FieldNetwork(
    names=("duration",), hidden=(), mean=(300.0,), spread=(100.0,), low=(5.0,), high=(4_000.0,)
)


def predicting(parts: Any) -> Any:
    """The made-up release, which predicts 300 s and 100 s more for each unit of its first input."""
    width = parts.architecture.widths[0]
    weight = np.zeros((1, width), np.float32)
    weight[0, 0] = 1.0
    embeddings = {name: w for name, w in parts.weights.items() if name.startswith("embedding.")}
    architecture, weights = with_fields(
        parts.architecture,
        parts.weights,
        fields=DURATION,
        field_weights={**embeddings, "layer.0.weight": weight, "layer.0.bias": np.zeros(1, np.float32)},
    )
    return replace(parts, architecture=architecture, weights=weights)


def priced_by_duration(policy_texts: dict[str, str]) -> dict[str, str]:
    text = policy_texts["utility.yaml"].replace(
        "margin * clip(balance, 0, cap)", "margin * clip(duration, 0, cap)"
    )
    role = "- {property: mlRole, value: excluded}"
    return {
        **policy_texts,
        "utility.yaml": text.replace("range:", "hiddenWhenDeciding: [duration]\nrange:", 1),
        "contract.yaml": policy_texts["contract.yaml"].replace(role, role.replace("excluded", "payoff")),
    }


def written(folder: Path, candidate: Any, policy_texts: dict[str, str]) -> Release:
    return write_release(
        folder,
        service="telemarketing",
        candidate=candidate,
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=policy_texts,
        provenance={"seed": 2},
        created_at=1_700_000_000.0,
    )


def test_it_decides_on_what_it_predicts(
    tmp_path: Path,
    parts: Any,
    policy_texts: dict[str, str],
    contract: DataContract,
    rows: list[dict[str, Any]],
) -> None:
    """A row comes without the field; the expected utility of a call is that of the predicted value, which the
    explanation names."""
    scorer = Scorer.load(written(tmp_path, predicting(parts), priced_by_duration(policy_texts)))
    check = RowCheck(contract.columns, payoff_fields=scorer.needed_fields)
    columns = check.columns(rows)
    assert scorer.needed_fields == ()
    assert "duration" not in columns
    decisions = scorer.decide(columns)
    first = scorer.preprocessing.transform(columns).numeric[:, 0].astype(np.float64)
    seconds = np.clip(300 + 100 * first, 5, 4_000)
    np.testing.assert_allclose(decisions.predicted["duration"], seconds, rtol=1e-6)
    gain = 0.25 * 0.02463333 * seconds
    np.testing.assert_allclose(
        decisions.expected_utility[:, 1], decisions.probabilities[:, 1] * gain - 1, rtol=1e-6
    )
    (explained,) = Explainer(scorer, unnamed=()).explain(rows[:1], check.columns(rows[:1]), decisions)
    assert explained.to_json()["predicted"] == {"duration": pytest.approx(seconds[0])}


def test_what_a_caller_says_of_it_is_refused_and_what_is_on_record_never_looked_at(
    tmp_path: Path,
    parts: Any,
    policy_texts: dict[str, str],
    contract: DataContract,
    rows: list[dict[str, Any]],
) -> None:
    """No request may bring the field; rows that hold its true value get the same decision as rows without it."""
    scorer = Scorer.load(written(tmp_path, predicting(parts), priced_by_duration(policy_texts)))
    check = RowCheck(contract.columns, payoff_fields=scorer.needed_fields)
    with pytest.raises(RowRefused, match="'duration' must not be sent: it is known only after the decision"):
        check.columns([{**rows[0], "duration": 60}])
    columns = check.columns(rows)
    known = {**columns, "duration": np.full(len(rows), 86_400.0)}
    np.testing.assert_array_equal(
        scorer.decide(known).expected_utility, scorer.decide(columns).expected_utility
    )


def test_spec_and_network_must_agree(tmp_path: Path, parts: Any, policy_texts: dict[str, str]) -> None:
    """A spec that hides a field needs a release that predicts it, and none other."""
    with pytest.raises(ReleaseError, match="predicted fields must be"):
        Scorer.load(written(tmp_path / "a", parts, priced_by_duration(policy_texts)))
    with pytest.raises(ReleaseError, match="predicted fields must be"):
        Scorer.load(written(tmp_path / "b", predicting(parts), policy_texts))


def test_a_served_decision_says_and_logs_what_rests_on_the_prediction(
    tmp_path: Path,
    parts: Any,
    policy_texts: dict[str, str],
    rows: list[dict[str, Any]],
    stamps: Stamps,
) -> None:
    """Warmed up, one row and many get the expected utility of their predicted field; the explanation names it, and
    the log holds the row as it was sent."""
    release = written(tmp_path, predicting(parts), priced_by_duration(policy_texts))
    decider = Decider(release, log=DecisionLog(tmp_path / "logs", release.id, pid=7), stamps=stamps)
    decider.warm_up()
    mark = RequestMark("r", 1, "u", "stable", is_shadow=False)
    many = asyncio.run(decider.decide(mark, rows, is_explained=True))
    (alone,) = asyncio.run(decider.decide(mark, rows[:1]))
    assert alone["expected_utility"] == pytest.approx(many[0]["expected_utility"], abs=1e-5)
    explanation = many[0]["explanation"]
    assert isinstance(explanation, dict)
    assert set(explanation["predicted"]) == {"duration"}
    (log,) = (tmp_path / "logs").rglob("*.jsonl*")
    assert [json.loads(line)["row"] for line in log.read_text().splitlines()] == [*rows, rows[0]]
