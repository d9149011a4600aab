"""Promises of `trimtab utility`: what it prints for machines, the pictures it writes, what it says where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.command_line import app
from services.rollout.policy_set import POLICIES

RUNNER = CliRunner()
LABEL_VALUES = """outcomeIsYesOrNo
            type: library
            metric: invalidValues
            arguments: {validValues: """


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


def test_explain_with_three_outcomes_says_that_there_is_no_picture(tmp_path: Path) -> None:
    """The sentences are all there, one line says what the picture needs, and that is no error."""
    folder = tmp_path / "telemarketing"
    folder.mkdir()
    changes = {
        "contract.yaml": (
            ('{"no": not_subscribed, "yes": subscribed}', '{"no": no, "yes": subscribed, "half": half}'),
            (LABEL_VALUES + '["no", "yes"]', LABEL_VALUES + '["no", "yes", "half"]'),
        ),
        "utility.yaml": (
            ("[not_subscribed, subscribed]", "[no, half, subscribed]"),
            ("        not_subscribed: 0\n", "        no: 0\n        half: 0\n"),
            ("        not_subscribed: -1\n", "        no: -1\n        half: 0\n"),
            ('        not_subscribed: "-call_cost"\n', '        no: "-call_cost"\n        half: 0\n'),
        ),
        "rollout.yaml": (("metric: failed_scenarios", "metric: alignment_gap"),),
    }
    for name, texts in changes.items():
        text = (POLICIES / "telemarketing" / name).read_text(encoding="utf-8")
        for old, new in texts:
            assert old in text
            text = text.replace(old, new)
        (folder / name).write_text(text, encoding="utf-8")
    out = tmp_path / "out"
    done = RUNNER.invoke(app, ["utility", "explain", "--folder", str(tmp_path), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sections"][0]["title"].startswith("telemarketing, version ")
    assert done.stderr == "no picture: it needs two outcomes\n"
    assert not out.exists()
