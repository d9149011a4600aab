"""Promises of `trimtab utility`: what it prints for machines, the pictures it writes, what it says where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.command_line import app

RUNNER = CliRunner()


def test_explain_gives_thresholds_and_draws_them(tmp_path: Path) -> None:
    """Typical rows of the rehearsal's calls, with the probability from which a call pays; and a picture."""
    done = RUNNER.invoke(app, ["utility", "explain", "--json", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    median = found["typical_rows"][1]
    assert median["values"] == {"balance": 448.0}
    assert [one["action"] for one in median["regions"]] == ["leave", "call"]
    assert median["regions"][1]["from"] == pytest.approx(0.362, abs=1e-3)
    assert found["sections"][0]["title"].startswith("telemarketing, version ")
    assert (tmp_path / "thresholds.png").read_bytes().startswith(b"\x89PNG")


def test_sensitivity_without_a_release_says_what_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home without releases is no traceback: the message says what to do."""
    monkeypatch.setenv("TRIMTAB_STATE", str(tmp_path))
    done = RUNNER.invoke(app, ["utility", "sensitivity"])
    assert done.exit_code == 1
    assert "`trimtab run` makes some" in " ".join(done.output.split())
