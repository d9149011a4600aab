"""The real thing: a Bento is built, served by its own launcher without the source tree, and stopped."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.control.switch import Switched, switch
from services.home import Home, Ports
from services.serving import build
from services.serving.build import INCLUDED_SOURCES, BuildError, build_bento
from services.serving.launch import foreign_modules
from services.serving.launch import main as launch
from services.serving.release import CONTENT_FILES, MANIFEST, SIGNATURE, Release
from services.serving.release_command import ReleaseCommand, bento_folder, launch_command
from services.signing.release_signature import sign_in_home
from services.store.database import Database
from services.traffic.processes import identify
from services.traffic.records import RunningProcess, write_running
from services.traffic.supervision import want_release

# Site packages without the `site` module: the editable install's .pth is not read, so nothing of the project can
# be imported but what PYTHONPATH (the Bento's src) holds.
WITHOUT_PROJECT = (
    "import runpy, sys; sys.path.append({purelib!r}); "
    "sys.argv = ['launch', *sys.argv[1:]]; "
    "runpy.run_module('services.serving.launch', run_name='__main__', alter_sys=True)"
)


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[bytes]
    command: ReleaseCommand
    release: Release
    home: Home

    def post(self, body: object, *, query: str = "") -> tuple[int, Any]:
        url = self.command.ready_url.replace("/readyz", f"/decide{query}")
        request = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


def isolated(command: ReleaseCommand) -> list[str]:
    """The launcher's argv, started so that an installed project cannot be found."""
    assert command.argv[1:3] == ("-m", "services.serving.launch")
    code = WITHOUT_PROJECT.format(purelib=sysconfig.get_path("purelib"))
    return [command.argv[0], "-S", "-c", code, *command.argv[3:]]


def wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"not ready within 60 s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"), Ports(0))


@pytest.fixture(scope="module")
def built(home: Home, write: Callable[[Path], Release]) -> Release:
    release = write(home.releases)
    sign_in_home(release, home)
    build_bento(release, home)
    return release


@pytest.fixture(scope="module")
def served(home: Home, built: Release, free_base: Callable[[int], int]) -> Iterator[Served]:
    port = free_base(1)
    command = launch_command(built.id, home, port, fault="slow:300")
    log = home.root / "launch.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            isolated(command), env=dict(command.env), cwd=command.cwd, stdout=output, stderr=output
        )
        try:
            wait_ready(process, command.ready_url, log)
            yield Served(process, command, built, home)
        finally:
            process.kill()
            process.wait()


def test_a_switched_off_action_is_off_within_two_seconds(
    served: Served, rows: list[Any], db: Database
) -> None:
    """The running process confirms the switch within 2 s, takes the default action and says which one it would take."""
    home, release = served.home, served.release
    row = next(row for row in rows if served.post(row)[1]["action"] == "call")
    want_release(home, release.id, served.command)
    pid = identify(served.process.pid)
    assert pid is not None
    port = int(served.command.argv[served.command.argv.index("--port") + 1])
    process = RunningProcess(pid.pid, pid.created, port, True, pid.created, 0, "")
    write_running(home, {release.id: process})

    def turn(*, is_off: bool) -> Switched:
        words = {"by": "ann", "reason": "closed", "at": time.time()}
        return switch(db, home, service=release.service, action="call", is_off=is_off, **words)

    found = turn(is_off=True)
    assert (found.confirmed, found.silent) == ((release.id,), ())
    assert found.after_s < 2
    answer = served.post(row)[1]
    assert (answer["action"], answer["gated"]) == ("leave", {"off": ["call"], "instead_of": "call"})
    assert turn(is_off=False).confirmed == (release.id,)
    assert served.post(row)[1]["action"] == "call"


