"""What people do with the images that they have chosen on the page of a class. Programs need none of it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import RedirectResponse, Response

from inference_console.bodies import read_form
from inference_console.console import Console
from inference_console.pages import base_set as page
from inference_console.problems import ProblemError
from inference_console.rendering import root_of
from inference_console.rest.operations import answer
from inference_console.rest.refusals import refusals


def routes(console: Console) -> APIRouter:
    """Make the routes of chosen images, which the OpenAPI description leaves out."""
    router = APIRouter(
        prefix="/chosen-images", include_in_schema=False, dependencies=[Depends(console.access.admit_to_change)]
    )

    @router.get("/forget")
    async def ask_to_forget(
        request: Request, image: Annotated[list[str], Query(max_length=page.MOST_CHOSEN)]
    ) -> Response:
        console.access.require_change(request)
        return page.render_forgetting(console, request, image)

    @router.post("/forget")
    async def forget_chosen(request: Request) -> Response:
        visitor = console.access.require_change(request)
        body = await read_form(request)
        names = list(dict.fromkeys(body.values.get("image", [])))
        if not names:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "No image was chosen. Choose the images to forget first.")
        words = page.words_to_type(names)
        if body.fields.get("confirm", "").strip() != words:
            raise ProblemError(
                HTTPStatus.BAD_REQUEST,
                f"Forgetting can't be undone, so it has to be confirmed. Go back, and type exactly: {words}. Nothing "
                f"has changed.",
            )
        with refusals():
            operation = console.changes.forget(names, person=visitor.name)
        return await answer(request, operation)

    @router.post("/remove")
    async def choose(request: Request) -> Response:
        """Go on with the images that were chosen on the page of a class: check their removal, or forget them."""
        visitor = console.access.require_change(request)
        body = await read_form(request)
        names = list(dict.fromkeys(body.values.get("remove", [])))
        if not names:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "No image was chosen. Go back, and tick the images first.")
        if body.fields.get("action") == "forget":
            return RedirectResponse(
                f"{root_of(request)}chosen-images/forget?{page.chosen_query(names)}", HTTPStatus.SEE_OTHER
            )
        with refusals():
            operation = console.changes.check_removal(names, person=visitor.name)
        return await answer(request, operation)

    return router
