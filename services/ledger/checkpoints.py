"""Signed checkpoints: from time to time the ledger's head is signed with the home's key and kept in a file beside it.

A forger who rewrites the whole chain, its head file included, must also forge these. Whoever holds the home's key can:
so a checkpoint is worth most where it is kept elsewhere, with the public key (`trimtab ledger checkpoint --out`), and
handed to `verify` from there. A key that was distrusted vouches for nothing: what it signed is passed over where a
later checkpoint by a trusted key stands for the same chain. Must never import: sqlalchemy, policies, flows.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock
from securesystemslib.signer import CryptoSigner

from services.ledger.ledger import LedgerHead, read_head
from services.signing.envelope import open_signed, sign
from services.signing.keys import SignatureError, TrustedKey, UntrustedSigner
from services.store import ledger_rows
from services.store.database import Database

PAYLOAD_TYPE = "application/vnd.trimtab.ledger-checkpoint+json"
CHECKPOINTS_FILE = "ledger.checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """That the ledger had so many entries at `at` (epoch s), the last with this hash."""

    entries: int
    hash: str
    at: float


@dataclass(frozen=True)
class CheckpointsCheck:
    """What the checkpoints say of the ledger; `last` is None where there is none."""

    ok: bool
    count: int
    last: Checkpoint | None
    signed_by: str
    why: str


def write_checkpoint(db: Database, signer: CryptoSigner, *, at: float) -> str | None:
    """Sign the head as it stands, add it to the file, and return the envelope; None while the ledger is empty."""
    head = read_head(db)
    if head is None or db.folder is None:
        return None
    envelope = sign(asdict(Checkpoint(head.entries, head.hash, float(at))), PAYLOAD_TYPE, signer)
    file = db.folder / CHECKPOINTS_FILE
    with FileLock(f"{file}.lock", timeout=30), file.open("a+b") as stream:
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)  # a line that a full disk or a power cut has torn
        stream.write(f"{envelope}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())
    return envelope


def kept_checkpoints(folder: Path) -> tuple[str, ...]:
    """The envelopes beside the ledger, oldest first; a last line without its end was never written whole."""
    file = folder / CHECKPOINTS_FILE
    if not file.exists():
        return ()
    return tuple(file.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0].splitlines())


def verify_checkpoints(
    db: Database, envelopes: Iterable[str], trusted: Sequence[TrustedKey]
) -> CheckpointsCheck:
    """Whether every checkpoint is signed by a trusted key and says of the ledger what the ledger says of itself.

    One by another key is passed over if a trusted one follows it. The chain itself is `ledger.verify`'s to check;
    this compares the hashes that stand in it.
    """
    last: Checkpoint | None = None
    signed_by, count, untrusted = "", 0, ""
    for count, text in enumerate(envelopes, start=1):
        try:
            last, signed_by = _opened(text, trusted)
        except UntrustedSigner as error:
            untrusted = f"checkpoint {count}: {error}"
            continue
        except SignatureError as error:
            return CheckpointsCheck(False, count, last, signed_by, f"checkpoint {count}: {error}")
        found = ledger_rows.rows_after(db, last.entries - 1, limit=1)
        if not found or found[0].seq != last.entries:
            why = f"entry {last.entries} is gone: checkpoint {count} has seen it"
        elif found[0].hash != last.hash:
            why = f"entry {last.entries} has another hash than in checkpoint {count}: the chain was rewritten"
        else:
            untrusted = ""
            continue
        return CheckpointsCheck(False, count, last, signed_by, why)
    return CheckpointsCheck(not untrusted, count, last, signed_by, untrusted)


class Checkpointer:
    """Signs the head whenever it has grown, at most every `every_s`; for whoever runs all the time."""

    def __init__(self, db: Database, signer: Callable[[], CryptoSigner], *, every_s: float) -> None:
        """signer: asked each time, because a key may be rotated meanwhile."""
        self._db, self._signer, self._every_s = db, signer, every_s
        self._signed: LedgerHead | None = None
        self._at: float | None = None

    def look(self, now: float, *, at_once: bool = False) -> bool:
        """Sign if it is time to and there is something new; whether it did. `at_once`: whenever there is.

        Raises LedgerError, SignatureError, OSError; the next look after `every_s` tries again.
        """
        if self._at is not None and now - self._at < self._every_s and not at_once:
            return False
        head = read_head(self._db)
        if head is None or head == self._signed:
            return False
        self._at = now
        is_written = write_checkpoint(self._db, self._signer(), at=now) is not None
        self._signed = head  # not before: what failed is tried again
        return is_written


def _opened(text: str, trusted: Sequence[TrustedKey]) -> tuple[Checkpoint, str]:
    said, key = open_signed(text, PAYLOAD_TYPE, trusted)
    entries, head, at = said.get("entries"), said.get("hash"), said.get("at")
    if not isinstance(entries, int) or entries < 1 or not isinstance(head, str) or not isinstance(at, float):
        raise SignatureError("it says no head of a ledger")
    return Checkpoint(entries, head, at), key.name
