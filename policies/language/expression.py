"""Payoff expressions over the fields of a row: a closed arithmetic grammar with its own parser; no `eval`.

    sum     := product (("+" | "-") product)*
    product := unary (("*" | "/") unary)*
    unary   := "-" unary | atom
    atom    := NUMBER | FIELD | FUNCTION "(" sum ("," sum)* ")" | "(" sum ")"
    FUNCTION: clip(x, low, high), min(x, y, …), max(x, y, …), log(x), abs(x)

Rule: no intermediate value may be NaN or infinite, so that a clip cannot hide a division by zero.
Must never import: anything but numpy and the standard library.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from policies.language.yaml_mistakes import did_you_mean

MAX_CHARACTERS = 2000
MAX_TOKENS = 300  # bounds the depth of the tree, which is walked by recursion
MAX_DEPTH = 50

Floats: TypeAlias = NDArray[np.float64]
FoldT = TypeVar("FoldT")

#: name → (least, greatest number of arguments; None for any)
FUNCTIONS: Mapping[str, tuple[int, int | None]] = {
    "clip": (3, 3),
    "min": (2, None),
    "max": (2, None),
    "log": (1, 1),
    "abs": (1, 1),
}


class ExpressionError(ValueError):
    """An expression is refused or has no finite value; `column` counts characters of its text from 1."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"{message} (at character {column})")
        self.column = column


@dataclass(frozen=True)
class _Number:
    value: float
    column: int


@dataclass(frozen=True)
class _Field:
    name: str
    column: int


@dataclass(frozen=True)
class _Call:
    """An operator (`+`, `neg`, …) or a function with its arguments."""

    name: str
    arguments: tuple[_Node, ...]
    column: int


_Node: TypeAlias = _Number | _Field | _Call
_OfRow: TypeAlias = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class Expression:
    """A compiled expression: the `fields` it reads, and `evaluate`; equal texts are equal expressions."""

    text: str
    fields: frozenset[str]
    _root: _Node

    def evaluate(self, columns: Mapping[str, NDArray[Any]]) -> Floats:
        """The value of each row, `(n,)` float64; n is the length of the columns, of which there must be one.

        Raises ExpressionError if a field is missing or no number, or a value is not finite; it names the row.
        """
        if not columns:
            raise ExpressionError("there are no columns, so the number of rows is unknown", 1)
        n = len(next(iter(columns.values())))
        if isinstance(self._root, _Number):
            return np.full(n, self._root.value)
        with np.errstate(all="ignore"):
            value = _evaluate(self._root, columns, n)
        return np.array(value) if value.shape == (n,) else np.full(n, value)

    def of_row(self, row: Mapping[str, Any]) -> float:
        """What `evaluate` gives for one row, to the last bit, at a tenth of the time: plain numbers, no arrays.

        Raises ValueError, TypeError, KeyError or ArithmeticError where `evaluate` would raise; it then says why.
        """
        return self._function(row)

    @cached_property
    def _function(self) -> _OfRow:
        return _function(self._root)

    def fold(
        self,
        *,
        number: Callable[[float], FoldT],
        field: Callable[[str], FoldT],
        call: Callable[[str, Sequence[FoldT], int], FoldT],
    ) -> FoldT:
        """The expression read by other rules; `call` gets an operator (`+`, `neg`, …) or a function, and its column."""

        def read(node: _Node) -> FoldT:
            if isinstance(node, _Number):
                return number(node.value)
            if isinstance(node, _Field):
                return field(node.name)
            return call(node.name, [read(argument) for argument in node.arguments], node.column)

        return read(self._root)


def compile_expression(text: str, constants: Mapping[str, float] | None = None) -> Expression:
    """Parse an expression of the grammar above; a name among `constants` is that number, and no field.

    Raises ExpressionError with the column of what is not in the grammar.
    """
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"must be at most {MAX_CHARACTERS} characters: {len(text)}", MAX_CHARACTERS)
    parser = _Parser(text, constants or {})
    root = parser.parse()
    return Expression(text=text.strip(), fields=frozenset(parser.fields), _root=root)


