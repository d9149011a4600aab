"""Every key of the shipped rollout.yaml, mutated one at a time, gives an error that names it, with its place."""

from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest

from policies.rollout_policy import load_rollout
from policies.yaml_source import Document, PolicyError, load_document

YAML = FilePath(__file__).parents[2] / "policies" / "telemarketing" / "rollout.yaml"
TEXT = YAML.read_text(encoding="utf-8")
LINES = TEXT.splitlines()
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


DOCUMENT: Document = load_document(TEXT, "rollout.yaml")
# every key of the top level and of the stages, and of one gate of each shape
GATES = {"rows-in-quarantine", "not-worse-than-champion", "errors", "slow", "utility", "call-rate-gap"}
KEYS = [
    path
    for path in keys_of(DOCUMENT.data)
    if path[0] != "gates" or len(path) == 1 or DOCUMENT.data["gates"][path[1]]["name"] in GATES
]


def with_line(number: int, line: str) -> str:
    return "\n".join([*LINES[: number - 1], line, *LINES[number:]])


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(str(part) for part in path))
def test_a_misspelled_key_is_named(path: Place) -> None:
    """One letter more in any key: an error on that line that names the key as written and the one meant."""
    key = str(path[-1])
    number, column = DOCUMENT.position(path, of_key=True)
    line = LINES[number - 1]
    wrong = line[: column - 1] + f"{key}x" + line[column - 1 + len(key) :]
    with pytest.raises(PolicyError) as caught:
        load_rollout(with_line(number, wrong), "rollout.yaml")
    named = [one for one in caught.value.issues if f"unknown key '{key}x'" in one.message]
    assert [(one.line, one.column) for one in named] == [(number, column)]
    assert f"did you mean '{key}'" in named[0].message


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(str(part) for part in path))
def test_a_value_of_the_wrong_kind_is_named(path: Place) -> None:
    """A mapping in place of any value: an error at that value that names its key."""
    value = DOCUMENT.data
    for part in path:
        value = value[part]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        pytest.skip("the lists of gates and stages; their entries are mutated one by one")
    number, column = DOCUMENT.position(path)
    line = LINES[number - 1]
    with pytest.raises(PolicyError) as caught:
        load_rollout(with_line(number, line[: column - 1] + "{not: this}"), "rollout.yaml")
    named = [one for one in caught.value.issues if one.path.endswith(str(path[-1]))]
    assert named, [str(one) for one in caught.value.issues]
    assert named[0].line == number
