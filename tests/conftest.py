"""What tests of all rooms share: blocks of ports that nobody else will take, and the parts of a release.

The release is of made-up weights and rows, under the real contract and utility spec; nothing is trained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest

from policies.utility.utility import load_utility
from services.data.contract import DataContract, load_contract
from services.training.calibration import Calibration
from services.training.forward import Architecture, Weights
from services.training.preprocessing import Preprocessing

POLICIES = Path(__file__).resolve().parents[1] / "policies" / "telemarketing"


@pytest.fixture(scope="session")
def free_base() -> Callable[[int], int]:
    """`free_base(count)`: the first of `count` consecutive loopback ports that are free now."""
    return programs.free_base


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
