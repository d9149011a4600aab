"""What several rooms' tests share: a fresh store per test, and a rollout.

The store is a SQLite file, or a PostgreSQL database when TRIMTAB_TEST_DATABASE_URL names a server.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from services.store.database import Database, open_database
from services.store.rollouts import RolloutRecord


@pytest.fixture
def store_url(tmp_path: Path) -> Iterator[str]:
    """The URL of an empty store."""
    server = os.environ.get("TRIMTAB_TEST_DATABASE_URL")
    if not server:
        yield f"sqlite:///{tmp_path / 'trimtab.db'}"
        return
    name = f"trimtab_{uuid.uuid4().hex[:12]}"
    admin = create_engine(make_url(server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(server).set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def db(store_url: str, tmp_path: Path) -> Iterator[Database]:
    """An opened, migrated, empty store."""
    database = open_database(store_url, folder=tmp_path)
    yield database
    database.close()


@pytest.fixture
def draft() -> RolloutRecord:
    """A rollout that nobody has created yet."""
    return RolloutRecord(
        id="r1",
        service="telemarketing",
        champion="telemarketing-aaaaaaaaaaaa",
        candidate="telemarketing-bbbbbbbbbbbb",
        policy_text="stages: []",
        utility_text="actions: []",
        salt="s1",
        state={"phase": "shadow", "stage": "shadow"},
        gates={"log_e": {"errors": 0.25}},
        cursors={},
        weight_pct=0.0,
        version=0,
        created_at=1000.0,
        updated_at=1000.0,
    )
