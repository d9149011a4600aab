"""Which benchmarks were frozen and what releases came to on them: entries of the ledger, which nobody can change.

A benchmark whose rows and manifest were both rewritten agrees with itself, but not with the ledger.
Must never import: sqlalchemy, torch, bentoml, prefect.
"""

from __future__ import annotations

from services.benchmarks.frozen_rows import BenchmarkError, Manifest
from services.benchmarks.score import Score
from services.ledger.ledger import LedgerEntry, append, entries
from services.store.database import Database

FROZEN, RUN = "benchmark_frozen", "benchmark_run"


def record_frozen(db: Database, made: Manifest, *, at: float) -> None:
    """Enter that this was frozen, by its digest."""
    body = {"benchmark": made.title, "digest": made.digest, "rows": made.rows, "made_from": made.made_from}
    append(db, FROZEN, body, service=made.service, rollout_id=None, at=at)


def check_frozen(db: Database, made: Manifest) -> None:
    """Raises BenchmarkError where the ledger does not know it, or knows another under its name."""
    known = [
        str(entry.body["digest"])
        for entry in entries(db, kind=FROZEN)
        if entry.service == made.service and entry.body["benchmark"] == made.title
    ]
    if not known:
        raise BenchmarkError(f"the ledger of this home has not seen {made.title} of {made.service} frozen")
    if made.digest not in known:
        raise BenchmarkError(f"{made.title} must be the one frozen, {known[-1]}: {made.digest}")


def record_run(db: Database, made: Manifest, found: Score, *, at: float) -> None:
    """Enter what a release came to."""
    body = {"benchmark": made.title, "digest": made.digest, "score": found.to_json()}
    append(db, RUN, body, service=made.service, rollout_id=None, at=at)


def runs(db: Database, made: Manifest) -> tuple[LedgerEntry, ...]:
    """All runs on this very benchmark, oldest first; the score stands in `body["score"]`."""
    return tuple(entry for entry in entries(db, kind=RUN) if entry.body["digest"] == made.digest)
