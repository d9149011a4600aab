"""Answers and log lines of many rows, written column by column: for many rows, a dictionary a row is what costs.

Every value becomes JSON by orjson, as it does in the Decider's dictionaries, and constant text is put between. The
dictionaries are the reference: a test holds that both say the same to the last digit. Only the usual answer is here:
no explanation, no action switched off. Must never import bentoml or torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import orjson
from numpy.typing import NDArray

from services.serving.decision_log import SharedFields
from services.serving.scorer import Decisions

Part = bytes | Sequence[bytes]  # the same for every row, or one a row


class ManyRows:
    """The decisions on n rows as JSON, a list of n texts a column; `ids` (n,) are the decisions' ids."""

    def __init__(self, decisions: Decisions, *, ids: Iterable[str], actions: Sequence[str]) -> None:
        names = [orjson.dumps(action) for action in actions]
        expected = [_texts(column) for column in decisions.expected_utility.T]
        self._ids = [orjson.dumps(one) for one in ids]
        self._actions = [names[action] for action in decisions.actions.tolist()]
        self._scores = _texts(decisions.scores)
        self._expected = _between(expected)
        self._expected_by_name = _between(expected, names=names)
        self._probabilities = _between([_texts(column) for column in decisions.probabilities.T])
        self._thresholds = None if decisions.thresholds is None else _texts(decisions.thresholds)

    def lines(self, rows: Iterable[Mapping[str, Any]], shared: SharedFields) -> list[bytes]:
        """The log's line for each of the n rows, which are written as they are given."""
        return self._joined(
            orjson.dumps(shared)[:-1] + b',"decision_id":',
            self._ids,
            b',"action":',
            self._actions,
            b',"score":',
            self._scores,
            b',"expected_utility":[',
            *self._expected,
            b'],"probabilities":[',
            *self._probabilities,
            b'],"gated":null,"row":',
            [orjson.dumps(row) for row in rows],
            b"}\n",
        )

    def answers(
        self, operating_point: Mapping[str, object], *, release_id: str, is_logged: bool
    ) -> orjson.Fragment:
        """The n answers as one JSON list; each row's own threshold stands in its operating point."""
        point: tuple[Part, ...] = (orjson.dumps(operating_point),)
        if self._thresholds is not None:  # one that is not finite is null: no probability changes the action
            rest = {name: value for name, value in operating_point.items() if name != "threshold"}
            point = (orjson.dumps(rest)[:-1] + b',"threshold":', self._thresholds, b"}")
        answers = self._joined(
            b'{"decision_id":',
            self._ids,
            b',"action":',
            self._actions,
            b',"score":',
            self._scores,
            b',"expected_utility":{',
            *self._expected_by_name,
            b'},"operating_point":',
            *point,
            b',"release":' + orjson.dumps(release_id) + (b"}" if is_logged else b',"logged":false}'),
        )
        return orjson.Fragment(b"[" + b",".join(answers) + b"]")

    def _joined(self, *parts: Part) -> list[bytes]:
        """Row for row, its share of every part in a row of bytes. Raises ValueError for a part of another length."""
        rows = len(self._ids)
        columns = (repeat(part, rows) if isinstance(part, bytes) else part for part in parts)
        return list(map(b"".join, zip(*columns, strict=True)))


def _texts(column: NDArray[Any]) -> list[bytes]:
    """Each of the (n,) numbers as JSON; null for what is not finite."""
    return orjson.dumps(column.tolist())[1:-1].split(b",")


def _between(columns: Sequence[Sequence[bytes]], *, names: Sequence[bytes] | None = None) -> list[Part]:
    """The columns with a comma between each two, and before each one its name where it has one."""
    before = [b""] * len(columns) if names is None else [name + b":" for name in names]
    parts: list[Part] = []
    for name, column in zip(before, columns, strict=True):
        parts += [b"," + name if parts else name, column]
    return parts
