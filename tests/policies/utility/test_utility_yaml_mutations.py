"""Every key of the shipped utility.yaml, misspelled one at a time, is an error naming it with file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policies.language.yaml_source import PolicyError
from policies.utility.utility import load_utility

FILE = Path(__file__).parents[3] / "policies" / "telemarketing" / "utility.yaml"
SOURCE = "policies/telemarketing/utility.yaml"
LINES = FILE.read_text(encoding="utf-8").splitlines()
KEY = re.compile(r"^(?P<before>\s*(?:- )?)(?P<key>\w+):(?=\s|$)")
KEYED = [number for number, line in enumerate(LINES, start=1) if KEY.match(line)]

OPTIONAL = (
    "errorBudget",
    "quantities",
    "sensitivity",
    "measured",
    "hypotheses",
)  # files older than the key travel in releases


def test_the_file_has_the_keys_that_are_mutated() -> None:
    """The list of mutations is not empty by accident."""
    assert len(KEYED) >= 60


@pytest.mark.parametrize("number", KEYED)
def test_a_misspelled_key_is_named_with_its_line(number: int) -> None:
    """Two letters swapped, or in a short key one doubled: `unknown key`, at the line where it stands."""
    match = KEY.match(LINES[number - 1])
    assert match is not None
    key = match["key"]
    is_short = len(key) < 4 or key[-1] == key[-2]
    wrong = key + key[-1] if is_short else key[:-2] + key[-1] + key[-2]
    lines = list(LINES)
    lines[number - 1] = KEY.sub(rf"\g<before>{wrong}:", lines[number - 1])
    with pytest.raises(PolicyError) as caught:
        load_utility("\n".join(lines), SOURCE)
    unknown = [issue for issue in caught.value.issues if f"unknown key '{wrong}'" in issue.message]
    assert [(issue.source, issue.line) for issue in unknown] == [(SOURCE, number)]
    assert f"did you mean '{key}'" in unknown[0].message


@pytest.mark.parametrize("number", KEYED)
def test_a_removed_key_is_named(number: int) -> None:
    """No key of the file is decoration: without it (and what is under it) the file is refused by its name."""
    match = KEY.match(LINES[number - 1])
    assert match is not None
    indent = len(match["before"])
    below = number
    while below < len(LINES) and (
        not LINES[below].strip()
        or LINES[below].lstrip().startswith("#")
        or len(LINES[below]) - len(LINES[below].lstrip()) > indent
        or (LINES[below].lstrip().startswith("- ") and not match["before"].strip() and indent == 0)
    ):
        below += 1
    kept = [match["before"].rstrip()] if match["before"].strip() else []
    if kept and below < len(LINES):  # first key of a list entry: the next one takes its place
        kept = [match["before"] + LINES[below].strip()]
        below += 1
    without = "\n".join([*LINES[: number - 1], *kept, *LINES[below:]])
    if match["key"] in OPTIONAL:
        assert load_utility(without, SOURCE).digest != load_utility("\n".join(LINES), SOURCE).digest
        return
    with pytest.raises(PolicyError) as caught:
        load_utility(without, SOURCE)
    assert any(
        (match["key"] in issue.path and "is missing" in issue.message)
        or ("must have exactly one of" in issue.message and f"'{match['key']}'" in issue.message)
        for issue in caught.value.issues
    ), str(caught.value)