@dataclass(frozen=True)
class _Token:
    kind: str  # number, name, end, or the character itself
    text: str
    column: int


_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>\*\*|//|[-+*/(),]))"
)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise ExpressionError(_refusal(text[at]), at + 1)
        kind = match.lastgroup or ""
        token, column = match[kind], match.start(kind) + 1
        if token in ("**", "//"):
            raise ExpressionError(f"operator '{token}' is not in the grammar; known: + - * /", column)
        if kind == "number" and not np.isfinite(float(token)):
            raise ExpressionError(f"number must be finite: {token}", column)
        yield _Token(token if kind == "sign" else kind, token, column)
        at = match.end()
    yield _Token("end", "the end", len(text) + 1)


def _refusal(character: str) -> str:
    reasons = {
        ".": "attribute access with '.' is not in the grammar",
        "'": "text is not in the grammar",
        '"': "text is not in the grammar",
        "^": "operator '^' is not in the grammar; known: + - * /",
        "[": "indexing with '[' is not in the grammar",
    }
    return reasons.get(character, f"character {character!r} is not in the grammar")


class _Parser:
    """Recursive descent, one method per rule of the grammar."""

    def __init__(self, text: str, constants: Mapping[str, float]) -> None:
        self.fields: set[str] = set()
        self._constants = constants
        self._tokens = list(_tokens(text))
        if len(self._tokens) > MAX_TOKENS:
            message = f"must have at most {MAX_TOKENS} numbers, names and signs: {len(self._tokens)}"
            raise ExpressionError(message, self._tokens[MAX_TOKENS].column)
        self._at = 0
        self._depth = 0

    def parse(self) -> _Node:
        root = self._sum()
        if self._token.kind != "end":
            raise ExpressionError(
                f"expected an operator or the end, not '{self._token.text}'", self._token.column
            )
        return root

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._token
        self._at += 1
        return token

    def _expect(self, kind: str) -> None:
        if self._token.kind != kind:
            raise ExpressionError(f"expected '{kind}', not '{self._token.text}'", self._token.column)
        self._at += 1

    def _sum(self) -> _Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"must be nested at most {MAX_DEPTH} deep", self._token.column)
        node = self._chain(self._product, ("+", "-"))
        self._depth -= 1
        return node

    def _product(self) -> _Node:
        return self._chain(self._unary, ("*", "/"))

    def _chain(self, part: Callable[[], _Node], signs: tuple[str, str]) -> _Node:
        node = part()
        while self._token.kind in signs:
            sign = self._take()
            node = _folded(_Call(sign.kind, (node, part()), sign.column))
        return node

    def _unary(self) -> _Node:
        signs: list[_Token] = []
        while self._token.kind == "-":
            signs.append(self._take())
        node = self._atom()
        return _folded(_Call("neg", (node,), signs[0].column)) if len(signs) % 2 else node

    def _atom(self) -> _Node:
        token = self._take() if self._token.kind != "end" else self._token
        if token.kind == "number":
            return _Number(float(token.text), token.column)
        if token.kind == "(":
            node = self._sum()
            self._expect(")")
            return node
        if token.kind == "name":
            return self._call(token) if self._token.kind == "(" else self._field(token)
        raise ExpressionError(f"expected a number, a field or '(', not '{token.text}'", token.column)

    def _field(self, token: _Token) -> _Node:
        if token.text in FUNCTIONS:
            raise ExpressionError(f"'{token.text}' is a function: write {token.text}(…)", token.column)
        if token.text in self._constants:
            return _Number(self._constants[token.text], token.column)
        self.fields.add(token.text)
        return _Field(token.text, token.column)

    def _call(self, token: _Token) -> _Node:
        if token.text not in FUNCTIONS:
            known = sorted(FUNCTIONS)
            message = f"unknown function '{token.text}'{did_you_mean(token.text, known)}"
            raise ExpressionError(f"{message} (known: {', '.join(known)})", token.column)
        self._expect("(")
        arguments = [self._sum()]
        while self._token.kind == ",":
            self._take()
            arguments.append(self._sum())
        self._expect(")")
        least, most = FUNCTIONS[token.text]
        if len(arguments) < least or (most is not None and len(arguments) > most):
            wanted = f"{least}" if most == least else f"at least {least}"
            raise ExpressionError(f"{token.text} takes {wanted} arguments: {len(arguments)}", token.column)
        return _folded(_Call(token.text, tuple(arguments), token.column))


