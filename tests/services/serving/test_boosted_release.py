"""A release with boosted trees beside its network: the same files, no pickle, no boosting library, the same answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.operating.operating_point import OperatingPoint
from services.data.contract import DataContract
from services.serving.release import CONTENT_FILES, MANIFEST, Release, ReleaseError, write_release
from services.serving.row_check import RowCheck
from services.serving.scorer import Scorer
from services.training.trees import TreeShape


def boosted(parts: Any) -> Any:
    """The made-up release, averaged with one tree: the first number at most 0 ? -2 : +2, for outcome 1."""
    shape = TreeShape(nodes=3, trees=1, sets=0, widest=0)
    arrays = {
        "feature": np.zeros(3, np.int32),
        "left": np.array([1, 1, 2], np.int32),
        "right": np.array([2, 1, 2], np.int32),
        "set_of": np.full(3, -1, np.int32),
        "threshold": np.zeros(3, np.float32),
        "value": np.array([0, -2, 2], np.float32),
        "root": np.zeros(1, np.int32),
        "outcome": np.ones(1, np.int32),
        "sets": np.zeros((0, 0), np.uint8),
    }
    weights = {**parts.weights, **{f"trees.{name}": array for name, array in arrays.items()}}
    return replace(
        parts, weights=weights, architecture=replace(parts.architecture, trees=shape, peer_share=0.5)
    )


def written(folder: Path, candidate: Any, policy_texts: dict[str, str]) -> Release:
    return write_release(
        folder,
        service="telemarketing",
        candidate=candidate,
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=policy_texts,
        provenance={"seed": 2},
        created_at=1_700_000_000.0,
    )


def test_it_is_served_from_arrays_alone(
    tmp_path: Path,
    parts: Any,
    policy_texts: dict[str, str],
    contract: DataContract,
    rows: list[dict[str, Any]],
) -> None:
    """The release has no file more, and answers the calibrated mean of both models' probabilities."""
    alone = Scorer.load(written(tmp_path, parts, policy_texts))
    release = written(tmp_path, boosted(parts), policy_texts)
    scorer = Scorer.load(release)
    assert sorted(path.name for path in release.folder.iterdir()) == sorted((MANIFEST, *CONTENT_FILES))
    columns = RowCheck(contract.columns, payoff_fields=scorer.utility.fields).columns(rows)
    first = scorer.preprocessing.transform(columns).numeric[:, 0]
    calibration = alone.calibration
    network = (np.log(alone.probabilities(columns)) - np.asarray(calibration.bias)) / calibration.slope
    network = 1 / (1 + np.exp(network[:, 0] - network[:, 1]))
    mean = (network + 1 / (1 + np.exp(-np.where(first <= 0, -2.0, 2.0)))) / 2
    expected = calibration.apply(np.column_stack([np.log(1 - mean), np.log(mean)]))
    np.testing.assert_allclose(scorer.probabilities(columns), expected, atol=1e-5)


def test_trees_that_lead_astray_are_refused_when_the_release_is_loaded(
    tmp_path: Path, parts: Any, policy_texts: dict[str, str]
) -> None:
    """A walk without end, written into a release whose digests are right, is an error and not a hanging service."""
    candidate = boosted(parts)
    candidate.weights["trees.left"] = np.array([1, 0, 2], np.int32)
    with pytest.raises(ReleaseError, match="must stand after it"):
        Scorer.load(written(tmp_path, candidate, policy_texts))
