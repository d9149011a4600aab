"""Decisions, requests, gaps: written again, nothing changes."""

from dataclasses import replace

from services.store import decisions as store
from services.store.database import Database
from services.store.decisions import Checkpoint, DecisionRow, LogGap, RequestRow

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


def test_gaps_of_the_log_are_counted_once(db: Database) -> None:
    """A gap that is shipped twice is one gap; decisions that were never logged add up by release."""
    gap = LogGap("rel:7:1", "rel", 10.0, 11.0, 40)
    for _ in range(2):
        with db.write() as connection:
            store.upsert_gaps(connection, [gap, LogGap("rel:7:2", "rel", 20.0, 21.0, 2)])
    assert store.unlogged_decisions(db) == {"rel": 42}


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
