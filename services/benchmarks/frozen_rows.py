"""Freezes an evaluation set: rows with known outcomes, the contract and the prices they are judged by, under one name.

A benchmark is a folder `<name>-v<version>` of four files: `rows.parquet`, `contract.yaml`, `utility.yaml` and
`manifest.json`, which says what they are and holds their digests. It is written whole or not at all, never a second
time, and never read with a byte that is off. Numbers of two releases on the same version are numbers on the same rows,
at the same prices. Whoever rewrites rows and manifest together is found by services/benchmarks/history.py.
Must never import: torch, bentoml, prefect.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from policies.language.digest import canonical_sha256
from policies.utility.utility import UtilitySpec, load_utility
from services.data.checks import check
from services.data.contract import DataContract, load_contract
from services.data.splits import by_event_time, to_arrays
from services.training.known_rows import can_be_priced
from services.training.preprocessing import Columns
from services.training.time_slices import UNLABELLED, labelled_rows, outcome_indices

if TYPE_CHECKING:
    import polars as pl

MANIFEST, ROWS, CONTRACT, UTILITY = "manifest.json", "rows.parquet", "contract.yaml", "utility.yaml"
FILES = (ROWS, CONTRACT, UTILITY)
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class BenchmarkError(ValueError):
    """A benchmark that cannot be frozen, is not there, or is not what was frozen; the text says which and why."""


@dataclass(frozen=True)
class Manifest:
    """What was frozen. `made_at` and the events' ends are epoch s; `made_from` says of what, in words.

    `files` maps each file to "sha256:<hex>" of its bytes; the two digests are those that releases carry, too.
    """

    service: str
    name: str
    version: int
    rows: int
    quarantined: int
    unlabelled: int
    first_event: float
    last_event: float
    contract_digest: str
    utility_digest: str
    made_at: float
    made_from: str
    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of all that it says, and so of every file: the benchmark's identity."""
        return canonical_sha256({**asdict(self), "files": dict(self.files)})

    @property
    def title(self) -> str:
        """`autumn-v2`, as its folder is called."""
        return f"{self.name}-v{self.version}"


@dataclass(frozen=True, eq=False)
class FrozenRows:
    """A benchmark, read and verified: its columns and outcomes (n,), indices into the frozen spec's outcomes."""

    manifest: Manifest
    folder: Path
    contract: DataContract
    utility: UtilitySpec
    columns: Columns
    outcomes: NDArray[np.int64]


