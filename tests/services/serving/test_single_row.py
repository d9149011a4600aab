"""One row by plain numbers: the Scorer's decision to the last bit, or no decision at all."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from policies.operating.abstention import AbstentionBand, OutcomeBand
from policies.operating.operating_point import OperatingPoint
from services.data.contract import DataContract
from services.serving.decider import Decider
from services.serving.release import Release
from services.serving.request_mark import RequestMark
from services.serving.row_check import RowCheck
from services.serving.scorer import Scorer
from services.serving.single_row import SingleRow

Row = dict[str, Any]
POINTS = (
    OperatingPoint(shift=(0.0, 0.0)),
    OperatingPoint(shift=(0.1, -0.35), default_action=1),
    OperatingPoint(shift=(0.0, 0.0), prices=((0.0, 0.25), (-0.5, 1 / 3))),
)


@pytest.fixture(scope="module")
def scorer(release: Release) -> Scorer:
    return Scorer.load(release)


@pytest.fixture(scope="module")
def check(contract: DataContract, scorer: Scorer) -> RowCheck:
    return RowCheck(contract.columns, payoff_fields=scorer.needed_fields)


@pytest.mark.parametrize("point", POINTS)
def test_every_number_is_the_scorers(
    scorer: Scorer, check: RowCheck, rows: list[Row], point: OperatingPoint
) -> None:
    """1,000 rows, some with fields missing, new categories or extreme numbers: equal to the last bit, none refused."""
    priced = replace(scorer, operating_point=point)
    single = SingleRow.of(priced)
    assert single is not None
    changes: tuple[Row, ...] = (
        {},
        {"pdays": None, "poutcome": None},
        {"balance": -0.0, "previous": 0},
        {"balance": 1e9, "campaign": 10**6},
        {"job": "astronaut", "balance": 0},
    )
    for number, row in enumerate(rows):
        changed = {**row, **changes[number % len(changes)]}
        assert single.decide(changed) is not None
        assert single.agrees(changed, check.to_columns([changed])), changed


def test_what_differs_is_noticed(scorer: Scorer, check: RowCheck, rows: list[Row]) -> None:
    """A single-row rule with another default or another price does not agree with the Scorer."""
    single = SingleRow.of(replace(scorer, operating_point=POINTS[1]))
    assert single is not None
    single._scorer = scorer
    assert not single.agrees(rows[0], check.to_columns(rows[:1]))


@pytest.mark.parametrize(
    "more",
    [
        {"stakeholder_prices": (("bank", 0.1),)},
        {"abstention": AbstentionBand(0, 0.5, (OutcomeBand((0.0, 1.0), (0.0, 1.0), (0.0, 1.0)),))},
    ],
)
def test_an_unusual_rule_is_left_to_the_scorer(scorer: Scorer, more: Any) -> None:
    """Prices of stakeholders and abstention are not decided here."""
    assert SingleRow.of(replace(scorer, operating_point=OperatingPoint(shift=(0.0, 0.0), **more))) is None


@pytest.mark.parametrize("change", [{"balance": None}, {"balance": "rich"}, {"balance": 1e400}, {"day": "x"}])
def test_a_row_that_cannot_be_priced_is_left_to_the_scorer(
    scorer: Scorer, rows: list[Row], change: Row
) -> None:
    """No decision, so that the Scorer says what is wrong."""
    single = SingleRow.of(scorer)
    assert single is not None
    assert single.decide({**rows[0], **change}) is None


def test_one_row_is_answered_as_in_a_batch(
    make_decider: Callable[..., Decider], rows: list[Row], release: Release
) -> None:
    """The same action and, up to the network's float32, the same numbers; who disagrees at the warm-up is not used."""
    decider = make_decider()
    mark = RequestMark("r", 1, "u", "stable", is_shadow=False)
    batch = orjson.loads(orjson.dumps(asyncio.run(decider.decide(mark, rows[:50]))))
    assert decider._single is not None
    alone = [asyncio.run(decider.decide(mark, [row]))[0] for row in rows[:50]]
    for one, other in zip(alone, batch, strict=True):
        assert (one["action"], set(one)) == (other["action"], set(other))
        assert one["score"] == pytest.approx(other["score"], abs=1e-6)
        assert one["expected_utility"] == pytest.approx(other["expected_utility"], abs=1e-4)
        assert one["operating_point"] == other["operating_point"]
    decider._single._shift, decider._single._is_priced = (0.0, 100.0), True
    decider.warm_up()
    assert decider._single is None
    again = [asyncio.run(decider.decide(mark, [row]))[0] for row in rows[:50]]
    assert [one["action"] for one in again] == [one["action"] for one in batch]
