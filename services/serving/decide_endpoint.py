"""POST /decide as a raw ASGI application: bounded body in, JSON out, every failure a status and a reason.

200 decided · 400 breaks the contract (field, value, bound) · 405 · 408 body too slow · 413 body over 1 MiB ·
500 the model failed or answered with what is not finite · 503 not ready, or the decision log cannot be
written and another release can still answer. No traceback and no Python text reaches the caller. Raw ASGI,
because BentoML's endpoint machinery costs several times the model (measured: see the README of this folder).
Must never import bentoml.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

from services.serving.decider import Decider
from services.serving.decision_log import DecisionLogError
from services.serving.explanation import MAX_EXPLAINED_ROWS
from services.serving.fault import InjectedFault
from services.serving.request_mark import read_mark
from services.serving.row_check import RowRefused
from services.serving.scorer import ScorerError

MAX_BODY_BYTES = 2**20
MAX_BODY_WAIT_S = 10.0

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger("trimtab.serving")


class _Refused(Exception):
    """The request ends here with this status and this reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class DecideEndpoint:
    """The ASGI application; answers 503 until `open` has given it a decider that is warm."""

    def __init__(self) -> None:
        self._decider: Decider | None = None

    @property
    def is_ready(self) -> bool:
        return self._decider is not None

    def open(self, decider: Decider) -> None:
        """Start deciding with `decider`, which the caller has warmed up."""
        self._decider = decider

    def switches(self) -> dict[str, object]:
        """The release, and which of its actions are switched off; a fresh look where the last one is old."""
        if self._decider is None:
            return {}
        return self._decider.show_switches()

    def log_status(self) -> dict[str, object]:
        """What the decision log has written and missed since this process began."""
        return {} if self._decider is None else self._decider.log_status()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        status, body = await self._answer(scope, receive)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status in (405, 408, 413):
            headers += [(b"allow", b"POST")] if status == 405 else [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        try:
            return 200, await self._decide(scope, receive)
        except _Refused as refused:
            return refused.status, _error(str(refused))
        except RowRefused as refused:
            return 400, orjson.dumps(refused.to_json())
        except DecisionLogError as error:
            log.error("event=decision_not_logged error=%s", error)
            return 503, _error("the decision could not be recorded")
        except (ScorerError, InjectedFault) as error:
            log.error("event=decision_failed error=%s", error)
            return 500, _error(str(error))
        except Exception:  # the edge: whatever it is, the caller gets JSON and the log gets the traceback
            log.exception("event=decision_failed")
            return 500, _error("the decision failed")

    async def _decide(self, scope: Scope, receive: Receive) -> bytes:
        if scope["method"] != "POST":
            raise _Refused(405, f"'method' must be POST: {scope['method'][:20]}")
        if self._decider is None:
            raise _Refused(503, "the release is not ready")
        mark = read_mark(scope["headers"], new_id=self._decider.stamps.new_id)
        is_explained = _asks_to_explain(scope)
        rows, is_batch = _rows(await _body(scope, receive))
        if is_explained and len(rows) > MAX_EXPLAINED_ROWS:
            what = f"'rows' must hold at most {MAX_EXPLAINED_ROWS} rows with explain=true: {len(rows)}"
            raise RowRefused("rows", what, value=len(rows), bound=MAX_EXPLAINED_ROWS)
        answers = await self._decider.decide(mark, rows, is_explained=is_explained)
        if isinstance(answers, list) and not is_batch:
            return orjson.dumps(answers[0])
        return orjson.dumps({"release": self._decider.release_id, "decisions": answers})


def _asks_to_explain(scope: Scope) -> bool:
    query = scope.get("query_string", b"")
    if not query:
        return False
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    asked = [value for name, value in pairs if name == "explain"]
    if len(asked) > 1 or not {"true", "false"}.issuperset(asked):
        text = ", ".join(asked)
        what = f"'explain' must be true or false, once: {text[:80]!r}"
        raise RowRefused("explain", what, value=text, bound=["true", "false"])
    return asked == ["true"]


def _rows(body: bytes) -> tuple[list[object], bool]:
    """The rows of a request, and whether they came as a batch."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _Refused(400, f"the body must be JSON: {error}") from error
    if not isinstance(document, dict):
        raise _Refused(400, 'the body must be one row {…} or {"rows": [{…}, …]}')
    if "rows" not in document:
        return [document], False
    if extra := sorted(document.keys() - {"rows"}):
        name = extra[0][:80]
        raise RowRefused(name, f"'{name}' must not stand beside 'rows'", bound=["rows"])
    if not isinstance(document["rows"], list):
        raise RowRefused("rows", "'rows' must be a list", value=document["rows"], bound="a list")
    return document["rows"], True


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The whole body, refused as soon as it is known to be too long, however it is framed."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
            raise _too_large()
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if message["type"] == "http.disconnect":
            raise _Refused(400, "the caller went away")
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
        return body
    try:
        async with asyncio.timeout(MAX_BODY_WAIT_S):
            return await _rest(body, receive)
    except TimeoutError as error:
        raise _Refused(408, f"the body must arrive within {MAX_BODY_WAIT_S:g} s") from error


async def _rest(start: bytes, receive: Receive) -> bytes:
    parts, size, more = [start], len(start), True
    while more:
        if size > MAX_BODY_BYTES:
            raise _too_large()
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refused(400, "the caller went away")
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        more = message.get("more_body", False)
    if size > MAX_BODY_BYTES:
        raise _too_large()
    return b"".join(parts)


def _too_large() -> _Refused:
    return _Refused(413, f"the body must be <= {MAX_BODY_BYTES} bytes")


def _error(reason: str) -> bytes:
    return orjson.dumps({"error": reason, "field": None})
