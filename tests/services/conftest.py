"""What several rooms' tests share.

A fresh store per test: a SQLite file, or a PostgreSQL database when TRIMTAB_TEST_DATABASE_URL names a server. And the
parts of a release from made-up weights and rows: the real contract and utility spec, nothing trained.
"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from policies.utility.utility import load_utility
from services.data.contract import DataContract, load_contract
from services.store.database import Database, open_database
from services.store.rollouts import RolloutRecord
from services.training.calibration import Calibration
from services.training.forward import Architecture, Weights
from services.training.preprocessing import Preprocessing

POLICIES = Path(__file__).resolve().parents[2] / "policies" / "telemarketing"


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


@dataclass(frozen=True)
class Parts:
    """What write_release reads of a trained candidate."""

    weights: Weights
    architecture: Architecture
    preprocessing: Preprocessing
    calibration: Calibration
    outcomes: tuple[str, ...]


def made_up_rows(contract: DataContract, *, rows: int, seed: int) -> list[dict[str, Any]]:
    """Rows of the contract's features, uniform over what it allows; numbers without bounds within ±1000."""
    random = np.random.default_rng(seed)
    made: list[dict[str, Any]] = [{} for _ in range(rows)]
    for column in contract.columns:
        if column.role != "feature":
            continue
        low = -1000.0 if column.minimum is None else column.minimum
        high = low + 2000.0 if column.maximum is None else column.maximum
        for row in made:
            if column.kind == "category":
                assert column.categories is not None
                row[column.name] = str(random.choice(column.categories))
            else:
                value = random.uniform(low, high)
                row[column.name] = int(value) if column.kind == "integer" else round(value, 2)
    return made


@pytest.fixture(scope="session")
def policy_texts() -> dict[str, str]:
    texts = {name: (POLICIES / name).read_text() for name in ("contract.yaml", "utility.yaml")}
    return {**texts, "rollout.yaml": "service: telemarketing\n"}


@pytest.fixture(scope="session")
def contract(policy_texts: dict[str, str]) -> DataContract:
    return load_contract(policy_texts["contract.yaml"], "contract.yaml")


@pytest.fixture(scope="session")
def rows(contract: DataContract) -> list[dict[str, Any]]:
    return made_up_rows(contract, rows=1000, seed=1)


@pytest.fixture(scope="session")
def parts(contract: DataContract, rows: list[dict[str, Any]], policy_texts: dict[str, str]) -> Parts:
    columns = {name: np.array([row[name] for row in rows]) for name in contract.feature_names}
    preprocessing = Preprocessing.fit(columns, contract)
    architecture = Architecture(
        numeric=preprocessing.numeric_width,
        cardinalities=preprocessing.cardinalities,
        embeddings=(4,) * len(preprocessing.cardinalities),
        hidden=(32, 16),
        outcomes=2,
    )
    random = np.random.default_rng(2)
    weights = {
        name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in architecture.shapes().items()
    }
    outcomes = load_utility(policy_texts["utility.yaml"], "utility.yaml").outcomes
    return Parts(weights, architecture, preprocessing, Calibration(0.9, (0.0, -1.0)), outcomes)
