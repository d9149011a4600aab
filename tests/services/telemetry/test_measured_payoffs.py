"""What was earned where the payoff reads a field hidden when deciding: the amount that came with the outcome tells."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policies
from policies.utility.utility import UtilityError, UtilitySpec, load_utility
from services.store.database import Database
from services.store.decisions import DecisionRow
from services.store.evidence import DecidedUnit
from services.store.measurements import Measurement, measured_values, record_measurements
from services.telemetry.realised import price_each, realise


@pytest.fixture
def hiding() -> UtilitySpec:
    """A subscriber brings a share of what he deposits, which is known later; a call costs 1 EUR."""
    file = Path(policies.__file__).parent / "telemarketing" / "utility.yaml"
    text = file.read_text(encoding="utf-8").replace(
        "deposited_share * margin * clip(balance, 0, cap) - call_cost",
        "margin * clip(deposit, 0, cap) - call_cost",
    )
    start, stop = text.index("  - name: deposited_share"), text.index("  - name: margin")
    text = (text[:start] + text[stop:]).replace("high: 29.8", "high: 123")
    return load_utility(text.replace("range:", "hiddenWhenDeciding: [deposit]\nrange:", 1), "utility.yaml")


def unit(number: int, action: str, outcome: str | None, *, assigned: str = "canary") -> DecidedUnit:
    return DecidedUnit(
        decision_id=f"d{number}",
        at=1000.0 + number,
        assigned=assigned,
        release="r",
        action=action,
        row=json.dumps({"balance": 100, "deposit": 9e9}),
        outcome=outcome,
        gated=None,
    )


def test_an_amount_is_asked_for_where_the_payoff_reads_it(hiding: UtilitySpec) -> None:
    """Left alone: 0, nothing needed. Called and refused: -1, an outcome and no amount. Subscribed: with the amount what
    it brings, without it unresolved; and a call without outcome is unresolved, whatever amount there is."""
    units = [
        unit(1, "leave", None),
        unit(2, "call", "not_subscribed"),
        unit(3, "call", "subscribed"),
        unit(4, "call", "subscribed", assigned="stable"),
        unit(5, "call", None),
        unit(6, "shout", "subscribed"),
    ]
    amounts = {"d3": {"deposit": 1000.0}, "d5": {"deposit": 1000.0}}
    found = realise(units, hiding, amounts=amounts)
    np.testing.assert_allclose(found.earned, [0, -1, 1000 * 0.02463333 - 1, 0, 0, 0])
    assert found.unresolved.tolist() == [False, False, False, True, True, True]
    assert found.needed.tolist() == [False, True, True, True, True, True]
    earned = price_each(units, hiding, amounts=amounts)
    assert np.isnan(earned).tolist() == found.unresolved.tolist()


def test_what_the_row_says_of_a_hidden_field_is_not_believed(hiding: UtilitySpec) -> None:
    """Without an amount a subscriber's payoff is unresolved though the row brings a number."""
    assert realise([unit(1, "call", "subscribed")], hiding).unresolved.tolist() == [True]


def test_an_amount_that_leaves_the_declared_range_is_an_error(hiding: UtilitySpec) -> None:
    """The canary's tests rest on the range: a payoff beyond it is named, not clipped."""
    narrow = replace(hiding, range=(-1.0, 20.0))
    with pytest.raises(UtilityError, match=r"call x subscribed must be in \[-1, 20\] EUR"):
        realise([unit(1, "call", "subscribed")], narrow, amounts={"d1": {"deposit": 5000.0}})


def test_amounts_are_found_by_decision_and_name(db: Database) -> None:
    """Only the names asked for, of the decisions asked for, however many there are."""
    measured = [Measurement(f"d{i}", "deposit", float(i), 1.0) for i in range(1200)]
    record_measurements(db, [*measured, Measurement("d7", "seconds", 3.0, 1.0)], received_at=2.0)
    found = measured_values(db, [f"d{i}" for i in range(1, 1300)], names=("deposit",))
    assert len(found) == 1199
    assert found["d7"] == {"deposit": 7.0}


def test_a_poll_waits_for_the_amounts(
    rollout: Any, make_decision: Callable[..., DecisionRow], hiding: UtilitySpec
) -> None:
    """Subscribers without their amount withhold utility; once it has come, all count with it."""
    rollout.utility = hiding
    calls = [
        make_decision(action="call", at=1010.0 + index / 10, assigned=arm)
        for index, arm in enumerate(("stable", "canary") * 5)
    ]
    rollout.put(*calls, shipped=1030.0, watermark=1030.0)
    for row in calls:
        rollout.outcome(row, "subscribed")
    assert "have no outcome" in rollout.poll(1030.0).missing["utility"]
    amounts = [Measurement(row.decision_id, "deposit", 2000.0, 1015.0) for row in calls]
    record_measurements(rollout.db, amounts, received_at=1031.0)
    canary, stable = rollout.utilities(1032.0)
    assert canary == stable == [pytest.approx(2000 * 0.02463333 - 1)] * 5
