"""The control service's HTTP face: status, kill, outcomes, metrics; loopback only, a bearer token on all but
health.

Work on the store runs in threads: the event loop answers while the disk is slow. Errors are JSON that names
the field. `GET /healthz` is open and says only whether the store answers and the shipper moves.
Must never import: sqlalchemy, flows.
"""

import logging
from dataclasses import asdict
from typing import TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.control import bodies, metrics, token
from services.control.bodies import BadRequest, KillBody, OutcomesBody
from services.control.kill import kill
from services.control.state import STALE_SHIPPER_S, ControlState
from services.store.database import StoreError
from services.store.decisions import set_watermark
from services.store.outcomes import (
    Outcome,
    OutcomeReceipt,
    UnitMatches,
    UnitOutcome,
    match_units,
    record_outcomes,
)
from services.telemetry.events import log_event

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")
_TEXT = "text/plain; version=1.0.0; charset=utf-8"


class ControlService:
    """The handlers; each answers JSON."""

    def __init__(self, state: ControlState) -> None:
        self._state = state
        self._registry = metrics.registry_of(state)

    async def healthz(self, _request: Request) -> Response:
        await run_in_threadpool(self._state.effective_weight_pct, fresh=True)
        age_s = self._state.shipper_age_s()
        if age_s > STALE_SHIPPER_S:
            return JSONResponse({"status": "stale", "shipper_last_pass_age_s": age_s}, 503)
        return JSONResponse({"status": "ok"})

    async def status(self, _request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._state.status))

    async def kill(self, request: Request) -> Response:
        body = await bodies.read_body(request, KillBody)
        return JSONResponse(await run_in_threadpool(self._kill, body))

    async def outcomes(self, request: Request) -> Response:
        body = await bodies.read_body(request, OutcomesBody)
        now = self._state.clock()
        bodies.check_times(body, now=now)
        receipt, matches = await run_in_threadpool(self._record, body, now)
        left = {"unmatched": list(matches.unmatched), "too_early": list(matches.too_early)}
        return JSONResponse({**asdict(receipt), **left, "watermark": body.watermark})

    async def metrics(self, _request: Request) -> Response:
        text = await run_in_threadpool(metrics.exposition, self._registry)
        return Response(text, headers={"content-type": _TEXT})

    def _kill(self, body: KillBody) -> dict[str, object]:
        state = self._state
        found = kill(state.db, by=body.by, reason=body.reason, at=state.clock(), service=body.service)
        state.totals.kills += len(found)
        return {
            "killed": [asdict(one) for one in found],
            "effective_weight_pct": state.effective_weight_pct(fresh=True),
        }

    def _record(self, body: OutcomesBody, now: float) -> tuple[OutcomeReceipt, UnitMatches]:
        """The outcomes first, then the watermark that promises them."""
        named = [Outcome(one.decision_id, one.outcome, one.at) for one in body.outcomes]
        of_units = [UnitOutcome(one.unit, one.outcome, one.at, one.within_s) for one in body.unit_outcomes]
        matches = match_units(self._state.db, of_units)
        receipt = record_outcomes(self._state.db, [*named, *matches.outcomes], received_at=now)
        if body.watermark is not None:
            set_watermark(self._state.db, body.watermark, at=now)
        self._state.received(receipt)
        if receipt.conflicts:
            log_event(LOGGER, "outcome_conflicts", level=logging.WARNING, count=receipt.conflicts)
        return receipt, matches


class RequireToken:
    """ASGI middleware: 401 without the token, except for the health check."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._secret = secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/healthz":
            given = Request(scope).headers.get("authorization")
            if not token.is_right(given, self._secret):
                answer = JSONResponse({"error": "a bearer token is needed", "field": "authorization"}, 401)
                answer.headers["www-authenticate"] = "Bearer"
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def control_app(state: ControlState, secret: str) -> ASGIApp:
    """The ASGI app of one home."""
    service = ControlService(state)
    app = Starlette(
        routes=[
            Route("/healthz", service.healthz, methods=["GET"]),
            Route("/status", service.status, methods=["GET"]),
            Route("/kill", service.kill, methods=["POST"]),
            Route("/outcomes", service.outcomes, methods=["POST"]),
            Route("/metrics", service.metrics, methods=["GET"]),
        ],
        exception_handlers={BadRequest: _refuse, StoreError: _unavailable},
    )
    return RequireToken(app, secret)


async def _refuse(_request: Request, error: Exception) -> Response:
    if not isinstance(error, BadRequest):
        raise error
    answer: dict[str, object] = {"error": error.error}
    if error.fields:
        answer["field"] = error.fields[0][0]
        answer["fields"] = [{"field": name, "error": why} for name, why in error.fields]
    return JSONResponse(answer, error.status)


async def _unavailable(_request: Request, error: Exception) -> Response:
    log_event(LOGGER, "store_unavailable", level=logging.ERROR, why=error)
    return JSONResponse({"error": "the store does not answer; try again"}, 503)
