"""What an endpoint of the control service is: path, method, role, handler, and the words of its OpenAPI entry.

The one table of endpoints makes the routes, the roles and the document, so none of them can forget one.
Must never import: sqlalchemy, flows.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.control.admission import CALLER
from services.control.bodies import BadRequest
from services.control.roles import Caller, Role

Handler = Callable[[Request], Awaitable[Response]]
Schema = Mapping[str, object]


@dataclass(frozen=True)
class Endpoint:
    """One method of one path. `role` None: open to everybody. `answer`: JSON schema of the 200 body."""

    method: Literal["GET", "POST"]
    path: str
    role: Role | None
    handler: Handler
    summary: str
    body: type[BaseModel] | None = None
    answer: Schema = field(default_factory=lambda: {"type": "object"})
    content_type: str = "application/json"
    also: tuple[int, ...] = ()
    """Statuses beyond those that every endpoint of its kind has."""


def routes(endpoints: Sequence[Endpoint]) -> list[Route]:
    """Starlette's routes, each behind its role; the two methods of one path are one route."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    return [Route(path, _guarded(found), methods=list(found)) for path, found in by_path.items()]


def caller_of(request: Request) -> Caller:
    """Who sent a request that came in through the admission."""
    caller = request.scope[CALLER]
    if not isinstance(caller, Caller):
        raise TypeError("a request without a caller came past the admission")
    return caller


def spoken_by(caller: Caller, named: str | None) -> str:
    """Whose name goes on record. Only the home's own programs may name somebody else. Raises BadRequest."""
    if named is None or named == caller.name:
        return caller.name
    if not caller.is_home:
        raise BadRequest(
            403, "'by' must be the token's own name, or left out", (("by", "not the token's name"),)
        )
    return named


def _guarded(endpoints: Mapping[str, Endpoint]) -> Handler:
    async def handle(request: Request) -> Response:
        endpoint = endpoints["GET" if request.method == "HEAD" else request.method]
        if endpoint.role is not None:
            caller = caller_of(request)
            if caller.role < endpoint.role:
                error = f"the token's role must be {endpoint.role.word} or higher: {caller.role.word}"
                return JSONResponse({"error": error, "field": "authorization"}, 403)
        return await endpoint.handler(request)

    return handle
