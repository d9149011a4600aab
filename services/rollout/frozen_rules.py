"""Whether the policy files that a rollout was begun beside still say what they said then.

A rollout is judged by the rules frozen into its record; an edit counts from the next one. So that nobody believes
otherwise, the ledger and `trimtab status` say when a file differs. Nothing here decides anything.
Must never import Prefect.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from services.ledger.ledger import latest
from services.store.database import Database

WATCHED = ("rollout.yaml", "utility.yaml")
RULES_DIFFER = "policy_file_differs"
_ABSENT = "absent"


def file_digests(folder: Path | None) -> dict[str, str]:
    """Path → SHA-256 of each watched file in a service's policy folder, `absent` for none; empty without a folder."""
    return {} if folder is None else {str(folder / name): _digest(folder / name) for name in WATCHED}


def differing_files(db: Database, rollout_id: str) -> dict[str, str]:
    """Path → `edited`, `deleted` or `new`, for the files that are not what they were when the rollout began."""
    started = latest(db, rollout_id, "rollout_started")
    before = {} if started is None else started.body.get("policy_files")
    if not isinstance(before, Mapping):
        return {}
    return {
        str(path): word
        for path, digest in before.items()
        if (word := _difference(str(digest), _digest(Path(str(path)))))
    }


def difference_on_record(db: Database, rollout_id: str) -> dict[str, str]:
    """What the ledger says of it so far, in the form of `differing_files`."""
    said = latest(db, rollout_id, RULES_DIFFER)
    files = {} if said is None else said.body.get("files")
    return {str(path): str(word) for path, word in files.items()} if isinstance(files, Mapping) else {}


def _difference(before: str, now: str) -> str:
    if before == now:
        return ""
    return "deleted" if now == _ABSENT else "new" if before == _ABSENT else "edited"


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return _ABSENT
