"""Read one strict YAML text and say of every mistake where it stands: file, line and column.

A policy file decides what customers meet, so nothing in it is guessed. Refused are: duplicate keys, tags,
anchors and aliases, NaN and infinity, keys that are not text, several documents, more than 256 KiB, more than
32 levels. Plain scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema):
`yes` is text, a date is text. Models are filled strictly, as from JSON: "0.5" is not a number, 1 is not true.

Rule for models read here: inherit from StrictModel; keys in the file are camelCase, fields are snake_case.
Must never import: anything that does I/O. Loaders take (text, source name); reading files is the services'.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from policies.language.yaml_mistakes import mistakes_of

MAX_CHARACTERS = 256 * 1024
MAX_DEPTH = 32

Path = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)


SERVICE_NAME = r"^[a-z][a-z0-9_-]*$"
"""What a decision service may be called, the same in every file."""


class StrictModel(BaseModel):
    """Base of what is read from a policy file: frozen, unknown keys refused, camelCase keys, finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, allow_inf_nan=False)


@dataclass(frozen=True)
class Issue:
    """One mistake in one file; line and column count from 1; `path` is like `stages[2].gates[0].bound`."""

    source: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        subject = f"'{self.path}' " if self.path else ""
        return f"{self.source}:{self.line}:{self.column}: {subject}{self.message}"


class PolicyError(ValueError):
    """A policy file is refused; `issues` holds all its mistakes in the order of the file."""

    def __init__(self, issues: tuple[Issue, ...]) -> None:
        super().__init__("\n".join(str(issue) for issue in issues))
        self.issues = issues

    def __reduce__(self) -> tuple[type[PolicyError], tuple[tuple[Issue, ...]]]:
        return (PolicyError, (self.issues,))


@dataclass(frozen=True)
class Document:
    """A parsed YAML: plain `data` (dict, list, str, int, float, bool, None), and where each part stands."""

    source: str
    data: Any
    _keys: Mapping[Path, tuple[int, int]] = field(repr=False)
    _values: Mapping[Path, tuple[int, int]] = field(repr=False)
    _quoted: frozenset[Path] = field(default=frozenset(), repr=False)

    def position(self, path: Path, *, of_key: bool = False) -> tuple[int, int]:
        """(line, column), from 1, of the value at `path`, or of its key; of the nearest parent if absent."""
        while path:
            if path in self._values:
                return self._keys.get(path, self._values[path]) if of_key else self._values[path]
            path, of_key = path[:-1], True
        return self._values[()]

    def issue_within(self, path: Path, line: int, column: int, *, message: str) -> Issue:
        """An Issue inside the text at `path`, at a line and column of that text, both from 1.

        Exact where it stands on one line; in a block of several lines the message says the place.
        """
        at, start = self.position(path)
        value = self.data
        for part in path:
            value = value[part]
        if "\n" in str(value).strip():
            return self.issue(path, f"{message} (its line {line}, column {column})")
        return Issue(self.source, at, start + column - 1 + (path in self._quoted), path_text(path), message)

    def issue(self, path: Path, message: str, *, of_key: bool = False) -> Issue:
        """An Issue at the value of `path`, at its key, or, if absent, at the key of what should hold it."""
        line, column = self.position(path, of_key=of_key)
        return Issue(self.source, line, column, path_text(path), message)


