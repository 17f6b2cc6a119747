"""``POST /classify`` and, as the original server spoke, ``POST /``."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import JSONResponse, Response

from inference_client.client import Results
from inference_console.bodies import JSON, MULTIPART, Upload, read_images, read_json, text_uploads
from inference_console.console import Console
from inference_console.negotiation import prefers_html
from inference_console.pages.answers import render_answers
from inference_console.problems import ProblemError
from inference_console.rest.answers import READS_A_BODY, SERVER_FAILS, problems
from inference_console.security.clients import unless_client_leaves

_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mNsYIAAJgaKGAAmCACQtTEKkQAAAABJRU5ErkJggg=="
_IMAGE = {"type": "string", "description": "The base64 of an image file."}
_ENTRY = {"Label": "face", "Probability": 0.9881}
_ERROR = {"Label": None, "Probability": None, "Error": "not an image"}
_DETAILS = _ENTRY | {
    "Scores": {"face": 0.9881, "not_face": 0.41},
    "Matches": {"face": 5, "not_face": 0},
    "Neighbors": [{"Image": "face/face_012.png", "Similarity": 0.9881}],
    "Version": 3,
    "Threshold": 0.75,
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Every image has a label.",
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Entries"}, "example": [_ENTRY]}},
    },
    207: {
        "description": "Some images have no label; their entries say why.",
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Entries"}, "example": [_ENTRY, _ERROR]}},
    },
    400: {
        "description": "No image could be decoded: a list, whose entries say why. Or the request is wrong: a problem.",
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/Entries"}, "example": [_ERROR]},
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
        },
    },
}
_PAGE: dict[str, Any] = {"text/html": {}}
_ANSWERS_OR_PAGES = {
    status: {
        **answer,
        "content": {**answer["content"], **_PAGE, JSON: {**answer["content"][JSON], "example": example}},
    }
    for (status, answer), example in zip(_ANSWERS.items(), ([_DETAILS], [_DETAILS, _ERROR], [_ERROR]), strict=True)
}


def routes(console: Console) -> APIRouter:
    """Make the routes that classify."""
    router = APIRouter(tags=["classify"], dependencies=[Depends(console.access.admit)])

    @router.post(
        "/classify",
        summary="Classify images",
        responses={**problems(*READS_A_BODY, *SERVER_FAILS), **_ANSWERS_OR_PAGES},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    MULTIPART: {
                        "schema": {
                            "type": "object",
                            "properties": {
                                "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                                "sim_thres": {"type": "string", "description": "As the parameter of that name."},
                            },
                        }
                    },
                    JSON: {
                        "schema": {
                            "type": "object",
                            "properties": {"images": {"type": "array", "items": _IMAGE, "maxItems": 256}},
                            "required": ["images"],
                        },
                        "example": {"images": [_PNG]},
                    },
                },
            }
        },
    )
    async def classify(
        request: Request,
        details: Annotated[bool, Query(description="Add the evidence for each label.")] = False,
        sim_thres: Annotated[
            float | None,
            Query(ge=-1, le=1, allow_inf_nan=False, description="Lowest similarity of a match, for this request."),
        ] = None,
    ) -> Response:
        """Answer with the table of results and status codes of the Python client.

        The answer is a list with an entry for each image, in their order. An image that can't be decoded costs no other
        image its label.
        """
        body = await read_images(request)
        if sim_thres is None:
            sim_thres = _threshold(body.fields.get("sim_thres", ""))
        if not prefers_html(request):
            return await _answer(console, request, body.uploads, sim_thres=sim_thres, details=details)
        return await unless_client_leaves(request, render_answers(console, request, body, sim_thres=sim_thres))

    @router.post(
        "/",
        summary="Classify images, as the original server did",
        responses={**problems(*READS_A_BODY, *SERVER_FAILS), **_ANSWERS},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": {"type": "array", "items": _IMAGE, "maxItems": 256}, "example": [_PNG]}},
            }
        },
    )
    async def classify_as_the_original(request: Request) -> Response:
        """Answer a JSON list of images in base64 with a JSON list of labels and probabilities."""
        uploads = text_uploads(await read_json(request))
        return await _answer(console, request, uploads, sim_thres=None, details=False)

    return router


async def _answer(
    console: Console, request: Request, uploads: list[Upload], *, sim_thres: float | None, details: bool
) -> JSONResponse:
    images = [upload.data for upload in uploads]
    results, status = await unless_client_leaves(
        request, console.classifier(images, sim_thres=sim_thres, details=details)
    )
    return JSONResponse(require_entries(results, status), status)


def require_entries(results: Results, status: int) -> list[dict[str, Any]]:
    """Return the entries of an answer.

    Raises:
        ProblemError: There are none, since no image was answered. It has the client's message as ``error`` too.
    """
    if isinstance(results, dict):
        raise ProblemError(status, results["error"], error=results["error"])
    return results


def _threshold(text: str) -> float | None:
    """Read the threshold field of the page's form; empty: the server's."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"The threshold is {text!r}. Give a number from -1 to 1.")
    return value
