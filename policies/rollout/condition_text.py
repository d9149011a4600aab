"""What may stand in a `when:` at all: metrics, numbers with a point, arithmetic, comparisons, and, or, not.

CEL lets `true || error` pass and NaN pass a `!`. So nothing is let in that can bring about either: no integers, texts,
lists or functions, and no divisor but a written number that is not 0. Backticks and comments would hide names.
Source: https://cel.dev, language definition. Must never import: anything but the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

NAME = re.compile(r"\bmetrics\s*\.\s*([A-Za-z_]\w*)(?:\s*\.\s*([A-Za-z_]\w*))?", re.ASCII)
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<name>metrics(?:\s*\.\s*[A-Za-z_]\w*)+)"
    r"|(?P<truth>true\b|false\b)"
    r"|(?P<number>[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?(?![\w.])|[0-9]+[eE][+-]?[0-9]+(?![\w.]))"
    r"|(?P<whole>[0-9]+(?![\w.]))"
    r"|(?P<comment>//)"
    r"|(?P<sign>&&|\|\||[<>!=]=|[<>!?:()+*/-])"
    r"|(?P<rest>metrics\b|\.)"  # of a name that is none: CEL says what is wrong
    r"|(?P<other>[A-Za-z_]\w*|.)",
    re.ASCII,
)
_DIVISOR = re.compile(
    r"\s*-?\s*([0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)(?![\w.])", re.ASCII
)
_LARGEST = 1e15
_ALLOWED = (
    "a condition holds metrics.<name>, .lower and .upper, numbers with a point, + - * /, comparisons, && || !, ? : "
    "and brackets"
)


def mistakes_in_text(text: str) -> Iterator[tuple[int, str]]:
    """What has no place in a condition: where, from 0, and why; nothing after what is foreign altogether."""
    for token in _TOKEN.finditer(text):
        what = token[0]
        if token.lastgroup == "whole":
            yield token.start(), f"write numbers with a point: {what}.0"
        elif token.lastgroup == "comment":
            yield token.start(), "a comment has no place here: it can hide a part of the condition"
            return
        elif what == "`":
            yield token.start(), "a backtick has no place here: write metrics.<name> without"
            return
        elif token.lastgroup == "other":
            yield token.start(), f"'{what}' has no place here: {_ALLOWED}"
            return
        elif token.lastgroup == "number" and float(what) > _LARGEST:
            yield token.start(), f"must not be above {_LARGEST:g}: {what}"
        elif what == "/" and not _divides(text[token.end() :]):
            yield (
                token.start(),
                "must divide by a written number that is not 0, like 1000.0: what is measured may be 0, and 0/0 is "
                "no number; multiply the other side instead",
            )


def names_in(text: str) -> tuple[str, ...]:
    """The names that a condition without mistakes reads, as CEL declares them, each once."""
    names = (f"metrics.{metric}.{end}" if end else f"metrics.{metric}" for metric, end in NAME.findall(text))
    return tuple(dict.fromkeys(names))


def numbers_in(text: str) -> tuple[float, ...]:
    """The numbers that it writes."""
    return tuple(float(token[0]) for token in _TOKEN.finditer(text) if token.lastgroup == "number")


def _divides(rest: str) -> bool:
    divisor = _DIVISOR.match(rest)
    return divisor is not None and float(divisor[1]) >= 1 / _LARGEST
