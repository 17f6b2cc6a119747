"""Renders the templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse

from inference_client.version import __version__
from inference_console.problems import ProblemError
from inference_console.security.access import Access, Visitor
from inference_console.settings import Settings


class Pages:
    """Renders the templates of the pages.

    Every template knows ``root`` (the relative path to the console's own root), ``visitor``, ``settings``, ``version``
    and ``page`` (the name of the page in the navigation).
    """

    def __init__(self, settings: Settings, access: Access) -> None:
        self._settings = settings
        self._access = access
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("inference_console.pages"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> HTMLResponse:
        """Render a template of ``templates/`` as the answer to a request.

        Args:
            request: The request.
            template: Name of the template without ``.html.j2``.
            status: The HTTP status code.
            headers: More headers.
            values: What the template shows.
        """
        text = self._templates.get_template(f"{template}.html.j2").render(
            root=root_of(request),
            page=template,
            visitor=self._visitor(request),
            asks_for_tokens=self._access.asks_for_tokens,
            settings=self._settings,
            version=__version__,
            **values,
        )
        return HTMLResponse(text, status, {"Vary": "Accept", **(headers or {})})

    def problem(self, request: Request, problem: ProblemError) -> HTMLResponse:
        """Render what was wrong with a request."""
        return self.render(request, "problem", status=problem.status, headers=problem.headers, problem=problem)

    def _visitor(self, request: Request) -> Visitor | None:
        try:
            return self._access.require(request)
        except ProblemError:
            return None


def root_of(request: Request) -> str:
    """Return the relative path from a request's path to the console's own root: ``./`` or ``../`` and so on."""
    path: bytes = request.scope["raw_path"]  # as the browser sees it: names may hold an escaped slash
    return "../" * (path.count(b"/") - 1) or "./"
