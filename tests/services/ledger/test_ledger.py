"""The ledger: append-only, chained, and any byte changed, row lost or tail cut is found and named."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.ledger.ledger import (
    GENESIS,
    LedgerError,
    LedgerHead,
    append,
    entries,
    latest,
    read_head,
    verify,
)
from services.store.database import Database, StoreError

on_sqlite = pytest.mark.skipif("TRIMTAB_TEST_DATABASE_URL" in os.environ, reason="opens the file")


def fill(db: Database, count: int = 5) -> None:
    for index in range(count):
        body = {"gate": "errors", "value": 0.1 * index, "intervals": (0.0, 1.5), "note": "Überschuss €"}
        rollout = None if index == 0 else "r1"
        append(
            db,
            "verdict" if index % 2 else "intent",
            body,
            service="telemarketing",
            rollout_id=rollout,
            at=10.5 + index,
        )


def tamper(db: Database, statement: str, *values: object) -> None:
    """Change the file as somebody would who has dropped the triggers."""
    raw = sqlite3.connect(str(db.engine.url.database))
    for name in ("ledger_no_update", "ledger_no_delete", "ledger_no_replace"):
        raw.execute(f"DROP TRIGGER IF EXISTS {name}")
    assert raw.execute(statement, values).rowcount >= 1
    raw.commit()
    raw.close()


def test_entries_are_chained_and_verified(db: Database) -> None:
    """Entries come back in order, each with the hash of the one before; the check and the head agree."""
    assert verify(db).ok
    fill(db)
    found = entries(db)
    assert [entry.seq for entry in found] == [1, 2, 3, 4, 5]
    assert [entry.prev_hash for entry in found] == [GENESIS, *(entry.hash for entry in found[:-1])]
    assert found[1].body == {"gate": "errors", "value": 0.1, "intervals": [0.0, 1.5], "note": "Überschuss €"}
    check = verify(db)
    assert (check.ok, check.entries, check.first_bad) == (True, 5, None)
    assert read_head(db) == check.head == LedgerHead(5, found[-1].hash)
    assert [entry.seq for entry in entries(db, rollout_id="r1", kind="intent")] == [3, 5]
    last = latest(db, "r1", "verdict")
    assert last is not None
    assert last.seq == 4


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET body = '{}' WHERE seq = 2",
        "DELETE FROM ledger WHERE seq = 5",
        "UPDATE ledger SET at = at + 1",
    ],
)
def test_database_refuses_changes(db: Database, statement: str) -> None:
    """UPDATE and DELETE fail in the database itself, and so does replacing a row."""
    fill(db)
    with pytest.raises(DBAPIError, match="append-only"), db.write() as connection:
        connection.execute(text(statement))
    if db.is_sqlite:
        columns = "service, rollout_id, body, prev_hash, hash"
        replacing = f"INSERT OR REPLACE INTO ledger SELECT seq, at, 'x', {columns} FROM ledger"  # noqa: S608
        with pytest.raises(DBAPIError, match="append-only"), db.write() as connection:
            connection.execute(text(replacing))
    else:
        with pytest.raises(DBAPIError, match="append-only"), db.write() as connection:
            connection.execute(text("TRUNCATE ledger"))
    assert verify(db).ok


@on_sqlite
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", 12.500001),
        ("kind", "Verdict"),
        ("service", "telemarketinG"),
        ("rollout_id", "r2"),
        ("rollout_id", None),
        ("body", '{"gate":"errors","intervals":[0,1.5],"note":"Überschuss €","value":0.20000000000000002}'),
        ("body", '{"gate":"errors", "intervals":[0,1.5],"note":"Überschuss €","value":0.2}'),
        ("body", '{"gate":"errors"'),
        ("prev_hash", "0" * 64),
        ("hash", "f" * 64),
        ("seq", 9),
    ],
)
def test_one_changed_value_is_found(db: Database, column: str, value: object) -> None:
    """A change in any column of entry 3, even a space in its body, is found there."""
    fill(db)
    tamper(db, f"UPDATE ledger SET {column} = ? WHERE seq = 3", value)  # noqa: S608
    check = verify(db)
    assert (check.ok, check.first_bad, check.entries) == (False, 3, 2)
    assert check.why


@on_sqlite
def test_every_byte_of_an_entry_counts(db: Database) -> None:
    """Each single byte of a body, changed alone, is found."""
    append(db, "intent", {"weight_pct": 5, "ok": True}, service="t", rollout_id=None, at=1.0)
    raw = sqlite3.connect(str(db.engine.url.database))
    (body,) = raw.execute("SELECT body FROM ledger").fetchone()
    raw.close()
    for index in range(len(body)):
        changed = body[:index] + chr(ord(body[index]) ^ 1) + body[index + 1 :]
        tamper(db, "UPDATE ledger SET body = ?", changed)
        assert not verify(db).ok, changed
    tamper(db, "UPDATE ledger SET body = ?", body)
    assert verify(db).ok


@on_sqlite
def test_cut_tail_is_reported(db: Database) -> None:
    """A chain whose tail was removed is whole in itself; the head beside the database tells, and so does one
    given."""
    fill(db)
    kept_elsewhere = read_head(db)
    tamper(db, "DELETE FROM ledger WHERE seq > 3")
    check = verify(db)
    assert (check.ok, check.entries, check.first_bad) == (False, 3, 4)
    assert check.why == "entries 4 to 5 are gone: ledger.head has seen them"
    assert db.folder is not None
    (db.folder / "ledger.head").unlink()
    assert verify(db).ok
    assert (
        verify(db, expected=kept_elsewhere).why == "entries 4 to 5 are gone: the expected head has seen them"
    )


def test_wrong_head_is_reported(db: Database) -> None:
    """A head that names another hash, or is no head, fails the check; a head behind the database does not."""
    fill(db)
    assert db.folder is not None
    file = db.folder / "ledger.head"
    file.write_text('{"entries": 3, "hash": "' + entries(db)[2].hash + '"}')
    assert verify(db).ok
    file.write_text('{"entries": 3, "hash": "' + "a" * 64 + '"}')
    assert (verify(db).ok, verify(db).first_bad) == (False, 3)
    file.write_text("garbage")
    assert "is not a ledger head" in verify(db).why


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60, object()])
def test_body_must_be_json(db: Database, value: object) -> None:
    """NaN, infinities, integers beyond 2**53 and objects are refused, and nothing is appended."""
    with pytest.raises(LedgerError, match="'body' of a 'verdict' entry must be JSON"):
        append(db, "verdict", {"value": value}, service="t", rollout_id=None, at=1.0)
    assert entries(db) == ()


def test_concurrent_appenders_queue(db: Database, store_url: str, tmp_path: Path) -> None:
    """Four processes append 25 entries each at once: 100 entries, one chain, the head at its end."""
    program = (
        "import sys; from pathlib import Path; from services.store.database import open_database;"
        "from services.ledger.ledger import append; db = open_database(sys.argv[1], folder=Path(sys.argv[2]))\n"
        "for i in range(25): append(db, 'intent', {'i': i}, service='t', rollout_id=None, at=float(i))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, store_url, str(tmp_path)], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    check = verify(db)
    assert (check.ok, check.entries) == (True, 100)
    assert read_head(db) == check.head


@on_sqlite
@pytest.mark.parametrize(
    ("column", "value"),
    [("body", "[" * 100_000), ("body", "torn"), ("body", "[]"), ("at", "abc"), ("at", 9e999)],
)
def test_an_entry_that_is_none_is_told(db: Database, column: str, value: object) -> None:
    """What nobody can read is named by the check, and is an error in words for whoever reads the ledger."""
    fill(db)
    tamper(db, f"UPDATE ledger SET {column} = ? WHERE seq = 3", value)  # noqa: S608
    check = verify(db)
    assert (check.ok, check.first_bad) == (False, 3)
    with pytest.raises(LedgerError, match=r"entry 3 .*ledger verify"):
        entries(db)


def test_a_head_that_cannot_be_written_is_a_store_that_does_not_answer(db: Database) -> None:
    """The disk refuses the head's file: a StoreError, as of the database itself; later on the ledger is whole."""
    assert db.folder is not None
    in_its_way = db.folder / "ledger.head.new"
    fill(db, 2)
    in_its_way.mkdir()
    with pytest.raises(StoreError, match=r"does not answer: .*ledger\.head cannot be written"):
        fill(db, 1)
    in_its_way.rmdir()
    fill(db, 1)
    assert verify(db).ok
    assert read_head(db) == verify(db).head
