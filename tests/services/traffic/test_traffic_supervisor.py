"""The supervisor with real processes and the real Envoy: starts, adopts, restarts, moves, and ends only its own."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from services.home import LOOPBACK, Home, Ports
from services.traffic.errors import TrafficError
from services.traffic.processes import identify, is_alive, session_members
from services.traffic.records import (
    ProcessSpec,
    RunningProcess,
    read_running,
    recorded_ports,
    supervisor_file,
    supervisor_identity,
    write_running,
)
from services.traffic.slots import Slots
from services.traffic.supervisor import (
    drop_release,
    running,
    start_supervisor,
    stop_supervisor,
    wait_ready,
    want_release,
)
from services.traffic.traffic import Traffic

pytestmark = pytest.mark.e2e

UPSTREAM = Path(__file__).parent / "upstream.py"


@dataclass(frozen=True)
class Command:
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    ready_url: str


def release(name: str) -> Callable[[int], Command]:
    def at(port: int) -> Command:
        argv = (sys.executable, str(UPSTREAM), name, str(port))
        return Command(argv, {}, UPSTREAM.parent, f"http://{LOOPBACK}:{port}/readyz")

    return at


SLEEPER = ProcessSpec(
    name="sleeper",
    argv=(sys.executable, "-c", "import subprocess,time; subprocess.Popen(['sleep','600']); time.sleep(600)"),
    env={"MARK": "1"},
    cwd="/",
    ready_url=None,
    restart_delay_s=0.2,
)


def ask(home: Home, path: str = "/decide") -> str:
    url = f"http://{LOOPBACK}:{home.ports.users}{path}"
    return str(httpx.post(url, json={}, headers={"x-unit-id": "u1"}).raise_for_status().json()["name"])


def answers(home: Home) -> bool:
    try:
        return ask(home) == "one"
    except httpx.HTTPError:
        return False


@pytest.fixture
def home(tmp_path: Path, base_port: int) -> Iterator[Home]:
    home = Home(tmp_path / "home", Ports(base_port))
    try:
        yield home
    finally:
        stop_supervisor(home)
        assert running(home) == {}


@pytest.fixture
def served(home: Home) -> Home:
    """A home that serves release `one` through Envoy, beside a static process that has a child."""
    start_supervisor(home, [SLEEPER])
    want_release(home, "one", release("one"))
    Traffic(home).write_slots(Slots(("one",), None, None, "s1"))
    wait_ready(home, "envoy", 20)
    assert ask(home) == "one"
    return home


def test_keeps_a_home_running(served: Home, wait: Callable[..., Any]) -> None:
    """It refuses a second one, says what runs, starts again what was killed, and leaves nothing behind."""
    with pytest.raises(TrafficError, match="trimtab down"):
        start_supervisor(served, [])
    first = running(served)
    assert set(first) == {"one", "envoy", "sleeper"}
    assert all(process.ready for process in first.values())
    assert first["one"].port == recorded_ports(served)["one"]
    assert first["envoy"].port == served.ports.users
    for name in ("one", "envoy"):
        os.kill(first[name].pid, signal.SIGKILL)
        wait(lambda name=name: wait_ready(served, name, 20).restarts == 1, what=f"{name} again")
    assert ask(served) == "one"
    assert len(session_members(first["sleeper"].identity)) == 2
    everything = running(served)
    stop_supervisor(served)
    assert not any(is_alive(process.identity) for process in everything.values())
    assert session_members(first["sleeper"].identity) == []
    assert not supervisor_file(served).exists()
    start_supervisor(served, [])
    wait_ready(served, "envoy", 20)
    assert ask(served) == "one"


def test_a_full_disk_ends_nothing(served: Home, wait: Callable[..., Any]) -> None:
    """While it can write no byte, it starts again what dies and ends nothing; afterwards the record is right again."""
    before = running(served)
    supervisor = supervisor_identity(served)
    assert supervisor is not None
    limits = psutil.Process(supervisor.pid)
    _, most = limits.rlimit(psutil.RLIMIT_FSIZE)
    limits.rlimit(psutil.RLIMIT_FSIZE, (0, most))
    os.kill(before["one"].pid, signal.SIGKILL)
    wait(lambda: answers(served), timeout_s=20, what="release one again")
    assert running(served)["envoy"] == before["envoy"]
    limits.rlimit(psutil.RLIMIT_FSIZE, (most, most))
    wait(lambda: "one" in running(served), timeout_s=20, what="release one on record")
    assert running(served)["one"].pid != before["one"].pid
    assert supervisor_identity(served) == supervisor


def test_a_killed_supervisor_is_succeeded(served: Home, wait: Callable[..., Any]) -> None:
    """SIGKILL of it stops no request; the next one adopts the same processes, and ends what is not wanted."""
    before = running(served)
    old = supervisor_identity(served)
    assert old is not None
    os.kill(old.pid, signal.SIGKILL)
    wait(lambda: not is_alive(old), what="its end")
    assert ask(served) == "one"
    start_supervisor(served, [])
    wait(lambda: set(running(served)) == {"one", "envoy"}, what="adoption")
    after = running(served)
    assert {name: process.pid for name, process in after.items()} == {
        name: before[name].pid for name in ("one", "envoy")
    }
    assert not is_alive(before["sleeper"].identity)
    assert ask(served) == "one"
    new = supervisor_identity(served)
    assert new is not None
    os.kill(new.pid, signal.SIGKILL)
    wait(lambda: not is_alive(new), what="its end")
    stop_supervisor(served)
    assert not any(is_alive(process.identity) for process in after.values())


def test_a_foreign_process_is_never_touched(home: Home, wait: Callable[..., Any]) -> None:
    """A recorded pid that belongs to another process by now (other creation time) is neither adopted nor ended."""
    with subprocess.Popen(["sleep", "60"]) as foreign:
        identity = identify(foreign.pid)
        assert identity is not None
        stale = RunningProcess(foreign.pid, identity.created - 100, None, True, 0.0, 0, SLEEPER.digest)
        write_running(home, {"sleeper": stale})
        start_supervisor(home, [SLEEPER])
        wait_ready(home, "sleeper", 10)
        assert read_running(home)["sleeper"].pid != foreign.pid
        stop_supervisor(home)
        write_running(home, {"sleeper": stale})
        stop_supervisor(home)
        assert foreign.poll() is None
        foreign.kill()


def test_a_taken_port_moves_the_release(served: Home) -> None:
    """Started again while somebody holds its port, a release moves, and its endpoints with it."""
    port = recorded_ports(served)["one"]
    stop_supervisor(served)
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((LOOPBACK, port))
        squatter.listen()
        start_supervisor(served, [])
        wait_ready(served, "envoy", 20)
        assert recorded_ports(served)["one"] != port
        assert ask(served) == "one"


def test_releases_come_and_go(served: Home, wait: Callable[..., Any]) -> None:
    """A release keeps its port, cannot be dropped from a slot, and is ended once it is out of it."""
    port = want_release(served, "two", release("two"))
    assert want_release(served, "two", release("two")) == port
    wait_ready(served, "two", 10)
    traffic = Traffic(served)
    traffic.write_slots(Slots(("two", "one"), None, None, "s1"))
    wait(lambda: ask(served) == "two", what="two serves")
    old = running(served)["one"]
    with pytest.raises(TrafficError, match="still has a slot"):
        drop_release(served, "one")
    traffic.write_slots(Slots(("two",), None, None, "s1"))
    drop_release(served, "one")
    wait(lambda: not is_alive(old.identity), what="one's end")
    assert ask(served) == "two"
    with pytest.raises(TrafficError, match="has no port"):
        traffic.write_slots(Slots(("two",), "three", None, "s1"))
    assert traffic.read_slots() == Slots(("two",), None, None, "s1")


def test_stop_lets_requests_finish(served: Home) -> None:
    """A request that is in flight when everything is told to stop still gets its answer."""
    port = recorded_ports(served)["one"]
    httpx.post(f"http://{LOOPBACK}:{port}/mode/slow")
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(ask(served)))
    asking.start()
    time.sleep(0.4)
    stop_supervisor(served)
    asking.join()
    assert answers == ["one"]


def test_it_survives_its_parent(home: Home) -> None:
    """The program that starts it may end, or be interrupted from the terminal; the supervisor goes on."""
    home.root.mkdir(parents=True)
    program = (
        "from pathlib import Path; from services.home import Home, Ports; "
        "from services.traffic.supervision import start_supervisor; "
        f"start_supervisor(Home(Path({str(home.root)!r}), Ports({home.ports.base})), [])"
    )
    subprocess.run([sys.executable, "-c", program], check=True, start_new_session=True)
    identity = supervisor_identity(home)
    assert identity is not None
    assert os.getsid(identity.pid) == identity.pid


def test_what_cannot_start_says_where_to_look(home: Home) -> None:
    """A process that dies at once is started again, ever later; waiting ends after some deaths, with its last word."""
    program = "import sys; print('  at line 3', file=sys.stderr); raise ValueError('no weights')"
    broken = ProcessSpec("broken", (sys.executable, "-c", program), {}, "/", "http://127.0.0.1:1/x", 0.1)
    start_supervisor(home, [broken])
    with pytest.raises(TrafficError, match=r"died 4 times .*: ValueError: no weights; .*broken\.log"):
        wait_ready(home, "broken", 60.0)
    deaths = (home.processes / "supervisor.log").read_text().count("event=died name=broken")
    assert 4 <= deaths <= 6
    stop_supervisor(home)
    with pytest.raises(TrafficError, match="no supervisor"):
        wait_ready(home, "broken", 2.0)
