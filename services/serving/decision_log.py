"""The decision log: one JSON line per decided row, with the operating system before the caller gets the answer.

Rule 1: written inline with `os.write` to an O_APPEND file of mode 0600 (facts.md: 6 µs a record, none lost on
SIGKILL); background writers lose acknowledged records. A thread calls fdatasync every 100 ms: what a power
failure can take is what was answered since the last one ended, 0.1 s and the time that a sync takes.
Rule 2: the file that is being written is locked (flock), and never renamed. After 64 MiB or an hour the next
one begins; an ended or orphaned file has no lock, which is how retention knows that it may go.
Rule 3: what could not be written and was answered all the same (request_mark.py says when) is counted, and
stands in the log as a gap as soon as it can be written again.
The store learns of decisions only through the shipper that tails these files. Must never import bentoml: the
log has to be testable without a server.
"""

import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import orjson

LOGGER = logging.getLogger("trimtab.serving")
RETRY_S = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class DecisionLogError(OSError):
    """The last `missing` of the records were not written; they must not be answered as if they were."""

    def __init__(self, text: str, *, missing: int = 0) -> None:
        super().__init__(text)
        self.missing = missing


@dataclass(frozen=True)
class LogLimits:
    """When a file ends: at `max_bytes` or `max_age_s` after it began; `sync_s` between two fdatasync."""

    max_bytes: int = 64 * 2**20
    max_age_s: float = 3600.0
    sync_s: float = 0.1


@dataclass(frozen=True)
class Gated:
    """`off`: the actions that were switched off when the row was decided; `instead_of`: the one that would have been
    taken otherwise, None where the switch changed nothing."""

    off: tuple[str, ...]
    instead_of: str | None


class SharedFields(TypedDict):
    """What the decisions of one request have in common: `at` in epoch seconds, `took_ms` in milliseconds."""

    v: int
    request_id: str
    attempt: int
    at: float
    unit: str | None
    assigned: str
    shadow: bool
    release: str
    took_ms: float


class RowFields(TypedDict):
    """What one decided row has for itself.

    `probabilities` (O,) and `expected_utility` (A,) are in the order of the utility spec; `row` holds the accepted
    contract fields; `gated` is None while no action is switched off.
    """

    decision_id: str
    action: str
    score: float
    expected_utility: Sequence[float]
    probabilities: Sequence[float]
    gated: Gated | None
    row: object


class DecisionRecord(SharedFields, RowFields):
    """One decided row as it stands in the log (`v` is 1)."""


def as_line(record: DecisionRecord) -> bytes:
    """The record as one line of JSON, newline included."""
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


