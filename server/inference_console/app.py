"""Builds the web application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.staticfiles import StaticFiles

from inference_client.version import __version__
from inference_console.access_log import AccessLog
from inference_console.console import Console
from inference_console.failures import Failures
from inference_console.negotiation import prefers_html
from inference_console.pages import routing as pages
from inference_console.problems import ProblemError, problem_response, title_of
from inference_console.rendering import root_of
from inference_console.rest import base_set, chosen_images, classifying, openapi, operations, service, thumbnails
from inference_console.security.clients import CLIENT_LEFT
from inference_console.security.headers import SecurityHeaders
from inference_console.security.hosts import HostCheck
from inference_console.security.uploads import Uploads
from inference_console.settings import Settings

_STATIC = Path(__file__).parent / "pages" / "static"
_DESCRIPTION = "Classify images, see the evidence, and correct the base set of a running inference server."


def create_app(settings: Settings) -> FastAPI:
    """Build the application of a console."""
    console = Console(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await console.open()
        try:
            yield
        finally:
            await console.close()

    app = FastAPI(
        title="classify-triton console",
        description=_DESCRIPTION,
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,  # FastAPI's redirects name the Host, and lose a gateway's prefix
        middleware=[
            Middleware(AccessLog),
            Middleware(SecurityHeaders),
            Middleware(HostCheck, names=settings.host_names),
            Middleware(Uploads),
            Middleware(Failures),
        ],
    )
    routers = (
        classifying.routes(console),
        base_set.routes(console),
        chosen_images.routes(console),
        thumbnails.routes(console),
        operations.routes(console),
        service.routes(console),
        pages.routes(console),
    )
    for router in routers:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    _add_error_answers(app, console, [route for router in routers for route in router.routes])
    description: dict[str, Any] = {}

    def describe() -> dict[str, Any]:
        if not description:
            description.update(openapi.describe(app, asks_for_tokens=settings.users is not None))
        return description

    app.openapi = describe  # type: ignore[method-assign]  # as FastAPI's documentation has it
    return app


def _add_error_answers(app: FastAPI, console: Console, routes: Sequence[BaseRoute]) -> None:
    def answer(request: Request, problem: ProblemError) -> Response:
        if not prefers_html(request):
            return problem_response(problem)
        if problem.status == HTTPStatus.UNAUTHORIZED:
            return RedirectResponse(f"{root_of(request)}login", HTTPStatus.SEE_OTHER)
        return console.pages.problem(request, problem)

    @app.exception_handler(ProblemError)
    async def on_problem(request: Request, error: ProblemError) -> Response:
        return answer(request, error)

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        detail = (
            error.detail if error.detail != title_of(error.status_code) else _DETAILS.get(HTTPStatus(error.status_code))
        )
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = _allowed(request, routes)
        return answer(request, ProblemError(error.status_code, detail or error.detail, headers=headers))

    @app.exception_handler(RequestValidationError)
    async def on_wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        said = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors())
        return answer(request, ProblemError(HTTPStatus.BAD_REQUEST, said))

    @app.exception_handler(ClientDisconnect)
    async def on_leaving(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)  # for the log: nobody reads it


def _allowed(request: Request, routes: Sequence[BaseRoute]) -> str:
    """Name all methods of a path; Starlette names those of the first route that has the path."""
    matching = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for route in matching for method in getattr(route, "methods", None) or ()}))


_DETAILS = {
    HTTPStatus.NOT_FOUND: "There is nothing at this path. The page API (/docs) lists the paths.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This path does not take this method. The page API (/docs) lists what it takes.",
}
