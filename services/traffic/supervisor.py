"""The process that keeps a home running: releases first, then Envoy, and the processes of `specs.json`.

It owns what it started (each in a session of its own) and what a killed predecessor recorded in running.json, and
stops only that. It survives the program that started it. Order at start: the releases that slots.json names →
endpoints rewritten → Envoy, once a stable release is ready. What dies is started again, with back-off.
Run: `python -m services.traffic.supervisor --home DIR --base-port N`. Source: design.md §7.
Must never import bentoml, torch or sqlalchemy.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from services.home import LOOPBACK, Home, Ports
from services.traffic.admin import EnvoyAdmin
from services.traffic.bootstrap import bootstrap_file, envoy_argv
from services.traffic.errors import TrafficError
from services.traffic.owned import Ending, Owned, answers_200
from services.traffic.processes import (
    Identity,
    end,
    identify,
    is_alive,
    kill_session,
    port_is_free,
    session_members,
    spawn,
    terminate,
)
from services.traffic.records import (
    ENVOY,
    ProcessSpec,
    RunningProcess,
    at_port,
    read_desired,
    read_running,
    read_specs,
    supervisor_file,
    write_deaths,
    write_desired,
    write_running,
)
from services.traffic.state_files import locked, write_json
from services.traffic.supervision import (
    GRACE_S,
    drop_release,
    free_port,
    in_charge,
    running,
    start_supervisor,
    stop_supervisor,
    wait_ready,
    want_release,
)
from services.traffic.traffic import Traffic

__all__ = [
    "Supervisor",
    "drop_release",
    "main",
    "running",
    "start_supervisor",
    "stop_supervisor",
    "wait_ready",
    "want_release",
]

TICK_S = 0.2
DERIVE_S = 1.0
"""How often the endpoint and route files are compared with slots.json."""
LONGEST_BACKOFF_S = 30.0
STEADY_S = 30.0
"""A process that lived this long starts its back-off anew."""
UNREADY_AFTER = 3
"""Failed looks in a row before a ready process counts as not ready."""


class Supervisor:
    """Reconciles what runs with what is wanted, every `TICK_S` seconds, until told to stop."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._traffic = Traffic(home)
        self._owned: dict[str, Owned] = {}
        self._stopping = threading.Event()
        self._lookers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="look")
        self._ending: list[Ending] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._derive_at = 0.0
        self._reported: dict[str, str] = {}
        self._written: dict[str, RunningProcess] | None = None

    def stop(self) -> None:
        """End the loop, then everything owned."""
        self._stopping.set()

    def run(self) -> None:
        """Own this home until stopped. Raises: TrafficError when another supervisor does."""
        with in_charge(self._home):
            mine = identify(os.getpid()) or Identity(os.getpid(), 0.0)
            write_json(supervisor_file(self._home), {"pid": mine.pid, "created": mine.created})
            _log("started", pid=mine.pid, home=self._home.root, base_port=self._home.ports.base)
            try:
                self._adopt()
                while not self._stopping.is_set():
                    try:
                        self._tick()
                    except OSError as error:  # a full disk must not end what runs
                        self._report("disk", str(error))
                    else:
                        self._report("disk", None)
                    self._stopping.wait(TICK_S)
            finally:
                self._shut_down()
                supervisor_file(self._home).unlink(missing_ok=True)
                _log("stopped")

    # -- what is wanted ------------------------------------------------------------------------------------

    def _wanted(self) -> dict[str, ProcessSpec]:
        """Everything that must run now, in the order in which it is to start."""
        slots = self._traffic.read_slots()
        releases = read_desired(self._home)
        first = [name for name in (slots.releases() if slots else ()) if name in releases]
        wanted = {name: releases[name] for name in [*first, *releases]}
        wanted.update({spec.name: spec for spec in read_specs(self._home)})
        if slots is not None and (ENVOY in self._owned or any(self._is_ready(name) for name in slots.stable)):
            wanted[ENVOY] = self._envoy()
        return wanted

    def _envoy(self) -> ProcessSpec:
        owned = self._owned.get(ENVOY)
        if owned is not None:
            return owned.spec
        # The start-up file is part of what Envoy is: an orphan with another one is not adopted.
        self._traffic.derive()
        self._traffic.derive_bootstrap()
        self._home.access_log.parent.mkdir(parents=True, exist_ok=True)
        made = bootstrap_file(self._home).stat().st_mtime_ns
        return ProcessSpec(
            name=ENVOY,
            argv=envoy_argv(self._home),
            env={"TRIMTAB_BOOTSTRAP": str(made)},
            cwd=str(self._home.root),
            ready_url=f"http://{LOOPBACK}:{self._home.ports.envoy_admin}/ready",
            restart_delay_s=0.05,  # nobody is served meanwhile
        )

    def _is_ready(self, name: str) -> bool:
        owned = self._owned.get(name)
        return owned is not None and owned.ready

    # -- one look ------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Take over what a killed supervisor left, if it is still what is wanted; end the rest."""
        slots = self._traffic.read_slots()
        wanted = {**read_desired(self._home), **{spec.name: spec for spec in read_specs(self._home)}}
        left = {name: old for name, old in read_running(self._home).items() if is_alive(old.identity)}
        if slots is not None and ENVOY in left:
            wanted[ENVOY] = self._envoy()
        unwanted: list[Identity] = []
        for name, old in left.items():
            spec = wanted.get(name)
            if spec is not None and spec.digest == old.digest:
                self._owned[name] = Owned(spec, old.identity, since=old.since, restarts=old.restarts)
                _log("adopted", name=name, pid=old.pid)
            else:
                unwanted.append(old.identity)
                _log("ends_orphan", name=name, pid=old.pid)
        _end_all(unwanted)

    def _tick(self) -> None:
        now = time.monotonic()  # a wall clock that is set anew must hold up no restart and no look
        # Collect exit statuses, or the dead stay zombies; processes taken over are their parent's to collect.
        self._children = [child for child in self._children if child.poll() is None]
        try:
            wanted = self._wanted()
        except TrafficError as error:
            # A file that cannot be read changes nothing: what runs goes on.
            self._report("wanted", str(error))
            wanted = {name: owned.spec for name, owned in self._owned.items()}
        else:
            self._report("wanted", None)
        self._end_unwanted(wanted)
        for name, spec in wanted.items():
            owned = self._owned.setdefault(name, Owned(spec))
            if owned.process is not None and not is_alive(owned.process):
                self._bury(name, owned, now)
            if owned.process is None and now >= owned.start_at and not self._still_ends(name):
                self._start(name, owned, now)
            if owned.process is not None:
                self._look(name, owned, now)
        if now >= self._derive_at:
            self._derive_at = now + DERIVE_S
            self._derive()
        self._record()

    def _derive(self) -> None:
        try:
            self._traffic.derive()
        except TrafficError as error:
            self._report("slots", str(error))
        else:
            self._report("slots", None)

    def _end_unwanted(self, wanted: dict[str, ProcessSpec]) -> None:
        for name in list(self._owned):
            owned = self._owned[name]
            if name in wanted and wanted[name].digest == owned.spec.digest:
                continue
            del self._owned[name]
            if owned.process is not None:
                _log("ends", name=name, pid=owned.process.pid)
                terminate(owned.process)
                self._ending.append(Ending(name, owned.process, time.monotonic() + GRACE_S))
        for ending in list(self._ending):
            if not is_alive(ending.process) or time.monotonic() >= ending.deadline:
                kill_session(ending.process)
                if not session_members(ending.process):
                    self._ending.remove(ending)

    def _still_ends(self, name: str) -> bool:
        return any(ending.name == name for ending in self._ending)

    def _bury(self, name: str, owned: Owned, now: float) -> None:
        if owned.process is None:
            return
        kill_session(owned.process)
        owned.deaths_in_a_row = 0 if now - owned.since > STEADY_S else owned.deaths_in_a_row
        delay_s = min(LONGEST_BACKOFF_S, owned.spec.restart_delay_s * 2.0 ** min(owned.deaths_in_a_row, 10))
        owned.deaths_in_a_row += 1
        owned.start_at = now + delay_s
        _log(
            "died", name=name, pid=owned.process.pid, lived_s=round(now - owned.since, 1), again_in_s=delay_s
        )
        owned.process, owned.ready, owned.look, owned.failed_looks = None, False, None, 0
        owned.restarts += 1
        write_deaths(self._home, {name: one.restarts for name, one in self._owned.items()})

    def _start(self, name: str, owned: Owned, now: float) -> None:
        try:
            spec = self._on_a_free_port(name, owned.spec)
            env = {**os.environ, **spec.env}
            log = self._home.processes / f"{name}.log"
            owned.process, child = spawn(spec.argv, env=env, cwd=Path(spec.cwd), log=log)
            self._children.append(child)
        except (TrafficError, OSError) as error:
            self._report(name, str(error))
            owned.start_at = now + max(1.0, owned.spec.restart_delay_s)
            return
        owned.spec, owned.since, owned.look_at = spec, now, now + 0.1
        self._record()
        _log("starts", name=name, pid=owned.process.pid, port=spec.port, restarts=owned.restarts)

    def _on_a_free_port(self, name: str, spec: ProcessSpec) -> ProcessSpec:
        """A release whose port somebody else took meanwhile moves to another, and its endpoints with it."""
        with locked(self._home):
            releases = read_desired(self._home)
            if name not in releases or spec.port is None or port_is_free(spec.port):
                return spec
            taken = {other.port for other in releases.values()}
            moved = at_port(spec, free_port(self._home, taken=taken))
            write_desired(self._home, {**releases, name: moved})
        _log("moved", name=name, from_port=spec.port, to_port=moved.port)
        self._derive()
        return moved

    def _look(self, name: str, owned: Owned, now: float) -> None:
        """Ask `ready_url` in the background; a process without one is ready while it lives."""
        if owned.spec.ready_url is None:
            owned.ready = True
            return
        if owned.look is not None and owned.look.done():
            was = owned.ready
            if owned.look.result():
                owned.ready, owned.failed_looks = True, 0
            else:
                owned.failed_looks += 1
                owned.ready = owned.ready and owned.failed_looks < UNREADY_AFTER
            if owned.ready != was:
                _log("ready" if owned.ready else "not_ready", name=name, after_s=round(now - owned.since, 1))
            owned.look = None
            owned.look_at = now + (1.0 if owned.ready else TICK_S)
        if owned.look is None and now >= owned.look_at:
            owned.look = self._lookers.submit(answers_200, owned.spec.ready_url)

    def _record(self) -> None:
        found = {
            name: RunningProcess(
                pid=owned.process.pid,
                created=owned.process.created,
                port=self._home.ports.users if name == ENVOY else owned.spec.port,
                ready=owned.ready,
                since=owned.since,
                restarts=owned.restarts,
                digest=owned.spec.digest,
            )
            for name, owned in self._owned.items()
            if owned.process is not None
        }
        # What is asked to finish stays on record until it has: a successor would have to end it.
        for old in self._ending:
            found[f"{old.name}.ending-{old.process.pid}"] = RunningProcess(
                *(old.process.pid, old.process.created),
                port=None,
                ready=False,
                since=0.0,
                restarts=0,
                digest="",
            )
        if found != self._written:
            try:
                write_running(self._home, found)
            except OSError as error:  # it is tried again at the next look
                self._report("running.json", str(error))
            else:
                self._report("running.json", None)
                self._written = found

    # -- the end -------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        """Envoy stops accepting and finishes first, then all the rest, each in at most `GRACE_S` seconds."""
        self._lookers.shutdown(wait=False, cancel_futures=True)
        owned = {name: entry.process for name, entry in self._owned.items() if entry.process is not None}
        envoy = owned.pop(ENVOY, None)
        if envoy is not None:
            _log("drains", name=ENVOY)
            _drain(EnvoyAdmin(self._home), envoy)
            _end_all([envoy])
        _end_all([*owned.values(), *(ending.process for ending in self._ending)])
        self._owned.clear()
        self._ending.clear()
        self._record()

    def _report(self, about: str, problem: str | None) -> None:
        """Log a lasting problem once, and that it is over."""
        if self._reported.get(about) == problem:
            return
        if problem is None:
            del self._reported[about]
            _log("problem_over", about=about)
        else:
            self._reported[about] = problem
            _log("problem", about=about, text=problem)


def _drain(admin: EnvoyAdmin, envoy: Identity) -> None:
    deadline = time.monotonic() + GRACE_S
    try:
        admin.drain()
        while time.monotonic() < deadline and is_alive(envoy) and admin.active_requests() > 0:
            time.sleep(0.05)
    except TrafficError as error:
        _log("cannot_drain", text=str(error))
    terminate(envoy)


def _end_all(processes: Sequence[Identity]) -> None:
    end(processes, grace_s=GRACE_S, now=time.monotonic, sleep=time.sleep)


def _log(event: str, **facts: object) -> None:
    text = " ".join(f"{key}={value}" for key, value in facts.items())
    with suppress(OSError):  # whoever cannot write its log goes on
        print(
            f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} event={event} {text}".rstrip(), flush=True
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the supervisor until SIGTERM or SIGINT; exit status 1 when another one runs."""
    parser = argparse.ArgumentParser(prog="python -m services.traffic.supervisor", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the state directory")
    parser.add_argument("--base-port", type=int, required=True, help="first of the home's loopback ports")
    options = parser.parse_args(argv)
    supervisor = Supervisor(Home(root=options.home.resolve(), ports=Ports(base=options.base_port)))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    try:
        supervisor.run()
    except TrafficError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
