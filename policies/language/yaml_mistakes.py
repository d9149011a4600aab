"""Turn pydantic's errors into sentences about the file: which key or value, what it must be, what exists.

pydantic's `loc` also holds union tags and type names that stand nowhere in the file; the walk below follows
the model's types along it, so that only the file's own keys and indices remain.
Source: https://docs.pydantic.dev/latest/errors/validation_errors/. Must never import: anything that does I/O.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Mistake:
    """One mistake: its path in the file, the sentence, and whether it is about the key, not the value."""

    path: Path
    message: str
    of_key: bool = False


def mistakes_of(error: ValidationError, model: type[BaseModel]) -> tuple[Mistake, ...]:
    """Every mistake of a failed validation by `model`; alternatives of one union are joined with "or"."""
    found: dict[tuple[Path, bool], list[str]] = {}
    for detail in error.errors(include_url=False):
        mistake = _mistake(detail, model)
        for one in (*_strangers(detail, model), mistake):
            messages = found.setdefault((one.path, one.of_key), [])
            if one.message not in messages:
                messages.append(one.message)
    return tuple(Mistake(path, " or ".join(messages), of_key) for (path, of_key), messages in found.items())


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """ "; did you mean 'y'?" for the nearest known word, or nothing."""
    folded = {name.casefold().replace("_", ""): name for name in known}
    near = difflib.get_close_matches(word.casefold().replace("_", ""), list(folded), n=1, cutoff=0.6)
    return f"; did you mean '{folded[near[0]]}'?" if near else ""


def _mistake(detail: Mapping[str, Any], model: type[BaseModel]) -> Mistake:
    kind, loc = detail["type"], tuple(detail["loc"])
    if kind == "extra_forbidden":
        path, owners = _walk(model, loc[:-1])
        for owner in owners:
            if loc[-1] in getattr(owner, "other_words", ()):
                return Mistake((*path, loc[-1]), f"is no key here: {owner.other_words[loc[-1]]}", True)
        return _unknown(path, str(loc[-1]), sorted({name for owner in owners for name in _keys(owner)}))
    if kind == "missing":
        path, _ = _walk(model, loc[:-1])
        return Mistake((*path, loc[-1]), "is missing", True)
    path, _ = _walk(model, loc)
    context = detail.get("ctx", {})
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _tag_mistake(kind, path, context, model, loc)
    return Mistake(path, _sentence(kind, detail, context), "[key]" in loc)


def _strangers(detail: Mapping[str, Any], model: type[BaseModel]) -> tuple[Mistake, ...]:
    """pydantic stops where the discriminator is missing: name the keys that no alternative knows."""
    if detail["type"] != "union_tag_not_found" or not isinstance(detail["input"], dict):
        return ()
    path, owners = _walk(model, tuple(detail["loc"]))
    known = sorted({name for owner in owners for name in _keys(owner)})
    return tuple(_unknown(path, str(key), known) for key in detail["input"] if key not in known)


def _unknown(path: Path, key: str, known: Sequence[str]) -> Mistake:
    message = f"unknown key '{key}'{did_you_mean(key, known)} (known: {', '.join(known)})"
    return Mistake((*path, key), message, True)


def _tag_mistake(
    kind: str, path: Path, context: Mapping[str, Any], model: type[BaseModel], loc: Path
) -> Mistake:
    key = str(context["discriminator"]).strip("'")
    _, owners = _walk(model, loc)
    for owner in owners:  # the discriminator is named as the field; the file knows it by its alias
        if isinstance(owner, type) and issubclass(owner, BaseModel) and key in owner.model_fields:
            key = owner.model_fields[key].alias or key
    if kind == "union_tag_not_found":
        return Mistake((*path, key), "is missing", True)
    expected = str(context["expected_tags"])
    tags = [tag.strip().strip("'") for tag in expected.split(",")]
    tag = str(context["tag"])
    return Mistake((*path, key), f"must be one of {expected}: '{tag}'{did_you_mean(tag, tags)}")


_MUST_BE = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text (quote it)",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "date_type": "a date (YYYY-MM-DD)",
    "date_parsing": "a date (YYYY-MM-DD)",
    "date_from_datetime_parsing": "a date (YYYY-MM-DD)",
    "none_required": "null",
}
_BOUNDS = {
    "greater_than": ("> ", "gt"),
    "greater_than_equal": (">= ", "ge"),
    "less_than": ("< ", "lt"),
    "less_than_equal": ("<= ", "le"),
    "multiple_of": ("a multiple of ", "multiple_of"),
    "string_too_short": ("text of at least this many characters: ", "min_length"),
    "string_too_long": ("text of at most this many characters: ", "max_length"),
    "string_pattern_mismatch": ("text like ", "pattern"),
}


def _sentence(kind: str, detail: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    value = _shown(detail.get("input"))
    if kind in ("literal_error", "enum"):
        expected = str(context["expected"])
        words = [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(",")]
        return f"must be one of {expected}: {value}{did_you_mean(str(detail['input']), words)}"
    if kind in _MUST_BE:
        return f"must be {_MUST_BE[kind]}: {value}"
    if kind in _BOUNDS:
        words_of, key = _BOUNDS[kind]
        return f"must be {words_of}{context[key]}: {value}"
    if kind in ("too_short", "too_long"):
        bound = (
            f"at least {context.get('min_length')}"
            if kind == "too_short"
            else f"at most {context.get('max_length')}"
        )
        return f"must have {bound} entries: {context.get('actual_length')}"
    message = str(detail["msg"])
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _walk(model: Any, loc: Path) -> tuple[Path, tuple[Any, ...]]:
    """Follow `loc` through the types; return the file's own path and the types that may stand there."""
    path: list[str | int] = []
    here = _alternatives(model)
    for part in loc:
        if part == "[key]":
            continue
        if len(here) > 1:  # pydantic names the alternative it tried, which the file does not hold
            here = _narrowed(here, str(part))
            continue
        path.append(part)
        here = _alternatives(_child(here[0], part)) if here else ()
    return tuple(path), here


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of a union without None; Annotated is looked through."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [a for a in get_args(annotation) if a is not type(None)]
        return tuple(members) if len(members) > 1 else _alternatives(members[0])
    return () if annotation is None else (annotation,)


def _narrowed(alternatives: tuple[Any, ...], tag: str) -> tuple[Any, ...]:
    for one in alternatives:
        bare = get_args(one)[0] if get_origin(one) is Annotated else one
        if (
            getattr(bare, "__name__", "") == tag
            or tag in _tags(bare)
            or tag.startswith(f"{_origin_name(bare)}[")
        ):
            return (bare,)
    return alternatives[:1]


def _origin_name(annotation: Any) -> str:
    return getattr(get_origin(annotation), "__name__", "?")


def _tags(model: Any) -> set[str]:
    """The values of a model's Literal fields (and their enum values): one of them is its discriminator."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return set()
    literals = [a for f in model.model_fields.values() for a in get_args(f.annotation)]
    return {str(getattr(a, "value", a)) for a in literals if isinstance(a, str)}


def _child(annotation: Any, part: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, info in annotation.model_fields.items():
            if part in (info.alias, name):
                return info.annotation
        return None
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if not arguments or origin is None:
        return None
    if origin is tuple and Ellipsis not in arguments and isinstance(part, int):
        return arguments[part] if part < len(arguments) else None
    return arguments[-1] if isinstance(origin, type) and issubclass(origin, Mapping) else arguments[0]


def _keys(owner: Any) -> list[str]:
    if not (isinstance(owner, type) and issubclass(owner, BaseModel)):
        return []
    return [info.alias or name for name, info in owner.model_fields.items()]
