"""Every key that a rollout.yaml may have, mutated one at a time, gives an error that names it, with its place."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import pytest
from pydantic import BaseModel

from policies.language.yaml_source import PolicyError, load_document
from policies.rollout.rollout_file import BakeFile, ExpectedFile, GateFile, MarginFile, RolloutFile, StageFile
from policies.rollout.rollout_policy import load_rollout

YAML = FilePath(__file__).parents[1].joinpath("every_key.yaml")
TEXT = YAML.read_text(encoding="utf-8")
DATA: dict[str, Any] = load_document(TEXT, "rollout.yaml").data
MODELS: tuple[type[BaseModel], ...] = (
    RolloutFile,
    GateFile,
    StageFile,
    BakeFile,
    MarginFile,
    ExpectedFile,
)
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


def parent_of(data: Any, path: Place) -> Any:
    for part in path[:-1]:
        data = data[part]
    return data


def refused(data: dict[str, Any]) -> tuple[str, PolicyError]:
    """The policy written one key a line (JSON is YAML), and what was found wrong with it."""
    text = json.dumps(data, indent=1)
    with pytest.raises(PolicyError) as caught:
        load_rollout(text, "rollout.yaml")
    return text, caught.value


KEYS = list(keys_of(DATA))


def test_the_fixture_is_a_policy_with_every_key() -> None:
    """It loads, and no key that the models know is missing from it, but for those that nobody reads any more."""
    assert load_rollout(TEXT, "rollout.yaml").service == "demo"
    known = {info.alias for model in MODELS for info in model.model_fields.values() if not info.deprecated}
    assert known - {path[-1] for path in KEYS} == set()


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(str(part) for part in path))
def test_a_misspelled_key_is_named(path: Place) -> None:
    """One letter more in any key: an error at that key that names it as written and the one meant."""
    data = copy.deepcopy(DATA)
    key = str(path[-1])
    parent = parent_of(data, path)
    kept = {(f"{name}x" if name == key else name): value for name, value in parent.items()}
    parent.clear()
    parent.update(kept)
    text, error = refused(data)
    place = load_document(text, "rollout.yaml").position((*path[:-1], f"{key}x"), of_key=True)
    named = [one for one in error.issues if f"unknown key '{key}x'" in one.message]
    assert [(one.line, one.column) for one in named] == [place]
    assert f"did you mean '{key}'" in named[0].message


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(str(part) for part in path))
def test_a_value_of_the_wrong_kind_is_named(path: Place) -> None:
    """A mapping of something else in place of any value: an error there that names the key."""
    data = copy.deepcopy(DATA)
    parent_of(data, path)[path[-1]] = {"not": "this"}
    text, error = refused(data)
    line, _ = load_document(text, "rollout.yaml").position(path)
    named = [one for one in error.issues if str(path[-1]) in one.path.split(".")]
    assert named, [str(one) for one in error.issues]
    assert named[0].line in (line, line + 1)  # of the mapping, or of the unknown key in it


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(str(part) for part in path))
def test_an_empty_value_is_named(path: Place) -> None:
    """A key with nothing behind it is the same as leaving the key out: refused, unless it may be left out."""
    data, without = copy.deepcopy(DATA), copy.deepcopy(DATA)
    parent_of(data, path)[path[-1]] = None
    del parent_of(without, path)[path[-1]]
    assert _is_refused(data) or not _is_refused(without)


def _is_refused(data: dict[str, Any]) -> bool:
    try:
        load_rollout(json.dumps(data, indent=1), "rollout.yaml")
    except PolicyError:
        return True
    return False
