"""Deletes log files that nobody writes any more and whose every record is in the store; begins new access logs.

A decision log that is being written is locked by its writer (services/serving/decision_log.py); the kernel lets go of
the lock when the writer dies, however it dies. The proxy locks nothing: its log is renamed and the proxy told to open a
new one, and only renamed ones are deleted. What the shipper has not passed stays, whatever its age.
Must never import: sqlalchemy, policies, flows.
"""

import fcntl
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.home import Home
from services.store.decisions import Checkpoint
from services.telemetry.log_files import is_file_of
from services.traffic.errors import TrafficError
from services.traffic.processes import is_alive
from services.traffic.records import ENVOY, read_running

ACCESS_LOG_BYTES = 64 * 2**20


@dataclass(frozen=True)
class OldLogs:
    """What was deleted (paths, their file ids and bytes), and old files that stay with the reason."""

    deleted: tuple[Path, ...]
    file_ids: tuple[str, ...]
    bytes: int
    kept: Mapping[str, str]


def delete_old_logs(
    home: Home, shipped: Mapping[str, Checkpoint], *, before: float, is_dry: bool = False
) -> OldLogs:
    """Delete the logs that were last written before this time (epoch s); `shipped`: checkpoints by file id."""
    access = home.access_log
    files = [
        *home.decision_logs.glob("*/*.jsonl*"),
        *access.parent.glob(f"{access.name}.[0-9]*"),  # as begin_access_log names them
    ]
    deleted, ids, size, kept = [], [], 0, {}
    for path in sorted(files):
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mtime >= before:
                continue
            file_id = f"{status.st_dev}:{status.st_ino}"
            checkpoint = shipped.get(file_id)
            position = 0 if checkpoint is None or not is_file_of(file, checkpoint) else checkpoint.position
            file.seek(position)
            if b"\n" in file.read():  # a last line that its writer never ended is no record
                kept[str(path)] = f"shipped up to {position} of {status.st_size} bytes"
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                kept[str(path)] = "is being written"
                continue
            if not is_dry:
                path.unlink()
        deleted.append(path)
        ids.append(file_id)
        size += status.st_size
    return OldLogs(tuple(deleted), tuple(ids), size, kept)


def begin_access_log(home: Home, *, now: float, most_bytes: int = ACCESS_LOG_BYTES) -> Path | None:
    """Where the proxy's log is longer than `most_bytes`: put it aside and have the proxy begin another.

    What it was renamed to; None where nothing had to be done, or no proxy runs.
    """
    log = home.access_log
    if not log.is_file() or log.stat().st_size <= most_bytes:
        return None
    try:
        proxy = read_running(home).get(ENVOY)
    except TrafficError:
        proxy = None
    if proxy is None or not is_alive(proxy.identity):
        return None
    aside = log.with_name(f"{log.name}.{int(now)}")
    log.rename(aside)
    os.kill(proxy.pid, signal.SIGUSR1)  # it writes to the renamed file until it has opened the new one
    return aside
