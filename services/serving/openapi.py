"""The OpenAPI document of a release's POST /decide, made from the contract that the release itself checks.

The same columns, bounds and needed fields as row_check.py; a document that says more or less than the check is a
fault, and a fuzzer holds the two together. Source: OpenAPI 3.1.0, https://spec.openapis.org/oas/v3.1.0.
Must never import bentoml or torch.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from services.data.contract import load_contract
from services.serving.explanation import MAX_EXPLAINED_ROWS
from services.serving.release import Release
from services.serving.request_mark import MAX_ID_CHARACTERS
from services.serving.row_check import MAX_ROWS, SERVED_ROLES, ServedColumn
from services.serving.scorer import Scorer

Schema = dict[str, object]
_WHOLE = 2**63 - 1  # a whole number beyond this is no JSON integer to the parser
_ERROR: Schema = {
    "type": "object",
    "required": ["error", "field"],
    "properties": {"error": {"type": "string"}, "field": {"type": ["string", "null"]}},
}


def document(release: Release, *, url: str) -> Schema:
    """The document as plain JSON values; `url` is where users send their requests. Raises: ScorerError, PolicyError."""
    file = release.folder / "contract.yaml"
    contract = load_contract(file.read_text(encoding="utf-8"), str(file))
    scorer = Scorer.load(release)
    row = row_schema(contract.columns, needed=scorer.needed_fields)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Decisions of {release.service}", "version": release.id},
        "servers": [{"url": url}],
        "paths": {"/decide": {"post": _operation(scorer.utility.actions)}},
        "components": {
            "schemas": {"Row": row, "Decision": _decision(scorer.utility.actions), "Error": _ERROR}
        },
    }


def row_schema(columns: Sequence[ServedColumn], *, needed: Collection[str]) -> Schema:
    """One row of a request: what is accepted, and which fields must be there."""
    served = [c for c in columns if c.role in SERVED_ROLES and c.available_at_s <= 0]
    required = [c.name for c in served if (c.required and c.role == "feature") or c.name in needed]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": {c.name: _field(c, is_needed=c.name in required) for c in served},
    }


def _field(column: ServedColumn, *, is_needed: bool) -> Schema:
    schema: Schema
    if column.kind in ("number", "integer"):
        schema = {"type": column.kind, **_bounds(column)}
    elif column.kind == "boolean":
        schema = {"type": "boolean"}
    elif column.kind == "timestamp":
        schema = {
            "type": "string",
            "format": "date-time",
            "description": _range(column.minimum, column.maximum),
        }
    elif column.categories is not None:
        schema = {"type": "string", "enum": list(column.categories)}
    else:
        limits = {"minLength": column.min_length, "maxLength": column.max_length, "pattern": column.pattern}
        schema = {"type": "string", **{key: value for key, value in limits.items() if value is not None}}
    return schema if is_needed else {"anyOf": [schema, {"type": "null"}]}


def _bounds(column: ServedColumn) -> Schema:
    low, high = column.minimum, column.maximum
    if column.kind == "integer":
        low, high = -_WHOLE if low is None else int(low), _WHOLE if high is None else int(high)
    return {key: value for key, value in (("minimum", low), ("maximum", high)) if value is not None}


def _range(low: float | None, high: float | None) -> str:
    """Which times are allowed, in words: JSON Schema has no keyword for it."""
    ends = (("from", low), ("to", high))
    found = (
        f"{word} {datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}" for word, at in ends if at is not None
    )
    return ", ".join(found) or "any time"


def _operation(actions: Sequence[str]) -> Schema:
    rows = {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_ROWS,
        "items": {"$ref": "#/components/schemas/Row"},
    }
    batch = {
        "type": "object",
        "additionalProperties": False,
        "required": ["rows"],
        "properties": {"rows": rows},
    }
    decision = {"$ref": "#/components/schemas/Decision"}
    decisions = {
        "type": "object",
        "required": ["release", "decisions"],
        "properties": {"release": {"type": "string"}, "decisions": {"type": "array", "items": decision}},
    }
    answers: Schema = {"200": _answer("Decided.", {"anyOf": [decision, decisions]})}
    for status in (400, 405, 408, 413, 429, 503):
        answers[str(status)] = _answer(HTTPStatus(status).phrase, {"$ref": "#/components/schemas/Error"})
    return {
        "summary": "Decide one row, or up to a thousand.",
        "operationId": "decide",
        "parameters": [
            {
                "name": "x-unit-id",
                "in": "header",
                "description": "Who must always be treated alike; without it the stable release decides.",
                "schema": {"type": "string", "maxLength": MAX_ID_CHARACTERS},
            },
            {
                "name": "explain",
                "in": "query",
                "description": f"true: with the reasons, for at most {MAX_EXPLAINED_ROWS} rows.",
                "schema": {"type": "boolean"},
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"anyOf": [{"$ref": "#/components/schemas/Row"}, batch]}}
            },
        },
        "responses": answers,
    }


def _answer(words: str, schema: Schema) -> Schema:
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _decision(actions: Sequence[str]) -> Schema:
    return {
        "type": "object",
        "required": ["decision_id", "action", "score", "expected_utility", "operating_point", "release"],
        "properties": {
            "decision_id": {"type": "string"},
            "action": {"enum": list(actions)},
            "score": {"type": "number"},
            "expected_utility": {
                "type": "object",
                "required": list(actions),
                "additionalProperties": {"type": "number"},
            },
            "operating_point": {"type": "object"},
            "release": {"type": "string"},
            "explanation": {"type": "object"},
            "logged": {"const": False, "description": "There where the decision could not be recorded."},
            "gated": {
                "type": "object",
                "description": "There while an action is switched off for everyone.",
                "required": ["off", "instead_of"],
                "properties": {
                    "off": {"type": "array", "items": {"enum": list(actions)}},
                    "instead_of": {"enum": [*actions, None]},
                },
            },
        },
    }
