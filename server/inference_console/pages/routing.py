"""The routes of the pages."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from inference_console.bodies import read_form
from inference_console.console import Console
from inference_console.pages.answers import render_form
from inference_console.pages.api_docs import operations_of
from inference_console.pages.offers import switched_off
from inference_console.problems import ProblemError
from inference_console.security.sessions import COOKIE, LIFETIME_S

MAX_LOGIN_BYTES = 2**14  # who logs in is not known yet


def routes(console: Console) -> APIRouter:
    """Make the routes of the pages, which the OpenAPI description leaves out."""
    router = APIRouter(include_in_schema=False)
    pages, access = console.pages, console.access

    @router.get("/", dependencies=[Depends(access.admit)])
    async def classify(request: Request) -> Response:
        return await render_form(console, request)

    @router.get("/status", dependencies=[Depends(access.admit)])
    async def status(request: Request) -> Response:
        server = await console.server.ask()
        off = switched_off(console.settings, access.require(request), server.mode)
        return pages.render(request, "status", server=server, switched_off=off)

    @router.get("/docs", dependencies=[Depends(access.admit)])
    async def docs(request: Request) -> Response:
        description = request.app.openapi()
        address = str(request.url).partition("?")[0].removesuffix("/docs")
        operations = operations_of(description, address, asks_for_tokens=access.asks_for_tokens)
        return pages.render(request, "docs", description=description, operations=operations)

    @router.get("/login")
    async def login(request: Request) -> Response:
        return pages.render(request, "login", problem=None)

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        body = await read_form(request, max_bytes=MAX_LOGIN_BYTES)
        try:
            session = access.log_in(request, body.fields.get("token", ""))
        except ProblemError as problem:
            return pages.render(request, "login", status=problem.status, headers=problem.headers, problem=problem)
        response = RedirectResponse("./", HTTPStatus.SEE_OTHER)
        # No path: browsers take the folder of this page, whatever the console's prefix behind a gateway is.
        response.set_cookie(
            COOKIE,
            session,
            max_age=LIFETIME_S,
            path=None,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    @router.post("/logout")
    async def log_out(request: Request) -> Response:
        access.log_out(request)
        response = RedirectResponse("login", HTTPStatus.SEE_OTHER)
        response.set_cookie(COOKIE, "", max_age=0, path=None, httponly=True, samesite="strict")
        return response

    return router
