"""Rollouts on record: what is rolled out, in which state, with which evidence, so that a killed controller
resumes.

State, gates (the e-processes) and cursors (what evidence was consumed) are saved together in one row: either
all three move or none, which is what makes each poll's evidence count exactly once. Saving checks the
version; of two controllers one loses with StaleRollout and must stop. Ending a rollout zeroes its grant in
the same transaction.
Must never import: policies (the dicts are opaque here), flows.
"""

from dataclasses import dataclass, replace
from math import isfinite

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from services.store import tables
from services.store.database import Database, StoreError
from services.store.json_text import JsonObject, dump, load_object
from services.store.orders import take_within
from services.store.poll_evidence import JudgedPoll, add


class StaleRollout(StoreError):
    """Somebody else saved this rollout since it was loaded: stop, and load it again."""


class RolloutExists(StoreError):
    """The service has a rollout that has not ended, or the id is taken."""


class UnknownRollout(StoreError):
    """No rollout has this id."""


@dataclass(frozen=True)
class RolloutRecord:
    """One rollout. `weight_pct` is the intended canary weight; `ended_at` None: it is active. Times: epoch
    s."""

    id: str
    service: str
    champion: str | None
    candidate: str
    policy_text: str
    utility_text: str
    salt: str
    state: JsonObject
    gates: JsonObject
    cursors: JsonObject
    weight_pct: float
    version: int
    created_at: float
    updated_at: float
    ended_at: float | None = None


def create(db: Database, record: RolloutRecord) -> RolloutRecord:
    """Write a new rollout as version 1. Raises RolloutExists when the service has an active one."""
    fresh = replace(record, version=1)
    try:
        with db.write(durable=True) as connection:
            connection.execute(insert(tables.rollouts).values(**_values(fresh)))
    except IntegrityError as error:
        raise RolloutExists(
            f"'rollout' of service {record.service!r} must be the only active one (or {record.id!r} is taken)"
        ) from error
    return fresh


def load(db: Database, rollout_id: str) -> RolloutRecord:
    """The rollout as last saved. Raises UnknownRollout."""
    with db.read() as connection:
        row = connection.execute(
            select(tables.rollouts).where(tables.rollouts.c.id == rollout_id)
        ).one_or_none()
    if row is None:
        raise UnknownRollout(f"'rollout' must exist: {rollout_id!r}")
    return _record(row)


def active(db: Database, service: str) -> RolloutRecord | None:
    """The service's rollout that has not ended, if there is one."""
    where = (tables.rollouts.c.service == service) & tables.rollouts.c.ended_at.is_(None)
    with db.read() as connection:
        row = connection.execute(select(tables.rollouts).where(where)).one_or_none()
    return None if row is None else _record(row)


def all_active(db: Database) -> tuple[RolloutRecord, ...]:
    """Every rollout of the store that has not ended, oldest first."""
    query = (
        select(tables.rollouts)
        .where(tables.rollouts.c.ended_at.is_(None))
        .order_by(tables.rollouts.c.created_at)
    )
    with db.read() as connection:
        return tuple(_record(row) for row in connection.execute(query))


def recent(db: Database, service: str | None = None, *, limit: int = 20) -> tuple[RolloutRecord, ...]:
    """The newest rollouts first; of one service when it is named."""
    query = select(tables.rollouts)
    if service is not None:
        query = query.where(tables.rollouts.c.service == service)
    query = query.order_by(tables.rollouts.c.created_at.desc(), tables.rollouts.c.id).limit(limit)
    with db.read() as connection:
        return tuple(_record(row) for row in connection.execute(query))


def save(
    db: Database,
    record: RolloutRecord,
    *,
    at: float,
    poll: JudgedPoll | None = None,
    taken_order: int | None = None,
) -> RolloutRecord:
    """Save state, gates, cursors, weight and end of a loaded rollout; gives it back with its new version.

    `poll`: the evidence that the gates have just taken in; `taken_order`: the order that led to this state. They
    go on record with it or not at all. Raises StaleRollout when its version is no longer the stored one, it has
    ended or the order was taken meanwhile: nothing was written.
    """
    fresh = replace(record, version=record.version + 1, updated_at=at)
    values = _values(fresh)
    changed = {
        name: values[name]
        for name in ("state", "gates", "cursors", "weight_pct", "version", "updated_at", "ended_at")
    }
    table = tables.rollouts
    where = (table.c.id == record.id) & (table.c.version == record.version) & table.c.ended_at.is_(None)
    with db.write(durable=True) as connection:
        if connection.execute(update(table).where(where).values(**changed)).rowcount != 1:
            raise StaleRollout(f"'version' of rollout {record.id!r} must be the stored one: {record.version}")
        if taken_order is not None and not take_within(connection, taken_order, at=at):
            raise StaleRollout(f"'order' of rollout {record.id!r} must not be taken yet: {taken_order}")
        if poll is not None:
            add(connection, record.id, poll)
        if fresh.ended_at is not None:
            connection.execute(
                update(tables.grants)
                .where(tables.grants.c.rollout_id == record.id)
                .values(weight_pct=0.0, updated_at=at)
            )
    return fresh


def _values(record: RolloutRecord) -> dict[str, object]:
    if not isfinite(record.weight_pct) or not 0 <= record.weight_pct <= 100:
        raise StoreError(f"'weight_pct' must be in [0, 100]: {record.weight_pct}")
    plain = dict(vars(record))
    for name in ("state", "gates", "cursors"):
        plain[name] = dump(plain[name])
    return plain


def _record(row: Row[tuple[object, ...]]) -> RolloutRecord:
    plain = dict(row._mapping)
    for name in ("state", "gates", "cursors"):
        plain[name] = load_object(plain[name])
    return RolloutRecord(**plain)
