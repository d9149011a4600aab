"""`when:` of an offline gate: the condition to pass, in CEL, over the measurements of its stage.

Names are `metrics.<name>` (the estimate), `metrics.<name>.lower` and `.upper` (the ends of its 95 % interval); numbers
are written with a point. True passes and false fails; whatever cannot be known does not pass: where a metric that the
condition names was not measured there is no data, even where the rest alone would be true (`a || missing`); a value
that is not finite, and every error of CEL, is an error; what could bring about one is refused (condition_text.py), as
is a condition that holds whatever is measured. Live gates have no condition: read at every poll, it would roll back
sound releases. Needs the extra `cel`. Source: https://cel.dev, cel-expr-python 0.1.3.
Must never import: anything that does I/O; cel_expr_python only inside functions, it is optional.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from policies.gates.evidence import Measured
from policies.language.yaml_mistakes import did_you_mean
from policies.rollout.condition_text import NAME, mistakes_in_text, names_in, numbers_in
from policies.rollout.metrics import METRICS
from policies.rollout.verdict import GateStatus

_ENDS = ("", ".lower", ".upper")
_FAR = 1e15  # stands for an end of a range that is not finite
_CORNERS, _PROBES = 256, 2000
_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*?)(?:\n|$)")
INSTALL = "needs CEL, which is not installed: pip install 'trimtab[cel]'"


@dataclass(frozen=True)
class ConditionMistake:
    """What is wrong with a condition, at which of its lines and columns, both from 1."""

    line: int
    column: int
    message: str


def condition_mistakes(text: str, *, metric: str, known: Sequence[str]) -> tuple[ConditionMistake, ...]:
    """What makes `text` no condition on the metrics `known`, among them the gate's own `metric`."""
    found_in_text = tuple(
        ConditionMistake(*_place(text, offset), message) for offset, message in mistakes_in_text(text)
    )
    if found_in_text:
        return found_in_text
    try:
        compiled = _compiled(text, tuple(f"metrics.{name}{end}" for name in known for end in _ENDS))
    except ImportError:
        return (ConditionMistake(1, 1, INSTALL),)
    except RuntimeError as error:
        found = _ERROR.findall(str(error)) or [("1", "1", str(error).splitlines()[0])]
        return tuple(
            ConditionMistake(int(line), int(column), _sentence(says, text, known))
            for line, column, says in found
        )
    if compiled.return_type().name() != "BOOL":
        kind = compiled.return_type().name().lower()
        return (ConditionMistake(1, 1, f"must be a condition, true or false: it is a {kind}"),)
    if metric not in {name.split(".")[1] for name in names_in(text)}:
        return (ConditionMistake(1, 1, f"must name the gate's own metric: metrics.{metric}"),)
    if all(compiled.eval(data=values).value() for values in _worth_trying(text)):
        return (ConditionMistake(1, 1, "can never fail: it holds whatever is measured"),)
    return ()


def judge_condition(
    text: str, measured: Mapping[str, Measured], *, known: Sequence[str], min_samples: int
) -> tuple[GateStatus, str]:
    """Whether the measurements meet the condition, and why (not)."""
    values: dict[str, float] = {}
    for _, message in mistakes_in_text(text):  # a policy that was loaded has none
        return GateStatus.ERROR, f"the condition is none: {message}"
    for name in names_in(text):
        metric, _, end = name.removeprefix("metrics.").partition(".")
        found = measured.get(metric) if metric in known else None
        if found is None:
            return GateStatus.NO_DATA, f"'{metric}' was not measured"
        if not found.is_finite():
            return GateStatus.ERROR, f"'{metric}' is not finite: {found}"
        value = {"": found.value, "lower": found.lower, "upper": found.upper}.get(end)
        if value is None:
            return GateStatus.NO_DATA, f"'{metric}' came without the {end} end of its interval"
        if found.n < min_samples:
            return GateStatus.NO_DATA, f"'{metric}' rests on {found.n} rows, fewer than {min_samples}"
        values[name] = value
    shown = ", ".join(f"{name.removeprefix('metrics.')} = {value:.4g}" for name, value in values.items())
    try:
        answer = _compiled(text, tuple(values)).eval(data=values)  # a name that was not read is an error
    except ImportError:
        return GateStatus.ERROR, INSTALL
    except RuntimeError as error:
        return GateStatus.ERROR, f"the condition could not be evaluated: {error}"
    if answer.type().name() != "BOOL":
        return GateStatus.ERROR, f"the condition gave no answer: {answer.value()}; with {shown}"
    status = GateStatus.PASS if answer.value() is True else GateStatus.FAIL
    return status, f"must hold: {' '.join(text.split())}; with {shown}"


def _place(text: str, offset: int) -> tuple[int, int]:
    """Line and column, both from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _worth_trying(text: str) -> Iterator[dict[str, float]]:
    """Values of what is read, by name: the corners of the metrics' ranges, then points in and around its numbers."""
    metrics = tuple(dict.fromkeys(name.split(".")[1] for name in names_in(text)))
    ranges = [(max(METRICS[one].low, -_FAR), min(METRICS[one].high, _FAR)) for one in metrics]
    for corner in itertools.islice(itertools.product(*ranges), _CORNERS):
        yield {
            f"metrics.{one}{end}": value for one, value in zip(metrics, corner, strict=True) for end in _ENDS
        }
    generator = random.Random(0)  # noqa: S311 - no secret; the same text gives the same answer
    written = numbers_in(text)
    for _ in range(_PROBES):
        values: dict[str, float] = {}
        for one, (low, high) in zip(metrics, ranges, strict=True):
            inner = sorted(x for x in (0.0, 1.0, *written, *(-x for x in written)) if low <= x <= high)
            middles = [(a + b) / 2 for a, b in itertools.pairwise((low, *inner, high))]
            lower, value, upper = sorted(generator.choices((low, *inner, *middles, high), k=3))
            values |= {f"metrics.{one}": value, f"metrics.{one}.lower": lower, f"metrics.{one}.upper": upper}
        yield values


@lru_cache(maxsize=64)
def _compiled(text: str, names: tuple[str, ...]) -> Any:
    """The checked expression over these names, all numbers.

    Raises ImportError without the extra, RuntimeError for what is no expression.
    """
    from cel_expr_python import cel

    return cel.NewEnv(variables=dict.fromkeys(names, cel.Type.DOUBLE)).compile(text)


def _sentence(says: str, text: str, known: Sequence[str]) -> str:
    unknown = re.search(r"undeclared reference to 'metrics\.(\w+)", says)
    if unknown is not None:
        return (
            f"unknown metric '{unknown[1]}'{did_you_mean(unknown[1], known)} "
            f"(measured in this stage: {', '.join(known)})"
        )
    if "cannot be the operand of a select operation" in says:
        ends = sorted({end for _, end in NAME.findall(text) if end and f".{end}" not in _ENDS})
        return f"unknown end '{', '.join(ends)}' of a metric (known: lower, upper)"
    return says
