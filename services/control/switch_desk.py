"""Actions switched off and on over HTTP, under the name of the caller's token.

Must never import: sqlalchemy, prefect, flows.
"""

from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.control import bodies
from services.control.bodies import BadRequest, Name, Reason, Strict
from services.control.endpoints import Endpoint, caller_of, spoken_by
from services.control.roles import Role
from services.control.state import ControlState
from services.control.switch import SwitchRefused, switch


class SwitchBody(Strict):
    """One action of a service, off for everyone or on again."""

    service: Name
    action: Name
    turn: Annotated[Literal["off", "on"], Field(description="What the action is to be.")]
    reason: Reason
    by: Name | None = None


_ANSWER = {
    "type": "object",
    "required": ["service", "off", "changed", "confirmed", "silent", "after_s"],
    "properties": {
        "service": {"type": "string"},
        "off": {"type": "array", "items": {"type": "object"}},
        "changed": {"type": "boolean"},
        "confirmed": {"type": "array", "items": {"type": "string"}},
        "silent": {"type": "array", "items": {"type": "string"}},
        "after_s": {"type": "number"},
    },
}


class SwitchDesk:
    """The handler; it answers once the serving releases have confirmed, or did not in time."""

    def __init__(self, state: ControlState) -> None:
        self._state = state

    def endpoints(self) -> tuple[Endpoint, ...]:
        what = "Switch an action off for everyone, within 2 s, or on again."
        return (
            Endpoint("POST", "/switches", Role.OPERATOR, self.switch, what, SwitchBody, _ANSWER, also=(409,)),
        )

    async def switch(self, request: Request) -> Response:
        body = await bodies.read_body(request, SwitchBody)
        by = spoken_by(caller_of(request), body.by)
        return JSONResponse(await run_in_threadpool(self._switch, body, by))

    def _switch(self, body: SwitchBody, by: str) -> dict[str, object]:
        state = self._state
        try:
            found = switch(
                state.db,
                state.home,
                service=body.service,
                action=body.action,
                is_off=body.turn == "off",
                by=by,
                reason=body.reason,
                at=state.clock(),
            )
        except SwitchRefused as error:
            raise BadRequest(409, str(error), (("action", str(error)),)) from error
        return asdict(found)
