"""Payoff expressions: a closed grammar that computes what Python's own arithmetic computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.language.expression import MAX_TOKENS, ExpressionError, compile_expression

COLUMNS = {"x": np.array([-2.0, 0.5, 3.0]), "balance": np.array([-10, 100, 9000])}


def _joined(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    sign = st.sampled_from(["+", "-", "*", "/"])
    return st.one_of(
        st.tuples(children, sign, children).map(lambda t: f"{t[0]} {t[1]} {t[2]}"),
        children.map(lambda c: f"({c})"),
        children.map(lambda c: f"-{c}"),
        children.map(lambda c: f"abs({c})"),
        children.map(lambda c: f"log({c})"),
        st.tuples(children, children).map(lambda t: f"min({t[0]}, {t[1]})"),
        st.tuples(children, children, children).map(lambda t: f"max({t[0]},{t[1]},{t[2]})"),
        st.tuples(children, children, children).map(lambda t: f"clip({t[0]}, {t[1]}, {t[2]})"),
    )


atoms = st.one_of(st.sampled_from(["x", "balance", "2", "0.25", "1e-3", ".5"]), st.integers(0, 99).map(str))
expressions = st.recursive(atoms, _joined, max_leaves=8)

ORACLE = {
    "__builtins__": {},
    "abs": abs,
    "min": min,
    "max": max,
    "log": math.log,
    "clip": lambda x, low, high: min(max(x, low), high),
}


@settings(max_examples=50, deadline=None)
@given(expressions)
def test_values_agree_with_pythons_own_arithmetic(text: str) -> None:
    """Precedence, association and every function: the same number, or an error where Python has none; a row alone has
    the number that it has among others."""
    expected = []
    for x, balance in zip(COLUMNS["x"].tolist(), COLUMNS["balance"].tolist(), strict=True):
        try:
            expected.append(float(eval(text, ORACLE, {"x": x, "balance": float(balance)})))  # noqa: S307
        except (ZeroDivisionError, ValueError, OverflowError):
            expected.append(math.nan)
    expression = compile_expression(text)
    rows = [dict(zip(COLUMNS, values, strict=True)) for values in zip(*COLUMNS.values(), strict=True)]
    if np.isfinite(expected).all():
        np.testing.assert_allclose(expression.evaluate(COLUMNS), expected, rtol=1e-12, atol=0)
        assert [expression.of_row(row) for row in rows] == expression.evaluate(COLUMNS).tolist()
    else:
        with pytest.raises(ExpressionError, match=r"no finite value: .* in row \d"):
            expression.evaluate(COLUMNS)
        for row, value in zip(rows, expected, strict=True):
            if math.isnan(value):
                with pytest.raises(ArithmeticError):
                    expression.of_row(row)


def test_the_published_payoff_is_computed() -> None:
    """The telemarketing payoff: negative balances count as 0, great ones as 5000."""
    expression = compile_expression("0.25*0.02463333*clip(balance, 0, 5000) - 1")
    assert expression.fields == {"balance"}
    np.testing.assert_allclose(expression.evaluate(COLUMNS), [-1.0, -0.38416675, 29.7916625], rtol=1e-12)


def test_a_constant_has_one_value_per_row() -> None:
    """An expression without fields takes its length from the columns, and cannot do without them."""
    assert compile_expression("-1").evaluate(COLUMNS).tolist() == [-1.0, -1.0, -1.0]
    with pytest.raises(ExpressionError, match="number of rows is unknown"):
        compile_expression("-1").evaluate({})


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("x.real", 2, "attribute access"),
        ("2 * x.__class__", 6, "attribute access"),
        ("__import__(1)", 1, "unknown function '__import__'"),
        ("1 + exp(x)", 5, "unknown function 'exp'"),
        ("clp(x, 0, 1)", 1, "did you mean 'clip'"),
        ("x ** 2", 3, "operator '**'"),
        ("x ^ 2", 3, "operator '^'"),
        ("x // 2", 3, "operator '//'"),
        ("'text'", 1, "text is not in the grammar"),
        ('min("a", 1)', 5, "text is not in the grammar"),
        ("x[0]", 2, "indexing"),
        ("x == 1", 3, "character '='"),
        ("lambda: 1", 7, "character ':'"),
        ("+x", 1, "expected a number, a field or '('"),
        ("x if 1", 3, "expected an operator or the end, not 'if'"),
        ("1 +", 4, "not 'the end'"),
        ("(x", 3, "expected ')'"),
        ("x)", 2, "not ')'"),
        ("", 1, "expected a number"),
        ("log", 1, "write log(…)"),
        ("log(x)(1)", 7, "expected an operator or the end"),
        ("clip(x, 1)", 1, "clip takes 3 arguments: 2"),
        ("min(x)", 1, "min takes at least 2 arguments: 1"),
        ("log()", 5, "not ')'"),
        ("1e999", 1, "number must be finite"),
        ("0x1F", 2, "not 'x1F'"),
        ("1;2", 2, "character ';'"),
        ("(" * 51 + "1" + ")" * 51, 51, "nested at most 50 deep"),
        ("+".join("1" * MAX_TOKENS), MAX_TOKENS + 1, "at most 300 numbers, names and signs"),
        ("1" * 2001, 2000, "at most 2000 characters"),
    ],
)
def test_the_grammar_is_closed(text: str, column: int, message: str) -> None:
    """Whatever is not arithmetic over fields is refused with its column, and never run."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    assert message in str(caught.value)
    assert caught.value.column == column


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="x1.+-*/(),'\"[]_ eclipmnlog=:\n", max_size=25))
def test_any_text_is_compiled_or_refused_cleanly(text: str) -> None:
    """No text makes the parser fail in another way, and columns lie within it or just behind."""
    column = 1
    try:
        compile_expression(text)
    except ExpressionError as error:
        column = error.column
    assert 1 <= column <= len(text) + 1


def test_a_clip_cannot_hide_what_is_not_finite() -> None:
    """An infinite intermediate value or an infinite field is an error that names the row."""
    with pytest.raises(ExpressionError, match=r"'/' has no finite value: inf in row 1 \(at character 7\)"):
        compile_expression("clip(1/x, 0, 5)").evaluate({"x": np.array([1.0, 0.0])})
    with pytest.raises(ExpressionError, match="field 'x' must be finite: inf in row 1"):
        compile_expression("clip(x, 0, 5)").evaluate({"x": np.array([1.0, np.inf])})
    with pytest.raises(ExpressionError, match="field 'x' must be finite: nan in row 0"):
        compile_expression("max(x, 0)").evaluate({"x": np.array([np.nan])})


def test_a_field_that_is_absent_or_text_is_named() -> None:
    """The error says which field, and what exists."""
    with pytest.raises(ExpressionError, match=r"'balnce' .* did you mean 'balance'\? \(known: balance, x\)"):
        compile_expression("1 + balnce").evaluate(COLUMNS)
    with pytest.raises(ExpressionError, match="field 'job' must be numbers"):
        compile_expression("job").evaluate({"job": np.array(["admin", "student"])})
