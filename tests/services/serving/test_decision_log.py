"""The decision log by itself: whole lines, files that end and begin, a disk that is full, gaps, syncs."""

import errno
import fcntl
import json
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.serving.decision_log import DecisionLog, DecisionLogError, LogLimits
from tests.decision_records import made_up_line


def entries(folder: Path) -> list[list[Any]]:
    """The entries of each file of the release, in the files' order; a line that is torn is its text."""

    def parsed(line: bytes) -> Any:
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            return line

    files = sorted((folder / "r-1").glob("*.jsonl"))
    return [[parsed(line) for line in file.read_bytes().splitlines()] for file in files]


def ids(folder: Path) -> list[list[str]]:
    return [[entry["decision_id"] for entry in file] for file in entries(folder)]


@contextmanager
def full_disk(*, after_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond `after_bytes`: the kernel writes what fits, then refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_ends_by_size_and_by_age_and_nothing_is_lost_between(tmp_path: Path) -> None:
    """Records of one append stay together; a file ends after it has reached its size or its age, whichever is first."""
    now = [0.0]
    size = 2 * len(made_up_line("d0"))
    limits = LogLimits(max_bytes=size, max_age_s=60.0)
    log = DecisionLog(tmp_path, "r-1", pid=7, limits=limits, timer=lambda: now[0])
    log.append([made_up_line("d0")])
    log.append([made_up_line("d1"), made_up_line("d2")])
    log.append([made_up_line("d3")])
    now[0] = 59.0
    log.append([])
    assert ids(tmp_path) == [["d0", "d1", "d2"], ["d3"]]
    now[0] = 60.0
    log.append([made_up_line("d4")])
    assert ids(tmp_path) == [["d0", "d1", "d2"], ["d3"], ["d4"]]
    assert log.path.name == "decisions-7-0003.jsonl"
    assert log.status()["written"] == 5


def test_a_successor_with_the_same_pid_never_writes_into_an_older_file(tmp_path: Path) -> None:
    """What a predecessor left, torn or not, stays as it is."""
    DecisionLog(tmp_path, "r-1", pid=7).append([made_up_line("d0")])
    log = DecisionLog(tmp_path, "r-1", pid=7)
    log.append([made_up_line("d1")])
    assert ids(tmp_path) == [["d0"], ["d1"]]
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_only_the_file_in_use_is_locked(tmp_path: Path) -> None:
    """Whoever cleans up can tell ended files from the one that is being written, without knowing the process."""
    log = DecisionLog(tmp_path, "r-1", pid=7, limits=LogLimits(max_bytes=1))
    log.append([made_up_line("d0")])
    ended = log.path
    log.append([made_up_line("d1")])
    with ended.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with log.path.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_full_disk_tears_at_most_one_line_and_says_what_is_missing(tmp_path: Path) -> None:
    """Of a batch that does not fit the whole lines count as written; the torn one never spoils the next record."""
    log = DecisionLog(tmp_path, "r-1", pid=7)
    with full_disk(after_bytes=2 * len(made_up_line("d0")) + 10):
        with pytest.raises(DecisionLogError, match="File too large") as caught:
            log.append([made_up_line(f"d{n}") for n in range(5)])
        assert caught.value.missing == 3
        with pytest.raises(DecisionLogError) as caught:
            log.append([made_up_line("d5")])
        assert caught.value.missing == 1
    log.append([made_up_line("d6")])
    (found,) = entries(tmp_path)
    assert [one if isinstance(one, bytes) else one["decision_id"] for one in found] == [
        "d0",
        "d1",
        made_up_line("d2")[:10],
        "d6",
    ]


def test_decisions_that_were_answered_unlogged_stand_in_the_log_as_a_gap(tmp_path: Path) -> None:
    """As soon as the log can be written again it says how many are missing, and between when; once."""
    log = DecisionLog(tmp_path, "r-1", pid=7)
    log.count_missed(2, at=10.0)
    log.count_missed(3, at=12.5)
    log.append([made_up_line("d0")])
    log.append([made_up_line("d1")])
    (found,) = entries(tmp_path)
    gap = {"v": 1, "gap_id": "r-1:7:10.0", "release": "r-1", "since": 10.0, "until": 12.5, "decisions": 5}
    assert [one.get("decision_id", one) for one in found] == ["d0", gap, "d1"]
    assert log.status()["missed"] == 5


def test_a_gap_that_does_not_fit_is_written_with_the_next_record(tmp_path: Path) -> None:
    """The disk has room for the record but not for the gap: nothing is forgotten."""
    log = DecisionLog(tmp_path, "r-1", pid=7)
    log.count_missed(2, at=10.0)
    with full_disk(after_bytes=len(made_up_line("d0")) + 5):
        log.append([made_up_line("d0")])
    log.append([made_up_line("d1")])
    (found,) = entries(tmp_path)
    assert [one.get("decisions") for one in found if isinstance(one, dict)] == [None, None, 2]


def test_without_a_new_file_the_old_one_goes_on(tmp_path: Path) -> None:
    """Where no file can be made (here: no descriptor is left) the one in use goes on, and is ended a second later."""
    now = [0.0]
    limits = LogLimits(max_age_s=60.0)
    log = DecisionLog(tmp_path, "r-1", pid=7, limits=limits, timer=lambda: now[0])
    log.append([made_up_line("d0")])
    now[0] = 60.0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        log.append([made_up_line("d1")])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    log.append([made_up_line("d2")])
    now[0] = 61.0
    log.append([made_up_line("d3")])
    assert ids(tmp_path) == [["d0", "d1", "d2"], ["d3"]]


def test_a_release_starts_on_a_full_disk_and_logs_as_soon_as_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for the file: nothing is logged and every append says so, until there is; what is wrong otherwise stops
    the start."""
    real, errors = os.open, [errno.ENOSPC, errno.ENOSPC, errno.EACCES]

    def refuse(path: Any, flags: int, *more: Any, **words: Any) -> int:
        if str(path).endswith(".jsonl") and errors:
            raise OSError(errors.pop(0), "refused")
        return real(path, flags, *more, **words)

    monkeypatch.setattr(os, "open", refuse)
    log = DecisionLog(tmp_path, "r-1", pid=7)
    with pytest.raises(DecisionLogError) as caught:
        log.append([made_up_line("d0"), made_up_line("d1")])
    assert caught.value.missing == 2
    log.count_missed(2, at=1.0)
    log.sync()
    with pytest.raises(DecisionLogError, match="cannot be opened"):
        DecisionLog(tmp_path, "r-1", pid=8)
    log.append([made_up_line("d2")])
    (found,) = entries(tmp_path)
    assert [one.get("decision_id", one.get("decisions")) for one in found] == ["d2", 2]
    assert log.status()["sync_failures"] == 0


def test_the_disk_gets_it_within_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread syncs the file in use after it was written, and every ended file, and nothing while nothing comes."""
    synced: list[str] = []
    seen = threading.Event()

    def note(file: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        seen.set()

    monkeypatch.setattr("services.serving.decision_log._sync", note)
    log = DecisionLog(tmp_path, "r-1", pid=7, limits=LogLimits(max_bytes=1, sync_s=0.01))
    log.keep_synced()
    log.append([made_up_line("d0")])
    assert seen.wait(5)
    assert synced == ["decisions-7-0001.jsonl"]
    log.append([made_up_line("d1")])
    log.close()
    assert synced[1:] == ["decisions-7-0002.jsonl", "decisions-7-0001.jsonl"]


def test_a_failed_sync_is_counted_and_begins_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel drops what it could not write, so what comes next goes into a file that is whole."""

    def fail(_file: int) -> None:
        raise OSError(5, "Input/output error")

    log = DecisionLog(tmp_path, "r-1", pid=7)
    log.append([made_up_line("d0")])
    with monkeypatch.context() as patch:
        patch.setattr("services.serving.decision_log._sync", fail)
        log.sync()
    log.append([made_up_line("d1")])
    assert ids(tmp_path) == [["d0"], ["d1"]]
    assert log.status()["sync_failures"] == 1
