"""The decision log: one JSON line per decided row, on disk before the caller gets the answer.

Written inline with `os.write` to an O_APPEND file of mode 0600 (facts.md: 6 µs a record, none lost on
SIGKILL); background writers lose acknowledged records. The store learns of decisions only through the
shipper that tails these files. Must never import bentoml: the log has to be testable without a server.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson


class DecisionLogError(OSError):
    """The records were not written; the decision must not be answered as if they were."""


@dataclass(frozen=True)
class Gated:
    """`off`: the actions that were switched off when the row was decided; `instead_of`: the one that would have been
    taken otherwise, None where the switch changed nothing."""

    off: tuple[str, ...]
    instead_of: str | None


@dataclass(frozen=True)
class DecisionRecord:
    """One decided row as it stands in the log (version 1).

    `at` is in epoch seconds, `took_ms` in milliseconds, `probabilities` (O,) and `expected_utility` (A,) in
    the order of the utility spec; `row` holds the accepted contract fields; `gated` is None while no action is
    switched off.
    """

    decision_id: str
    request_id: str
    attempt: int
    at: float
    unit: str | None
    assigned: str
    shadow: bool
    release: str
    action: str
    score: float
    expected_utility: Sequence[float]
    probabilities: Sequence[float]
    row: object
    took_ms: float
    gated: Gated | None = None
    v: int = field(default=1, kw_only=True)

    def line(self) -> bytes:
        """The record as one line of JSON, newline included."""
        return orjson.dumps({"v": self.v, **vars(self)}, option=orjson.OPT_APPEND_NEWLINE)


class DecisionLog:
    """Appends to `<folder>/<release_id>/decisions-<pid>.jsonl`, one file per serving process."""

    def __init__(self, folder: Path, release_id: str, *, pid: int) -> None:
        self.path = folder / release_id / f"decisions-{pid}.jsonl"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.fchmod(self._file, 0o600)
        except OSError as error:
            raise DecisionLogError(f"decision log {self.path} cannot be opened: {error}") from error
        # A predecessor with the same pid may have died in the middle of a line: end that line first.
        self._is_torn = not _ends_whole(self.path)

    def append(self, records: Sequence[DecisionRecord]) -> None:
        """Write all records, in order, before returning.

        Raises: DecisionLogError when the operating system refuses any byte; a torn line is ended by the next
        append, so that one failure never spoils the record after it.
        """
        pending = memoryview((b"\n" if self._is_torn else b"") + b"".join(r.line() for r in records))
        try:
            while pending:
                written = os.write(self._file, pending)
                self._is_torn = pending[written - 1] != ord("\n") if written else self._is_torn
                pending = pending[written:]
        except OSError as error:
            raise DecisionLogError(f"decision log {self.path}: {error}") from error

    def close(self) -> None:
        """Close the file; further appends raise DecisionLogError."""
        os.close(self._file)
        self._file = -1


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"
