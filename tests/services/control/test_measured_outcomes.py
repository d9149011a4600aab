"""Amounts that come with outcomes over HTTP: kept by name, bounded, finite."""

from typing import Any

import pytest

from services.store import decisions as store
from services.store.decisions import DecisionRow
from services.store.measurements import measured_decisions

DECISION = DecisionRow("d1", "q1", 1, 10.0, "u1", "stable", False, "rel", "call", 0.5, 1.0, "[]", "[]", "{}")


def test_amounts_come_with_an_outcome(running: Any) -> None:
    """Posted twice they stand once; an outcome without any is as before."""
    with running.db.write() as connection:
        store.upsert_decisions(connection, [DECISION])
    one = {"decision_id": "d1", "outcome": "subscribed", "at": 100.0}
    for body in ({**one, "measured": {"call_cost": 1.25, "deposited": 300}}, one):
        for _ in range(2):
            assert running.client.post("/outcomes", json={"outcomes": [body]}).status_code == 200
    found = measured_decisions(running.db, since=0.0, limit=10)
    assert {measured.name: measured.value for measured in found} == {"call_cost": 1.25, "deposited": 300.0}


@pytest.mark.parametrize("measured", ['{"call_cost": NaN}', '{"call_cost": "1"}', '{"": 1}', "[]", "MANY"])
def test_an_amount_that_is_none_refuses_the_body(running: Any, measured: str) -> None:
    """Not a number, no name, no mapping, more than 20: refused whole, nothing is recorded."""
    text = measured.replace("MANY", "{" + ",".join(f'"a{n}": 1' for n in range(21)) + "}")
    body = '{"outcomes": [{"decision_id": "d1", "outcome": "x", "at": 1, "measured": ' + text + "}]}"
    assert running.client.post("/outcomes", content=body.encode()).status_code in (400, 422)
    assert running.client.get("/status").json()["outcomes"]["new"] == 0
