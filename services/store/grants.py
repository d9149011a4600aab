"""Grants: the lease that lets a canary have traffic. No grant, an expired one or a revoked one is weight 0.

The deciding loop writes the grant at every poll; the weight sender publishes only `effective_weight`.
Revoking is the kill switch: it works for a rollout that has no grant yet, and a revoked rollout can never be
granted again.
Must never import: policies, flows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from sqlalchemy import Connection, Row, insert, select, update

from services.store import tables
from services.store.database import Database, StoreError


class GrantRefused(StoreError):
    """This weight may not be granted; nothing was written."""


class GrantRevoked(GrantRefused):
    """The rollout's grant was revoked (killed): it can never be granted again."""


@dataclass(frozen=True)
class Grant:
    """The canary's weight in percent, valid until an instant (epoch s, exclusive), and when it was written."""

    service: str
    rollout_id: str
    weight_pct: float
    valid_until: float
    revoked: bool
    revoked_by: str | None
    reason: str | None
    updated_at: float


def effective_weight(grant: Grant | None, now: float) -> float:
    """The weight in percent that may be published now: 0 for none, expired, revoked or senseless grants."""
    if grant is None or grant.revoked or not isfinite(now):
        return 0.0
    if not isfinite(grant.valid_until) or now >= grant.valid_until:
        return 0.0
    if not isfinite(grant.weight_pct) or not 0 <= grant.weight_pct <= 100:
        return 0.0
    return grant.weight_pct


def write_grant(
    db: Database, *, service: str, rollout_id: str, weight_pct: float, valid_until: float, at: float
) -> Grant:
    """Grant a rollout's canary this weight until `valid_until`; replaces its earlier grant.

    Raises GrantRevoked after a revocation, GrantRefused for an unknown or ended rollout, another service's
    rollout, and for a weight outside [0, 100] or a time that is not finite.
    """
    if not isfinite(weight_pct) or not 0 <= weight_pct <= 100:
        raise GrantRefused(f"'weight_pct' must be in [0, 100]: {weight_pct}")
    if not isfinite(valid_until) or not isfinite(at):
        raise GrantRefused(f"'valid_until' must be a finite time: {valid_until}")
    with db.write(durable=True) as connection:
        _require_active(connection, service, rollout_id)
        current = _of_rollout(connection, rollout_id)
        if current is not None and current.revoked:
            raise GrantRevoked(
                f"'rollout' must not be revoked: {rollout_id!r}, by {current.revoked_by}: {current.reason}"
            )
        values = {"weight_pct": weight_pct, "valid_until": valid_until, "updated_at": at}
        _put(connection, service, rollout_id, is_new=current is None, values=values)
    return Grant(service, rollout_id, weight_pct, valid_until, False, None, None, at)


def revoke_grant(db: Database, *, service: str, rollout_id: str, by: str, reason: str, at: float) -> Grant:
    """Revoke for good; the weight is 0 from this commit on. The first revocation's `by` and `reason` stay.

    Raises GrantRefused for a rollout that the store does not know.
    """
    with db.write(durable=True) as connection:
        _require_known(connection, service, rollout_id)
        current = _of_rollout(connection, rollout_id)
        if current is not None and current.revoked:
            return current
        values = {"weight_pct": 0.0, "revoked": True, "revoked_by": by, "reason": reason, "updated_at": at}
        if current is None:
            values["valid_until"] = at
        _put(connection, service, rollout_id, is_new=current is None, values=values)
    valid_until = at if current is None else current.valid_until
    return Grant(service, rollout_id, 0.0, valid_until, True, by, reason, at)


def read_grant(db: Database, service: str) -> Grant | None:
    """The grant of the service's active rollout; with no active rollout, its latest (whose weight is 0)."""
    active = select(tables.rollouts.c.id).where(
        tables.rollouts.c.service == service, tables.rollouts.c.ended_at.is_(None)
    )
    table = tables.grants
    with db.read() as connection:
        rollout_id = connection.execute(active).scalar_one_or_none()
        if rollout_id is not None:
            return _of_rollout(connection, rollout_id)
        query = select(table).where(table.c.service == service).order_by(table.c.updated_at.desc()).limit(1)
        row = connection.execute(query).one_or_none()
    return None if row is None else _grant(row)


def current_grants(db: Database) -> tuple[Grant, ...]:
    """The grants of all rollouts that have not ended. One data plane carries one canary: more than one is a
    fault."""
    table = tables.grants
    query = (
        select(table)
        .join(tables.rollouts, tables.rollouts.c.id == table.c.rollout_id)
        .where(tables.rollouts.c.ended_at.is_(None))
    )
    with db.read() as connection:
        return tuple(_grant(row) for row in connection.execute(query))


def _require_known(connection: Connection, service: str, rollout_id: str) -> float | None:
    table = tables.rollouts
    row = connection.execute(
        select(table.c.service, table.c.ended_at).where(table.c.id == rollout_id)
    ).one_or_none()
    if row is None or row.service != service:
        raise GrantRefused(f"'rollout' must be one of service {service!r}: {rollout_id!r}")
    return None if row.ended_at is None else float(row.ended_at)


def _require_active(connection: Connection, service: str, rollout_id: str) -> None:
    if _require_known(connection, service, rollout_id) is not None:
        raise GrantRefused(f"'rollout' must not have ended: {rollout_id!r}")


def _put(
    connection: Connection, service: str, rollout_id: str, *, is_new: bool, values: Mapping[str, object]
) -> None:
    table = tables.grants
    if is_new:
        row = {"service": service, "rollout_id": rollout_id, "revoked": False, **values}
        connection.execute(insert(table).values(**row))
    else:
        connection.execute(update(table).where(table.c.rollout_id == rollout_id).values(**values))


def _of_rollout(connection: Connection, rollout_id: str) -> Grant | None:
    # FOR UPDATE matters on PostgreSQL (SQLite has no such clause): a grant must not overtake a revocation.
    query = select(tables.grants).where(tables.grants.c.rollout_id == rollout_id)
    row = connection.execute(query.with_for_update()).one_or_none()
    return None if row is None else _grant(row)


def _grant(row: Row[tuple[object, ...]]) -> Grant:
    return Grant(**row._mapping)
