"""Decisions, requests, outcomes: written again, nothing changes; contradicted, the latest event time
stands."""

from dataclasses import replace

from services.store import decisions as store
from services.store.database import Database
from services.store.decisions import Checkpoint, DecisionRow, Outcome, OutcomeReceipt, RequestRow

DECISION = DecisionRow(
    "d1", "q1", 1, 10.0, "u1", "stable", False, "rel", "call", 0.5, 1.0, "[0,1]", "[1,0]", "{}"
)
REQUEST = RequestRow("q1", "u1", "stable", 10.0, 200, 12.5, 1, "")


def test_decisions_and_requests_are_idempotent(db: Database) -> None:
    """The same records again are no news, and the first stays."""
    with db.write() as connection:
        assert store.upsert_decisions(connection, [DECISION, replace(DECISION, decision_id="d2")]) == 2
        assert store.upsert_requests(connection, [REQUEST]) == 1
    with db.write() as connection:
        again = [replace(DECISION, action="leave"), replace(DECISION, decision_id="d3")]
        assert store.upsert_decisions(connection, again) == 1
        assert store.upsert_requests(connection, [REQUEST, REQUEST]) == 0
    assert store.count_decisions(db) >= 3


def test_outcomes_are_counted_by_what_they_bring(db: Database) -> None:
    """New, duplicate and contradictory outcomes are told apart, also within one batch; unknown decisions are
    named."""
    with db.write() as connection:
        store.upsert_decisions(connection, [DECISION])
    first = [Outcome("d1", "subscribed", 5.0), Outcome("d9", "subscribed", 5.0)]
    assert store.record_outcomes(db, first, received_at=6.0) == OutcomeReceipt(2, 0, 0, 1)
    again = [Outcome("d1", "subscribed", 5.0), Outcome("d1", "not_subscribed", 7.0), Outcome("d2", "x", 1.0)]
    assert store.record_outcomes(db, again, received_at=8.0) == OutcomeReceipt(1, 1, 1, 1)
    assert store.record_outcomes(db, [], received_at=8.0) == OutcomeReceipt(0, 0, 0, 0)


def test_latest_event_time_wins(db: Database) -> None:
    """Of contradictory outcomes the one that happened later stands, in whatever order they arrive."""
    for order in ((("a", 1.0), ("b", 2.0)), (("b", 2.0), ("a", 1.0))):
        key = f"d-{order[0][0]}"
        for outcome, at in order:
            store.record_outcomes(db, [Outcome(key, outcome, at)], received_at=9.0)
        with db.read() as connection:
            found = store._held(connection, {key})
        assert found == {key: ("b", 2.0, 1)}


def test_marks_and_checkpoints(db: Database) -> None:
    """The watermark never goes back; a checkpoint is replaced by the next of its file."""
    assert store.watermark(db) is None
    for value in (10.0, 12.0, 11.0):
        store.set_watermark(db, value, at=20.0)
    assert store.watermark(db) == 12.0
    with db.write() as connection:
        store.save_checkpoints(
            connection, [Checkpoint("1:2", "a", 10, "h"), Checkpoint("1:3", "b", 1, "i")], at=1.0
        )
        store.save_checkpoints(connection, [Checkpoint("1:2", "a.1", 30, "h")], at=2.0)
    assert set(store.checkpoints(db)) == {Checkpoint("1:2", "a.1", 30, "h"), Checkpoint("1:3", "b", 1, "i")}
