"""POST /decide without a network: statuses, the field named in every refusal, the log before the answer."""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from services.serving.decide_endpoint import MAX_BODY_BYTES, DecideEndpoint
from services.serving.decider import Decider
from services.serving.decision_log import DecisionLog
from services.serving.fault import Fault
from services.serving.release import Release

Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    status: int
    json: Any


@pytest.fixture
def endpoint(make_decider: Callable[..., Decider]) -> DecideEndpoint:
    endpoint = DecideEndpoint()
    endpoint.open(make_decider())
    return endpoint


def post(
    endpoint: DecideEndpoint,
    body: object,
    *,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    chunks: Iterable[bytes] | None = None,
    on_send: Callable[[], None] = lambda: None,
) -> Answer:
    """One request straight into the application; `chunks` replace the body and send no content-length."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    parts = list(chunks) if chunks is not None else [content]
    sent_headers = {**(headers or {})}
    if chunks is None:
        sent_headers.setdefault("content-length", str(len(content)))
    scope = {
        "type": "http",
        "method": method,
        "path": "/decide",
        "headers": [(k.encode(), v.encode()) for k, v in sent_headers.items()],
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        on_send()
        sent.append(message)

    asyncio.run(endpoint(scope, receive, send))
    return Answer(sent[0]["status"], json.loads(sent[1]["body"]))


def logged(log: DecisionLog) -> list[Any]:
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def test_one_row_is_answered_with_all_that_explains_it(
    endpoint: DecideEndpoint, rows: list[Row], release: Release
) -> None:
    """One row gives the decision itself: id, action, score, expected utility, operating point, release."""
    answer = post(endpoint, rows[0])
    assert answer.status == 200
    assert set(answer.json) == {
        "decision_id",
        "action",
        "score",
        "expected_utility",
        "operating_point",
        "release",
    }
    assert answer.json["release"] == release.id
    utility = answer.json["expected_utility"]
    assert set(utility) == {"leave", "call"}
    assert answer.json["action"] == max(utility, key=lambda a: utility[a])
    point = answer.json["operating_point"]
    assert point["kind"] == "per_row_bayes"
    assert (answer.json["score"] > point["threshold"]) == (answer.json["action"] == "call") or point[
        "threshold"
    ] is None


def test_the_log_line_is_on_disk_before_the_answer(
    endpoint: DecideEndpoint, rows: list[Row], decision_log: DecisionLog, release: Release
) -> None:
    """When the first byte of the answer leaves, the record of the decision stands in a file of mode 0600."""
    seen: list[int] = []
    headers = {
        "x-request-id": "r1",
        "x-unit-id": "c00001",
        "x-trimtab-assigned": "canary",
        "x-envoy-attempt-count": "2",
    }
    answer = post(endpoint, rows[0], headers=headers, on_send=lambda: seen.append(len(logged(decision_log))))
    assert seen == [1, 1]
    assert decision_log.path.stat().st_mode & 0o777 == 0o600
    record = logged(decision_log)[0]
    assert record == {
        "v": 1,
        "decision_id": answer.json["decision_id"],
        "request_id": "r1",
        "attempt": 2,
        "at": 1000.0,
        "unit": "c00001",
        "assigned": "canary",
        "shadow": False,
        "release": release.id,
        "action": answer.json["action"],
        "score": answer.json["score"],
        "expected_utility": list(answer.json["expected_utility"].values()),
        "probabilities": record["probabilities"],
        "row": rows[0],
        "took_ms": 1.0,
        "gated": None,
    }
    assert sum(record["probabilities"]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("headers", "shadow", "assigned"),
    [
        ({"x-trimtab-shadow": "1", "x-unit-id": "u", "x-trimtab-assigned": "stable"}, True, "stable"),
        ({"host": "users-shadow", "x-unit-id": "u", "x-trimtab-assigned": "canary"}, False, "canary"),
        ({"host": "decide-shadow"}, False, "none"),
        ({"host": "127.0.0.1:8080", "x-trimtab-assigned": "canary"}, False, "none"),
        ({}, False, "none"),
    ],
)
def test_marks_of_the_traffic_are_logged(
    endpoint: DecideEndpoint,
    rows: list[Row],
    decision_log: DecisionLog,
    headers: dict[str, str],
    shadow: bool,
    assigned: str,
) -> None:
    """Shadow is known by header or by Envoy's host; without a unit id nothing was assigned."""
    assert post(endpoint, rows[0], headers=headers).status == 200
    record = logged(decision_log)[0]
    assert (record["shadow"], record["assigned"]) == (shadow, assigned)
    assert record["unit"] == headers.get("x-unit-id")


