"""Orders and approvals over HTTP: what people say to the rollout under way, under the name of their token.

An approval is the order `promote`; it has an endpoint of its own, because it asks for a higher role.
Must never import: sqlalchemy, prefect, flows.
"""

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
from services.store import orders, rollouts


class ApprovalBody(Strict):
    """Lets the rollout pass the stage that it is in."""

    service: Name
    reason: Reason
    by: Name | None = None


class OrderBody(ApprovalBody):
    """Something for the conductor to do at its next poll."""

    verb: Annotated[Literal["hold", "resume", "abort"], Field(description="What the conductor is to do.")]


_ANSWER = {
    "type": "object",
    "required": ["order_id", "rollout", "verb", "by"],
    "properties": {
        "order_id": {"type": "integer"},
        "rollout": {"type": "string"},
        "verb": {"type": "string"},
    },
}


class OrderDesk:
    """The handlers."""

    def __init__(self, state: ControlState) -> None:
        self._state = state

    def endpoints(self) -> tuple[Endpoint, ...]:
        order = "Hold, resume or abort the rollout under way."
        approve = "Let the rollout under way pass its stage."
        return (
            Endpoint("POST", "/orders", Role.OPERATOR, self.order, order, OrderBody, _ANSWER, also=(409,)),
            Endpoint(
                "POST", "/approvals", Role.APPROVER, self.approve, approve, ApprovalBody, _ANSWER, also=(409,)
            ),
        )

    async def order(self, request: Request) -> Response:
        body = await bodies.read_body(request, OrderBody)
        return await self._give(request, body, body.verb)

    async def approve(self, request: Request) -> Response:
        return await self._give(request, await bodies.read_body(request, ApprovalBody), "promote")

    async def _give(self, request: Request, body: ApprovalBody, verb: str) -> Response:
        by = spoken_by(caller_of(request), body.by)
        return JSONResponse(await run_in_threadpool(self._record, body, verb, by))

    def _record(self, body: ApprovalBody, verb: str, by: str) -> dict[str, object]:
        state = self._state
        active = rollouts.active(state.db, body.service)
        if active is None:
            raise BadRequest(409, f"no rollout of {body.service!r} is under way")
        given = orders.give(
            state.db, rollout_id=active.id, verb=verb, by=by, reason=body.reason, at=state.clock()
        )
        return {"order_id": given.id, "rollout": active.id, "verb": verb, "by": by}