def freeze(
    folder: Path,
    delivered: pl.DataFrame,
    *,
    texts: Mapping[str, str],
    name: str,
    version: int | None,
    start: float,
    stop: float,
    source: str,
    at: float,
) -> Manifest:
    """Freeze the rows from fraction `start` to `stop` of `delivered`, in the order of time, into `folder`.

    `texts` hold contract.yaml and utility.yaml. Rows that break the contract, have no outcome or cannot be priced are
    left out and counted. Without a `version`: one after the newest of this name. Raises BenchmarkError, and the rooms'
    own errors for a split, a contract or a spec that is not valid.
    """
    if not NAME.fullmatch(name):
        raise BenchmarkError(f"'name' must match {NAME.pattern}: {name!r}")
    taken = [one.version for one in manifests(folder) if one.name == name]
    version = max(taken, default=0) + 1 if version is None else version
    target = folder / f"{name}-v{version}"
    if version < 1:
        raise BenchmarkError(f"'version' must be >= 1: {version}")
    if target.exists():
        raise BenchmarkError(f"{target} is frozen and stays as it is: freeze a new version")
    contract = load_contract(texts[CONTRACT], CONTRACT)
    utility = load_utility(texts[UTILITY], UTILITY)
    folder.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=folder))
    try:
        kept, quarantined = _kept(
            by_event_time(delivered, contract, start=start, stop=stop), contract, staged
        )
        arrays = to_arrays(kept, contract)
        found = _outcomes(arrays, contract, utility)
        known = (found != UNLABELLED) & can_be_priced(arrays, found, utility)
        rows = kept.filter(known)
        if not len(rows):
            raise BenchmarkError(f"no row of {source} from {start:g} to {stop:g} has an outcome")
        rows.write_parquet(staged / ROWS)
        for file in (CONTRACT, UTILITY):
            (staged / file).write_text(texts[file], encoding="utf-8")
        moments = to_arrays(rows, contract)[contract.event_time]
        made = Manifest(
            service=utility.service,
            name=name,
            version=version,
            rows=len(rows),
            quarantined=quarantined,
            unlabelled=len(kept) - len(rows),
            first_event=float(moments.min()),
            last_event=float(moments.max()),
            contract_digest=contract.digest,
            utility_digest=utility.digest,
            made_at=at,
            made_from=f"{source}, rows from {start:g} to {stop:g} in the order of time",
            files={file: _sha256(staged / file) for file in FILES},
        )
        (staged / MANIFEST).write_text(json.dumps(asdict(made), indent=2), encoding="utf-8")
        for file in (*FILES, MANIFEST):
            (staged / file).chmod(0o400)
        os.rename(staged, target)
    except OSError as error:
        raise BenchmarkError(f"{target} could not be written: {error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return made


def manifests(folder: Path) -> tuple[Manifest, ...]:
    """What stands in the folder, by name and version; files are not verified. Raises BenchmarkError."""
    found = [_manifest(path.parent) for path in folder.glob(f"[a-z]*/{MANIFEST}")]
    return tuple(sorted(found, key=lambda one: (one.name, one.version)))


def read_frozen(folder: Path, name: str, version: int | None = None) -> FrozenRows:
    """The benchmark of this name, its newest version if none is given, every byte verified. Raises BenchmarkError."""
    there = manifests(folder)
    fitting = [one for one in there if one.name == name and version in (None, one.version)]
    if not fitting:
        listed = ", ".join(one.title for one in there) or "none"
        wanted = name if version is None else f"{name}-v{version}"
        raise BenchmarkError(f"there is no benchmark {wanted} in {folder}: {listed}")
    made = fitting[-1]
    home = folder / made.title
    verify_files(home, made)
    import polars as pl

    contract = load_contract((home / CONTRACT).read_text(encoding="utf-8"), str(home / CONTRACT))
    utility = load_utility((home / UTILITY).read_text(encoding="utf-8"), str(home / UTILITY))
    arrays = to_arrays(pl.read_parquet(home / ROWS), contract)
    columns, outcomes = labelled_rows(arrays, _outcomes(arrays, contract, utility))
    return FrozenRows(made, home, contract, utility, columns, outcomes)


def verify_files(home: Path, made: Manifest) -> None:
    """Raises BenchmarkError naming the file that is missing or not the one that was frozen."""
    for file in FILES:
        try:
            actual = _sha256(home / file)
        except OSError as error:
            raise BenchmarkError(f"{home / file} cannot be read: {error}") from error
        if actual != made.files.get(file):
            raise BenchmarkError(f"{home / file}: content must be {made.files.get(file)}: {actual}")


def _manifest(home: Path) -> Manifest:
    try:
        found = Manifest(**json.loads((home / MANIFEST).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise BenchmarkError(f"{home / MANIFEST} is no manifest of a benchmark: {error}") from error
    if found.title != home.name:
        raise BenchmarkError(f"{home} must hold {home.name}: {found.title}")
    return found


def _kept(span: pl.DataFrame, contract: DataContract, staged: Path) -> tuple[pl.DataFrame, int]:
    """The rows that keep the contract, typed as it says, and how many do not."""
    import polars as pl

    quarantine = staged / "quarantine.parquet"
    report = check(span, contract, quarantine=quarantine, snapshot=staged / ROWS)
    quarantine.unlink(missing_ok=True)
    kept = pl.read_parquet(report.snapshot)
    report.snapshot.unlink()
    return kept, report.quarantined


def _outcomes(columns: Columns, contract: DataContract, utility: UtilitySpec) -> NDArray[np.int64]:
    return outcome_indices(
        columns[contract.label], label_outcomes=contract.label_outcomes, outcomes=utility.outcomes
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
