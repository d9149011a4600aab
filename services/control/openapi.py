"""The control service's OpenAPI document, made from its one table of endpoints.

Source: OpenAPI 3.1.0, https://spec.openapis.org/oas/v3.1.0. Must never import: sqlalchemy, flows.
"""

from collections.abc import Sequence
from http import HTTPStatus

from pydantic import BaseModel

from services.control.endpoints import Endpoint
from services.home import LOOPBACK

ERROR_SCHEMA: dict[str, object] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "field": {"type": "string"},
        "fields": {"type": "array", "items": {"type": "object", "required": ["field", "error"]}},
    },
}


def document(endpoints: Sequence[Endpoint], *, port: int) -> dict[str, object]:
    """The document as plain JSON values."""
    schemas: dict[str, object] = {"Error": ERROR_SCHEMA}
    paths: dict[str, dict[str, object]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Trimtab control service", "version": "1"},
        "servers": [{"url": f"http://{LOOPBACK}:{port}"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, schemas: dict[str, object]) -> dict[str, object]:
    needs = "open" if endpoint.role is None else f"role {endpoint.role.word} or higher"
    answers: dict[str, object] = {
        "200": {
            "description": "Done.",
            "content": {endpoint.content_type: {"schema": dict(endpoint.answer)}},
        }
    }
    for status in _failures(endpoint):
        answers[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
    operation: dict[str, object] = {
        "summary": endpoint.summary,
        "description": f"Needs: {needs}.",
        "operationId": f"{endpoint.method.lower()}{endpoint.path.replace('/', '_').replace('.', '_')}",
        "security": [] if endpoint.role is None else [{"token": []}],
        "responses": answers,
    }
    if endpoint.body is not None:
        schema = {"schema": {"$ref": f"#/components/schemas/{_add(endpoint.body, schemas)}"}}
        operation["requestBody"] = {"required": True, "content": {"application/json": schema}}
    return operation


def _failures(endpoint: Endpoint) -> list[int]:
    found = {503, *endpoint.also}
    if endpoint.role is not None:
        found |= {401, 403, 429}
    if endpoint.body is not None:
        found |= {400, 408, 413, 422}
    return sorted(found)


def _add(model: type[BaseModel], schemas: dict[str, object]) -> str:
    """Put a body's schema, and what it refers to, among the components; its name there."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    return model.__name__
