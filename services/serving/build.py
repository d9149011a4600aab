"""Builds the Bento of a release: the release folder, the sources that serving needs, and nothing else.

The include list is written out, file by file. The context is staged in a folder of its own and built in a
process of its own, from there; a file that is missing in the list fails the build or the launch instead of
being found in the source tree. Built once per release id: promotion repoints, it never rebuilds (design.md
§7). Must never import bentoml here: the flow that builds should not pay for it (assemble_bento.py does, in
its process).
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock

from services.home import Home
from services.serving.release import CONTENT_FILES, MANIFEST, SIGNATURE, Release, read_release
from services.serving.release_command import bento_folder, bento_name
from services.signing.release_signature import verify_in_home

SOURCE = Path(__file__).resolve().parents[2]
BUILD_TIMEOUT_S = 300

# What a release needs to decide. tests/services/serving holds this list to be enough, and to hold no more.
INCLUDED_SOURCES = (
    "policies/__init__.py",
    "policies/language/__init__.py",
    "policies/language/digest.py",
    "policies/language/expression.py",
    "policies/language/expression_bounds.py",
    "policies/language/quantities.py",
    "policies/language/yaml_mistakes.py",
    "policies/language/yaml_source.py",
    "policies/operating/__init__.py",
    "policies/operating/abstention.py",
    "policies/operating/operating_point.py",
    "policies/operating/point_proof.py",
    "policies/rollout/__init__.py",
    "policies/rollout/metrics.py",
    "policies/utility/__init__.py",
    "policies/utility/constraint_file.py",
    "policies/utility/constraints.py",
    "policies/utility/contradictions.py",
    "policies/utility/spec_parts.py",
    "policies/utility/utility.py",
    "policies/utility/utility_file.py",
    "policies/utility/utility_mistakes.py",
    "services/__init__.py",
    "services/data/__init__.py",
    "services/data/columns.py",
    "services/data/contract.py",
    "services/data/custom_properties.py",
    "services/data/odcs_schema.py",
    "services/data/read_columns.py",
    "services/data/read_rules.py",
    "services/serving/__init__.py",
    "services/serving/attribution.py",
    "services/serving/decide_endpoint.py",
    "services/serving/decider.py",
    "services/serving/decision_log.py",
    "services/serving/explanation.py",
    "services/serving/fault.py",
    "services/serving/launch.py",
    "services/serving/log_mask.py",
    "services/serving/many_rows.py",
    "services/serving/release.py",
    "services/serving/request_mark.py",
    "services/serving/row_check.py",
    "services/serving/scorer.py",
    "services/serving/service.py",
    "services/serving/single_row.py",
    "services/serving/switches.py",
    "services/signing/__init__.py",
    "services/signing/envelope.py",
    "services/signing/keys.py",
    "services/signing/release_signature.py",
    "services/training/__init__.py",
    "services/training/calibration.py",
    "services/training/errors.py",
    "services/training/forward.py",
    "services/training/predicted_fields.py",
    "services/training/preprocessing.py",
    "services/training/trees.py",
)
REQUIREMENTS = (
    "bentoml",
    "cryptography",
    "jsonschema-rs",
    "numpy",
    "open-data-contract-standard",
    "orjson",
    "pydantic",
    "ruamel.yaml",
    "safetensors",
    "securesystemslib",
    "starlette",
    "uvicorn",
)
FASTER = ("httptools", "uvloop")  # a third less CPU a request; uvicorn serves without them, too


class BuildError(RuntimeError):
    """The Bento could not be built."""


def build_bento(release: Release, home: Home) -> Path:
    """The folder of the release's Bento in the home's store, built if it is not there yet.

    Raises: ReleaseError when the release is not what its digests say, SignatureError when no key that the home
    trusts vouches for it, BuildError when BentoML fails.
    """
    verified = read_release(release.folder)
    verify_in_home(verified, home)
    folder = bento_folder(release.id, home)
    home.bentos.mkdir(parents=True, exist_ok=True)
    with FileLock(home.bentos / ".build.lock", timeout=BUILD_TIMEOUT_S):
        if not (folder / "bento.yaml").is_file():
            _build(verified, home)
    if read_release(folder / "src" / "release").content_digest != verified.content_digest:
        raise BuildError(f"{folder} must hold release {release.id}")
    carry_signature(verified, home)
    return folder


def carry_signature(release: Release, home: Home) -> None:
    """Give the release's Bento, if there is one, the signature of now: built once, it may be signed anew."""
    built, wanted = (
        bento_folder(release.id, home) / "src" / "release",
        (release.folder / SIGNATURE).read_bytes(),
    )
    file = built / SIGNATURE
    if built.is_dir() and not (file.exists() and file.read_bytes() == wanted):
        fresh = built.parent / f".{SIGNATURE}.new"
        fresh.write_bytes(wanted)
        fresh.replace(file)


def sources_digest(source: Path = SOURCE) -> str:
    """SHA-256 over the included sources: which code a Bento was built from."""
    digest = hashlib.sha256()
    for name in INCLUDED_SOURCES:
        digest.update(f"{name}\0{hashlib.sha256((source / name).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _build(release: Release, home: Home) -> None:
    with tempfile.TemporaryDirectory(prefix=".stage-", dir=home.bentos) as staged:
        context = Path(staged)
        files = _stage(release, context)
        order = {
            "name": bento_name(release.service),
            "version": release.id,
            "include": files,
            "context": str(context),
            "packages": _pinned_requirements(),
            "labels": {"release": release.id, "sources_sha256": sources_digest()[:60]},
            "description": f"Release {release.id} of the decision service {release.service}.",
        }
        environment = {
            **os.environ,
            "PYTHONPATH": str(context),
            "BENTOML_HOME": str(home.bentos),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        script = Path(__file__).with_name("assemble_bento.py")
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(script)],
                input=json.dumps(order),
                cwd=context,
                env=environment,
                capture_output=True,
                text=True,
                timeout=BUILD_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"building {release.id} took longer than {BUILD_TIMEOUT_S} s") from error
        if done.returncode != 0:
            raise BuildError(f"building {release.id} failed: {done.stderr[-2000:]}")


def _pinned_requirements() -> list[str]:
    pinned = [f"{name}=={version(name)}" for name in REQUIREMENTS]
    for name in FASTER:
        with suppress(PackageNotFoundError):
            pinned.append(f"{name}=={version(name)}")
    return pinned


def _stage(release: Release, context: Path) -> list[str]:
    """Copy what the Bento holds into `context`; the relative names, which are the include list."""
    for name in INCLUDED_SOURCES:
        target = context / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SOURCE / name, target)
    (context / "release").mkdir()
    for name in (MANIFEST, *CONTENT_FILES):
        shutil.copyfile(release.folder / name, context / "release" / name)
    return [*INCLUDED_SOURCES, *(f"release/{name}" for name in (MANIFEST, *CONTENT_FILES))]
