"""The files of the traffic room without any process: slots, settings, ports, and what is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from services.home import Home, Ports
from services.traffic.errors import TrafficError
from services.traffic.records import ProcessSpec, at_port, read_desired, write_specs
from services.traffic.settings import EnvoySettings, read_settings, write_settings
from services.traffic.slots import Slots, new_salt
from services.traffic.state_files import locked
from services.traffic.supervision import want_release
from services.traffic.traffic import Traffic


@pytest.fixture
def offline(tmp_path: Path) -> Home:
    return Home(tmp_path, Ports(20_000))


def test_slots_survive_the_file(offline: Home) -> None:
    """What is written is read back, the files are 0600, and writing the same again replaces nothing."""
    traffic = Traffic(offline)
    assert traffic.read_slots() is None
    slots = Slots(("b", "a"), "c", "c", new_salt(os.urandom))
    traffic.write_slots(slots, {"a": 1, "b": 2, "c": 3})
    assert traffic.read_slots() == slots
    stable = offline.traffic / "eds_stable.json"
    load = json.loads(stable.read_text())["resources"][0]["endpoints"]
    ports = [
        entry["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] for entry in load
    ]
    assert ([entry["priority"] for entry in load], ports) == ([0, 1], [2, 1])
    assert stable.stat().st_mode & 0o777 == 0o600
    inode = stable.stat().st_ino
    traffic.write_slots(slots, {"a": 1, "b": 2, "c": 3})
    assert stable.stat().st_ino == inode
    traffic.write_slots(replace(slots, stable=("b",)), {"a": 1, "b": 2, "c": 3})
    assert stable.stat().st_ino != inode


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stable": ()}, "at least one release"),
        ({"stable": ("a", "a")}, "once"),
        ({"canary": "../x"}, "release id"),
        ({"salt": "\\1"}, "salt"),
        ({"salt": ""}, "salt"),
    ],
)
def test_impossible_slots_are_refused(change: dict[str, object], message: str) -> None:
    """No stable release, a release twice, a path for an id, a salt that could break the hash: TrafficError."""
    with pytest.raises(TrafficError, match=message):
        replace(Slots(("a",), None, None, "s1"), **change)  # type: ignore[arg-type]


def test_a_crash_between_the_files_is_mended(offline: Home) -> None:
    """slots.json written, derived files not: `derive()` writes them; a second call changes nothing."""
    traffic = Traffic(offline)
    traffic.write_slots(Slots(("a",), None, None, "s1"), {"a": 1})
    (offline.traffic / "desired.json").write_text(
        '{"releases": {"a": {"argv": ["x"], "cwd": "/", "ready_url": "http://127.0.0.1:7/readyz"}}}'
    )
    (offline.traffic / "rds.json").unlink()
    assert traffic.derive()
    assert '"port_value": 7' in (offline.traffic / "eds_stable.json").read_text()
    assert (offline.traffic / "rds.json").exists()
    assert not traffic.derive()


def test_broken_files_say_which(offline: Home) -> None:
    """A file that is no JSON, or has an unknown key, is named in the error."""
    offline.traffic.mkdir(parents=True)
    (offline.traffic / "slots.json").write_text("{")
    with pytest.raises(TrafficError, match=r"slots\.json: not JSON"):
        Traffic(offline).read_slots()
    (offline.traffic / "slots.json").write_text('{"stable": ["a"], "salt": "s", "canery": "b"}')
    with pytest.raises(TrafficError, match="unknown canery"):
        Traffic(offline).read_slots()
    (offline.traffic / "desired.json").write_text('{"releases": {"a": {"argv": "x"}}}')
    with pytest.raises(TrafficError, match=r"desired\.json: 'a'"):
        read_desired(offline)
    (offline.traffic / "settings.json").write_text('{"per_try": 1}')
    with pytest.raises(TrafficError, match="unknown per_try"):
        read_settings(offline)


def test_settings_round_trip_and_bounds(offline: Home) -> None:
    """Settings are read back; a limit of 0, or a retry without time, is refused."""
    settings = EnvoySettings(per_try_timeout_s=0.4)
    write_settings(offline, settings)
    assert read_settings(offline) == settings
    with pytest.raises(TrafficError, match="per_try_timeout_s"):
        EnvoySettings(per_try_timeout_s=0.0)
    with pytest.raises(TrafficError, match="timeout_s"):
        EnvoySettings(per_try_timeout_s=6.0)


def test_a_release_moves_whole() -> None:
    """Another port replaces the old number where it stands alone, and nowhere else."""
    spec = ProcessSpec(
        name="m-21010",
        argv=("run", "--port=21010", "21010", "/r/m-21010ab/x", "121010"),
        env={"PORT": "21010", "ID": "m-21010"},
        cwd="/",
        ready_url="http://127.0.0.1:21010/readyz",
    )
    moved = at_port(spec, 22000)
    assert moved.argv == ("run", "--port=22000", "22000", "/r/m-21010ab/x", "121010")
    assert moved.env == {"PORT": "22000", "ID": "m-21010"}
    assert (moved.port, moved.name) == (22000, "m-21010")


def test_names_are_unique(offline: Home) -> None:
    """Two specs of one name, or one named envoy, are refused."""
    spec = ProcessSpec("x", ("true",), {}, "/", None)
    for specs in ([spec, spec], [replace(spec, name="envoy")]):
        with pytest.raises(TrafficError, match="unique"):
            write_specs(offline, specs)


def test_a_release_is_built_without_keeping_the_supervisor_waiting(offline: Home) -> None:
    """The command may build for minutes; meanwhile the files' lock is free, and a port that somebody else was given
    meanwhile is not given twice."""

    def command(release_id: str, port: int) -> ProcessSpec:
        return ProcessSpec(release_id, ("serve", str(port)), {}, "/", f"http://127.0.0.1:{port}/readyz")

    def build(port: int) -> ProcessSpec:
        with locked(offline, timeout_s=0.2):
            pass
        assert want_release(offline, "other", lambda other: command("other", other)) == port
        return command("built", port)

    given = want_release(offline, "built", build)
    desired = read_desired(offline)
    assert desired["other"].port != given
    assert (desired["built"].port, desired["built"].argv) == (given, ("serve", str(given)))
    assert want_release(offline, "built", lambda port: command("built", port)) == given
