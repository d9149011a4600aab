"""A small release from made-up weights and rows: the real contract and utility spec, nothing trained."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.operating_point import OperatingPoint
from policies.utility import load_utility
from services.data.contract import DataContract, load_contract
from services.serving.decider import Decider, Stamps
from services.serving.decision_log import DecisionLog
from services.serving.fault import Fault
from services.serving.release import Release, write_release
from services.training.calibration import Calibration
from services.training.forward import Architecture, Weights
from services.training.preprocessing import Preprocessing

POLICIES = Path(__file__).resolve().parents[3] / "policies" / "telemarketing"


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


@pytest.fixture(scope="session")
def write(parts: Parts, policy_texts: dict[str, str]) -> Callable[[Path], Release]:
    """Writes the release into a folder of releases."""

    def write_into(folder: Path) -> Release:
        return write_release(
            folder,
            service="telemarketing",
            candidate=parts,
            operating_point=OperatingPoint(shift=(0.0, 0.0)),
            policies=policy_texts,
            provenance={"snapshot_digest": "sha256:00", "code_version": "test", "seed": 2},
            created_at=1_700_000_000.0,
        )

    return write_into


@pytest.fixture(scope="session")
def release(write: Callable[[Path], Release], tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write(tmp_path_factory.mktemp("releases"))


@pytest.fixture
def stamps() -> Stamps:
    """A clock that stands at 1,000 s, a timer that ticks 1 ms a look, ids that count."""
    ids, ticks = count(1), count()
    return Stamps(clock=lambda: 1000.0, timer_ms=lambda: float(next(ticks)), new_id=lambda: f"id-{next(ids)}")


@pytest.fixture
def decision_log(tmp_path: Path, release: Release) -> DecisionLog:
    return DecisionLog(tmp_path / "logs", release.id, pid=7)


@pytest.fixture
def make_decider(release: Release, decision_log: DecisionLog, stamps: Stamps) -> Callable[..., Decider]:
    def make(fault: Fault | None = None) -> Decider:
        decider = Decider(release, log=decision_log, stamps=stamps, fault=fault)
        decider.warm_up()
        return decider

    return make
