"""Opening a store: migrated once by whoever comes first, the same schema as the tables say, crash-safe
settings."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from services.store import database, rollouts, tables
from services.store.database import Database, StoreDamaged, StoreError, open_database

on_sqlite = pytest.mark.skipif("TRIMTAB_TEST_DATABASE_URL" in os.environ, reason="SQLite's own promise")


def test_migrations_add_up_to_the_tables(db: Database) -> None:
    """After migration the schema is what tables.py says, and the head named in code is the newest script."""
    with db.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    folder = Path(database.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_current_head() == database.HEAD


def test_opening_is_fast(store_url: str, tmp_path: Path) -> None:
    """A fresh store is there within a second, an existing one within a tenth."""
    began = time.perf_counter()
    open_database(store_url, folder=tmp_path).close()
    fresh = time.perf_counter() - began
    began = time.perf_counter()
    open_database(store_url, folder=tmp_path).close()
    assert fresh < 1.0 * 3  # shared cores
    assert time.perf_counter() - began < 0.1 * 3


def test_processes_that_open_at_once_migrate_once(store_url: str, tmp_path: Path) -> None:
    """Four processes open one fresh store together; all find it migrated."""
    program = "import sys; from pathlib import Path; from services.store.database import open_database as o;"
    program += "o(sys.argv[1], folder=Path(sys.argv[2])).close()"
    started = [
        subprocess.Popen([sys.executable, "-c", program, store_url, str(tmp_path)], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    again = open_database(store_url, folder=tmp_path)
    assert rollouts.recent(again) == ()
    again.close()


def test_newer_store_is_refused(store_url: str, tmp_path: Path) -> None:
    """A store that a later version has migrated is not touched by this one."""
    db = open_database(store_url, folder=tmp_path)
    with db.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from_the_future'"))
    db.close()
    with pytest.raises(StoreError, match=f"cannot be migrated to {database.HEAD}"):
        open_database(store_url, folder=tmp_path)


@on_sqlite
def test_sqlite_settings(db: Database) -> None:
    """WAL, NORMAL, foreign keys, a busy timeout; FULL only inside a durable write; the file is the owner's
    only."""
    with db.read() as connection:
        found = [
            connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert found == ["wal", 1, 1, database.BUSY_TIMEOUT_MS]
    with db.write(durable=True) as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
    with db.write() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 1
    assert Path(str(db.engine.url.database)).stat().st_mode & 0o077 == 0


@on_sqlite
def test_memory_store_is_refused() -> None:
    """A store that no second process could see is refused by name."""
    with pytest.raises(StoreError, match="'database url' must name a file"):
        open_database("sqlite://")


def test_failed_write_leaves_nothing(db: Database) -> None:
    """An error inside a write transaction rolls all of it back."""

    def fail() -> None:
        with db.write() as connection:
            connection.execute(tables.marks.insert().values(name="m", value=1.0, updated_at=1.0))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    with db.read() as connection:
        assert connection.execute(tables.marks.select()).all() == []


@on_sqlite
def test_a_torn_page_is_told(db: Database) -> None:
    """A page that somebody overwrote is an error in words of the store's own, and no reason to wait for it."""
    with db.read() as connection:
        page = connection.execute(
            text("SELECT rootpage FROM sqlite_master WHERE name = 'marks'")
        ).scalar_one()
        size = connection.execute(text("PRAGMA page_size")).scalar_one()
    file = Path(str(db.engine.url.database))
    db.close()  # the last connection: all of it is in the file
    with file.open("r+b") as opened:
        opened.seek((page - 1) * size)
        opened.write(b"\xaa" * size)
    with pytest.raises(StoreDamaged, match="malformed"), db.read() as connection:
        connection.execute(tables.marks.select()).all()
    assert not issubclass(StoreDamaged, StoreError)
