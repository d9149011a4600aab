"""The ledger: an append-only, hash-chained record of verdicts, approvals, orders, and of traffic meant and
seen.

hash = sha256(previous hash + RFC 8785 canonical JSON of {seq, at, kind, service, rollout_id, body}).
Triggers in the database refuse changes; whoever gets around them breaks the chain, and `verify` says where.
A chain alone does not show that its tail was cut off: after each append the count and hash of the last entry
are also written to `ledger.head` beside the database, and `verify` compares. What this does not show: a
forger who rewrites both the whole chain and the head. Whoever needs that keeps a head elsewhere and hands it
to `verify(expected=…)`.
Source: RFC 8785 (JSON canonicalization). Must never import: sqlalchemy, policies, flows.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, cast

import rfc8785
from filelock import FileLock

from services.store import ledger_rows
from services.store.database import Database, StoreError
from services.store.ledger_rows import LedgerRow

GENESIS = "0" * 64
HEAD_FILE = "ledger.head"
_PAGE = 1_000


class LedgerError(ValueError):
    """An entry that cannot be written (no JSON, or NaN, or an integer beyond 2**53), or one that cannot be read."""


@dataclass(frozen=True)
class LedgerEntry:
    """One entry. `seq` counts from 1 without gaps; `at` epoch s."""

    seq: int
    at: float
    kind: str
    service: str
    rollout_id: str | None
    body: dict[str, object]
    prev_hash: str
    hash: str


@dataclass(frozen=True)
class LedgerHead:
    """The last entry at some time: how many entries there were and the hash of the last."""

    entries: int
    hash: str


@dataclass(frozen=True)
class LedgerCheck:
    """The result of a verification; `first_bad` is the `seq` of the first entry that is wrong or gone."""

    ok: bool
    entries: int
    first_bad: int | None
    why: str
    head: LedgerHead


def append(
    db: Database,
    kind: str,
    body: Mapping[str, object],
    *,
    service: str,
    rollout_id: str | None,
    at: float,
) -> LedgerEntry:
    """Append one entry, on disk when this returns; appenders of all processes queue.

    Raises LedgerError, and StoreError where the store or the head's file cannot be written; in the second case the
    entry stands, and the next one moves the head past it.
    """
    try:
        canonical = _canonical(_plain(body)).decode()
    except (rfc8785.CanonicalizationError, TypeError, UnicodeError) as error:
        raise LedgerError(f"'body' of a {kind!r} entry must be JSON: {error}") from error

    def make(last: LedgerRow | None) -> LedgerRow:
        seq = 1 if last is None else last.seq + 1
        previous = GENESIS if last is None else last.hash
        row = LedgerRow(seq, float(at), kind, service, rollout_id, canonical, previous, "")
        return LedgerRow(**{**vars(row), "hash": _hash(row, json.loads(canonical))})

    row = ledger_rows.append_row(db, make)
    _write_head(db, LedgerHead(row.seq, row.hash))
    return _entry(row)


def entries(
    db: Database, rollout_id: str | None = None, kind: str | None = None, *, after: int = 0
) -> tuple[LedgerEntry, ...]:
    """The entries in order; of one rollout, of one kind, after a `seq`, where asked. Raises LedgerError."""
    return tuple(_entry(row) for row in _rows(db, after=after, rollout_id=rollout_id, kind=kind))


def latest(db: Database, rollout_id: str, kind: str) -> LedgerEntry | None:
    """The last entry of a kind in a rollout; None if there is none. Raises LedgerError."""
    row = ledger_rows.latest(db, rollout_id=rollout_id, kind=kind)
    return None if row is None else _entry(row)


def verify(db: Database, *, expected: LedgerHead | None = None) -> LedgerCheck:
    """Recompute the whole chain and compare it with the head file and with `expected` (a head kept
    elsewhere).

    A database that is ahead of a head is fine; one that is behind, or differs at that entry, is not.
    """
    try:
        wanted = [("the expected head", expected), (HEAD_FILE, read_head(db))]
    except LedgerError as error:
        return LedgerCheck(False, 0, None, str(error), LedgerHead(0, GENESIS))
    heads = [(name, head) for name, head in wanted if head is not None]
    head = LedgerHead(0, GENESIS)
    for row in _rows(db):
        why = _fault(row, head)
        for name, mark in heads:
            if not why and mark.entries == row.seq and mark.hash != row.hash:
                why = f"its hash is not the one of {name}"
        if why:
            return LedgerCheck(False, head.entries, head.entries + 1, why, head)
        head = LedgerHead(row.seq, row.hash)
    for name, mark in heads:
        if mark.entries > head.entries:
            why = f"entries {head.entries + 1} to {mark.entries} are gone: {name} has seen them"
            return LedgerCheck(False, head.entries, head.entries + 1, why, head)
    return LedgerCheck(True, head.entries, None, "", head)


def read_head(db: Database) -> LedgerHead | None:
    """The head kept beside the database; None where none was written. Raises LedgerError if it is
    unreadable."""
    if db.folder is None:
        return None
    file = db.folder / HEAD_FILE
    try:
        found = json.loads(file.read_text())
        return LedgerHead(int(found["entries"]), str(found["hash"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{file} is not a ledger head: {error}") from error


def _write_head(db: Database, head: LedgerHead) -> None:
    """Move the head forward, never back: two appenders may come here in the other order."""
    if db.folder is None:
        return
    file = db.folder / HEAD_FILE
    try:
        with FileLock(f"{file}.lock", timeout=30):
            current = read_head(db)
            if current is not None and current.entries >= head.entries:
                return
            fresh = Path(f"{file}.new")
            with fresh.open("w") as stream:
                stream.write(json.dumps(vars(head)) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            fresh.replace(file)
    except OSError as error:
        # A full disk: whoever waits for a store that does not answer waits for this, too.
        raise StoreError(f"the store does not answer: {file} cannot be written: {error}") from error


def _rows(
    db: Database, *, after: int = 0, rollout_id: str | None = None, kind: str | None = None
) -> Iterator[LedgerRow]:
    while page := ledger_rows.rows_after(db, after, limit=_PAGE, rollout_id=rollout_id, kind=kind):
        yield from page
        after = page[-1].seq


def _fault(row: LedgerRow, head: LedgerHead) -> str:
    """What is wrong with a row that should follow `head`; empty when nothing is."""
    if row.seq != head.entries + 1:
        return f"entry {head.entries + 1} is gone"
    if row.prev_hash != head.hash:
        return "its prev_hash is not the hash of the entry before"
    try:
        body = json.loads(row.body)
        if _canonical(body).decode() != row.body:
            return "its body is not the canonical text that was written"
        computed = _hash(row, body)
    except (ValueError, TypeError, RecursionError, rfc8785.CanonicalizationError) as error:
        return f"it cannot be read: {error}"
    return "" if computed == row.hash else "its hash is not the hash of its content"


def _hash(row: LedgerRow, body: object) -> str:
    content = {
        "seq": row.seq,
        "at": row.at,
        "kind": row.kind,
        "service": row.service,
        "rollout_id": row.rollout_id,
        "body": body,
    }
    canonical = _canonical(content)
    return hashlib.sha256(row.prev_hash.encode() + canonical).hexdigest()


def _canonical(value: object) -> bytes:
    return rfc8785.dumps(cast(Any, value))


def _plain(value: object) -> object:
    """Mappings and sequences as dict and list, which is what RFC 8785's implementation takes."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _entry(row: LedgerRow) -> LedgerEntry:
    """Raises LedgerError for a row that no `append` wrote."""
    try:
        body = json.loads(row.body)
    except (ValueError, TypeError, RecursionError) as error:
        raise LedgerError(_unreadable(row)) from error
    if not isinstance(body, dict) or not isinstance(row.at, float) or not isfinite(row.at):
        raise LedgerError(_unreadable(row))
    return LedgerEntry(**{**vars(row), "body": body})


def _unreadable(row: LedgerRow) -> str:
    return (
        f"entry {row.seq} of the ledger is no entry: somebody changed it; `trimtab ledger verify` says more"
    )
