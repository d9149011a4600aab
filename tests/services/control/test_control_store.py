"""Which store the control service opens: a grant or a kill is worth nothing in another than the conductor's."""

import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.wiring import open_store, supervisor_specs
from services.control.__main__ import main
from services.home import Home, Ports


@pytest.fixture(autouse=True)
def keep_signals() -> Iterator[None]:
    """The service takes SIGTERM and SIGINT for itself; the tests keep theirs."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_it_opens_the_store_that_the_environment_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """TRIMTAB_DATABASE_URL names the store of every process of a home, not the conductor's alone; no second is made."""
    shared = tmp_path / "elsewhere" / "shared.db"
    with socket.socket() as taken:  # its weight port: it opens the store, finds the port taken, and ends
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        base = taken.getsockname()[1] - 4
        home = tmp_path / "home"
        argv = ["--home", str(home), "--base-port", str(base)]
        assert main(argv, {"TRIMTAB_DATABASE_URL": f"sqlite:///{shared}"}) == 1
    assert "weight server" in caplog.text
    assert not (home / "trimtab.db").exists()
    with sqlite3.connect(shared) as store:
        assert store.execute("SELECT COUNT(*) FROM grants").fetchone() == (0,)


@pytest.mark.parametrize(("name", "shared"), [("main", True), ("drill-slow", False)])
def test_the_control_service_is_told_the_conductors_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shared: bool
) -> None:
    """Whoever conducts and whoever publishes open the same store; a drill never the main home's, whose weight it would
    set."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    monkeypatch.setenv("TRIMTAB_DATABASE_URL", url)
    home = Home(tmp_path / name, Ports(41_000))
    (control,) = (spec for spec in supervisor_specs(home) if spec.name == "control")
    db = open_store(home)
    opened = db.engine.url.render_as_string(hide_password=False)
    db.close()
    assert control.env["TRIMTAB_DATABASE_URL"] == opened
    assert (opened == url) is shared
