"""A conductor as a process that dies by SIGKILL at a named moment (`World.moment`) of a real rollout.

It does what `trimtab rollout start --without-prefect` and `rollout resume` do. The product knows no such death: the
moment is given here, to a `World` that is made here. Processes are forked from a server that has imported everything,
so that a life takes a tenth of a second, not four.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from flows.conduct_rollout import conduct, write_missing_reports
from flows.show_progress import ProgressView
from flows.system import make_world, stable_release
from flows.wiring import open_store
from services.home import Home, Ports
from services.rollout.new_rollout import begin_rollout
from services.serving.release import find_release
from services.store import rollouts

SOURCE = Path(__file__).resolve().parents[2]
LIFE_S = 90


@dataclass(frozen=True)
class Life:
    """One conductor's life: its exit status (-9: killed), when it ended (epoch s), and the moments it went through."""

    status: int
    ended_at: float
    moments: tuple[str, ...]


@dataclass
class Conductors:
    """Gives birth to conductors of one home, one at a time. Make it with `conductors_of`."""

    home: Home
    folder: Path
    server: "subprocess.Popen[str]"
    lives: list[Life] = field(default_factory=list)

    def live(self, candidate: str, *, dies_at: str | None = None, fault: str | None = None) -> Life:
        """Conduct the candidate's rollout until it ends or `dies_at` comes, what stands on record first.

        Raises RuntimeError with the end of what it said, if it ends otherwise or lives longer than LIFE_S.
        """
        stem = self.folder / f"conductor-{len(self.lives):04d}"
        given = [str(self.home.root), self.home.ports.base, candidate, dies_at, fault, str(stem)]
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(given) + "\n")
        self.server.stdin.flush()
        status = int(self.server.stdout.readline() or "1")
        told = stem.with_suffix(".moments")
        moments = tuple(told.read_text(encoding="utf-8").splitlines()) if told.is_file() else ()
        self.lives.append(Life(status, time.time(), moments))
        if status not in (0, -signal.SIGKILL):
            raise RuntimeError(
                f"the conductor that was to die at {dies_at!r} ended with {status}: {_said(stem)}"
            )
        return self.lives[-1]


@contextmanager
def conductors_of(home: Home) -> Iterator[Conductors]:
    """Conductors of this home; the server that forks them ends with the block."""
    folder = home.root / "lives" / str(time.monotonic_ns())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )
    try:
        yield Conductors(home, folder, server)
    finally:
        server.communicate(timeout=LIFE_S)


def serve() -> None:
    """Fork a conductor for each line on stdin; answer with its exit status."""
    from services.reports import evidently_run  # noqa: F401 - imported once for all

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.alarm(LIFE_S)
            try:
                conduct_until(*json.loads(line))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, flush=True)


def conduct_until(
    root: str, base: int, candidate: str, dies_at: str | None, fault: str | None, stem: str
) -> None:
    """The whole life of one conductor; runs in its own process."""
    said = os.open(f"{stem}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    told = os.open(f"{stem}.moments", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(moment: str) -> None:
        os.write(told, f"{moment}\n".encode())
        if moment == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    home = Home(Path(root), Ports(base))
    db = open_store(home)
    world = replace(make_world(home, db, fault=fault), tell=tell)
    release = find_release(home.releases, candidate)
    record = rollouts.active(db, release.service)
    newest = next(iter(rollouts.recent(db, release.service, limit=1)), None)
    if record is None and newest is not None and newest.candidate == candidate:
        write_missing_reports(world, newest)
        return
    is_resumed = record is not None
    if record is None:
        record = begin_rollout(
            world,
            service=release.service,
            champion=stable_release(home) or "",
            candidate=candidate,
            policy_text=(release.folder / "rollout.yaml").read_text(encoding="utf-8"),
            utility_text=(release.folder / "utility.yaml").read_text(encoding="utf-8"),
        )
    with ProgressView(Console(file=sys.stdout), []) as view:
        conduct(
            world,
            record,
            view,
            on_verdict=lambda verdict, _: view.conclude(verdict),
            resumed=is_resumed,
            with_prefect=False,
        )


def _said(stem: Path) -> str:
    log = stem.with_suffix(".log")
    return log.read_text(encoding="utf-8", errors="replace")[-3000:] if log.is_file() else "nothing"


if __name__ == "__main__":
    serve()
