"""Many rows are answered and logged column by column, and say what dictionaries would, digit for digit."""

import asyncio
import json
import math
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import orjson
import pytest

from services.serving import decider as decider_module
from services.serving.decider import Decider, Stamps
from services.serving.decision_log import DecisionLog, DecisionLogError, SharedFields
from services.serving.many_rows import ManyRows
from services.serving.release import Release
from services.serving.request_mark import RequestMark
from services.serving.scorer import Decisions

Row = dict[str, Any]
MARK = RequestMark('q"{},%b', 1, "ü", "stable", is_shadow=False)


@pytest.fixture
def answer(
    release: Release, decision_log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Answers and log lines of the same release, asked with the same ids and times, by columns or by dictionaries."""

    def ask(rows: list[Row], *, by_columns: bool) -> tuple[Any, list[Any]]:
        ids = count(1)
        stamps = Stamps(lambda: 1000.0, lambda: 1.0, lambda: f"id-{next(ids)}")
        monkeypatch.setattr(decider_module, "MANY_ROWS", 8 if by_columns else 10_000)
        before = decision_log.path.stat().st_size
        decider = Decider(release, log=decision_log, stamps=stamps)
        answers = asyncio.run(decider.decide(MARK, rows))
        assert isinstance(answers, orjson.Fragment if by_columns else list)
        lines = decision_log.path.read_bytes()[before:].splitlines()
        return orjson.loads(orjson.dumps(answers)), [json.loads(line) for line in lines]

    return ask


@pytest.mark.parametrize("size", [8, 200])
def test_columns_say_what_dictionaries_say(answer: Callable[..., Any], rows: list[Row], size: int) -> None:
    """Every field of every answer and of every line, to the last bit of every number, and in the rows' order."""
    asked = [{**row, "age": None} if at % 5 == 3 else row for at, row in enumerate(rows[:size])]
    asked = [row if at % 7 else {k: v for k, v in row.items() if k != "age"} for at, row in enumerate(asked)]
    found, expected = answer(asked, by_columns=True), answer(asked, by_columns=False)
    assert len(found[0]) == len(found[1]) == size
    assert found == expected


def test_what_could_not_be_logged_says_so_in_every_answer(
    answer: Callable[..., Any], rows: list[Row], decision_log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stable answers with `logged: false`, and each row is counted as missed."""

    def refuse(lines: list[bytes]) -> None:
        raise DecisionLogError("full", missing=len(lines))

    monkeypatch.setattr(decision_log, "append", refuse)
    found, expected = answer(rows[:9], by_columns=True), answer(rows[:9], by_columns=False)
    assert found == expected
    assert [one["logged"] for one in found[0]] == [False] * 9
    assert decision_log.status()["missed"] == 18


def test_any_names_and_any_shape() -> None:
    """Three actions, three outcomes, names and ids that need escaping, thresholds of which some are not finite."""
    actions = ('say "hi"', "50 % off,", "{}\n")
    expected = np.array([[0.1, 1e-320, -0.0], [1 / 3, 1e300, 2.0], [7.0, 0.0, -1.5], [1.0, 2.0, 3.0]])
    probabilities = np.array([[0.2, 0.3, 0.5]] * 3 + [[1.0, 0.0, 0.0]])
    decisions = Decisions(
        actions=np.array([2, 1, 0, 2]),
        probabilities=probabilities,
        expected_utility=expected,
        scores=np.array([0.1, 0.2, 1 / 3, 5e-324]),
        thresholds=np.array([math.inf, 0.25, -math.inf, math.nan]),
        lead=np.zeros(4),
        predicted={},
    )
    ids, rows = ['a"', "b", "c,", "d"], [{"n": 1}, {}, {"t": 'x,"y'}, {"n": None}]
    many = ManyRows(decisions, ids=ids, actions=actions)
    shared = SharedFields(
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
    own = [
        {
            "decision_id": ids[at],
            "action": actions[decisions.actions[at]],
            "score": float(decisions.scores[at]),
        }
        for at in range(4)
    ]
    assert [json.loads(line) for line in many.lines(rows, shared)] == [
        {
            **shared,
            **own[at],
            "expected_utility": expected[at].tolist(),
            "probabilities": probabilities[at].tolist(),
            "gated": None,
            "row": rows[at],
        }
        for at in range(4)
    ]
    found = orjson.loads(orjson.dumps(many.answers({"kind": "k"}, release_id="r-1", is_logged=True)))
    assert found == [
        {
            **own[at],
            "expected_utility": dict(zip(actions, expected[at].tolist(), strict=True)),
            "operating_point": {"kind": "k", "threshold": 0.25 if at == 1 else None},
            "release": "r-1",
        }
        for at in range(4)
    ]
