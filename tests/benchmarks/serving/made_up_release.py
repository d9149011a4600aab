"""A release of the telemarketing service from made-up rows and weights: real policies, a 64-32 network, no training.

Speed does not depend on what the weights are; so the benchmark needs no data and no torch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from policies.operating.operating_point import OperatingPoint
from services.data.contract import DataContract, load_contract
from services.home import Home
from services.serving.release import POLICY_FILES, Release, write_release
from services.signing.release_signature import sign_in_home
from services.training.calibration import Calibration
from services.training.forward import Architecture
from services.training.preprocessing import Preprocessing
from tests.conftest import POLICIES, Parts, made_up_rows

HIDDEN = (64, 32)


def some_rows(count: int, *, seed: int) -> list[dict[str, Any]]:
    """Rows that keep the contract."""
    return made_up_rows(contract(), rows=count, seed=seed)


def write_made_up_release(home: Home) -> Release:
    """The release, written into the home and signed with the home's key."""
    found = contract()
    rows = some_rows(2000, seed=1)
    columns = {name: np.array([row[name] for row in rows]) for name in found.feature_names}
    preprocessing = Preprocessing.fit(columns, found)
    architecture = Architecture(
        numeric=preprocessing.numeric_width,
        cardinalities=preprocessing.cardinalities,
        embeddings=tuple(min(8, math.isqrt(count) + 1) for count in preprocessing.cardinalities),
        hidden=HIDDEN,
        outcomes=2,
    )
    draw = np.random.default_rng(2)
    weights = {
        name: draw.normal(0, 0.2, shape).astype(np.float32) for name, shape in architecture.shapes().items()
    }
    parts = Parts(
        weights, architecture, preprocessing, Calibration(0.9, (0.0, -1.0)), ("not_subscribed", "subscribed")
    )
    texts = {name: (POLICIES / name).read_text(encoding="utf-8") for name in POLICY_FILES}
    release = write_release(
        home.releases,
        service="telemarketing",
        candidate=parts,
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=texts,
        provenance={"snapshot_digest": "sha256:00", "code_version": "bench", "seed": 2},
        created_at=1_700_000_000.0,
    )
    sign_in_home(release, home)
    return release


def contract() -> DataContract:
    """The telemarketing contract."""
    file = POLICIES / "contract.yaml"
    return load_contract(file.read_text(encoding="utf-8"), str(file))
