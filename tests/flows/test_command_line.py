"""Promises of the command line: help with examples, mistakes named with their place, one clear message on failure."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from flows.command_line import app, main
from services.rollout.policy_set import POLICIES

RUNNER = CliRunner()
LEAVES = {"ui prefect"}  # it only prints an address


@pytest.fixture(autouse=True)
def empty_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path / "state"


def commands(
    group: click.Group, before: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            yield from commands(command, (*before, name))  # type: ignore[arg-type]
        else:
            yield (*before, name), command


ALL = dict(commands(typer.main.get_command(app)))  # type: ignore[arg-type]


def test_every_verb_of_an_operator_is_there() -> None:
    """The commands that the README speaks of."""
    wanted = "run,up,down,status,promote,hold,resume,abort,kill,report,schedule,rollout start,rollout resume"
    wanted += ",drill harmful,drill erroring,drill nan,drill slow,traffic replay,ledger verify,ledger show"
    wanted += ",policy lint,ui prefect,ui reports"
    assert set(wanted.split(",")) <= {" ".join(words) for words in ALL}


@pytest.mark.parametrize("words", list(ALL), ids=" ".join)
def test_help_says_what_it_does_with_an_example(words: tuple[str, ...]) -> None:
    """`--help` exits 0, starts with a sentence, and shows an example or, for a drill, what exit status 0 means."""
    done = RUNNER.invoke(app, [*words, "--help"])
    assert done.exit_code == 0, done.output
    text = ALL[words].help or ""
    assert len(text.split(".")[0]) > 10
    if " ".join(words) not in LEAVES:
        assert "Example: trimtab" in text or "Exit status 0" in text


@pytest.mark.parametrize("words", list(ALL), ids=" ".join)
def test_every_command_that_reports_speaks_json(words: tuple[str, ...]) -> None:
    """`--json` is there on each command that prints a result; `schedule` and `ui` serve until Ctrl-C instead."""
    names = {option for parameter in ALL[words].params for option in parameter.opts}
    assert ("--json" in names) is (words[0] not in ("schedule", "ui"))


def lint(*arguments: str) -> "tuple[int, str]":
    done = RUNNER.invoke(app, ["policy", "lint", *arguments])
    return done.exit_code, done.output


def test_lint_passes_what_is_shipped() -> None:
    """The shipped policies: exit 0, with their digests."""
    code, output = lint("telemarketing")
    assert (code, "ok" in output, "sha256:" in output) == (0, True, True)


def test_lint_names_a_typo_with_its_place_and_what_was_meant(tmp_path: Path) -> None:
    """A misspelled key: exit 1, file:line:column, the key as written and the one meant; as JSON, too."""
    folder = tmp_path / "telemarketing"
    shutil.copytree(POLICIES / "telemarketing", folder)
    file = folder / "rollout.yaml"
    lines = file.read_text().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines, 1) if line.startswith("maturity:"))
    lines[number - 1] = lines[number - 1].replace("maturity", "maturityy")
    file.write_text("".join(lines))
    code, output = lint("telemarketing", "--folder", str(tmp_path))
    assert code == 1
    assert f"rollout.yaml:{number}:1: 'maturityy' unknown key 'maturityy'" in output
    assert "did you mean 'maturity'" in output
    code, output = lint("telemarketing", "--folder", str(tmp_path), "--json")
    found = json.loads(output)
    assert (code, found["ok"]) == (1, False)
    assert any((issue["line"], issue["column"]) == (number, 1) for issue in found["issues"])


def test_lint_says_how_long_each_gate_needs(tmp_path: Path) -> None:
    """The plan is printed in the ok case too, and stands in the JSON; `--strict` fails on a warning."""
    code, output = lint("telemarketing")
    assert "How long each gate needs" in output
    assert "canary-25 │ 25%    │ utility" in output
    assert lint("telemarketing", "--strict")[0] == code == 0
    folder = tmp_path / "telemarketing"
    shutil.copytree(POLICIES / "telemarketing", folder)
    file = folder / "rollout.yaml"
    file.write_text(file.read_text().replace("retrainEvery: 7d", "retrainEvery: 3m"))
    code, output = lint("telemarketing", "--folder", str(tmp_path), "--json")
    found = json.loads(output)
    assert (code, found["ok"], len(found["warnings"])) == (0, True, 1)
    assert "candidates may starve" in found["warnings"][0]["message"]
    planned = {(plan["stage"], plan["gate"]): plan for plan in found["plan"]}
    assert planned["canary-25", "utility"]["reaches"] is True
    assert planned["canary-5", "errors"]["units"] == 61
    assert lint("telemarketing", "--folder", str(tmp_path), "--strict")[0] == 1


def test_schema_prints_what_is_published(tmp_path: Path) -> None:
    """`policy schema NAME` prints the file in policies/schemas; another name is told what there is."""
    done = RUNNER.invoke(app, ["policy", "schema", "rollout"])
    assert done.exit_code == 0
    assert done.output == (POLICIES / "schemas" / "rollout.schema.json").read_text(encoding="utf-8")
    done = RUNNER.invoke(app, ["policy", "schema", "rolout"])
    assert done.exit_code == 1
    assert "there are contract, rollout, utility, scenarios, tests" in done.output


def test_unknown_drill_is_refused_with_what_there_is() -> None:
    """A drill that does not exist: a usage error, exit 2."""
    done = RUNNER.invoke(app, ["drill", "explosive"])
    assert done.exit_code == 2
    assert "explosive" in done.output


def trimtab(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.command_line", *arguments],
        env={**os.environ, "TRIMTAB_STATE": str(state)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["up"], "there is no release in"),
        (["ledger", "verify"], "there is no"),
        (["rollout", "start", "--release", "telemarketing-0"], "no stable release"),
        (["abort", "--reason", "x"], "there is no state in"),
        (["policy", "lint", "telemarketin"], "decision services there: telemarketing"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_failure_is_one_message_and_no_traceback(empty_state: Path, arguments: list[str], says: str) -> None:
    """With nothing there: exit 1, a sentence on standard error that says what to do, no traceback, no state made."""
    done = trimtab(empty_state, *arguments)
    assert done.returncode == 1, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("trimtab:")
    assert not list(empty_state.glob("*/trimtab.db"))


def test_unexpected_errors_are_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of a room becomes a message with exit status 1; any other one keeps its traceback."""
    from services.traffic.errors import TrafficError

    def expected() -> None:
        raise TrafficError("Envoy is away")

    def unexpected() -> None:
        raise KeyError("bug")

    with pytest.raises(SystemExit) as caught:
        main(expected)
    assert caught.value.code == 1
    assert "Envoy is away" in capsys.readouterr().err
    with pytest.raises(KeyError):
        main(unexpected)
