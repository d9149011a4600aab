"""The evidence of judged polls: on record together with the gates that saw it, or not at all; silence costs nothing."""

from dataclasses import replace

import pytest

from services.store import poll_evidence, rollouts
from services.store.database import Database
from services.store.poll_evidence import JudgedPoll
from services.store.rollouts import RolloutRecord, StaleRollout

FIRST = JudgedPoll(
    at=100.1,
    stage="canary-5",
    entered_at=99.6,
    extended=False,
    held=False,
    decision="HOLD",
    reason="baking",
    evidence={"at": 100.1, "weight_pct": 5.0, "blocks": {"utility": {"canary": [0.1, "nan"], "stable": []}}},
)
SECOND = replace(FIRST, at=100.6, held=True, evidence={**FIRST.evidence, "at": 100.6})
THIRD = replace(FIRST, at=101.1, extended=True, evidence={"at": 101.1, "weight_pct": 5.0, "blocks": {}})


def save_all(db: Database, record: RolloutRecord, *polls: JudgedPoll) -> None:
    for poll in polls:
        record = rollouts.save(db, record, at=poll.at, poll=poll)


def test_polls_come_back_exactly_and_in_order(db: Database, draft: RolloutRecord) -> None:
    """What was judged is what is read, float for float, also where the same evidence came twice; another rollout's
    polls are not among them."""
    record = rollouts.create(db, draft)
    save_all(db, record, FIRST, SECOND, THIRD)
    assert list(poll_evidence.of_rollout(db, record.id)) == [FIRST, SECOND, THIRD]
    assert list(poll_evidence.of_rollout(db, "another")) == []


def test_a_source_that_stays_silent_stores_nothing(db: Database, draft: RolloutRecord) -> None:
    """A hundred polls that bring the same again take a row each and no more evidence than the first did."""
    record = rollouts.create(db, draft)
    idle = [replace(THIRD, at=101.1 + i, evidence={**THIRD.evidence, "at": 101.1 + i}) for i in range(100)]
    save_all(db, record, FIRST, *idle)
    polls, characters = poll_evidence.size_of(db, record.id)
    assert polls == 101
    assert characters == len(
        '{"blocks":{"utility":{"canary":[0.1,"nan"],"stable":[]}},"weight_pct":5.0}'
    ) + len('{"blocks":{},"weight_pct":5.0}')


def test_a_poll_of_a_loser_is_not_on_record(db: Database, draft: RolloutRecord) -> None:
    """A controller that lost the rollout leaves no evidence behind: the gates that are stored never saw it."""
    record = rollouts.create(db, draft)
    rollouts.save(db, record, at=100.0)
    with pytest.raises(StaleRollout):
        rollouts.save(db, record, at=FIRST.at, poll=FIRST)
    assert list(poll_evidence.of_rollout(db, record.id)) == []
