"""The answers of an operation, for the OpenAPI description."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from inference_console.problems import MEDIA_TYPE, title_of

_WHY = {
    400: "A parameter or the body is wrong; the detail says which.",
    401: "No token, or a wrong one.",
    403: "The visitor may not do that, or the request came from a page of another site.",
    404: "There is no such thing.",
    405: "The path does not take this method.",
    408: "The upload was too slow.",
    409: "The command refused the change; the detail says why. Nothing has changed.",
    413: "The request is longer than the limit.",
    415: "The body is of a type that this path does not read.",
    421: "The console does not answer for this Host.",
    429: "Too many wrong tokens, or too many requests at a time.",
    500: "The inference server failed, or the console did.",
    502: "The inference server is not reached through its gateway.",
    503: "The inference server is not reached or is overloaded, or too many uploads are under way.",
    504: "The inference server gave no answer in time.",
    507: "The console has no room for the files.",
}
_ALWAYS = (401, 403, 421, 429)
SERVER_FAILS = (404, 500, 502, 503, 504)
READS_A_BODY = (400, 408, 413, 415, 503)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems that an operation answers with, and those that any operation may.

    Args:
        statuses: The status codes besides those of any operation.
    """
    return {
        status: {
            "description": _WHY.get(status, title_of(status)),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": {
                        "type": "about:blank",
                        "title": HTTPStatus(status).phrase,
                        "status": status,
                        "detail": _WHY.get(status, title_of(status)),
                    },
                }
            },
        }
        for status in sorted({*statuses, *_ALWAYS})
    }
