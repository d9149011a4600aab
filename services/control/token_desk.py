"""Tokens over HTTP, for admins: give, list, rotate, revoke; each of them on the ledger, no secret in it.

The command line does the same on the home's files (flows/commands/token_group.py), through the functions here.
Must never import: sqlalchemy, flows.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.control import bodies, issued_tokens
from services.control.bodies import Name, Strict
from services.control.endpoints import Endpoint, caller_of
from services.control.issued_tokens import NAME, IssuedToken
from services.control.roles import Role, role_of
from services.control.state import ControlState
from services.ledger.ledger import append
from services.store.database import Database

LEDGER_SERVICE = "control"
"""What stands for the service in entries that belong to none."""


class CreateTokenBody(Strict):
    """`expires_in_s`: for how long it works; left out: until it is revoked."""

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    role: Annotated[str, Field(pattern="^(viewer|operator|approver|admin)$")]
    expires_in_s: Annotated[float, Field(gt=0, le=1e10)] | None = None


class RotateTokenBody(Strict):
    """`grace_s`: for how long the old token goes on working."""

    id: Name
    grace_s: Annotated[float, Field(ge=0, le=1e7)] = 0.0


class RevokeTokenBody(Strict):
    id: Name


_RECORD = {
    "type": "object",
    "required": ["id", "name", "role", "created_at", "created_by", "expires_at", "revoked_at"],
    "properties": {"id": {"type": "string"}, "role": {"enum": ["viewer", "operator", "approver", "admin"]}},
}
_GIVEN = {"type": "object", "required": ["id", "token"], "properties": {"token": {"type": "string"}}}
_LIST = {
    "type": "object",
    "required": ["tokens"],
    "properties": {"tokens": {"type": "array", "items": _RECORD}},
}


class TokenDesk:
    """The handlers over one home's tokens file."""

    def __init__(self, state: ControlState, file: Path) -> None:
        self._state, self._file = state, file

    def endpoints(self) -> tuple[Endpoint, ...]:
        admin = Role.ADMIN
        return (
            Endpoint("GET", "/tokens", admin, self.list, "Every token ever given, no secrets.", None, _LIST),
            Endpoint(
                "POST", "/tokens", admin, self.create, "Give a token.", CreateTokenBody, _GIVEN, also=(409,)
            ),
            Endpoint(
                "POST",
                "/tokens/rotate",
                admin,
                self.rotate,
                "Replace a token.",
                RotateTokenBody,
                _GIVEN,
                also=(404, 409),
            ),
            Endpoint(
                "POST",
                "/tokens/revoke",
                admin,
                self.revoke,
                "Take a token back.",
                RevokeTokenBody,
                _RECORD,
                also=(404,),
            ),
        )

    async def list(self, _request: Request) -> Response:
        found = await run_in_threadpool(issued_tokens.read_tokens, self._file)
        return JSONResponse({"tokens": [one.to_json() for one in found]})

    async def create(self, request: Request) -> Response:
        body, by = await bodies.read_body(request, CreateTokenBody), caller_of(request).name
        now = self._state.clock()
        until = None if body.expires_in_s is None else now + body.expires_in_s
        return JSONResponse(
            await run_in_threadpool(
                lambda: give(
                    self._state.db,
                    self._file,
                    name=body.name,
                    role=role_of(body.role),
                    by=by,
                    at=now,
                    until=until,
                )
            )
        )

    async def rotate(self, request: Request) -> Response:
        body, by = await bodies.read_body(request, RotateTokenBody), caller_of(request).name
        now, db = self._state.clock(), self._state.db
        return JSONResponse(
            await run_in_threadpool(
                lambda: rotate(db, self._file, body.id, by=by, at=now, grace_s=body.grace_s)
            )
        )

    async def revoke(self, request: Request) -> Response:
        body, by = await bodies.read_body(request, RevokeTokenBody), caller_of(request).name
        now, db = self._state.clock(), self._state.db
        return JSONResponse(await run_in_threadpool(lambda: revoke(db, self._file, body.id, by=by, at=now)))


def give(
    db: Database, file: Path, *, name: str, role: Role, by: str, at: float, until: float | None
) -> dict[str, object]:
    """Give a token and put it on record; its record with the token itself. Raises TokenRefused."""
    record, token = issued_tokens.create(file, name=name, role=role, by=by, at=at, expires_at=until)
    _put_on_record(db, "created", record, by=by, at=at)
    return {**record.to_json(), "token": token}


def rotate(
    db: Database, file: Path, token_id: str, *, by: str, at: float, grace_s: float
) -> dict[str, object]:
    """Replace a token and put it on record; the new record with the token itself. Raises TokenRefused."""
    record, token = issued_tokens.rotate(file, token_id, by=by, at=at, grace_s=grace_s)
    _put_on_record(db, f"rotated {token_id}", record, by=by, at=at)
    return {**record.to_json(), "token": token}


def revoke(db: Database, file: Path, token_id: str, *, by: str, at: float) -> dict[str, object]:
    """Take a token back and put it on record. Raises TokenRefused."""
    record = issued_tokens.revoke(file, token_id, at=at)
    _put_on_record(db, "revoked", record, by=by, at=at)
    return record.to_json()


def _put_on_record(db: Database, what: str, record: IssuedToken, *, by: str, at: float) -> None:
    body = {"what": what, "id": record.id, "name": record.name, "role": record.role.word, "by": by}
    append(db, "token", body, service=LEDGER_SERVICE, rollout_id=None, at=at)