def test_the_bento_holds_the_release_and_the_listed_sources_only(home: Home, built: Release) -> None:
    """Every file under src is on the include list or part of the release; BentoML adds its bentofile."""
    source = bento_folder(built.id, home) / "src"
    found = {str(p.relative_to(source)) for p in source.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    expected = {*INCLUDED_SOURCES, *(f"release/{name}" for name in (MANIFEST, SIGNATURE, *CONTENT_FILES))}
    assert found - {"bentofile.yaml"} == expected


def test_the_include_list_is_what_serving_imports(home: Home, built: Release) -> None:
    """Without the project, the service imports exactly the listed files, and no torch, polars or sqlalchemy."""
    source = bento_folder(built.id, home) / "src"
    code = (
        f"import json, sys; sys.path.append({sysconfig.get_path('purelib')!r})\n"
        "import services.serving.service, services.serving.launch\n"
        "print(json.dumps({n: getattr(m, '__file__', None) for n, m in sys.modules.items()}))"
    )
    environment = {
        "PYTHONPATH": str(source),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(home.bentos),
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment,
        cwd=source,
        check=True,
        capture_output=True,
        text=True,
    )
    files = json.loads(done.stdout)
    rooms = {n: f for n, f in files.items() if n.partition(".")[0] in ("policies", "services", "flows")}
    assert {str(Path(f).resolve().relative_to(source.resolve())) for f in rooms.values()} == set(
        INCLUDED_SOURCES
    )
    assert not {"torch", "polars", "pandas", "sqlalchemy", "prefect"} & set(files)


def test_a_bento_is_built_once(home: Home, built: Release) -> None:
    """Building the same release again leaves the Bento as it is."""
    manifest = bento_folder(built.id, home) / "bento.yaml"
    before = manifest.stat().st_mtime_ns
    assert build_bento(built, home) == manifest.parent
    assert manifest.stat().st_mtime_ns == before


def test_a_file_missing_in_the_include_list_fails_the_build(
    tmp_path: Path, write: Callable[[Path], Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source left out is not found in the source tree instead: the build names it."""
    fewer = tuple(name for name in INCLUDED_SOURCES if name != "services/training/forward.py")
    monkeypatch.setattr(build, "INCLUDED_SOURCES", fewer)
    home = Home(tmp_path, Ports(0))
    release = write(home.releases)
    sign_in_home(release, home)
    with pytest.raises(BuildError, match=r"services\.training\.forward"):
        build_bento(release, home)


def test_code_from_outside_the_bento_is_noticed(tmp_path: Path) -> None:
    """The launcher's guard names every module of the project that does not come from the Bento."""
    foreign = foreign_modules(sys.modules, tmp_path)
    assert any(line.startswith("services.serving.build (") for line in foreign)
    assert foreign_modules(sys.modules, Path(build.__file__).resolve().parents[2]) == []


def test_a_fault_outside_a_rehearsal_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A stray TRIMTAB_FAULT stops the launch with a reason instead of breaking a real release."""
    assert launch(["--port", "1"], {"TRIMTAB_FAULT": "error"}) == 2
    assert "'TRIMTAB_FAULT' must not be set without --rehearsal" in capsys.readouterr().err


def test_the_served_bento_decides_logs_and_refuses(served: Served, rows: list[dict[str, Any]]) -> None:
    """One row and a batch are decided by the release, logged with mode 0600; a bad row is 400 by name; the
    rehearsal's fault makes it slow."""
    started = time.monotonic()
    status, answer = served.post(rows[0])
    assert (status, answer["release"]) == (200, served.release.id)
    assert time.monotonic() - started >= 0.3
    status, batch = served.post({"rows": rows[:20]})
    assert (status, len(batch["decisions"])) == (200, 20)
    assert served.post({**rows[0], "day": 40})[1]["field"] == "day"
    (log,) = (served.home.decision_logs / served.release.id).iterdir()
    assert log.name == f"decisions-{served.process.pid}-0001.jsonl"
    assert log.stat().st_mode & 0o777 == 0o600
    ids = [json.loads(line)["decision_id"] for line in log.read_text().splitlines()]
    assert ids[-21:] == [answer["decision_id"], *(d["decision_id"] for d in batch["decisions"])]


def test_the_served_bento_explains_when_asked(served: Served, rows: list[dict[str, Any]]) -> None:
    """`?explain=true` reaches the application behind the real server; the explanation is all that it adds."""
    _, plain = served.post(rows[2])
    status, answer = served.post(rows[2], query="?explain=true")
    why = answer.pop("explanation")
    assert (status, {**answer, "decision_id": plain["decision_id"]}) == (200, plain)
    parts = sum(part["contribution"] for part in why["features"])
    assert why["baseline"]["log_odds"] + parts + why["others"] == pytest.approx(why["log_odds"])
    status, refused = served.post(rows[2], query="?explain=yes")
    assert (status, refused["field"]) == (400, "explain")


def test_sigterm_finishes_what_is_in_flight_and_ends(served: Served, rows: list[dict[str, Any]]) -> None:
    """A request in flight when SIGTERM arrives is answered; the process is gone within 6 s, its port closed."""
    answers: list[tuple[int, Any]] = []
    caller = threading.Thread(target=lambda: answers.append(served.post(rows[1])))
    caller.start()
    time.sleep(0.1)
    started = time.monotonic()
    os.kill(served.process.pid, signal.SIGTERM)
    assert served.process.wait(timeout=6) in (0, -signal.SIGTERM)
    assert time.monotonic() - started < 6
    caller.join(timeout=5)
    assert answers[0][0] == 200
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(served.command.ready_url, timeout=1)  # noqa: S310
