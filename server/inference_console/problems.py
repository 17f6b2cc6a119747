"""Errors in one shape: problem details, RFC 9457."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class ProblemError(Exception):
    """A request that is refused or has failed.

    Args:
        status: The HTTP status code, 400 or more.
        detail: What was wrong, where, and what to do.
        headers: More headers of the answer.
        members: More members of the answer.
    """

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = int(status)
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    @property
    def title(self) -> str:
        """The status code in words."""
        return title_of(self.status)


def title_of(status: int) -> str:
    """Return the words of an HTTP status code."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def problem_response(problem: ProblemError) -> JSONResponse:
    """Make the answer to a request that is refused or has failed."""
    content = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        **problem.members,
    }
    return JSONResponse(content, problem.status, problem.headers, MEDIA_TYPE)
