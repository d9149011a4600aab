"""Candidates that are bad on purpose, made from a good release: what a drill rehearses against.

harmful: the same network under an operating point that calls everybody, which truly loses money on the drill's rows;
erroring and slow: the same release under another id, started with a fault injected by the launcher. None of them could
pass the alignment stage; a drill puts them straight into a rollout to see that the live gates catch them.
Must never import torch or bentoml.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors

from policies.operating.operating_point import OperatingPoint
from services.serving.release import POLICY_FILES, WEIGHTS, Release, read_release, write_release

ALWAYS_EUR = 1000.0  # a shift far above every payoff: the action is chosen whatever the row


@dataclass(frozen=True)
class Drill:
    """One rehearsal: how the candidate is bad, and which action it prefers whatever the row (harmful)."""

    name: str
    says: str
    fault: str | None = None
    always: str | None = None


DRILLS: Mapping[str, Drill] = {
    drill.name: drill
    for drill in (
        Drill("harmful", "its decisions lose money: it calls everybody", always="call"),
        Drill("erroring", "it answers 500", fault="error"),
        Drill("nan", "its scores are NaN, which the service turns into 500", fault="nan"),
        Drill("slow", "it answers after 400 ms", fault="slow:400"),
    )
}


@dataclass(frozen=True)
class _Stated:
    """A part of a release, read back as the JSON that it states."""

    value: Mapping[str, Any]

    def to_json(self) -> Mapping[str, object]:
        return self.value


@dataclass(frozen=True)
class _Parts:
    weights: Mapping[str, NDArray[Any]]
    architecture: _Stated
    preprocessing: _Stated
    calibration: _Stated
    outcomes: Sequence[str]


def forge_candidate(
    release: Release, drill: Drill, *, folder_of_releases: Path, actions: Sequence[str], created_at: float
) -> Release:
    """Write the drill's candidate: another release id, the drill named in its provenance. Idempotent."""
    network = _json(release.folder / "network.json")
    outcomes = network.pop("outcome_names")
    point = OperatingPoint.from_json(_json(release.folder / "operating_point.json"))
    if drill.always is not None:
        shift = tuple(ALWAYS_EUR if action == drill.always else 0.0 for action in actions)
        point = replace(point, shift=shift)
    parts = _Parts(
        weights=load_tensors((release.folder / WEIGHTS).read_bytes()),
        architecture=_Stated(network),
        preprocessing=_Stated(_json(release.folder / "preprocessing.json")),
        calibration=_Stated(_json(release.folder / "calibration.json")),
        outcomes=outcomes,
    )
    return write_release(
        folder_of_releases,
        service=release.service,
        candidate=parts,
        operating_point=point,
        policies={name: (release.folder / name).read_text(encoding="utf-8") for name in POLICY_FILES},
        provenance={**release.provenance, "drill": drill.name, "made_from": release.id},
        created_at=created_at,
    )


def _json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold an object")
    return value


def copy_release(release: Release, folder_of_releases: Path) -> Release:
    """The same release in another home; its content gives it the same id. Idempotent."""
    target = folder_of_releases / release.id
    if not target.exists():
        shutil.copytree(release.folder, target)
    return read_release(target)
