"""Opens a Trimtab store (SQLite by default, PostgreSQL by URL), migrated to head, and hands out transactions.

SQLite runs in WAL with `synchronous=NORMAL`: a killed process loses nothing that was committed and nothing
is ever corrupted, but a power cut may take the last commits. `write(durable=True)` waits for the disk
(`FULL`): the ledger, grants and orders use it. Writers begin with BEGIN IMMEDIATE, so two of them queue (up
to `BUSY_TIMEOUT_MS`) instead of failing in the middle. Source: https://www.sqlite.org/wal.html,
https://www.sqlite.org/pragma.html#pragma_synchronous
Must never import: policies, flows, another room.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

BUSY_TIMEOUT_MS = 10_000
HEAD = "0006"  # the newest migration; a test compares it with the scripts
_MIGRATION_LOCK = 7_244_001  # PostgreSQL advisory lock numbers, ours alone
LEDGER_LOCK = 7_244_002


class StoreError(RuntimeError):
    """The store refused, is missing or is not what this program expects."""


class StoreDamaged(RuntimeError):
    """The store's file is torn. No StoreError: waiting for it, or asking again, is of no use."""


@dataclass(frozen=True)
class Database:
    """One opened store. `folder` holds what must stand beside the data (the ledger's head); None: nowhere."""

    engine: Engine
    folder: Path | None

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read transaction: one consistent snapshot, blocks nobody on SQLite."""
        with _told_plainly(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[Connection]:
        """A write transaction, committed at the end of the block, rolled back on any error.

        `durable`: the commit returns only when the disk has it.
        """
        with _told_plainly(), self.engine.connect() as plain:
            connection = plain.execution_options(trimtab_immediate=True)
            full = durable and self.is_sqlite
            if full:
                _pragma(connection, "PRAGMA synchronous=FULL")
            try:
                with connection.begin():
                    yield connection
            finally:
                if full:
                    _pragma(connection, "PRAGMA synchronous=NORMAL")

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def _told_plainly() -> Iterator[None]:
    """Locked, full or away is a StoreError, torn is StoreDamaged, so that callers need not know the driver."""
    try:
        yield
    except OperationalError as error:
        raise StoreError(f"the store does not answer: {error.orig}") from error
    except DatabaseError as error:
        if type(error) is not DatabaseError:  # its heirs are the statement's fault
            raise
        raise StoreDamaged(f"the store is damaged: ({type(error.orig).__name__}) {error.orig}") from error


def open_database(url: str, *, folder: Path | None = None) -> Database:
    """Open the store at a SQLAlchemy URL and migrate it to head (a check of 1 ms when it is there already).

    `folder` is needed for PostgreSQL only, to keep the ledger's head outside the database; for SQLite it is
    the file's own folder. Raises StoreError when the store is newer than this program or cannot be opened.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise StoreError(
                "'database url' must name a file: an in-memory store cannot be shared by processes"
            )
        file = Path(parsed.database)
        file.parent.mkdir(parents=True, exist_ok=True)
        _make_wal(file)
        engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
        _prepare_sqlite(engine)
        folder = file.parent
    else:
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        engine = create_engine(parsed, pool_pre_ping=True)
    database = Database(engine, folder)
    try:
        _migrate(database)
    except (DBAPIError, StoreDamaged) as error:
        engine.dispose()
        raise StoreError(
            f"the store at {parsed.render_as_string(hide_password=True)} does not open: {error}"
        ) from error
    return database


def _make_wal(file: Path) -> None:
    """Put a fresh SQLite file into WAL mode, which it keeps. Alone: the switch does not wait for other connections,
    it fails at once with "database is locked". Source: https://www.sqlite.org/fileformat.html, offsets 18 and 19."""

    def is_wal() -> bool:
        try:
            with file.open("rb") as opened:
                return opened.read(20)[18:] == b"\x02\x02"
        except FileNotFoundError:
            return False

    if is_wal():
        return
    with _migration_lock(file):
        if not is_wal():
            try:
                with closing(sqlite3.connect(file, timeout=BUSY_TIMEOUT_MS / 1000)) as raw:
                    raw.execute("PRAGMA journal_mode=WAL").close()
            except sqlite3.Error as error:
                raise StoreError(f"the store at {file} does not open: {error}") from error


def _migration_lock(file: Path) -> FileLock:
    return FileLock(f"{file}.migrate.lock", timeout=60)


def _prepare_sqlite(engine: Engine) -> None:
    """SQLite's own settings on each connection, and transactions begun by us, not by the driver."""

    @event.listens_for(engine, "connect")
    def on_connect(raw: Any, _record: object) -> None:
        raw.isolation_level = None
        for pragma in (
            "synchronous=NORMAL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
        ):
            raw.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("trimtab_immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _pragma(connection: Connection, statement: str) -> None:
    """Run a pragma outside any transaction, on the driver's own connection."""
    raw = connection.connection.driver_connection
    if isinstance(raw, sqlite3.Connection):
        raw.execute(statement).close()


def _version(database: Database) -> str | None:
    with database.read() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return None if found is None else str(found)


def _migrate(database: Database) -> None:
    """Bring the schema to HEAD; one process at a time, the others wait and then find it done."""
    if _version(database) == HEAD:
        return
    if database.is_sqlite:
        file = Path(str(database.engine.url.database))
        with _migration_lock(file):
            if _version(database) != HEAD:
                with database.write() as connection:
                    _upgrade(connection)
            with suppress(OSError):
                file.chmod(0o600)
        return
    with database.write() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(f"the store cannot be migrated to {HEAD}: {error}") from error
