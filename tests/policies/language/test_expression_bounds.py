"""Promises of bounds: no row within the fields' ends gives a value outside them, and what is not doubted is finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.language.expression import ExpressionError, compile_expression
from policies.language.expression_bounds import Fault, bounds_of

LEAF = st.sampled_from(("x", "y", "2", "0.5", "0", "7"))
TEXT = st.recursive(
    LEAF,
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from("+-*/"), part).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(part, part, part).map(lambda t: f"clip({', '.join(t)})"),
        st.tuples(st.sampled_from(("min", "max")), part, part).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        st.tuples(st.sampled_from(("log", "abs")), part).map(lambda t: f"{t[0]}({t[1]})"),
        part.map(lambda t: f"-{t}"),
    ),
    max_leaves=8,
)
ENDS = st.tuples(st.floats(-50, 50), st.floats(0, 30)).map(lambda t: (t[0], t[0] + t[1]))


@settings(max_examples=400, deadline=None)
@given(TEXT, ENDS, ENDS, st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_every_row_within_the_ends_keeps_the_bounds(
    text: str, x: tuple[float, float], y: tuple[float, float], shares: list[tuple[float, float]]
) -> None:
    """Whatever the expression and the box: values lie within the bounds but for rounding; without a fault there is one,
    with a certain fault there is none."""
    expression = compile_expression(text)
    found = bounds_of(expression, {"x": x, "y": y})
    rows = {
        "x": np.array([x[0] + share * (x[1] - x[0]) for share, _ in shares]).clip(*x),
        "y": np.array([y[0] + share * (y[1] - y[0]) for _, share in shares]).clip(*y),
    }
    try:
        values = expression.evaluate(rows)
    except ExpressionError:
        assert found.faults
        return
    assert not any(fault.is_certain for fault in found.faults)
    slack = 1e-9 * (1 + np.abs(values))
    assert (values >= found.low - slack).all()
    assert (values <= found.high + slack).all()


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("x / 2", ()),
        ("2 / clip(x, 1, 5)", ()),
        ("log(max(x, 1))", ()),
        ("1 / x", (Fault("'/' has no finite value where its divisor is 0", 3, is_certain=False),)),
        ("3 / (1 - 1)", (Fault("'/' has no finite value where its divisor is 0", 3, is_certain=True),)),
        (
            "log(0)",
            (Fault("'log' has no finite value where its argument is not above 0", 1, is_certain=True),),
        ),
        ("x + 1e300 * 1e300", (Fault("'*' has no finite value: it is too large", 11, is_certain=True),)),
    ],
)
def test_a_fault_has_its_place_and_says_whether_it_is_certain(text: str, faults: tuple[Fault, ...]) -> None:
    """Certain where no field is read, doubtful where the field may make it so; what a clip rules out is no fault."""
    assert bounds_of(compile_expression(text), {"x": (-3.0, 4.0)}).faults == faults


def test_a_field_without_ends_may_be_any_number() -> None:
    """Nothing bounds the value then; a clip does."""
    assert bounds_of(compile_expression("2 * x"), {}).high == math.inf
    bounds = bounds_of(compile_expression("2 * clip(x, 0, 10) - 1"), {})
    assert (bounds.low, bounds.high, bounds.faults) == (-1.0, 19.0, ())
