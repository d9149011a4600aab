"""Tails JSON-lines files by device and inode: whole lines only, from the checkpoint on, across rotation.

Rule 1: a position moves only when the caller says that everything before it is committed (`advance`).
Rule 2: a file is its inode, told from a reused one by a hash of its first bytes; renaming it changes nothing
as long as the new name still matches the pattern (`access.jsonl.1` beside `access.jsonl`).
Rule 3: a last line without its newline waits. Must never import: the store's tables, policies, flows.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.store.decisions import Checkpoint

CHUNK_BYTES = 4 * 1024 * 1024
_HEAD_BYTES = 256


@dataclass(frozen=True)
class Chunk:
    """New whole lines of one file, and the checkpoint that holds once they are committed.

    `is_behind`: the file had more when it was looked at. `was_reset`: it was shorter or other than at the
    checkpoint, so reading began again at 0. `overlong`: bytes given up because no line ended within a chunk.
    """

    checkpoint: Checkpoint
    lines: Sequence[bytes]
    is_behind: bool
    was_reset: bool
    overlong: int


class LogFiles:
    """All files of some glob patterns, each from where it was left."""

    def __init__(
        self, folder: Path, pattern: str, checkpoints: Iterable[Checkpoint], *, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self._chunk_bytes = chunk_bytes
        self._folder = folder
        self._pattern = pattern
        self._positions = {checkpoint.file_id: checkpoint for checkpoint in checkpoints}
        # What each file was when it was last looked into: a deleted one may leave its inode, even its size, to another.
        self._seen: dict[str, tuple[str, int]] = {}

    def read(self) -> tuple[Chunk, ...]:
        """What is new in each file, at most `chunk_bytes` of it; files without news are left out."""
        found = (self._read(path) for path in sorted(self._folder.glob(self._pattern)))
        return tuple(chunk for chunk in found if chunk is not None)

    def advance(self, chunks: Iterable[Chunk]) -> None:
        """The chunks are committed: go on behind them."""
        for chunk in chunks:
            self._positions[chunk.checkpoint.file_id] = chunk.checkpoint

    def _read(self, path: Path) -> Chunk | None:
        try:
            status = path.stat()
        except FileNotFoundError:  # rotated between the listing and now: seen under its new name next time
            return None
        file_id = f"{status.st_dev}:{status.st_ino}"
        held = self._positions.get(file_id)
        seen = (str(path), status.st_mtime_ns)
        if held is not None and held.position == status.st_size and self._seen.get(file_id) == seen:
            return None
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if file_id != f"{status.st_dev}:{status.st_ino}":
                    return None
                is_other = held is not None and not is_file_of(file, held)
                start = 0 if held is None or is_other else held.position
                file.seek(start)
                data = file.read(min(self._chunk_bytes, status.st_size - start))
                end = data.rfind(b"\n") + 1
                overlong = len(data) if not end and len(data) == self._chunk_bytes else 0
                position = start + (end or overlong)
                file.seek(0)
                head = _head(file.read(min(_HEAD_BYTES, position)))
        except FileNotFoundError:
            return None
        if position == start and not is_other:
            self._seen[file_id] = (str(path), status.st_mtime_ns)
            return None
        return Chunk(
            checkpoint=Checkpoint(file_id, str(path), position, head),
            lines=data[:end].splitlines(),
            is_behind=start + len(data) < status.st_size,
            was_reset=is_other,
            overlong=overlong,
        )


def is_file_of(file: BinaryIO, checkpoint: Checkpoint) -> bool:
    """Whether an open file is the one of this checkpoint, or only has the inode that a deleted one has left."""
    if os.fstat(file.fileno()).st_size < checkpoint.position:
        return False
    file.seek(0)
    return _head(file.read(_head_length(checkpoint.head))) == checkpoint.head


def _head(data: bytes) -> str:
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()}"


def _head_length(head: str) -> int:
    return int(head.partition(":")[0])
