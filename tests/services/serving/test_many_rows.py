"""Many rows are answered and logged column by column, and say what dictionaries would, byte for byte."""

import asyncio
import json
import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from services.serving.decider import Decider, Stamps
from services.serving.decision_log import DecisionLog, DecisionLogError, SharedFields, as_line
from services.serving.many_rows import ManyRows
from services.serving.release import Release
from services.serving.request_mark import RequestMark
from services.serving.scorer import Decisions

Row = dict[str, Any]
MARK = RequestMark('q"{},%b', 1, "ü", "stable", is_shadow=False)
SHARED = SharedFields(
    v=1,
    request_id="q",
    attempt=1,
    at=1.5,
    unit=None,
    assigned="none",
    shadow=True,
    release="r",
    took_ms=0.1,
)


def fresh_stamps() -> Stamps:
    ids = count(1)
    return Stamps(lambda: 1000.0, lambda: 1.0, lambda: f"id-{next(ids)}")


class FullLog(DecisionLog):
    """A log that takes nothing."""

    def append(self, lines: Sequence[bytes]) -> None:
        raise DecisionLogError("full", missing=len(lines))


@pytest.mark.parametrize("size", [8, 200])
@pytest.mark.parametrize("log_class", [DecisionLog, FullLog])
def test_columns_say_what_dictionaries_say(
    release: Release, tmp_path: Path, rows: list[Row], size: int, log_class: type[DecisionLog]
) -> None:
    """Every field of every answer and of every line, in the rows' order; `logged` is false where nothing was."""
    asked = [{**row, "age": None} if at % 5 == 3 else row for at, row in enumerate(rows[:size])]
    asked = [row if at % 7 else {k: v for k, v in row.items() if k != "age"} for at, row in enumerate(asked)]
    log = log_class(tmp_path, release.id, pid=1)
    answers = asyncio.run(Decider(release, log=log, stamps=fresh_stamps()).decide(MARK, asked))
    assert isinstance(answers, orjson.Fragment)

    reference = Decider(release, log=log, stamps=fresh_stamps())
    decisions = reference._scorer.decide(reference._check.columns(asked))
    decided = reference._decided(asked, decisions, [None] * size)
    expected = reference._answers(decided, decisions)
    lines = [as_line({**reference._shared(MARK, took_ms=0.0), **one}) for one in decided]
    if log_class is FullLog:
        expected = [{**one, "logged": False} for one in expected]
        lines = []
    assert orjson.dumps(answers) == orjson.dumps(expected)
    assert log.path.read_bytes() == b"".join(lines)
    assert (log.status()["written"], log.status()["missed"]) == ((size, 0) if lines else (0, size))


@pytest.mark.parametrize("has_thresholds", [True, False])
def test_any_names_and_any_shape(has_thresholds: bool) -> None:
    """Three actions, three outcomes, names and ids that need escaping, thresholds of which some are not finite."""
    actions = ('say "hi"', "50 % off,", "{}\n")
    expected = np.array([[0.1, 1e-320, -0.0], [1 / 3, 1e300, 2.0], [7.0, 0.0, -1.5], [1.0, 2.0, 3.0]])
    probabilities = np.array([[0.2, 0.3, 0.5]] * 3 + [[1.0, 0.0, 0.0]])
    decisions = Decisions(
        actions=np.array([2, 1, 0, 2]),
        probabilities=probabilities,
        expected_utility=expected,
        scores=np.array([0.1, 0.2, 1 / 3, 5e-324]),
        thresholds=np.array([math.inf, 0.25, -math.inf, math.nan]) if has_thresholds else None,
        lead=np.zeros(4),
        predicted={},
    )
    ids, rows = ['a"', "b", "c,", "d"], [{"n": 1}, {}, {"t": 'x,"y'}, {"n": None}]
    many = ManyRows(decisions, ids=ids, actions=actions)
    own = [
        {
            "decision_id": ids[at],
            "action": actions[decisions.actions[at]],
            "score": float(decisions.scores[at]),
        }
        for at in range(4)
    ]
    assert [json.loads(line) for line in many.lines(rows, SHARED)] == [
        {
            **SHARED,
            **own[at],
            "expected_utility": expected[at].tolist(),
            "probabilities": probabilities[at].tolist(),
            "gated": None,
            "row": rows[at],
        }
        for at in range(4)
    ]
    found = orjson.loads(orjson.dumps(many.answers({"kind": "k"}, release_id="r-1", is_logged=True)))
    assert math.copysign(1, found[0]["expected_utility"]["{}\n"]) == -1
    assert found == [
        {
            **own[at],
            "expected_utility": dict(zip(actions, expected[at].tolist(), strict=True)),
            "operating_point": {"kind": "k"}
            | ({"threshold": 0.25 if at == 1 else None} if has_thresholds else {}),
            "release": "r-1",
        }
        for at in range(4)
    ]


def test_no_row_is_lost_where_the_columns_differ_in_length() -> None:
    """Fewer rows than decisions, or fewer names than utilities, are an error, not fewer lines."""
    numbers = np.array([[0.5, 0.5]] * 3)
    decisions = Decisions(np.array([0, 1, 0]), numbers, numbers, numbers[:, 1], None, numbers[:, 0], {})
    with pytest.raises(ValueError, match="argument"):
        ManyRows(decisions, ids="abc", actions=("x", "y")).lines([{}, {}], SHARED)
    with pytest.raises(ValueError, match="argument"):
        ManyRows(decisions, ids="abc", actions=("x", "y", "z"))
