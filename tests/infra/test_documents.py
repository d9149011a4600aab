"""The documents stay true: links lead somewhere, the diagram is the code's own, commands and their options exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.command_line import app
from policies.rollout.rollout import diagram

ROOT = Path(__file__).parents[2]
ROOMS = ("infra", "flows", "services", "policies", "tests")
DOCUMENTS = [ROOT / "README.md", *sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link and picture is there."""
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


def test_diagram_is_the_code_s_own() -> None:
    """The state diagram in the README is what the transition table says today."""
    assert diagram().strip() in (ROOT / "README.md").read_text("utf-8")


def test_commands_exist_with_their_options() -> None:
    """Each `trimtab …` line of the README's shell blocks names a command that has every option it is given."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    lines = [
        line.partition(" #")[0] for block in blocks for line in block.splitlines() if line[:8] == "trimtab "
    ]
    assert len(lines) > 20
    for line in lines:
        words = re.sub(r"'[^']*'|\$\(.*\)|[>&].*", "", line).split()[1:]
        verbs = [word for word in words[:2] if re.fullmatch("[a-z]+", word)]
        shown = CliRunner().invoke(app, [*verbs, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
        if shown.exit_code != 0:
            shown = CliRunner().invoke(app, [*verbs[:1], "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert shown.exit_code == 0, line
        for option in (word for word in words if word.startswith("--")):
            assert option in shown.output, f"{option} in: {line}"


def test_pictures_are_small() -> None:
    """Pictures in the repository stay under 200 kB each and 1 MB together."""
    sizes = {path.name: path.stat().st_size for path in (ROOT / "infra" / "docs").iterdir()}
    assert max(sizes.values()) < 200_000
    assert sum(sizes.values()) < 1_000_000
