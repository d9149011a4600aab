"""What the control service accepts: bounded bodies, strict shapes, errors that name the field.

Must never import: sqlalchemy, policies, flows.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

MAX_BODY_BYTES = 1 << 20
MAX_WAIT_S = 10.0
AHEAD_S = 5.0  # how far a sender's clock may be ahead of ours

# No control characters: they end up on terminals, and PostgreSQL takes no NUL. A reason may have several lines.
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+$")]
Instant = Annotated[float, Field(ge=0)]


class BadRequest(Exception):
    """An answer with a 4xx status; `fields` are the offending ones with what is wrong."""

    def __init__(self, status: int, error: str, fields: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.fields = fields


class Strict(BaseModel):
    """What a body is made of: nothing unknown, nothing coerced, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class OutcomeBody(Strict):
    """`measured`: amounts that came of the decision, by name, as utility.yaml's quantities name them."""

    decision_id: Name
    outcome: Name
    at: Instant
    measured: Annotated[dict[Name, float], Field(max_length=20)] = {}


class UnitOutcomeBody(Strict):
    """Of every decision about the unit in the `within_s` seconds before `at`."""

    unit: Name
    outcome: Name
    at: Instant
    within_s: Annotated[float, Field(gt=0)]


class OutcomesBody(Strict):
    """`at` and `watermark`: epoch s; the watermark says that all outcomes up to then have been posted."""

    outcomes: list[OutcomeBody]
    unit_outcomes: list[UnitOutcomeBody] = []
    watermark: Instant | None = None


class KillBody(Strict):
    """`by`: whose name goes on record; left out: the token's. `service` left out: every rollout under way."""

    reason: Reason
    by: Name | None = None
    service: Name | None = None


Body = TypeVar("Body", bound=BaseModel)


async def read_body(request: Request, model: type[Body]) -> Body:
    """The request's body as `model`. Raises BadRequest: 413 too large, 408 too slow, 400 no JSON, 422
    wrong."""
    raw = bytearray()
    try:
        async with asyncio.timeout(MAX_WAIT_S):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > MAX_BODY_BYTES:
                    raise BadRequest(413, f"the body must be at most {MAX_BODY_BYTES} bytes")
    except TimeoutError as error:
        raise BadRequest(408, f"the body must arrive within {MAX_WAIT_S:g} s") from error
    try:
        return model.model_validate_json(bytes(raw))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            raise BadRequest(400, found[0]["msg"]) from error
        fields = tuple(
            (".".join(str(part) for part in one["loc"]) or "body", one["msg"]) for one in found[:20]
        )
        raise BadRequest(422, f"'{fields[0][0]}': {fields[0][1]}", fields) from error


def check_times(body: OutcomesBody, *, now: float) -> None:
    """Refuse times ahead of ours: a watermark from the future would let immature decisions count."""
    stated: tuple[tuple[str, Sequence[OutcomeBody | UnitOutcomeBody]], ...] = (
        ("outcomes", body.outcomes),
        ("unit_outcomes", body.unit_outcomes),
    )
    wrong = [
        (f"{name}.{index}.at", f"must be <= now: {outcome.at}")
        for name, outcomes in stated
        for index, outcome in enumerate(outcomes)
        if outcome.at > now + AHEAD_S
    ]
    if body.watermark is not None and body.watermark > now + AHEAD_S:
        wrong.append(("watermark", f"must be <= now: {body.watermark}"))
    if wrong:
        raise BadRequest(422, f"'{wrong[0][0]}' {wrong[0][1]}", tuple(wrong[:20]))
