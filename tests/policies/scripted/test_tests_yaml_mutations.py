"""Every key of the shipped tests.yaml, mutated one at a time, gives an error that names it, with its place."""

from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest

from policies.language.yaml_source import Document, Issue, PolicyError, load_document
from policies.rollout.rollout_policy import load_rollout
from policies.scripted.policy_tests import load_policy_tests
from policies.utility.utility import load_utility

FOLDER = FilePath(__file__).parents[3] / "policies" / "telemarketing"
POLICY = load_rollout((FOLDER / "rollout.yaml").read_text(encoding="utf-8"), "rollout.yaml")
RANGE = load_utility((FOLDER / "utility.yaml").read_text(encoding="utf-8"), "utility.yaml").range
TEXT = (FOLDER / "tests.yaml").read_text(encoding="utf-8")
LINES = TEXT.splitlines()
DOCUMENT: Document = load_document(TEXT, "tests.yaml")
Place = tuple[str | int, ...]


def keys_of(data: object, path: Place = ()) -> Iterator[Place]:
    """The path of every key, depth first."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*path, key)
            yield from keys_of(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from keys_of(value, (*path, index))


# The first of each shape: the same key at the same place of two tests is read by the same lines of code.
KEYS = list(
    {tuple("[]" if isinstance(p, int) else p for p in path): path for path in keys_of(DOCUMENT.data)}.values()
)


def mistakes(lines: list[str]) -> tuple[Issue, ...]:
    with pytest.raises(PolicyError) as caught:
        load_policy_tests("\n".join(lines), "tests.yaml", policy=POLICY, payoff_range=RANGE)
    return caught.value.issues


def test_a_misspelled_key_is_named() -> None:
    """One letter more in any key, be it a word of the language, a metric or a gate: an error at that key, which says
    what was probably meant."""
    assert len(KEYS) > 60
    for path in KEYS:
        key = str(path[-1])
        number, column = DOCUMENT.position(path, of_key=True)
        line = LINES[number - 1]
        wrong = line[: column - 1] + f"{key}x" + line[column - 1 + len(key) :]
        found = mistakes([*LINES[: number - 1], wrong, *LINES[number:]])
        named = [one for one in found if (one.line, one.column) == (number, column)]
        assert named, (path, [str(one) for one in found])
        assert any(f"did you mean '{key}'" in one.message for one in named), (path, named)


def test_a_value_of_the_wrong_kind_is_named() -> None:
    """A mapping in place of any plain value: an error on that line that names its key."""
    plain = [path for path in KEYS if not isinstance(value_of(path), dict | list)]
    assert len(plain) > 40
    for path in plain:
        number, column = DOCUMENT.position(path)
        line = LINES[number - 1]
        rest = line[column - 1 :]
        is_in_braces = "{" in line[: column - 1]
        tail = next((rest[at:] for at in range(len(rest)) if is_in_braces and ends_here(rest, at)), "")
        found = mistakes([*LINES[: number - 1], line[: column - 1] + "{not: this}" + tail, *LINES[number:]])
        assert any(one.line == number and str(path[-1]) in one.path for one in found), (path, found)


def value_of(path: Place) -> object:
    value = DOCUMENT.data
    for part in path:
        value = value[part]
    return value


def ends_here(rest: str, at: int) -> bool:
    """Whether the value that begins `rest` ends before `at`: at a comma, a closing brace or a comment, unquoted."""
    return rest[at] in ",}#" and rest[:at].count('"') % 2 == 0 and rest[:at].count("'") % 2 == 0
