"""The control service's HTTP face: status, kill, outcomes, metrics, orders, tokens; loopback only.

Every endpoint but `GET /healthz` asks for a bearer token and a role (admission.py, endpoints.py).

Work on the store runs in threads: the event loop answers while the disk is slow. Errors are JSON that names
the field. `GET /healthz` is open and says only whether the store answers and the shipper moves.
Must never import: sqlalchemy, flows.
"""

import logging
import time
from dataclasses import asdict

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from services.control import bodies, metrics, openapi
from services.control.admission import Admission, TokenBook
from services.control.bodies import BadRequest, KillBody, OutcomesBody
from services.control.endpoints import Endpoint, caller_of, routes, spoken_by
from services.control.kill import kill
from services.control.orders import OrderDesk
from services.control.roles import Role
from services.control.state import STALE_SHIPPER_S, ControlState
from services.control.switch_desk import SwitchDesk
from services.control.token import TokenError, TokenRefused, TokenUnknown
from services.control.token_desk import TokenDesk
from services.ledger.ledger import LedgerError
from services.store.database import StoreDamaged, StoreError
from services.store.decisions import set_watermark
from services.store.measurements import Measurement, record_measurements
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
_TEXT = "text/plain; version=1.0.0; charset=utf-8"


class ControlService:
    """The handlers; each answers JSON."""

    def __init__(self, state: ControlState) -> None:
        self._state = state
        self._registry = metrics.registry_of(state)

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                "GET", "/healthz", None, self.healthz, "Whether the store answers and the shipper moves."
            ),
            Endpoint("GET", "/status", Role.VIEWER, self.status, "Rollouts, weights, lag, processes."),
            Endpoint(
                "GET", "/metrics", Role.VIEWER, self.metrics, "For Prometheus.", None, {}, content_type=_TEXT
            ),
            Endpoint("POST", "/kill", Role.OPERATOR, self.kill, "Weight 0 within 2 s, for good.", KillBody),
            Endpoint(
                "POST", "/outcomes", Role.OPERATOR, self.outcomes, "What became of decisions.", OutcomesBody
            ),
        )

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
        by = spoken_by(caller_of(request), body.by)
        return JSONResponse(await run_in_threadpool(self._kill, body, by))

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

    def _kill(self, body: KillBody, by: str) -> dict[str, object]:
        state = self._state
        found = kill(state.db, by=by, reason=body.reason, at=state.clock(), service=body.service)
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
        amounts = [
            Measurement(one.decision_id, name, value, one.at)
            for one in body.outcomes
            for name, value in one.measured.items()
        ]
        record_measurements(self._state.db, amounts, received_at=now)
        if body.watermark is not None:
            set_watermark(self._state.db, body.watermark, at=now)
        self._state.received(receipt)
        if receipt.conflicts:
            log_event(LOGGER, "outcome_conflicts", level=logging.WARNING, count=receipt.conflicts)
        return receipt, matches


def all_endpoints(state: ControlState) -> tuple[Endpoint, ...]:
    """Every endpoint but the one that describes them; each room's desk brings its own."""
    return (
        *ControlService(state).endpoints(),
        *OrderDesk(state).endpoints(),
        *SwitchDesk(state).endpoints(),
        *TokenDesk(state, state.home.issued_tokens_file).endpoints(),
    )


def control_app(state: ControlState, book: TokenBook) -> ASGIApp:
    """The ASGI app of one home."""
    endpoints = all_endpoints(state)
    described = openapi.document(endpoints, port=state.home.ports.control)

    async def describe(_request: Request) -> Response:
        return JSONResponse(described)

    about = Endpoint("GET", "/openapi.json", Role.VIEWER, describe, "This service, described.")
    app = Starlette(
        routes=routes((*endpoints, about)),
        exception_handlers={
            BadRequest: _refuse,
            StoreError: _unavailable,
            StoreDamaged: _damaged,
            LedgerError: _torn,
            TokenRefused: _impossible,
            TokenError: _unreadable,
            HTTPException: _unknown,
        },
    )

    def count() -> None:
        state.totals.refused += 1

    is_open = [endpoint.path for endpoint in endpoints if endpoint.role is None]
    return Admission(app, book, open_paths=is_open, timer=time.monotonic, on_failure=count)


async def _refuse(_request: Request, error: Exception) -> Response:
    if not isinstance(error, BadRequest):
        raise error
    answer: dict[str, object] = {"error": error.error}
    if error.fields:
        answer["field"] = error.fields[0][0]
        answer["fields"] = [{"field": name, "error": why} for name, why in error.fields]
    # The rest of a body that was refused half way is not waited for.
    headers = {"connection": "close"} if error.status in (408, 413) else None
    return JSONResponse(answer, error.status, headers=headers)


async def _unavailable(_request: Request, error: Exception) -> Response:
    log_event(LOGGER, "store_unavailable", level=logging.ERROR, why=error)
    return JSONResponse({"error": "the store does not answer; try again"}, 503)


async def _damaged(_request: Request, error: Exception) -> Response:
    log_event(LOGGER, "store_damaged", level=logging.ERROR, why=error)
    return JSONResponse({"error": "the store is damaged; see the service's log"}, 503)


async def _torn(_request: Request, error: Exception) -> Response:
    log_event(LOGGER, "ledger_unreadable", level=logging.ERROR, why=error)
    return JSONResponse({"error": "the ledger cannot be read: `trimtab ledger verify`"}, 503)


async def _impossible(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404 if isinstance(error, TokenUnknown) else 409)


async def _unreadable(_request: Request, error: Exception) -> Response:
    log_event(LOGGER, "tokens_unreadable", level=logging.ERROR, why=error)
    return JSONResponse({"error": "the tokens cannot be read"}, 503)


async def _unknown(_request: Request, error: Exception) -> Response:
    """No such path or method, as JSON."""
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, headers=dict(error.headers or {}))