def _folded(call: _Call) -> _Node:
    """The number that a call of numbers is, so that it is not worked out for every row; it stays if not finite."""
    if not all(isinstance(argument, _Number) for argument in call.arguments):
        return call
    try:
        with np.errstate(all="ignore"):
            return _Number(float(_evaluate(call, {}, 1)), call.column)
    except ExpressionError:
        return call


_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "neg": np.negative,
    "abs": np.abs,
    "log": np.log,
    "clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
}

# Rule: arguments were checked before, so what only picks one of them, or turns its sign, needs no check.
_STAYS_FINITE = frozenset(("neg", "abs", "clip", "min", "max"))


def _evaluate(node: _Node, columns: Mapping[str, NDArray[Any]], n: int) -> Floats:
    if isinstance(node, _Number):
        return np.asarray(node.value)
    if isinstance(node, _Field):
        return _column(node, columns, n)
    arguments = [_evaluate(argument, columns, n) for argument in node.arguments]
    if node.name in ("min", "max"):
        fold = np.minimum if node.name == "min" else np.maximum
        value = arguments[0]
        for argument in arguments[1:]:
            value = fold(value, argument)
    else:
        value = np.asarray(_OPERATIONS[node.name](*arguments))
    if node.name in _STAYS_FINITE:
        return value
    return _finite(value, f"'{node.name}' has no finite value", node.column)


def _column(node: _Field, columns: Mapping[str, NDArray[Any]], n: int) -> Floats:
    if node.name not in columns:
        known = sorted(columns)
        message = f"field '{node.name}' is not among the columns{did_you_mean(node.name, known)}"
        raise ExpressionError(f"{message} (known: {', '.join(known)})", node.column)
    try:
        column = np.asarray(columns[node.name], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ExpressionError(f"field '{node.name}' must be numbers: {error}", node.column) from error
    if column.shape != (n,):
        raise ExpressionError(f"field '{node.name}' must have shape ({n},): {column.shape}", node.column)
    return _finite(column, f"field '{node.name}' must be finite", node.column)


def _finite(value: Floats, message: str, column: int) -> Floats:
    if not np.isfinite(value).all():
        row = int(np.flatnonzero(~np.isfinite(value))[0])
        raise ExpressionError(f"{message}: {np.atleast_1d(value)[row]} in row {row}", column)
    return value


def _function(node: _Node) -> _OfRow:
    """The node as a function of a row."""
    if isinstance(node, _Number):
        number = node.value
        return lambda row: number
    if isinstance(node, _Field):
        name = node.name
        return lambda row: _finite_number(float(row[name]))
    first, *others = (_function(argument) for argument in node.arguments)
    if node.name in ("min", "max"):
        pick = min if node.name == "min" else max
        return lambda row: pick(first(row), *(other(row) for other in others))
    if node.name == "clip":
        low, high = others
        return lambda row: min(max(first(row), low(row)), high(row))
    if not others:
        change = _OF_ONE[node.name]
        return lambda row: change(first(row))
    (second,) = others
    combine = _OF_TWO[node.name]
    return lambda row: _finite_number(combine(first(row), second(row)))


def _finite_number(value: float) -> float:
    if math.isfinite(value):
        return value
    raise ArithmeticError(f"not finite: {value}")


def _log(value: float) -> float:
    if value <= 0:
        raise ArithmeticError(f"log of {value}")
    return float(np.log(value))  # not math.log: the two differ in the last bit


_OF_ONE: Mapping[str, Callable[[float], float]] = {"neg": operator.neg, "abs": abs, "log": _log}
_OF_TWO: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