@pytest.mark.parametrize(
    ("change", "field", "bound"),
    [
        ({"balance": "rich"}, "balance", "a number"),
        ({"balance": True}, "balance", "a number"),
        ({"balance": None}, "balance", "required"),
        ({"day": 0}, "day", 1),
        ({"day": 32}, "day", 31),
        ({"day": 3.5}, "day", "an integer"),
        ({"job": "astronaut"}, "job", None),
        ({"job": 3}, "job", None),
        ({"job": ["admin."]}, "job", None),
        ({"salary": 1}, "salary", None),
        ({"duration": 100}, "duration", None),
        ({"age": 17}, "age", 18),
        ({"day": 10**30}, "day", 31),
    ],
)
def test_a_row_that_breaks_the_contract_is_refused_by_name(
    endpoint: DecideEndpoint, rows: list[Row], change: Row, field: str, bound: object
) -> None:
    """400 names the field, the value and the bound, and shows nothing of the inside."""
    answer = post(endpoint, {**rows[0], **change})
    assert answer.status == 400
    assert answer.json["field"] == field
    assert f"'{field}' must" in answer.json["error"] or field == "salary"
    if bound is not None:
        assert answer.json["bound"] == bound
    assert "Traceback" not in answer.json["error"]


@pytest.mark.parametrize("field", ["balance", "job", "day", "month"])
def test_a_missing_field_is_refused_by_name(endpoint: DecideEndpoint, rows: list[Row], field: str) -> None:
    """A required feature that is not sent is 400 with its name; nothing is filled in."""
    answer = post(endpoint, {k: v for k, v in rows[0].items() if k != field})
    assert (answer.status, answer.json["field"]) == (400, field)


def test_what_is_known_only_afterwards_is_refused_with_the_reason(
    endpoint: DecideEndpoint, rows: list[Row]
) -> None:
    """Sending the call's duration is refused because it is known only after the decision."""
    answer = post(endpoint, {**rows[0], "duration": 100})
    assert "known only after the decision" in answer.json["error"]


@pytest.mark.parametrize("token", [b"NaN", b"Infinity", b"1e999", b"-1e999"])
def test_what_is_not_a_finite_number_is_refused(
    endpoint: DecideEndpoint, rows: list[Row], token: bytes
) -> None:
    """NaN and infinities never reach the model, however they are written."""
    body = json.dumps({**rows[0], "balance": 424242}).encode().replace(b"424242", token)
    assert post(endpoint, body).status == 400


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"3", b'"row"', b'{"rows": 3}', b'{"rows": [3]}', b"\xff"]
)
def test_a_body_of_another_shape_is_refused(endpoint: DecideEndpoint, body: bytes) -> None:
    """What is not one row or a batch of rows is 400 with a reason in JSON."""
    answer = post(endpoint, body)
    assert answer.status == 400
    assert "must be" in answer.json["error"]


def test_a_thousand_rows_are_decided_and_one_more_is_refused(
    endpoint: DecideEndpoint, rows: list[Row], decision_log: DecisionLog
) -> None:
    """1,000 rows get 1,000 decisions in order and 1,000 log lines; 1,001 and none get 400 and no line."""
    answer = post(endpoint, {"rows": rows})
    assert answer.status == 200
    assert len(answer.json["decisions"]) == 1000
    records = logged(decision_log)
    assert [r["decision_id"] for r in records] == [d["decision_id"] for d in answer.json["decisions"]]
    assert [r["row"] for r in records] == rows
    for wrong in ([*rows, rows[0]], []):
        refused = post(endpoint, {"rows": wrong})
        assert (refused.status, refused.json["field"], refused.json["value"]) == (400, "rows", len(wrong))
    assert len(logged(decision_log)) == 1000


def test_a_fault_in_a_batch_names_the_row(endpoint: DecideEndpoint, rows: list[Row]) -> None:
    """The third row's fault is reported as row 2, and no row of the batch is decided."""
    answer = post(endpoint, {"rows": [rows[0], rows[1], {**rows[2], "day": 40}]})
    assert (answer.status, answer.json["row"], answer.json["field"]) == (400, 2, "day")


