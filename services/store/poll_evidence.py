"""The evidence of every poll that a rollout was judged by, with what it came to: what a replay starts from.

A row is written in the transaction that saves the rollout (`rollouts.save`), so that the record of what was looked at
never runs ahead of, or behind, the gates that saw it. A poll whose evidence is that of the poll before (a source that
stays silent) stores none: NULL means "the same again", so nothing is lost and idle hours cost nothing.
Must never import: policies (evidence is opaque JSON here), flows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from services.store import tables
from services.store.database import Database
from services.store.json_text import JsonObject, dump, load_object

AT = "at"
_CHUNK = 500
_TABLE = tables.poll_evidence


@dataclass(frozen=True)
class JudgedPoll:
    """One poll as it was judged. at and entered_at: epoch s; extended and held: as they were when it was judged.

    decision and reason are the gates' own, whatever a person's hold made of them. evidence: the poll's stored form.
    """

    at: float
    stage: str
    entered_at: float
    extended: bool
    held: bool
    decision: str
    reason: str
    evidence: JsonObject


def add(connection: Connection, rollout_id: str, poll: JudgedPoll) -> None:
    """Write one poll in the caller's transaction."""
    text = dump({name: value for name, value in poll.evidence.items() if name != AT})
    newest = (
        select(_TABLE.c.evidence)
        .where(_TABLE.c.rollout_id == rollout_id, _TABLE.c.evidence.is_not(None))
        .order_by(_TABLE.c.seq.desc())
        .limit(1)
    )
    is_same = connection.execute(newest).scalar_one_or_none() == text
    values = {**vars(poll), "rollout_id": rollout_id, "evidence": None if is_same else text}
    connection.execute(insert(_TABLE).values(**values))


def of_rollout(db: Database, rollout_id: str) -> Iterator[JudgedPoll]:
    """The rollout's polls, in the order in which they were judged; read as they are asked for."""
    columns = [column for column in _TABLE.c if column.name not in ("seq", "rollout_id")]
    query = select(*columns).where(_TABLE.c.rollout_id == rollout_id).order_by(_TABLE.c.seq)
    before: JsonObject = {}
    with db.read() as connection:
        for row in connection.execute(query.execution_options(yield_per=_CHUNK)).mappings():
            if row["evidence"] is not None:
                before = load_object(row["evidence"])
            yield JudgedPoll(**{**row, "evidence": {**before, AT: row[AT]}})


def size_of(db: Database, rollout_id: str) -> tuple[int, int]:
    """How many polls a rollout has on record, and how many characters their evidence takes."""
    query = select(func.count(), func.coalesce(func.sum(func.length(_TABLE.c.evidence)), 0))
    with db.read() as connection:
        polls, characters = connection.execute(query.where(_TABLE.c.rollout_id == rollout_id)).one()
    return int(polls), int(characters)
