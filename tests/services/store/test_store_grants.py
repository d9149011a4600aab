"""Grants: no traffic without an unexpired, unrevoked one; a revocation is for good."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.store import grants, orders, rollouts
from services.store.database import Database
from services.store.grants import Grant, GrantRefused, GrantRevoked, effective_weight
from services.store.rollouts import RolloutRecord

SERVICE = "telemarketing"


def grant_it(db: Database, weight_pct: float, *, valid_until: float = 110.0, rollout_id: str = "r1") -> Grant:
    return grants.write_grant(
        db, service=SERVICE, rollout_id=rollout_id, weight_pct=weight_pct, valid_until=valid_until, at=100.0
    )


def test_weight_holds_until_the_lease_ends(db: Database, draft: RolloutRecord) -> None:
    """A grant is in force before `valid_until` and worth 0 from that instant on; a later one replaces it."""
    rollouts.create(db, draft)
    assert effective_weight(grants.read_grant(db, SERVICE), 100.0) == 0.0
    grant_it(db, 25.0)
    grant = grants.read_grant(db, SERVICE)
    assert (effective_weight(grant, 109.999), effective_weight(grant, 110.0)) == (25.0, 0.0)
    grant_it(db, 50.0, valid_until=120.0)
    assert effective_weight(grants.read_grant(db, SERVICE), 110.0) == 50.0
    assert [one.weight_pct for one in grants.current_grants(db)] == [50.0]


def test_revoked_rollout_is_never_granted_again(db: Database, draft: RolloutRecord) -> None:
    """After a revocation the weight is 0, every further grant is refused, and the first revoker stays on
    record."""
    rollouts.create(db, draft)
    grant_it(db, 25.0)
    revoked = grants.revoke_grant(db, service=SERVICE, rollout_id="r1", by="ann", reason="odd", at=101.0)
    assert (revoked.revoked, revoked.revoked_by, revoked.weight_pct) == (True, "ann", 0.0)
    with pytest.raises(GrantRevoked, match="by ann: odd"):
        grant_it(db, 1.0)
    grants.revoke_grant(db, service=SERVICE, rollout_id="r1", by="bob", reason="late", at=102.0)
    found = grants.read_grant(db, SERVICE)
    assert found is not None
    assert (found.revoked_by, effective_weight(found, 101.0)) == ("ann", 0.0)


def test_kill_before_the_first_grant(db: Database, draft: RolloutRecord) -> None:
    """A rollout in the shadow, which has no grant yet, can be revoked; another rollout later is granted
    freely."""
    first = rollouts.create(db, draft)
    grants.revoke_grant(db, service=SERVICE, rollout_id="r1", by="ann", reason="no", at=101.0)
    with pytest.raises(GrantRevoked):
        grant_it(db, 1.0)
    rollouts.save(db, replace(first, ended_at=102.0), at=102.0)
    rollouts.create(db, replace(draft, id="r2"))
    grant_it(db, 1.0, rollout_id="r2")
    assert effective_weight(grants.read_grant(db, SERVICE), 105.0) == 1.0


@pytest.mark.parametrize("weight", [float("nan"), -0.1, 100.1, float("inf")])
def test_senseless_weights_are_refused(db: Database, draft: RolloutRecord, weight: float) -> None:
    """NaN, infinite and out-of-range weights are refused by name, and nothing is written."""
    rollouts.create(db, draft)
    with pytest.raises(GrantRefused, match="'weight_pct' must be in"):
        grant_it(db, weight)
    with pytest.raises(GrantRefused, match="'valid_until'"):
        grant_it(db, 1.0, valid_until=weight if weight != weight else float("nan"))
    assert grants.read_grant(db, SERVICE) is None


def test_only_active_rollouts_of_the_service_are_granted(db: Database, draft: RolloutRecord) -> None:
    """Unknown, ended and other services' rollouts get no weight."""
    with pytest.raises(GrantRefused, match="'rollout' must be one of service"):
        grant_it(db, 1.0)
    record = rollouts.create(db, draft)
    with pytest.raises(GrantRefused, match="'rollout' must be one of service 'credit'"):
        grants.write_grant(db, service="credit", rollout_id="r1", weight_pct=1, valid_until=9.0, at=1.0)
    rollouts.save(db, replace(record, ended_at=5.0), at=5.0)
    with pytest.raises(GrantRefused, match="must not have ended"):
        grant_it(db, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.floats(), st.floats(), st.floats(), st.booleans())
def test_effective_weight_is_a_weight(weight: float, until: float, now: float, revoked: bool) -> None:
    """Whatever a row holds, what is published lies in [0, 100], and is 0 when revoked or over."""
    found = effective_weight(Grant(SERVICE, "r1", weight, until, revoked, None, None, 100.0), now)
    assert 0 <= found <= 100
    if revoked or not now < until:
        assert found == 0
    assert effective_weight(None, now) == 0


def test_orders_are_taken_once(db: Database, draft: RolloutRecord) -> None:
    """An order is open until one controller takes it; unknown verbs and rollouts are refused."""
    rollouts.create(db, draft)
    given_order = orders.give(db, rollout_id="r1", verb="hold", by="ann", reason="lunch", at=1.0)
    assert orders.open_orders(db, "r1") == (given_order,)
    assert [orders.take(db, given_order.id, at=2.0), orders.take(db, given_order.id, at=3.0)] == [True, False]
    assert orders.open_orders(db, "r1") == ()
    assert orders.of_rollout(db, "r1") == (replace(given_order, taken_at=2.0),)
    with pytest.raises(orders.OrderRefused, match="'verb' must be one of promote, hold"):
        orders.give(db, rollout_id="r1", verb="explode", by="ann", reason="-", at=1.0)
    with pytest.raises(orders.OrderRefused, match="'rollout_id' must exist"):
        orders.give(db, rollout_id="r9", verb="kill", by="ann", reason="-", at=1.0)