def test_a_field_beside_rows_is_refused(endpoint: DecideEndpoint, rows: list[Row]) -> None:
    """An unknown key beside `rows` is refused by name instead of being ignored."""
    answer = post(endpoint, {"rows": rows[:1], "mode": "fast"})
    assert (answer.status, answer.json["field"]) == (400, "mode")


def test_a_body_over_the_limit_is_413_however_it_is_framed(endpoint: DecideEndpoint) -> None:
    """A declared length over 1 MiB is refused unread; chunks are refused once they add up to more."""
    assert post(endpoint, b"", headers={"content-length": str(MAX_BODY_BYTES + 1)}).status == 413
    taken: list[int] = []

    def endless() -> Iterable[bytes]:
        for number in range(100):
            taken.append(number)
            yield b" " * 65536

    assert post(endpoint, b"", chunks=endless()).status == 413
    assert post(endpoint, b"", chunks=[b" " * (MAX_BODY_BYTES + 1)]).status == 413
    fits = b"[" + b" " * (MAX_BODY_BYTES - 2) + b"]"
    assert post(endpoint, b"", chunks=[fits[:500_000], fits[500_000:]]).status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-unit-id": "u", "x-trimtab-assigned": "canary"}, 503),
        ({"x-trimtab-shadow": "1"}, 503),
        ({"x-unit-id": "u", "x-trimtab-assigned": "canary", "x-envoy-attempt-count": "2"}, 200),
        ({"x-unit-id": "u", "x-trimtab-assigned": "stable"}, 200),
        ({}, 200),
    ],
)
def test_what_cannot_be_logged_is_left_to_stable_which_answers_and_counts(
    endpoint: DecideEndpoint,
    rows: list[Row],
    decision_log: DecisionLog,
    headers: dict[str, str],
    status: int,
) -> None:
    """The canary's first try and a shadow are refused, for the proxy has another answer; every other request is
    answered with `logged: false` and counted."""
    decision_log.close()
    answer = post(endpoint, {"rows": rows[:3]}, headers=headers)
    assert answer.status == status
    if status == 503:
        assert answer.json["error"] == "the decision could not be recorded"
    else:
        assert [one["logged"] for one in answer.json["decisions"]] == [False] * 3
    assert endpoint.log_status()["missed"] == (0 if status == 503 else 3)
    assert decision_log.path.read_bytes() == b""


@pytest.mark.parametrize(
    ("kind", "status", "says"),
    [
        ("nan", 500, "finite"),
        ("error", 500, "on purpose"),
        ("unknown-action", 500, "the decision failed"),
        ("refuse", 400, "on purpose"),
    ],
)
def test_a_model_that_fails_logs_no_decision(
    make_decider: Callable[..., Decider],
    rows: list[Row],
    decision_log: DecisionLog,
    kind: str,
    status: int,
    says: str,
) -> None:
    """NaN and an action that does not exist are 500, never a decision; so is a failing model. A refusal is 400."""
    endpoint = DecideEndpoint()
    endpoint.open(make_decider(Fault(kind)))
    answer = post(endpoint, rows[0])
    assert answer.status == status
    assert says in answer.json["error"]
    assert decision_log.path.read_bytes() == b""


def test_before_the_warm_up_is_done_the_answer_is_503(rows: list[Row]) -> None:
    """An endpoint that has no warm decider says so."""
    assert post(DecideEndpoint(), rows[0]).status == 503


def test_other_methods_are_refused(endpoint: DecideEndpoint, rows: list[Row]) -> None:
    """Only POST decides."""
    assert post(endpoint, rows[0], method="GET").status == 405


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-trimtab-assigned", "blue"),
        ("x-envoy-attempt-count", "-1"),
        ("x-unit-id", "u" * 257),
        ("x-request-id", "r" * 257),
    ],
)
def test_a_mark_that_the_traffic_cannot_have_made_is_refused(
    endpoint: DecideEndpoint, rows: list[Row], header: str, value: str
) -> None:
    """A header out of its range is 400 with its name; it is never taken for evidence."""
    answer = post(endpoint, rows[0], headers={header: value})
    assert (answer.status, answer.json["field"]) == (400, header)
