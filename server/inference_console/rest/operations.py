"""``/operations/{id}``: what has become of a change or a check."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from inference_console.base_set.operations import Operation, State, UnstoppableError
from inference_console.bodies import JSON
from inference_console.console import Console
from inference_console.negotiation import prefers_html
from inference_console.pages import operation as page
from inference_console.problems import ProblemError
from inference_console.rendering import root_of
from inference_console.rest.answers import problems
from inference_console.rest.refusals import refusals
from inference_console.rest.thumbnails import thumbnail_response

WAIT_S = 60.0
EXAMPLE = {
    "id": "pQ3x0v_1TnkF",
    "command": "add",
    "title": "Add 1 image to face",
    "person": "dr-weber",
    "state": "running",
    "asked": "2026-11-30T09:41:07+00:00",
    "ended": None,
    "step": {"label": "embedding base images", "done": 3, "total": 10},
    "result": None,
    "message": "",
}
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The operation goes on. `Location` names where to ask for its state.",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "Relative to the request's address."}},
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Operation"}, "example": EXAMPLE}},
    }
}


def routes(console: Console) -> APIRouter:
    """Make the routes of operations."""
    router = APIRouter(prefix="/operations", tags=["operations"], dependencies=[Depends(console.access.admit)])

    @router.get(
        "/{id}",
        summary="Ask for an operation",
        responses={
            **problems(404),
            200: {
                "description": "The operation.",
                "content": {
                    JSON: {"schema": {"$ref": "#/components/schemas/Operation"}, "example": EXAMPLE},
                    "text/html": {},
                },
            },
        },
    )
    async def ask(request: Request, id: str) -> Response:
        """Answer with the state, the progress, and the result or refusal of a change or a check."""
        operation = find(console, id)
        if prefers_html(request):
            return await page.render(console, request, operation)
        return JSONResponse(operation_json(operation), headers={"Vary": "Accept"})

    @router.delete(
        "/{id}",
        summary="End or drop an operation",
        status_code=HTTPStatus.NO_CONTENT,
        response_class=Response,
        dependencies=[Depends(console.access.admit_to_change)],
        responses={**problems(404, 409), 204: {"description": "It has ended, and nothing of it is kept."}},
    )
    async def end(id: str) -> Response:
        """End an operation that waits or only checks, and drop what is kept of it, with the files that were checked.

        A change that is being made is not ended.
        """
        await drop(console, find(console, id))
        return Response(status_code=HTTPStatus.NO_CONTENT)

    @router.post("/{id}/confirm", include_in_schema=False)
    async def confirm(request: Request, id: str) -> Response:
        visitor = console.access.require_change(request)
        with refusals():
            change = console.changes.confirm(find(console, id), person=visitor.name)
        return RedirectResponse(f"{root_of(request)}operations/{change.id}", HTTPStatus.SEE_OTHER)

    @router.post("/{id}/cancel", include_in_schema=False)
    async def cancel(request: Request, id: str) -> Response:
        console.access.require_change(request)
        await drop(console, find(console, id))
        return RedirectResponse(f"{root_of(request)}base-set", HTTPStatus.SEE_OTHER)

    @router.get("/{id}/thumbnail", include_in_schema=False)
    async def thumbnail(
        request: Request,
        id: str,
        name: Annotated[str, Query(description="class/file of an image that was checked, or the file of a query.")],
    ) -> Response:
        file = _file(console, find(console, id), name)
        if file is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "This operation has no such image, or not any more.")
        with refusals():
            return thumbnail_response(request, await console.thumbnails.of_file(file))

    return router


def find(console: Console, name: str) -> Operation:
    """Return the operation of an id.

    Raises:
        ProblemError: 404: there is none.
    """
    operation = console.operations.find(name)
    if operation is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            "There is no such operation, or not any more: the console keeps the last 100, until it ends. The page of "
            "the base set shows what is there now.",
        )
    return operation


async def drop(console: Console, operation: Operation) -> None:
    """End an operation and keep nothing of it.

    Raises:
        ProblemError: 409: it is a change that is being made.
    """
    try:
        await console.operations.cancel(operation)
    except UnstoppableError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    console.changes.drop(operation)
    console.operations.drop(operation.id)


async def answer(request: Request, operation: Operation) -> Response:
    """Answer a request that has begun an operation.

    A browser is sent to the operation's page. A program gets the result, or, if it wants or has to wait no longer,
    where to ask for it.

    Raises:
        ProblemError: 409: the operation was refused or cancelled. 500: it failed.
    """
    address = f"{root_of(request)}operations/{operation.id}"
    if prefers_html(request):
        return RedirectResponse(address, HTTPStatus.SEE_OTHER, {"Vary": "Accept"})
    preferences = [value.strip() for value in request.headers.get("prefer", "").lower().split(",")]
    if "respond-async" not in preferences:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(operation.over.wait(), WAIT_S)
    headers = {"Location": address, "Vary": "Accept"}
    if not operation.state.is_end:
        return JSONResponse(operation_json(operation), HTTPStatus.ACCEPTED, headers)
    if operation.state is State.DONE:
        return JSONResponse({**(operation.result or {}), "operation": operation.id}, headers={"Vary": "Accept"})
    if operation.state is State.FAILED:
        raise ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, operation.message, operation=operation.id)
    detail = operation.message or "The operation was cancelled before it began. Nothing has changed."
    raise ProblemError(HTTPStatus.CONFLICT, detail, operation=operation.id, result=operation.result)


def operation_json(operation: Operation) -> dict[str, Any]:
    """Return what is known of an operation as values for JSON."""
    step = operation.step
    return {
        "id": operation.id,
        "command": operation.command,
        "title": operation.title,
        "person": operation.person,
        "state": operation.state.value,
        "asked": _time(operation.asked),
        "ended": operation.ended and _time(operation.ended),
        "step": step and {"label": step.label, "done": step.done, "total": step.total},
        "result": operation.result,
        "message": operation.message,
    }


def _time(value: datetime) -> str:
    return value.isoformat(timespec="seconds")


def _file(console: Console, operation: Operation, name: str) -> Path | None:
    """Find an image that an operation names: one that was checked, or a query."""
    uploaded = console.changes.uploaded(operation, name)
    if uploaded is not None:
        return uploaded
    queries = (operation.result or {}).get("queries") or {"flips": []}
    named = {flip["query"] for flip in queries["flips"]}
    return console.settings.queries / name if console.settings.queries is not None and name in named else None
