"""A home that was moved or copied serves from where it lies now."""

import sys
from pathlib import Path

from flows.system import fit_releases
from services.home import Home, Ports
from services.serving.release_command import launch_command
from services.traffic.records import read_desired
from services.traffic.supervision import want_release


def test_releases_start_from_where_their_home_lies(tmp_path: Path) -> None:
    """A release that was wanted by the home's old place, or by an environment that is gone, gets a command of this one
    and keeps its port; one that fits is left alone."""
    old, home = (Home(tmp_path / name, Ports(20_000)) for name in ("old", "new"))
    want_release(home, "telemarketing-moved", lambda port: launch_command("telemarketing-moved", old, port))
    want_release(home, "telemarketing-fits", lambda port: launch_command("telemarketing-fits", home, port))
    before = read_desired(home)
    assert before["telemarketing-moved"].env["TRIMTAB_DECISION_LOGS"] == str(old.decision_logs)
    fit_releases(home)
    after = read_desired(home)
    moved = after["telemarketing-moved"]
    assert (moved.env["TRIMTAB_DECISION_LOGS"], moved.argv[0]) == (str(home.decision_logs), sys.executable)
    assert Path(moved.cwd).is_relative_to(home.root)
    assert moved.port == before["telemarketing-moved"].port
    assert after["telemarketing-fits"] == before["telemarketing-fits"]
