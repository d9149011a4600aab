"""Checks a contract against the standard's own JSON Schema, and says of each error where it stands.

The schema of the Open Data Contract Standard (its package on PyPI) closes most objects, but its errors name no
line, and one typo makes several. So unknown keys are found first, by walking the schema along the document; what
the validator then adds about the same object's keys is an echo and is left out. Must never import: polars, duckdb.
"""

import functools
import json
from collections.abc import Collection, Iterator, Mapping
from importlib.resources import files
from typing import Any

import jsonschema_rs

from policies.language.yaml_mistakes import did_you_mean
from policies.language.yaml_source import Document, Issue, Path

_KEY_ERRORS = ("additionalProperties", "unevaluatedProperties")
_BRANCHES = ("allOf", "anyOf", "oneOf")
_CONDITIONS = ("if", "then", "else")


def schema_issues(document: Document) -> tuple[list[Issue], bool]:
    """Every departure from the standard, and whether the rest can be read (nothing but unknown keys)."""
    unknown = dict(_unknown_keys(document.data, (_schema(),), ()))
    issues = [_unknown_issue(document, path, known) for path, known in unknown.items()]
    owners = {path[:-1] for path in unknown}
    errors = list(_validator().iter_errors(document.data))
    other = [e for e in errors if e.kind.name not in _KEY_ERRORS]
    faulty = {tuple(e.instance_path) for e in other} | owners
    for error in errors:
        path = tuple(error.instance_path)
        if error.kind.name in _KEY_ERRORS and not any(p[: len(path)] == path for p in faulty):
            issues += [
                document.issue((*path, key), f"key '{key}' is not allowed here", of_key=True)
                for key in error.kind.unexpected
            ]
    for error in other:
        issues += _other_issues(document, error, unknown.keys())
    return list(dict.fromkeys(issues)), not other


def _unknown_issue(document: Document, path: Path, known: tuple[str, ...]) -> Issue:
    key = str(path[-1])
    message = f"unknown key '{key}'{did_you_mean(key, known)} (known: {', '.join(known)})"
    return document.issue(path, message, of_key=True)


def _other_issues(document: Document, error: Any, unknown: Collection[Path]) -> list[Issue]:
    path, kind = tuple(error.instance_path), error.kind
    if kind.name in ("oneOf", "anyOf"):
        if any(key[: len(path)] == path for key in unknown):  # no branch fits because of the unknown key
            return []
        if "DataQualityOperators" in error.schema_path:
            operators = _known((_definition("DataQualityOperators"),))
            return [document.issue(path, f"must have exactly one of {', '.join(operators)}")]
        branches = [b for b in getattr(kind, "context", ()) if b]
        nearest: list[Any] = min(branches, key=_misfit, default=[])
        return [issue for e in nearest for issue in _other_issues(document, e, unknown)]
    if kind.name == "required":
        return [document.issue((*path, kind.property), "is missing", of_key=True)]
    if kind.name == "enum":
        words = [str(option) for option in kind.options]
        hint = did_you_mean(str(error.instance), words)
        return [document.issue(path, f"must be one of {', '.join(words)}: {error.instance}{hint}")]
    if kind.name == "type":
        return [document.issue(path, f"must be of type {' or '.join(kind.types)}: {_shown(error.instance)}")]
    return [document.issue(path, error.message[:300])]


def _misfit(branch: list[Any]) -> tuple[bool, int]:
    """A branch of another type (a list where the file has a mapping) is the last to be meant."""
    return any(e.kind.name == "type" and len(e.instance_path) <= 1 for e in branch), len(branch)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


@functools.cache
def _schema() -> Any:
    return json.loads(
        files("open_data_contract_standard").joinpath("schema.json").read_text(encoding="utf-8")
    )


@functools.cache
def _validator() -> Any:
    return jsonschema_rs.validator_for(_schema())


def _definition(name: str) -> Any:
    node = _schema()["$defs"]
    for part in name.split("/"):
        node = node[part]
    return node


def _unknown_keys(data: Any, nodes: tuple[Any, ...], path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """(path of the key, what is known there) for each key that no branch of the schema declares."""
    alternatives = tuple(_expand(nodes))
    if isinstance(data, list):
        for index, item in enumerate(data):
            items = tuple(n["items"] for n in alternatives if isinstance(n.get("items"), Mapping))
            yield from _unknown_keys(item, items, (*path, index))
    if not isinstance(data, dict):
        return
    known = _known(nodes)
    if not known:  # the standard leaves this object's keys free
        return
    for key, value in data.items():
        if key not in known:
            yield (*path, key), known
        else:
            children = tuple(n["properties"][key] for n in alternatives if key in n.get("properties", {}))
            yield from _unknown_keys(value, children, (*path, key))


def _known(nodes: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for node in _expand(nodes) for key in node.get("properties", {})))


def _expand(nodes: tuple[Any, ...]) -> Iterator[Mapping[str, Any]]:
    """Each schema with all that it refers to or branches into."""
    for node in nodes:
        if not isinstance(node, Mapping):
            continue
        yield node
        if "$ref" in node:
            yield from _expand((_definition(node["$ref"].removeprefix("#/$defs/")),))
        for word in _BRANCHES:
            yield from _expand(tuple(node.get(word, ())))
        yield from _expand(tuple(node[word] for word in _CONDITIONS if word in node))
