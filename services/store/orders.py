"""Orders from people to a rollout (promote, hold, resume, abort, kill): given once, taken once by the
deciding loop.

Must never import: policies, flows.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from services.store import tables
from services.store.database import Database, StoreError

VERBS = ("promote", "hold", "resume", "abort", "kill")


class OrderRefused(StoreError):
    """The order names no verb that exists, or no rollout that exists."""


@dataclass(frozen=True)
class Order:
    """One person's order; `taken_at` None: open. Times: epoch s."""

    id: int
    rollout_id: str
    verb: str
    by: str
    reason: str
    at: float
    taken_at: float | None = None


def give(db: Database, *, rollout_id: str, verb: str, by: str, reason: str, at: float) -> Order:
    """Put an order on record. Raises OrderRefused."""
    if verb not in VERBS:
        raise OrderRefused(f"'verb' must be one of {', '.join(VERBS)}: {verb!r}")
    values = {"rollout_id": rollout_id, "verb": verb, "by": by, "reason": reason, "at": at}
    try:
        with db.write(durable=True) as connection:
            key = connection.execute(insert(tables.orders).values(**values)).inserted_primary_key
    except IntegrityError as error:
        raise OrderRefused(f"'rollout_id' must exist: {rollout_id!r}") from error
    if key is None:
        raise OrderRefused("the store gave the order no number")
    return Order(int(key[0]), rollout_id, verb, by, reason, at)


def open_orders(db: Database, rollout_id: str) -> tuple[Order, ...]:
    """The rollout's orders that nobody has taken, oldest first."""
    table = tables.orders
    query = (
        select(table).where(table.c.rollout_id == rollout_id, table.c.taken_at.is_(None)).order_by(table.c.id)
    )
    with db.read() as connection:
        return tuple(_order(row) for row in connection.execute(query))


def of_rollout(db: Database, rollout_id: str) -> tuple[Order, ...]:
    """All orders that the rollout was ever given, oldest first."""
    table = tables.orders
    query = select(table).where(table.c.rollout_id == rollout_id).order_by(table.c.id)
    with db.read() as connection:
        return tuple(_order(row) for row in connection.execute(query))


def take(db: Database, order_id: int, *, at: float) -> bool:
    """Mark an order as taken; False when it was taken already (by another controller) or does not exist."""
    with db.write(durable=True) as connection:
        return take_within(connection, order_id, at=at)


def take_within(connection: Connection, order_id: int, *, at: float) -> bool:
    """`take` as part of a transaction of the caller's: with what the order leads to, or not at all."""
    table = tables.orders
    where = (table.c.id == order_id) & table.c.taken_at.is_(None)
    return connection.execute(update(table).where(where).values(taken_at=at)).rowcount == 1


def _order(row: Row[tuple[object, ...]]) -> Order:
    return Order(**dict(row._mapping))
