"""Measured amounts: said again, nothing changes; the latest event time stands, whatever came first."""

from dataclasses import replace

from services.store import decisions as store
from services.store.database import Database
from services.store.decisions import DecisionRow
from services.store.measurements import Measurement, measured_decisions, record_measurements

DECISION = DecisionRow(
    "d1", "q1", 1, 10.0, "u1", "stable", False, "rel", "call", 0.5, 1.0, "[0,1]", "[1,0]", '{"balance": 5}'
)


def test_the_latest_amount_of_a_decision_stands(db: Database) -> None:
    """An older statement, and the same again, change nothing; another amount of the decision is its own."""
    with db.write() as connection:
        store.upsert_decisions(connection, [DECISION])
    cost = Measurement("d1", "call_cost", 1.5, 100.0)
    record_measurements(db, [replace(cost, value=1.2, at=50.0), cost], received_at=200.0)
    record_measurements(db, [replace(cost, value=9.0, at=99.0), cost], received_at=201.0)
    record_measurements(db, [Measurement("d1", "deposited", 40.0, 100.0)], received_at=202.0)
    record_measurements(db, [], received_at=203.0)
    found = measured_decisions(db, since=0.0, limit=10)
    assert [(one.name, one.value) for one in found] == [("deposited", 40.0), ("call_cost", 1.5)]
    assert found[0].row == '{"balance": 5}'


def test_only_the_service_s_answers_since_then_count(db: Database) -> None:
    """A mirrored decision, one before, and an amount of a decision that is not there are left out; the newest stay."""
    decided = [
        replace(DECISION, decision_id=f"d{at}", request_id=f"q{at}", at=float(at), shadow=at == 30)
        for at in (10, 20, 30, 40, 50)
    ]
    with db.write() as connection:
        store.upsert_decisions(connection, decided)
    ids = [*(one.decision_id for one in decided), "unknown"]
    record_measurements(db, [Measurement(one, "call_cost", 1.0, 60.0) for one in ids], received_at=60.0)
    assert [one.at for one in measured_decisions(db, since=20.0, limit=10)] == [20.0, 40.0, 50.0]
    assert [one.at for one in measured_decisions(db, since=20.0, limit=2)] == [40.0, 50.0]
