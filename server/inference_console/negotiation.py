"""Whether an answer is for a person or for a program."""

from __future__ import annotations

from starlette.requests import Request

_HTML = "text/html"


def prefers_html(request: Request) -> bool:
    """Tell whether the Accept header names HTML, and names nothing for programs before it, as browsers' do."""
    return _quality(request, _HTML) > max(
        _quality(request, "application/json"), _quality(request, "application/problem+json")
    )


def _quality(request: Request, media_type: str) -> float:
    for item in request.headers.get("accept", "").split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        if name.lower() == media_type:
            values = [value for value in parameters if value.startswith("q=")]
            try:
                return float(values[0][2:]) if values else 1.0
            except ValueError:
                return 0.0
    return 0.0
