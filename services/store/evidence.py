"""Queries for live evidence: each unit's first delivered decision since a rollout began, and what came of it.

A decision is delivered if no later attempt of its request was decided. "First" is by decision time, rows of
one batch in their order. Decisions without a unit or an assignment are never evidence. All reads are bounded
(`limit`) and walk an index, so a poll costs what is new, not what is stored.
Source: gates.md, semantics 8 and 9. Must never import: policies, flows.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, FromClause, and_, exists, func, or_, select

from services.store import tables
from services.store.database import Database

_ASSIGNED = ("stable", "canary")


@dataclass(frozen=True)
class DecidedUnit:
    """A unit's first decision. `row` is JSON text; `outcome` None: none recorded; `gated` JSON text of what was
    switched off, None for nothing."""

    decision_id: str
    at: float
    assigned: str
    release: str
    action: str
    row: str
    outcome: str | None
    gated: str | None = None


@dataclass(frozen=True)
class RequestedUnit:
    """A unit's first request, as the user felt it."""

    seq: int
    assigned: str
    duration_ms: float
    status: int


@dataclass(frozen=True)
class ShadowPair:
    """The same request decided by the release that answered and by the candidate in the shadow."""

    at: float
    action: str
    shadow_action: str
    took_ms: float
    shadow_took_ms: float
    row: str


Timed = TypeVar("Timed", DecidedUnit, ShadowPair)


@dataclass(frozen=True)
class Window(Generic[Timed]):
    """Rows in time order, and the time up to which they are all: go on from there."""

    rows: tuple[Timed, ...]
    through: float


def first_decisions(
    db: Database, *, since: float, settled_at: float, after: float, through: float, limit: int
) -> Window[DecidedUnit]:
    """Units whose first decision since `since` falls in (after, through] and not before `settled_at`, in
    time order.

    At most `limit`; decisions of one instant are not torn apart (unless one instant alone exceeds the limit).
    """
    d, o = tables.decisions.alias("d"), tables.outcomes.alias("o")
    query = (
        select(*_unit_columns(d, o))
        .select_from(d.outerjoin(o, o.c.decision_id == d.c.decision_id))
        .where(_is_first_of_unit(d, since=since), d.c.at >= settled_at, d.c.at > after, d.c.at <= through)
        .order_by(d.c.at, d.c.seq)
        .limit(limit)
    )
    with db.read() as connection:
        found = tuple(DecidedUnit(*row) for row in connection.execute(query))
    return _window(found, through=through, limit=limit)


def delivered_decisions(db: Database, *, since: float, through: float, limit: int) -> tuple[DecidedUnit, ...]:
    """Every delivered decision taken in [since, through], repeated units included; the newest `limit` in time order."""
    d, o = tables.decisions.alias("d"), tables.outcomes.alias("o")
    query = (
        select(*_unit_columns(d, o))
        .select_from(d.outerjoin(o, o.c.decision_id == d.c.decision_id))
        .where(d.c.shadow.is_(False), d.c.at >= since, d.c.at <= through, _is_delivered(d, "retried"))
        .order_by(d.c.at.desc(), d.c.seq.desc())
        .limit(limit)
    )
    with db.read() as connection:
        return tuple(DecidedUnit(*row) for row in connection.execute(query))[::-1]


def shadow_pairs(
    db: Database, *, since: float, settled_at: float, after: float, through: float, limit: int, candidate: str
) -> Window[ShadowPair]:
    """As `first_decisions`, for units whose request the candidate also decided in the shadow."""
    d, s, other = (tables.decisions.alias(name) for name in ("d", "s", "other"))
    earlier = and_(
        other.c.request_id == s.c.request_id,
        other.c.shadow.is_(True),
        or_(other.c.attempt > s.c.attempt, and_(other.c.attempt == s.c.attempt, other.c.seq < s.c.seq)),
    )
    query = (
        select(d.c.at, d.c.action, s.c.action, d.c.took_ms, s.c.took_ms, d.c.row)
        .select_from(d.join(s, and_(s.c.request_id == d.c.request_id, s.c.shadow.is_(True))))
        .where(_is_first_of_unit(d, since=since), d.c.at >= settled_at, d.c.at > after, d.c.at <= through)
        .where(s.c.release == candidate, ~exists().where(earlier))
        .order_by(d.c.at, d.c.seq)
        .limit(limit)
    )
    with db.read() as connection:
        found = tuple(ShadowPair(*row) for row in connection.execute(query))
    return _window(found, through=through, limit=limit)


def first_requests(
    db: Database, *, since: float, settled_at: float, after_seq: int, limit: int
) -> tuple[tuple[RequestedUnit, ...], int]:
    """Units whose first request since `since` was shipped after `after_seq` and began at or after
    `settled_at`.

    Read in the order of shipping, so a slow request that is logged late is not lost. Also the `seq` to go on
    from.
    """
    r, earlier = tables.requests.alias("r"), tables.requests.alias("earlier")
    is_later = and_(earlier.c.unit == r.c.unit, earlier.c.at >= since, earlier.c.seq < r.c.seq)
    with db.read() as connection:
        newest = connection.execute(select(func.max(tables.requests.c.seq))).scalar_one()
        through = min(after_seq + limit, int(newest or 0))
        query = (
            select(r.c.seq, r.c.assigned, r.c.duration_ms, r.c.status)
            .where(r.c.seq > after_seq, r.c.seq <= through, r.c.at >= settled_at)
            .where(r.c.unit.is_not(None), r.c.assigned.in_(_ASSIGNED), ~exists().where(is_later))
            .order_by(r.c.seq)
        )
        found = tuple(RequestedUnit(*row) for row in connection.execute(query))
    return found, max(after_seq, through)


def _unit_columns(d: FromClause, o: FromClause) -> tuple[ColumnElement[Any], ...]:
    """The columns of a DecidedUnit, in its order."""
    names = ("decision_id", "at", "assigned", "release", "action", "row")
    return (*(d.c[name] for name in names), o.c.outcome, d.c.gated)


def _is_first_of_unit(d: FromClause, *, since: float) -> ColumnElement[bool]:
    earlier = tables.decisions.alias("earlier")
    is_earlier = and_(
        earlier.c.unit == d.c.unit,
        earlier.c.shadow.is_(False),
        earlier.c.at >= since,
        earlier.c.at <= d.c.at,
        or_(earlier.c.at < d.c.at, earlier.c.seq < d.c.seq),
        _is_delivered(earlier, "retried_earlier"),
    )
    return and_(
        d.c.shadow.is_(False),
        d.c.unit.is_not(None),
        d.c.assigned.in_(_ASSIGNED),
        _is_delivered(d, "retried"),
        ~exists().where(is_earlier),
    )


def _is_delivered(d: FromClause, name: str) -> ColumnElement[bool]:
    retried = tables.decisions.alias(name)
    return ~exists().where(
        retried.c.request_id == d.c.request_id,
        retried.c.shadow.is_(False),
        retried.c.attempt > d.c.attempt,
    )


def _window(found: tuple[Timed, ...], *, through: float, limit: int) -> Window[Timed]:
    """All of it, or, where the limit may have cut through one instant's decisions, what came before that."""
    if len(found) < limit:
        return Window(found, through)
    whole = tuple(one for one in found if one.at < found[-1].at) or found
    return Window(whole, whole[-1].at)
