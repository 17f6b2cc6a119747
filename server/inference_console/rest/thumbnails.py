"""``GET /thumbnails/{class}/{file}``."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from inference_console.base_set.changes import ImpossibleError
from inference_console.base_set.thumbnails import MEDIA_TYPE, SIZE_PX, Thumbnail
from inference_console.console import Console
from inference_console.rest.answers import problems
from inference_console.rest.refusals import refusals
from inference_server.base_set.image_folder import check_name


def routes(console: Console) -> APIRouter:
    """Make the routes of thumbnails."""
    router = APIRouter(tags=["base set"], dependencies=[Depends(console.access.admit)])

    @router.get(
        "/thumbnails/{class_name}/{file_name}",
        summary="Show a base image",
        response_class=Response,
        responses={
            **problems(400, 404, 409, 503),
            200: {"description": f"A WebP image of {SIZE_PX} x {SIZE_PX} pixels.", "content": {MEDIA_TYPE: {}}},
            304: {"description": "The image of the `If-None-Match` header has not changed."},
        },
    )
    async def thumbnail(request: Request, class_name: str, file_name: str) -> Response:
        """Answer with a thumbnail of a base image: the whole image, in its proportions, on grey."""
        with refusals():
            return thumbnail_response(
                request, await console.thumbnails.of_file(_base_image(console, f"{class_name}/{file_name}"))
            )

    return router


def thumbnail_response(request: Request, thumbnail: Thumbnail) -> Response:
    """Answer with a thumbnail, unless the browser has it."""
    headers = {"ETag": f'"{thumbnail.tag}"', "Cache-Control": "private, no-cache"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(thumbnail.content, headers=headers, media_type=MEDIA_TYPE)


def _base_image(console: Console, name: str) -> Path:
    """Return the file of a base image. Links within the folder are its owner's wish, as for ``base-set``."""
    check_name(name)
    folder = console.settings.base_data
    if folder is None:
        raise ImpossibleError("This console was started without -data, so it can't read the base images.")
    return folder / name
