"""Rollouts on record: one active per service, saved whole or not at all, never over somebody else's save."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from services.store import grants, rollouts
from services.store.database import Database, StoreError
from services.store.rollouts import RolloutExists, RolloutRecord, StaleRollout, UnknownRollout


def test_saved_is_what_is_loaded(db: Database, draft: RolloutRecord) -> None:
    """State, gates and cursors come back as they were saved, with the next version."""
    created = rollouts.create(db, draft)
    assert created.version == 1
    changed = replace(
        created, state={"phase": "canary"}, gates={"log_e": 1.5}, cursors={"seq": 7}, weight_pct=5.0
    )
    saved = rollouts.save(db, changed, at=1010.0)
    assert saved == replace(changed, version=2, updated_at=1010.0)
    assert rollouts.load(db, "r1") == saved == rollouts.active(db, "telemarketing")


def test_second_controller_loses(db: Database, draft: RolloutRecord) -> None:
    """Of two controllers that loaded the same version one saves, the other is told and changes nothing."""
    mine = theirs = rollouts.create(db, draft)
    rollouts.save(db, replace(mine, weight_pct=5.0), at=1.0)
    with pytest.raises(StaleRollout, match="'version'"):
        rollouts.save(db, replace(theirs, weight_pct=50.0), at=2.0)
    assert rollouts.load(db, "r1").weight_pct == 5.0


def test_simultaneous_saves_have_one_winner(db: Database, draft: RolloutRecord) -> None:
    """Eight threads save the same version at once: exactly one wins."""
    record = rollouts.create(db, draft)

    def attempt(weight: int) -> bool:
        try:
            rollouts.save(db, replace(record, weight_pct=float(weight)), at=2.0)
        except StaleRollout:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1
    assert rollouts.load(db, "r1").version == 2


def test_one_active_rollout_per_service(db: Database, draft: RolloutRecord) -> None:
    """The database refuses a second active rollout of a service, and takes it once the first has ended."""
    first = rollouts.create(db, draft)
    second = replace(draft, id="r2", created_at=2000.0)
    with pytest.raises(RolloutExists, match="only active one"):
        rollouts.create(db, second)
    rollouts.create(db, replace(draft, id="other", service="credit"))
    rollouts.save(db, replace(first, ended_at=1500.0), at=1500.0)
    rollouts.create(db, second)
    assert {record.id for record in rollouts.all_active(db)} == {"r2", "other"}
    assert [record.id for record in rollouts.recent(db, "telemarketing")] == ["r2", "r1"]


def test_ended_rollout_is_not_saved_again(db: Database, draft: RolloutRecord) -> None:
    """An end is final, and takes the grant's weight with it in the same transaction."""
    record = rollouts.create(db, draft)
    grants.write_grant(db, service="telemarketing", rollout_id="r1", weight_pct=50, valid_until=9e9, at=1.0)
    ended = rollouts.save(db, replace(record, ended_at=1500.0), at=1500.0)
    with pytest.raises(StaleRollout):
        rollouts.save(db, replace(ended, ended_at=None), at=1501.0)
    assert grants.effective_weight(grants.read_grant(db, "telemarketing"), 1501.0) == 0.0
    assert grants.current_grants(db) == ()


def test_nonsense_is_refused(db: Database, draft: RolloutRecord) -> None:
    """NaN in the gates, weights out of range and unknown ids never reach the store."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        rollouts.create(db, replace(draft, gates={"log_e": float("nan")}))
    for weight in (-1.0, 100.5, float("nan")):
        with pytest.raises(StoreError, match="'weight_pct'"):
            rollouts.create(db, replace(draft, weight_pct=weight))
    with pytest.raises(UnknownRollout, match="'r9'"):
        rollouts.load(db, "r9")
    assert rollouts.recent(db) == ()
