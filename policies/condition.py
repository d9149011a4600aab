"""`when:` of an offline gate: the condition to pass, in CEL, over the measurements of its stage.

Names are `metrics.<name>` (the estimate), `metrics.<name>.lower` and `.upper` (the ends of its 95 % interval); numbers
are written with a point. True passes and false fails; whatever cannot be known does not pass: where a metric that the
condition names was not measured there is no data, even where the rest alone would be true (`a || missing`); a value
that is not finite, and every error of CEL, is an error. Live gates have no condition: read at every poll, it would
roll back sound releases. Needs the extra `cel`. Source: https://cel.dev, cel-expr-python 0.1.3.
Must never import: anything that does I/O; cel_expr_python only inside functions, it is optional.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from policies.evidence import Measured
from policies.verdict import GateStatus
from policies.yaml_mistakes import did_you_mean

_ENDS = ("", ".lower", ".upper")
_NAME = re.compile(r"\bmetrics\s*\.\s*([A-Za-z_]\w*)(?:\s*\.\s*([A-Za-z_]\w*))?")
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
    try:
        compiled = _compiled(text, tuple(known))
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
    if f"metrics.{metric}" not in {
        name.removesuffix(".lower").removesuffix(".upper") for name in _read(text)
    }:
        return (ConditionMistake(1, 1, f"must name the gate's own metric: metrics.{metric}"),)
    return ()


def judge_condition(
    text: str, measured: Mapping[str, Measured], *, known: Sequence[str], min_samples: int
) -> tuple[GateStatus, str]:
    """Whether the measurements meet the condition, and why (not)."""
    values: dict[str, float] = {}
    for name in _read(text):
        metric, _, end = name.removeprefix("metrics.").partition(".")
        found = measured.get(metric)
        if found is None:
            return GateStatus.NO_DATA, f"'{metric}' was not measured"
        if not found.is_finite():
            return GateStatus.ERROR, f"'{metric}' is not finite: {found}"
        value = {"": found.value, "lower": found.lower, "upper": found.upper}[end]
        if value is None:
            return GateStatus.NO_DATA, f"'{metric}' came without the {end} end of its interval"
        if found.n < min_samples:
            return GateStatus.NO_DATA, f"'{metric}' rests on {found.n} rows, fewer than {min_samples}"
        values[name] = value
    shown = ", ".join(f"{name.removeprefix('metrics.')} = {value:.4g}" for name, value in values.items())
    try:
        answer = _compiled(text, tuple(known)).eval(data=values)
    except ImportError:
        return GateStatus.ERROR, INSTALL
    except RuntimeError as error:
        return GateStatus.ERROR, f"the condition could not be evaluated: {error}"
    if answer.type().name() != "BOOL":
        return GateStatus.ERROR, f"the condition gave no answer: {answer.value()}; with {shown}"
    status = GateStatus.PASS if answer.value() is True else GateStatus.FAIL
    return status, f"must hold: {' '.join(text.split())}; with {shown}"


def _read(text: str) -> tuple[str, ...]:
    """The names that a condition reads, as declared, each once."""
    names = []
    for metric, end in _NAME.findall(text):
        names.append(f"metrics.{metric}.{end}" if end else f"metrics.{metric}")
    return tuple(dict.fromkeys(names))


@lru_cache(maxsize=64)
def _compiled(text: str, known: tuple[str, ...]) -> Any:
    """The checked expression. Raises ImportError without the extra, RuntimeError for what is no expression."""
    from cel_expr_python import cel

    variables = {f"metrics.{name}{end}": cel.Type.DOUBLE for name in known for end in _ENDS}
    return cel.NewEnv(variables=variables).compile(text)


def _sentence(says: str, text: str, known: Sequence[str]) -> str:
    unknown = re.search(r"undeclared reference to 'metrics\.(\w+)", says)
    if unknown is not None:
        return (
            f"unknown metric '{unknown[1]}'{did_you_mean(unknown[1], known)} "
            f"(measured in this stage: {', '.join(known)})"
        )
    if "cannot be the operand of a select operation" in says:
        ends = sorted({end for _, end in _NAME.findall(text) if end and f".{end}" not in _ENDS})
        return f"unknown end '{', '.join(ends)}' of a metric (known: lower, upper)"
    if "found no matching overload" in says and "int" in says:
        return f"{says}; write numbers with a point: 1.0"
    return says
