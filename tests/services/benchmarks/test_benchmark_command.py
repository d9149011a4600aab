"""Promises of `trimtab benchmark`: freeze, list and run, for people and for machines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.command_line import app
from flows.wiring import locate_home, make_home
from services.home import Home
from services.serving.release import Release

RUNNER = CliRunner()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with no system running, in which the last calls of the rehearsal are frozen."""
    monkeypatch.setenv("TRIMTAB_STATE", str(tmp_path / "state"))
    made = locate_home()
    make_home(made)
    done = RUNNER.invoke(app, ["benchmark", "freeze", "autumn", "--start", "0.98"])
    assert done.exit_code == 0, done.output
    assert "frozen: autumn-v1, 905 rows" in done.output
    return made


def test_releases_run_on_the_same_rows_and_the_history_is_shown(
    home: Home, write: Callable[..., Release]
) -> None:
    """Two runs, the second beside the first release: both stand in the history, the difference is of paired rows."""
    first, second = write(0.0), write(-0.4)
    for one in (first, second):
        shutil.copytree(one.folder, home.releases / one.id)
    done = RUNNER.invoke(app, ["benchmark", "run", "autumn", "--release", first.id])
    assert done.exit_code == 0, done.output
    done = RUNNER.invoke(
        app, ["benchmark", "run", "autumn", "--release", second.id, "--against", first.id, "--json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [one["score"]["release"] for one in found["history"]] == [first.id, second.id]
    earlier, score = found["history"][0]["score"], found["score"]
    assert score["against"]["utility"] == earlier["utility"]
    assert score["against"]["difference"]["value"] == pytest.approx(
        score["utility"]["value"] - earlier["utility"]["value"]
    )
    listed = json.loads(RUNNER.invoke(app, ["benchmark", "list", "--json"]).stdout)
    assert [(one["name"], one["runs"], one["fault"]) for one in listed] == [("autumn", 2, "")]


def test_an_altered_benchmark_is_listed_as_such_and_not_run(home: Home) -> None:
    """`list` names the file and exits with 1; `run` refuses before it looks at the release."""
    rows = home.benchmarks / "telemarketing" / "autumn-v1" / "rows.parquet"
    rows.chmod(0o600)
    rows.write_bytes(rows.read_bytes()[:-1])
    listed = RUNNER.invoke(app, ["benchmark", "list", "--json"])
    assert listed.exit_code == 1
    assert "rows.parquet: content must be" in json.loads(listed.stdout)[0]["fault"]
    done = RUNNER.invoke(app, ["benchmark", "run", "autumn", "--release", "telemarketing-0123456789ab"])
    assert done.exit_code == 1
    assert "content must be" in str(done.exception)