class DecisionLog:
    """Appends to `<folder>/<release_id>/decisions-<pid>-<number>.jsonl`, for one serving process."""

    def __init__(
        self,
        folder: Path,
        release_id: str,
        *,
        pid: int,
        limits: LogLimits | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._release_id, self._pid = folder / release_id, release_id, pid
        self._limits = limits or LogLimits()
        self._timer = timer
        self._number = 0
        self._file = -1
        self._ended: list[int] = []
        self._written = self._missed = self._sync_failures = 0
        self._gap: tuple[float, float, int] | None = None
        self._has_news = self._has_new_name = self._is_torn = self._is_spoiled = False
        self._size, self._ends_at = 0, 0.0
        self._syncer: threading.Thread | None = None
        self._stop = threading.Event()
        self.path = self._folder
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._begin_file()
        except OSError as error:
            if error.errno not in _FULL:  # a full disk must not keep stable from starting: rule 3
                raise DecisionLogError(f"decision log in {self._folder} cannot be opened: {error}") from error
            LOGGER.error("event=decision_log_not_opened path=%s error=%s", self._folder, error)

    def append(self, lines: Sequence[bytes]) -> None:
        """Write all lines, each a record with its newline, in order, before returning.

        Raises: DecisionLogError when the operating system refuses any byte; a torn line is ended by the next
        append, so that one failure never spoils the record after it.
        """
        is_due = self._timer() >= self._ends_at or self._size >= self._limits.max_bytes or self._is_spoiled
        if self._file < 0 or (is_due and self._size):
            self._begin_next()
        self._written += self._write(b"".join(lines), lines=len(lines))
        if self._gap is not None:
            self._write_gap(*self._gap)

    def count_missed(self, count: int, *, at: float) -> None:
        """Take note of decisions that are answered at `at` (epoch s) without being logged."""
        since, _, before = self._gap or (at, at, 0)
        if self._gap is None:
            LOGGER.error("event=decisions_not_logged path=%s", self.path)
        self._gap = (since, at, before + count)
        self._missed += count

    def status(self) -> dict[str, object]:
        """Counts since this process began: written and missed decisions, failed syncs; and the file in use."""
        return {
            "release": self._release_id,
            "file": self.path.name,
            "written": self._written,
            "missed": self._missed,
            "sync_failures": self._sync_failures,
        }

    def keep_synced(self) -> None:
        """Call fdatasync in a thread of its own from now on."""
        self._syncer = threading.Thread(
            target=self._sync_until_stopped, name="decision-log-sync", daemon=True
        )
        self._syncer.start()

    def sync(self) -> None:
        """Have the disk hold what was written. A failure is counted, and the next record begins a new file:
        the operating system forgets what it could not write, so a second sync of the same file proves nothing.
        """
        try:
            if self._has_news:
                self._has_news = False  # before the sync: what is written during it counts for the next one
                _sync(self._file)
            while self._ended:
                ended = self._ended.pop(0)
                try:
                    _sync(ended)
                finally:
                    os.close(ended)
            if self._has_new_name:
                self._has_new_name = False
                folder = os.open(self._folder, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            self._sync_failures += 1
            self._is_spoiled = True
            LOGGER.error("event=decision_log_not_synced path=%s error=%s", self.path, error)

    def close(self) -> None:
        """Sync and close the file; further appends raise DecisionLogError."""
        self._stop.set()
        if self._syncer is not None:
            self._syncer.join()
        self.sync()
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _write(self, content: bytes, *, lines: int) -> int:
        rest, whole = (b"\n" + content, -1) if self._is_torn else (content, 0)
        try:
            while True:
                written = os.write(self._file, rest)
                self._has_news = True
                self._size += written
                if written == len(rest):
                    self._is_torn = False
                    return lines
                whole += rest.count(b"\n", 0, written)
                self._is_torn = rest[written - 1 : written] != b"\n" if written else self._is_torn
                rest = rest[written:]
        except OSError as error:
            raise DecisionLogError(
                f"decision log {self.path}: {error}", missing=lines - max(whole, 0)
            ) from error

    def _write_gap(self, since: float, until: float, count: int) -> None:
        gap = {"v": 1, "gap_id": f"{self._release_id}:{self._pid}:{since}", "release": self._release_id}
        gap |= {"since": since, "until": until, "decisions": count}
        with suppress(DecisionLogError):  # the gap stays open, and is written with the next record
            self._write(orjson.dumps(gap, option=orjson.OPT_APPEND_NEWLINE), lines=1)
            self._gap = None
            LOGGER.error("event=decision_log_gap since=%s until=%s decisions=%d", since, until, count)

    def _begin_next(self) -> None:
        """The next file, or, where none can be made, this one for another second."""
        if self._stop.is_set():
            return
        before = self._file
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._begin_file()
        except OSError as error:
            LOGGER.error("event=decision_log_not_rotated path=%s error=%s", self.path, error)
            self._ends_at, self._is_spoiled = self._timer() + RETRY_S, False
            return
        if before >= 0:
            self._ended.append(before)
        if self._syncer is None:
            self.sync()

    def _begin_file(self) -> None:
        while True:
            self._number += 1
            path = self._folder / f"decisions-{self._pid}-{self._number:04d}.jsonl"
            try:
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
                break
            except FileExistsError:  # a predecessor had the same pid
                continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise
        self._file, self.path = file, path
        self._size, self._ends_at = 0, self._timer() + self._limits.max_age_s
        self._is_torn = self._is_spoiled = False
        self._has_new_name = True

    def _sync_until_stopped(self) -> None:
        while not self._stop.wait(self._limits.sync_s):
            self.sync()
