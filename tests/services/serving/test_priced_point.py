"""A release whose operating point carries prices, groups, a band and a proof decides by it, unchanged."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.operating.abstention import AbstentionBand, OutcomeBand
from policies.operating.operating_point import GroupPrices, OperatingPoint
from policies.operating.point_proof import Kept, PointProof
from services.serving.decider import Decider, Stamps
from services.serving.decision_log import DecisionLog
from services.serving.release import Release, write_release
from services.serving.request_mark import RequestMark
from services.serving.row_check import RowRefused
from services.serving.scorer import Scorer

POINT = OperatingPoint(
    shift=(0.0, 0.25),
    prices=((0.0, 0.0), (-0.5, 0.0)),
    stakeholder_prices=(("customer", 0.2),),
    group_prices=(GroupPrices("age", 30.0, None, ((0.0, 0.0), (2.0, 2.0)), ((0.0, 0.0), (-1.0, -1.0))),),
    abstention=AbstentionBand(0, 0.5, (OutcomeBand((0.0, 0.5, 1.0), (0.0, 0.3, 0.9), (0.2, 0.6, 1.0)),)),
    proof=PointProof((Kept("calls_made", "<= 0.6", "Clopper-Pearson", 0.95, 0.5, 0.4, 0.41, 900, "kept"),)),
)


@pytest.fixture(scope="module")
def priced(parts: Any, policy_texts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write_release(
        tmp_path_factory.mktemp("priced"),
        service="telemarketing",
        candidate=parts,
        operating_point=POINT,
        policies=policy_texts,
        provenance={},
        created_at=0.0,
    )


def aged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "age": 18 + at % 60, "marital": "single"} for at, row in enumerate(rows)]


@pytest.fixture
def decider(priced: Release, tmp_path: Path, stamps: Stamps) -> Decider:
    made = Decider(priced, log=DecisionLog(tmp_path / "logs", priced.id, pid=7), stamps=stamps)
    made.warm_up()
    return made


def test_the_release_decides_by_prices_groups_and_band(priced: Release, rows: list[dict[str, Any]]) -> None:
    """Worked out by hand from the release's own probabilities: each price moves what it is on."""
    scorer = Scorer.load(priced)
    assert scorer.operating_point == POINT
    columns = {name: np.array([row[name] for row in aged(rows)]) for name in aged(rows)[0]}
    decided = scorer.decide(columns)
    p = decided.probabilities[:, 1]
    group = np.where(columns["age"] <= 30, 2.0, -1.0)
    sold = 0.25 * 0.02463333 * np.clip(columns["balance"], 0, 5000) - 1 + 0.25 + group
    unsold = -1 - 0.5 - 0.2 + 0.25 + group
    calls = p * sold + (1 - p) * unsold > 0
    np.testing.assert_array_equal(decided.actions == 1, calls)
    np.testing.assert_allclose(decided.lead, np.abs(p * sold + (1 - p) * unsold), atol=1e-9)
    assert 0 < decided.actions.mean() < 1


def test_a_group_field_must_be_sent_and_the_proof_is_not_answered(
    decider: Decider, rows: list[dict[str, Any]]
) -> None:
    """Without age no price is known, so the row is refused by name; answers show the rule and no proof."""
    mark = RequestMark(request_id="r1", attempt=1, unit="u1", assigned="stable", is_shadow=False)
    (row, *_) = aged(rows)
    (answer,) = asyncio.run(decider.decide(mark, [row]))
    shown = answer["operating_point"]
    assert isinstance(shown, dict)
    assert set(shown) == {
        "kind", "shift", "default_action", "prices", "stakeholder_prices", "group_prices", "abstention", "threshold",
    }  # fmt: skip
    assert shown["abstention"] == {"action": 0, "least_stake": 0.5}
    with pytest.raises(RowRefused, match="'age' must be present"):
        asyncio.run(decider.decide(mark, [{name: v for name, v in row.items() if name != "age"}]))
