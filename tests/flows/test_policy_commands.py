"""`trimtab policy test` and `policy simulate --history`: what they print, their JSON, their exit status."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.command_line import app
from services.rollout.policy_set import POLICIES

RUNNER = CliRunner()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the service's policies, to change."""
    shutil.copytree(POLICIES / "telemarketing", tmp_path / "policies" / "telemarketing")
    return tmp_path / "policies"


def change(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / "telemarketing" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def judge(*arguments: str) -> tuple[int, str]:
    """Run `policy simulate`; its exit status and what it printed."""
    result = RUNNER.invoke(app, ["policy", "simulate", *arguments])
    return result.exit_code, result.stdout


def write_history(path: Path) -> None:
    """Two minutes at 25 % and 20 units a second; nobody fails, nobody is slow, the canary earns as much."""
    lines = ["at,unit,assigned,failed,duration_ms,differs,payoff"]
    for i in range(2_400):
        lines.append(
            f"{1000 + i / 20},u{i},{'canary' if i % 4 == 0 else 'stable'},0,9,1,{13 if i % 9 == 0 else -1}"
        )
    path.write_text("\n".join(lines), encoding="utf-8")


def test_the_shipped_tests_pass() -> None:
    """Exit status 0; one line a test; then every gate with the results that were looked at."""
    result = RUNNER.invoke(app, ["policy", "test"])
    assert result.exit_code == 0
    assert "ok    a canary without a single failure leaves 5 per cent after its bake" in result.stdout
    assert "every gate is seen to pass and to fail" in result.stdout


def test_a_changed_policy_breaks_its_promises(folder: Path) -> None:
    """A laxer bound: exit status 1, what was expected and what came, and the gate that no test makes fail any more."""
    change(
        folder, "rollout.yaml", "    max: 0.05                 # real: 0.005", "    max: 0.60  # real: 0.005"
    )
    result = RUNNER.invoke(app, ["policy", "test", "--folder", str(folder)])
    assert result.exit_code == 1
    assert "FAIL  a canary that fails one request in five is rolled back within ten seconds" in result.stdout
    assert "expected  by 10 s: ROLLBACK (bound_exceeded), errors fail" in result.stdout
    assert "errors pass; canary_errors 0.2000" in result.stdout
    assert "without a passing and a failing case: errors" in result.stdout


def test_the_same_as_json(folder: Path) -> None:
    """For machines: every test with its line and failures, and each gate's coverage."""
    change(folder, "tests.yaml", "at: 14.5s, decision: HOLD", "at: 14.5s, decision: ADVANCE")
    result = RUNNER.invoke(app, ["policy", "test", "--folder", str(folder), "--json"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    (failed,) = [case for case in found["tests"] if not case["ok"]]
    assert failed["failures"][0]["expected"] == "14.5 s: ADVANCE (baking)"
    assert found["coverage"]["errors"]["wanting"] == []


def test_a_mistake_in_the_tests_is_told_with_its_place(folder: Path) -> None:
    """A gate that does not exist: file, line, column and the name that was probably meant; nothing is run."""
    change(folder, "tests.yaml", "gates: {errors: pass}", "gates: {error: pass}")
    result = RUNNER.invoke(app, ["policy", "test", "--folder", str(folder)])
    assert result.exit_code == 1
    assert "telemarketing/tests.yaml:" in result.stdout
    assert "did you mean 'errors'?" in result.stdout


def test_a_file_of_decisions_is_judged_by_two_policies(folder: Path, tmp_path: Path) -> None:
    """Both timelines, the stage in which they differ marked, and the pictures in the folder."""
    change(
        folder,
        "rollout.yaml",
        "bake: {min: 20s, max: 45s}    # real: min: 7d",
        "bake: {min: 20s, max: 44s}    # real: min: 7d",
    )
    write_history(tmp_path / "h.csv")
    other = str(folder / "telemarketing" / "rollout.yaml")
    arguments = ("--history", str(tmp_path / "h.csv"), "--compare", other, "--out", str(tmp_path / "out"))
    code, printed = judge(*arguments)
    assert code == 0, printed
    assert "2,400 units, 2,400 rows, 25.00 % canary" in printed
    assert "≠" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "history.png",
        "history.html",
        "history.json",
    }
    stored = json.loads((tmp_path / "out" / "history.json").read_text(encoding="utf-8"))
    assert [one["policy"] for one in stored["policies"]] == ["rollout.yaml", "rollout.yaml"]
    ((stage, differs),) = [(one["stage"], one["differs"]) for one in stored["stages"]]
    assert (stage, differs) == ("canary-25", True)
