"""Outcomes: said again, nothing changes; contradicted, the latest event time stands and the other is kept."""

from dataclasses import replace
from itertools import permutations

from sqlalchemy import select

from services.store import decisions as store
from services.store import tables
from services.store.database import Database
from services.store.decisions import DecisionRow
from services.store.outcomes import Outcome, OutcomeReceipt, UnitOutcome, match_units, record_outcomes

DECISION = DecisionRow(
    "d1", "q1", 1, 10.0, "u1", "stable", False, "rel", "call", 0.5, 1.0, "[0,1]", "[1,0]", "{}"
)


def put(db: Database, *rows: DecisionRow, shipped_through: float = 1_000.0) -> None:
    with db.write() as connection:
        store.upsert_decisions(connection, rows)
        store.raise_mark(connection, store.SHIPPED_THROUGH, shipped_through, at=shipped_through)


def recorded(db: Database, decision_id: str) -> tuple[str, float, int, dict[str, float]]:
    """What stands, since when, how many others, and which."""
    with db.read() as connection:
        table, others = tables.outcomes, tables.outcome_conflicts
        row = connection.execute(select(table).where(table.c.decision_id == decision_id)).one()
        query = select(others.c.outcome, others.c.at).where(others.c.decision_id == decision_id)
        return row.outcome, row.at, row.conflicts, {other: at for other, at in connection.execute(query)}


def test_outcomes_are_counted_by_what_they_bring(db: Database) -> None:
    """New, duplicate and contradictory outcomes are told apart, also within one batch; unknown decisions are
    named."""
    put(db, DECISION)
    first = [Outcome("d1", "subscribed", 5.0), Outcome("d9", "subscribed", 5.0)]
    assert record_outcomes(db, first, received_at=6.0) == OutcomeReceipt(2, 0, 0, 1)
    again = [Outcome("d1", "subscribed", 5.0), Outcome("d1", "not_subscribed", 7.0), Outcome("d2", "x", 1.0)]
    assert record_outcomes(db, again, received_at=8.0) == OutcomeReceipt(1, 1, 1, 1)
    assert record_outcomes(db, [], received_at=8.0) == OutcomeReceipt(0, 0, 0, 0)


def test_any_order_leaves_the_same_record_and_a_second_delivery_is_duplicates_only(db: Database) -> None:
    """Contradictory statements in every order: the latest event stands, each other outcome is kept once with its
    latest time; the same file once more brings nothing new."""
    said = (("a", 1.0), ("b", 2.0), ("a", 4.0), ("c", 3.0))
    for number, order in enumerate(permutations(said)):
        key = f"d-{number}"
        statements = [Outcome(key, outcome, at) for outcome, at in order]
        for statement in statements:
            record_outcomes(db, [statement], received_at=9.0)
        assert recorded(db, key) == ("a", 4.0, 2, {"b": 2.0, "c": 3.0})
        assert record_outcomes(db, statements, received_at=10.0) == OutcomeReceipt(0, 4, 0, 4)
        assert recorded(db, key) == ("a", 4.0, 2, {"b": 2.0, "c": 3.0})


def test_of_two_outcomes_at_one_instant_the_first_received_stays(db: Database) -> None:
    """Event times that do not decide leave what was said first, and count the conflict."""
    record_outcomes(db, [Outcome("d1", "a", 1.0), Outcome("d1", "b", 1.0)], received_at=2.0)
    assert recorded(db, "d1") == ("a", 1.0, 1, {"b": 1.0})


def test_what_comes_after_the_watermark_that_promised_it_is_late(db: Database) -> None:
    """News from before the watermark is counted as late; the same news again is a duplicate, not late."""
    put(db, DECISION)
    store.set_watermark(db, 20.0, at=21.0)
    news = [Outcome("d1", "a", 20.0), Outcome("d2", "a", 20.5)]
    assert record_outcomes(db, news, received_at=22.0) == OutcomeReceipt(2, 0, 0, 1, late=1)
    assert record_outcomes(db, news, received_at=23.0) == OutcomeReceipt(0, 2, 0, 1, late=0)


def test_a_unit_and_a_time_find_every_delivered_decision_of_the_window(db: Database) -> None:
    """(at - within, at], this unit only, no shadow, no attempt that was retried; what is found is told by id."""
    put(
        db,
        replace(DECISION, decision_id="before", request_id="q0", at=5.0),
        replace(DECISION, decision_id="given-up", at=10.0, assigned="canary"),
        replace(DECISION, decision_id="delivered", attempt=2, at=10.5, assigned="canary"),
        replace(DECISION, decision_id="shadow", request_id="q2", shadow=True, at=11.0),
        replace(DECISION, decision_id="other", request_id="q3", unit="u2", at=11.0),
        replace(DECISION, decision_id="second", request_id="q4", at=15.0),
        replace(DECISION, decision_id="after", request_id="q5", at=15.1),
    )
    found = match_units(db, [UnitOutcome("u1", "a", 15.0, 10.0), UnitOutcome("u3", "a", 15.0, 10.0)])
    assert found.outcomes == (Outcome("delivered", "a", 15.0), Outcome("second", "a", 15.0))
    assert (found.unmatched, found.too_early) == ((1,), ())


def test_a_unit_is_not_matched_before_the_shipper_has_passed(db: Database) -> None:
    """While the newest decision may still be in a log, the outcome does not go to an older one: it is asked again."""
    put(db, DECISION, shipped_through=12.0)
    assert match_units(db, [UnitOutcome("u1", "a", 12.5, 60.0)]).too_early == (0,)
    assert match_units(db, [UnitOutcome("u1", "a", 12.0, 60.0)]).outcomes == (Outcome("d1", "a", 12.0),)
