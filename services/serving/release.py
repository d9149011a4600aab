"""The release: the immutable folder that ships as one, named by its content, and refused when a byte is off.

A release is nine files and a signature: a manifest (`release.json`), the weights (safetensors) and JSON or YAML
beside them.
The id is `<service>-<first 12 hex digits of the content digest>`; the content digest covers the service name,
the SHA-256 of every file and the provenance, but not the time of writing: the same content is the same
release. There is no pickle and nothing else that could run code. Source: design.md §1 (release), house
rules.

Must never import bentoml, torch or polars: the control plane reads releases too.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import save as save_tensors

from policies.language.digest import canonical_sha256

MANIFEST = "release.json"
SIGNATURE = "release.dsse.json"  # over all the rest, made afterwards (services/signing)
WEIGHTS = "weights.safetensors"
POLICY_FILES = ("contract.yaml", "utility.yaml", "rollout.yaml")
JSON_FILES = ("network.json", "preprocessing.json", "calibration.json", "operating_point.json")
CONTENT_FILES = (WEIGHTS, *JSON_FILES, *POLICY_FILES)
MAX_BYTES = {WEIGHTS: 256 * 2**20, MANIFEST: 2**20}
MAX_TEXT_BYTES = 8 * 2**20
RELEASE_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}-[0-9a-f]{12}")
SERVICE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class ReleaseError(ValueError):
    """A release folder is incomplete, altered, oversized or holds what a release must not hold."""


class ToJson(Protocol):
    """Anything that states itself as plain JSON (preprocessing, calibration, operating point)."""

    def to_json(self) -> Mapping[str, object]: ...


class Candidate(Protocol):
    """What a trained candidate must offer to become a release."""

    @property
    def weights(self) -> Mapping[str, NDArray[np.generic]]: ...
    @property
    def architecture(self) -> ToJson: ...
    @property
    def preprocessing(self) -> ToJson: ...
    @property
    def calibration(self) -> ToJson: ...
    @property
    def outcomes(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Release:
    """A verified release on disk.

    `digests` maps every content file to "sha256:<hex>"; `content_digest` is the full digest behind the id;
    `created_at` is in epoch seconds (UTC).
    """

    id: str
    folder: Path
    service: str
    created_at: float
    content_digest: str
    digests: Mapping[str, str]
    provenance: Mapping[str, object]


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: str
    service: str
    created_at: float
    content_digest: str
    digests: dict[str, str]
    provenance: dict[str, object]


def write_release(
    folder_of_releases: Path,
    *,
    service: str,
    candidate: Candidate,
    operating_point: ToJson,
    policies: Mapping[str, str],
    provenance: Mapping[str, object],
    created_at: float,
) -> Release:
    """Write one release folder whole or not at all; the same content again returns what stands there.

    `policies` maps contract.yaml, utility.yaml and rollout.yaml to their text; `provenance` holds JSON values
    (snapshot digest, code version, seed …). Files are written read-only.

    Raises: ReleaseError when a name, a policy file or a weight is missing, extra or not finite.
    """
    if not SERVICE_NAME.fullmatch(service):
        raise ReleaseError(f"'service' must match {SERVICE_NAME.pattern}: {service!r}")
    if set(policies) != set(POLICY_FILES):
        raise ReleaseError(f"'policies' must be exactly {sorted(POLICY_FILES)}: {sorted(policies)}")
    contents = {
        WEIGHTS: _tensor_bytes(candidate.weights),
        "network.json": _json_bytes(
            {**candidate.architecture.to_json(), "outcome_names": list(candidate.outcomes)}
        ),
        "preprocessing.json": _json_bytes(candidate.preprocessing.to_json()),
        "calibration.json": _json_bytes(candidate.calibration.to_json()),
        "operating_point.json": _json_bytes(operating_point.to_json()),
        **{name: text.encode() for name, text in policies.items()},
    }
    for name, content in contents.items():
        if len(content) > _limit(name):
            raise ReleaseError(f"'{name}' must be <= {_limit(name)} bytes: {len(content)}")
    digests = {name: _sha256(content) for name, content in contents.items()}
    provenance = json.loads(_json_bytes(provenance))
    content_digest = _content_digest(service, digests, provenance)
    release_id = _release_id(service, content_digest)
    manifest = {
        "id": release_id,
        "service": service,
        "created_at": float(created_at),
        "content_digest": content_digest,
        "digests": digests,
        "provenance": provenance,
    }
    target = folder_of_releases / release_id
    if target.exists():
        return read_release(target)
    folder_of_releases.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{release_id}-", dir=folder_of_releases))
    try:
        for name, content in {**contents, MANIFEST: _json_bytes(manifest)}.items():
            _write_read_only(staged / name, content)
        staged.chmod(0o755)
        staged.rename(target)
    except OSError as error:
        shutil.rmtree(staged, ignore_errors=True)
        if not target.exists():
            raise ReleaseError(f"release {release_id} could not be written: {error}") from error
    return read_release(target)


def read_release(folder: Path) -> Release:
    """Read a release and verify every file against the manifest and the manifest against its id.

    Raises: ReleaseError naming the file that is missing, extra, altered, too large or not a plain file.
    """
    _check_names(folder)
    try:
        manifest = _Manifest.model_validate_json(_read_bounded(folder / MANIFEST))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or MANIFEST
        raise ReleaseError(f"{folder / MANIFEST}: '{where}' {first['msg']}") from error
    if set(manifest.digests) != set(CONTENT_FILES):
        raise ReleaseError(f"{folder / MANIFEST}: 'digests' must name exactly {sorted(CONTENT_FILES)}")
    for name, expected in manifest.digests.items():
        actual = _sha256(_read_bounded(folder / name))
        if actual != expected:
            raise ReleaseError(f"{folder / name}: content must be {expected}: {actual}")
    content_digest = _content_digest(manifest.service, manifest.digests, manifest.provenance)
    if content_digest != manifest.content_digest:
        raise ReleaseError(f"{folder / MANIFEST}: 'content_digest' must be {content_digest}")
    expected_id = _release_id(manifest.service, content_digest)
    if manifest.id != expected_id:
        raise ReleaseError(f"{folder / MANIFEST}: 'id' must be {expected_id}: {manifest.id}")
    return Release(
        id=manifest.id,
        folder=folder,
        service=manifest.service,
        created_at=manifest.created_at,
        content_digest=content_digest,
        digests=MappingProxyType(dict(manifest.digests)),
        provenance=MappingProxyType(dict(manifest.provenance)),
    )


def find_release(folder_of_releases: Path, release_id: str) -> Release:
    """The verified release of this id. The id may come from a person: nothing outside the folder is ever read.

    Raises: ReleaseError for what is no id, for a folder that holds another release, and as `read_release` does.
    """
    if not RELEASE_ID.fullmatch(release_id):
        raise ReleaseError(f"a release id must be like telemarketing-0123456789ab: {release_id!r}")
    release = read_release(folder_of_releases / release_id)
    if release.id != release_id:
        raise ReleaseError(f"{release.folder}: must hold release {release_id}: {release.id}")
    return release


def _check_names(folder: Path) -> None:
    if not folder.is_dir():
        raise ReleaseError(f"{folder}: no such release folder")
    expected = {MANIFEST, *CONTENT_FILES}
    found = {entry.name: entry for entry in os.scandir(folder)}
    if missing := sorted(expected - set(found)):
        raise ReleaseError(f"{folder}: missing {', '.join(missing)}")
    if extra := sorted(set(found) - expected - {SIGNATURE}):
        raise ReleaseError(f"{folder}: must hold only {sorted(expected)}, found also {', '.join(extra)}")
    for name, entry in found.items():
        if not entry.is_file(follow_symlinks=False):
            raise ReleaseError(f"{folder / name}: must be a plain file")


def _read_bounded(path: Path) -> bytes:
    limit = _limit(path.name)
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ReleaseError(f"{path}: must be <= {limit} bytes")
    return content


def _limit(name: str) -> int:
    return MAX_BYTES.get(name, MAX_TEXT_BYTES)


def _write_read_only(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _tensor_bytes(weights: Mapping[str, NDArray[np.generic]]) -> bytes:
    if not weights:
        raise ReleaseError("'weights' must not be empty")
    for name, tensor in weights.items():
        if not np.all(np.isfinite(np.asarray(tensor, dtype=np.float64))):
            raise ReleaseError(f"'weights.{name}' must be finite")
    return bytes(save_tensors({name: np.ascontiguousarray(weights[name]) for name in sorted(weights)}))


def _json_bytes(value: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(dict(value), sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ReleaseError(f"not plain finite JSON: {error}") from error


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _content_digest(service: str, digests: Mapping[str, str], provenance: Mapping[str, object]) -> str:
    return canonical_sha256({"service": service, "digests": dict(digests), "provenance": dict(provenance)})


def _release_id(service: str, content_digest: str) -> str:
    return f"{service}-{content_digest.removeprefix('sha256:')[:12]}"
