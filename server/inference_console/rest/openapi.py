"""The OpenAPI description."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from inference_console.rest import base_set_schemas
from inference_console.rest.answers import problems

_SCHEMAS: dict[str, Any] = {
    "Problem": {
        "type": "object",
        "description": "What was wrong, where, and what to do (RFC 9457).",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "error": {"type": "string", "description": "The detail again, where the Python client names it so."},
        },
    },
    "Entries": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["Label", "Probability"],
            "properties": {
                "Label": {"type": ["string", "null"]},
                "Probability": {"type": ["number", "null"]},
                "Error": {"type": "string", "description": "Why the image has no label."},
                "Scores": {"type": "object", "additionalProperties": {"type": "number"}},
                "Matches": {"type": "object", "additionalProperties": {"type": "integer"}},
                "Neighbors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["Image", "Similarity"],
                        "properties": {"Image": {"type": "string"}, "Similarity": {"type": "number"}},
                    },
                },
                "Version": {"type": "integer"},
                "Threshold": {"type": ["number", "null"]},
                "Note": {"type": "string"},
            },
        },
    },
}
_SECURITY_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of the console's token file."},
}
_CLASSIFY_PAGE = {
    "tags": ["classify"],
    "summary": "The classify page",
    "description": "For people. Without a session, browsers are sent to the login page.",
    "operationId": "classify_page",
    "responses": {
        "200": {"description": "The page.", "content": {"text/html": {}}},
        "303": {"description": "To the login page."},
        **{str(status): answer for status, answer in problems().items()},
    },
}
_VALIDATION = "422"  # FastAPI's own; this application answers 400


def describe(app: FastAPI, *, asks_for_tokens: bool) -> dict[str, Any]:
    """Describe an application in OpenAPI 3.1."""
    description = FastAPI.openapi(app)
    components = description.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.update(_SCHEMAS | base_set_schemas.SCHEMAS)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for operations in description["paths"].values():
        for operation in operations.values():
            operation["responses"].pop(_VALIDATION, None)
    description["paths"]["/"]["get"] = _CLASSIFY_PAGE  # here, since other methods of the path are described
    if asks_for_tokens:
        components["securitySchemes"] = _SECURITY_SCHEMES
        description["security"] = [{"token": []}]
    return description
