"""Promises of `trimtab policy simulate --what-if`: one table, one JSON, two pictures; mistakes are one sentence."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flows.commands.simulate_policy import simulate

APP = typer.Typer()
APP.command()(simulate)
FEW = [
    "telemarketing",
    "--what-if",
    "--runs",
    "20",
    "--effect",
    "canary_errors=20%",
    "--effect",
    "utility=-0.6",
]


def test_table_json_and_pictures(tmp_path: Path) -> None:
    """The same scenarios in JSON on standard output and, with --out, in a PNG and in one HTML file without links."""
    done = CliRunner().invoke(APP, [*FEW, "--json", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [one["effect"] for one in found] == ["canary_errors=20%", "utility=-0.6"]
    assert found[0]["shares"]["rolled_back"] == 1.0
    assert found[0]["endings"][0]["gate"] == "errors"
    assert json.loads((tmp_path / "what-if.json").read_text()) == found
    assert (tmp_path / "what-if.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (tmp_path / "what-if.html").read_text()
    assert "canary_errors=20%" in page
    assert '<script src="http' not in page
    table = CliRunner().invoke(APP, FEW)
    assert table.exit_code == 0
    assert "100.0 ±0.0 %" in table.stdout


def test_two_policies_side_by_side(tmp_path: Path) -> None:
    """--compare runs a second policy over the same scenarios and says which is which."""
    shipped = Path(__file__).parents[2] / "policies" / "telemarketing" / "rollout.yaml"
    other = tmp_path / "laxer.yaml"
    text = shipped.read_text(encoding="utf-8")
    other.write_text(text.replace("max: 0.05  ", "max: 0.30  "), encoding="utf-8")
    done = CliRunner().invoke(APP, [*FEW[:6], "--compare", str(other), "--json"])
    assert done.exit_code == 0, done.output
    ours, theirs = json.loads(done.stdout)
    assert (ours["policy_file"], theirs["policy_file"]) == ("rollout.yaml", "laxer.yaml")
    assert ours["shares"]["rolled_back"] == 1.0
    assert theirs["shares"]["rolled_back"] < 0.2
    table = CliRunner().invoke(APP, [*FEW[:6], "--compare", str(other)])
    assert "canary_errors=20% (laxer.yaml)" in " ".join(table.stdout.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["telemarketing"], "say one of --what-if and --history"),
        (["telemarketing", "--what-if", "--traffic", "200"], "'--traffic' must be a rate with its unit"),
        (["telemarketing", "--what-if", "--traffic", "0/s"], "'--traffic' must be more than nothing: 0/s"),
        (["telemarketing", "--what-if", "--compare", "nowhere.yaml"], "no rollout policy in nowhere.yaml"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], says: str) -> None:
    """A wrong option ends with exit status 1 and says what would do."""
    done = CliRunner().invoke(APP, arguments)
    assert done.exit_code == 1
    assert says in done.output