def path_text(path: Path) -> str:
    """`("stages", 2, "bound")` as `stages[2].bound`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def load_document(text: str, source: str) -> Document:
    """Parse strict YAML and keep the position of every key and value.

    Raises PolicyError with what is refused (see the module's header); `source` names the file in messages.
    """
    if len(text) > MAX_CHARACTERS:
        raise PolicyError(
            (Issue(source, 1, 1, "", f"must be at most {MAX_CHARACTERS} characters: {len(text)}"),)
        )
    return _Reader(text, source).read()


def parse(document: Document, model: type[ModelT]) -> ModelT:
    """Fill `model` from the document, strictly.

    Raises PolicyError with every mistake at once, each at its key or value; a missing key points at the
    mapping that should hold it, an unknown one says what was probably meant and what is known.
    """
    try:
        return model.model_validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        issues = [
            document.issue(mistake.path, mistake.message, of_key=mistake.of_key)
            for mistake in mistakes_of(error, model)
        ]
        raise PolicyError(tuple(sorted(issues, key=lambda i: (i.line, i.column)))) from error


class _Reader:
    """One pass over the parser's events; collects every duplicate, odd key and odd number, then refuses."""

    def __init__(self, text: str, source: str) -> None:
        self._text, self._source = text, source
        self._keys: dict[Path, tuple[int, int]] = {}
        self._values: dict[Path, tuple[int, int]] = {(): (1, 1)}
        self._quoted: set[Path] = set()
        self._issues: list[Issue] = []

    def read(self) -> Document:
        try:
            stream: Iterator[Any] = iter(YAML(typ="safe", pure=True).parse(self._text))
            data = self._document(stream)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            raise PolicyError((self._issue(where, (), f"is not YAML: {error.problem or error}"),)) from error
        except YAMLError as error:  # a character that YAML does not allow
            before = self._text[: getattr(error, "position", 0) or 0]
            where = (before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
            reason = getattr(error, "reason", None) or "cannot be read"
            raise PolicyError((self._issue(where, (), f"is not YAML: {reason}"),)) from error
        if self._issues:
            raise PolicyError(tuple(self._issues))
        return Document(self._source, data, self._keys, self._values, frozenset(self._quoted))

    def _document(self, stream: Iterator[Any]) -> Any:
        data: Any = None
        documents = 0
        for event in stream:
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise PolicyError(
                        (self._issue(_where(event), (), "must hold one YAML document, not several"),)
                    )
            elif isinstance(event, events.NodeEvent):
                data = self._node(event, stream, ())
        return data

    def _node(self, event: Any, stream: Iterator[Any], path: Path) -> Any:
        self._values[path] = _where(event)
        self._refuse_extras(event, path)
        if isinstance(event, events.ScalarEvent):
            return self._scalar(event, path)
        if isinstance(event, events.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := next(stream), events.SequenceEndEvent):
                items.append(self._node(event, stream, (*path, len(items))))
            return items
        return self._mapping(stream, path)

    def _mapping(self, stream: Iterator[Any], path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(stream), events.MappingEndEvent):
            where = _where(event)
            if not isinstance(event, events.ScalarEvent):
                self._refuse_extras(event, path)
                raise PolicyError((self._issue(where, path, "has a key that is not text"),))
            self._refuse_extras(event, path)
            key = event.value
            if not _is_text(event):
                self._issues.append(self._issue(where, path, f"has a key that is not text: {key} (quote it)"))
            here = (*path, key)
            if key in mapping:
                first = self._keys[here][0]
                self._issues.append(self._issue(where, here, f"duplicate key '{key}'; first on line {first}"))
                self._node(next(stream), stream, (*path, f"{key} (again)"))
                continue
            self._keys[here] = where
            mapping[key] = self._node(next(stream), stream, here)
        return mapping

    def _refuse_extras(self, event: Any, path: Path) -> None:
        """Anchors, aliases, tags and depth end the reading at once: what follows could be a bomb."""
        anchor = getattr(event, "anchor", None)
        if isinstance(event, events.AliasEvent):
            message = f"alias *{anchor} is refused; write the value out"
        elif anchor is not None:
            message = f"anchor &{anchor} is refused; write the value out"
        elif getattr(event, "tag", None) is not None:
            message = f"tag {event.tag} is refused; write a plain value"
        elif len(path) > MAX_DEPTH:
            message = f"must be nested at most {MAX_DEPTH} deep"
        else:
            return
        raise PolicyError((*self._issues, self._issue(_where(event), path, message)))

    def _scalar(self, event: Any, path: Path) -> Any:
        text: str = event.value
        if event.style in ("'", '"'):
            self._quoted.add(path)
        if _is_text(event):
            return text
        if text in _NULLS:
            return None
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        if _INTEGER.fullmatch(text) and len(text) <= 64:
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        number = float("nan") if _NOT_FINITE.fullmatch(text) else float(text)
        if not math.isfinite(number):
            self._issues.append(self._issue(_where(event), path, f"must be a finite number: {text[:40]}"))
        return number

    def _issue(self, where: tuple[int, int], path: Path, message: str) -> Issue:
        return Issue(self._source, where[0], where[1], path_text(path), message)


_NULLS = ("", "~", "null", "Null", "NULL")
_BOOLEANS = ("true", "True", "TRUE", "false", "False", "FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def _is_text(event: Any) -> bool:
    """Quoted and block scalars are text; a plain one is, unless the core schema knows it otherwise."""
    text: str = event.value
    if event.style not in (None, ""):
        return True
    known = text in _NULLS or text in _BOOLEANS
    return not (known or any(p.fullmatch(text) for p in (_INTEGER, _FLOAT, _NOT_FINITE)))


def _where(event: Any) -> tuple[int, int]:
    return (event.start_mark.line + 1, event.start_mark.column + 1)
