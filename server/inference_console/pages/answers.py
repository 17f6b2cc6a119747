"""The page of answers to images."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import HTMLResponse

from inference_client.client import Results
from inference_console.bodies import Upload
from inference_console.rendering import Pages


async def render_answers(
    pages: Pages, request: Request, uploads: Sequence[Upload], results: Results, status: int
) -> HTMLResponse:
    """Render what the server said of each image."""
    entries = [] if isinstance(results, dict) else results
    error = results["error"] if isinstance(results, dict) else ""
    return pages.render(
        request, "answers", status=status, images=list(zip(uploads, entries, strict=not error)), error=error
    )
