"""One owned process: start it in a session of its own, know it again later, end it and all it started.

A process is known by pid and creation time. Rule: nothing is ever signalled unless both agree. The time is one that no
setting of the wall clock moves: by the epoch, Linux gives every process another one when the clock is stepped.
Must never import bentoml, torch or sqlalchemy.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from services.home import LOOPBACK
from services.traffic.errors import TrafficError

_SAME_S = 0.05
_DEATH_S = 2.0
_LOG_LIMIT_BYTES = 10_000_000


@dataclass(frozen=True)
class Identity:
    """A process that may be gone: pid and creation time, seconds (on Linux since boot, elsewhere epoch)."""

    pid: int
    created: float


def identify(pid: int) -> Identity | None:
    """The identity of a living process; None when there is none (a zombie counts as gone)."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Identity(pid, _created(process))
    except (psutil.Error, ProcessLookupError, FileNotFoundError):
        return None


def _created(process: psutil.Process) -> float:
    """As the kernel has it. Source: proc_pid_stat(5), field 22 (starttime), in clock ticks since boot."""
    if not psutil.LINUX:
        return float(process.create_time())
    after_name = (
        Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    )
    return int(after_name.split()[19]) / os.sysconf("SC_CLK_TCK")


def is_alive(identity: Identity) -> bool:
    """Whether this very process lives."""
    now = identify(identity.pid)
    return now is not None and abs(now.created - identity.created) <= _SAME_S


def spawn(
    argv: Sequence[str], *, env: Mapping[str, str] | None, cwd: Path, log: Path
) -> tuple[Identity, "subprocess.Popen[bytes]"]:
    """Start `argv` in its own session, output appended to `log`.

    `env` None: the caller's own. Raises: TrafficError when it cannot start."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        os.replace(log, log.with_suffix(".log.1"))
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                list(argv),
                env=None if env is None else dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            raise TrafficError(f"cannot start {argv[0]}: {error}") from error
    identity = identify(process.pid)
    return identity or Identity(process.pid, 0.0), process


def session_members(identity: Identity) -> list[psutil.Process]:
    """The living processes of the session that this leader opened, the leader too if it lives."""
    leader = identify(identity.pid)
    if leader is not None and abs(leader.created - identity.created) > _SAME_S:
        return []
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == identity.pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def terminate(identity: Identity) -> None:
    """Ask the leader to finish (SIGTERM)."""
    _signal(identity, signal.SIGTERM)


def kill_session(identity: Identity) -> None:
    """End at once whatever is left of the session (SIGKILL)."""
    for process in session_members(identity):
        with suppress(psutil.Error):
            process.kill()


def end(
    identities: Sequence[Identity],
    *,
    grace_s: float,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Ask all to finish, wait at most `grace_s` seconds for all together, then end what is left."""
    for identity in identities:
        terminate(identity)
    deadline = now() + grace_s
    while now() < deadline and any(is_alive(identity) for identity in identities):
        sleep(0.05)
    for identity in identities:
        kill_session(identity)
    deadline = now() + _DEATH_S
    while now() < deadline and any(is_alive(identity) for identity in identities):
        sleep(0.02)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _signal(identity: Identity, number: signal.Signals) -> None:
    if is_alive(identity):
        with suppress(psutil.Error):
            psutil.Process(identity.pid).send_signal(number)
