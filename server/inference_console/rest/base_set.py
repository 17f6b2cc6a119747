"""``/base-set``: what it holds, what a change would do, and changes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import JSONResponse, Response

from inference_console.base_set.stored import Doubt
from inference_console.bodies import JSON, MULTIPART, Body, read_form
from inference_console.console import Console
from inference_console.negotiation import prefers_html
from inference_console.pages import base_set as page
from inference_console.pages.offers import why_no_change
from inference_console.problems import ProblemError
from inference_console.rest.answers import READS_A_BODY, problems
from inference_console.rest.operations import ACCEPTED, answer, find
from inference_console.rest.refusals import refusals

_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "The image files."}
_RENAME = {
    "type": "string",
    "enum": ["true", "false"],
    "default": "false",
    "description": "Whether a file whose name is taken by another image gets another name, instead of being refused.",
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "`respond-async`: answer at once, with 202.",
}
_CHANGED = {
    "repository": "/srv/model_repository",
    "version": 4,
    "version_before": 3,
    "added": ["face/anna.jpg"],
    "removed": [],
    "replaced": [],
    "threshold": 0.75,
    "unknown_label": None,
    "neighbors": 5,
    "base_images": {"face": 11, "not_face": 10},
    "servers": [8080],
    "notes": [],
    "operation": "pQ3x0v_1TnkF",
}
_CHECKED = {
    "repository": "/srv/model_repository",
    "version": 3,
    "added": ["face/anna.jpg"],
    "removed": [],
    "replaced": [],
    "undecodable": {},
    "rotated": [],
    "base_images_before": {"face": 10, "not_face": 10},
    "base_images_after": {"face": 11, "not_face": 10},
    "closer_to_another_class": [
        {"image": "face/anna.jpg", "own_similarity": 0.81, "other_class": "not_face", "other_similarity": 0.88}
    ],
    "label_conflicts": [],
    "near_duplicates": [],
    "new_images": [
        {
            "image": "face/anna.jpg",
            "before": {"label": "not_face", "similarity": 0.88, "nearest": "not_face/wall.jpg"},
            "after": {"label": "face", "similarity": 1.0, "nearest": "face/anna.jpg"},
        }
    ],
    "queries": None,
    "operation": "pQ3x0v_1TnkF",
}
_BASE_SET = {
    "version": 3,
    "network_version": 1,
    "versions": [2, 3],
    "exported": "2026-11-30T09:41:07+00:00",
    "threshold": 0.75,
    "unknown_label": None,
    "neighbors": 5,
    "base_images": {"face": 2, "not_face": 1},
    "images": ["face/anna.jpg", "face/ben.jpg", "not_face/wall.jpg"],
    "since_version_before": {"added": ["face/ben.jpg"], "removed": [], "replaced": []},
    "changes": [
        {
            "version": 3,
            "exported": "2026-11-30T09:41:07+00:00",
            "network_version": 1,
            "added": ["face/ben.jpg"],
            "removed": [],
            "replaced": [],
            "settings": {},
        }
    ],
    "doubtful": [
        {
            "image": "face/ben.jpg",
            "kind": "closer to another class",
            "other": "not_face",
            "similarity": 0.93,
            "own_similarity": 0.71,
        }
    ],
    "changeable": True,
    "unchangeable_because": None,
}


def routes(console: Console) -> APIRouter:
    """Make the routes of the base set."""
    router = APIRouter(prefix="/base-set", tags=["base set"], dependencies=[Depends(console.access.admit)])
    _add_showing(router, console)
    _add_checking(router, console)
    _add_changes(router, console)
    return router


def _add_showing(router: APIRouter, console: Console) -> None:
    @router.get(
        "",
        summary="Show the base set",
        responses={**problems(409), 200: _answers("The base set of the version that answers.", "BaseSet", _BASE_SET)},
    )
    async def show(
        request: Request,
        class_name: Annotated[str | None, Query(alias="class", include_in_schema=False)] = None,
        number: Annotated[int, Query(alias="page", ge=1, le=10**6, include_in_schema=False)] = 1,
    ) -> Response:
        """Answer with classes, images, settings, what each kept version changed, and images that may be mistakes.

        `doubtful` is null while the images of a new version are still being compared.
        """
        if prefers_html(request):
            return await page.render(console, request, class_name, number)
        with refusals():
            stored, doubts = await console.stored.read(), await console.stored.doubts()
        reason = why_no_change(console.settings, console.access.require(request), "clustering")
        values = {
            **stored.values,
            "doubtful": None if doubts is None else [_doubt(name, one) for name, all in doubts.items() for one in all],
            "changeable": not reason,
            "unchangeable_because": reason or None,
        }
        return JSONResponse(values, headers={"Vary": "Accept"})


def _add_checking(router: APIRouter, console: Console) -> None:
    @router.post(
        "/check",
        summary="Check a change before it is made",
        responses={
            **problems(409, 500, 507, *READS_A_BODY),
            **ACCEPTED,
            200: _answers("What the change would do.", "Checked", _CHECKED, has_page=False),
        },
        openapi_extra=_form(
            {
                "class": {"type": "string", "description": "The class to add the files to. It may be new."},
                "files": _FILES,
                "rename": _RENAME,
                "remove": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "Names of base images to remove, as class/file, instead of files to add.",
                },
            }
        ),
    )
    async def check(request: Request) -> Response:
        """Find doubtful new images, and the queries whose label would change. Changes nothing.

        The files that were checked are kept for an hour. To make the change, send `checked` with the `operation` of the
        answer to `POST /base-set/{class}`.
        """
        visitor = console.access.require_change(request)
        body = await read_form(request)
        names = body.values.get("remove", [])
        with refusals():
            if names and body.uploads:
                raise ProblemError(
                    HTTPStatus.BAD_REQUEST, "Name either files to add or images to remove; check one after the other."
                )
            if names:
                operation = console.changes.check_removal(names, person=visitor.name)
            else:
                operation = await console.changes.check_addition(
                    _class_name(body), _uploads(body), rename=_wants_renaming(body), person=visitor.name
                )
        return await answer(request, operation)


def _add_changes(router: APIRouter, console: Console) -> None:
    @router.post(
        "/rollback",
        summary="Go back to the version before",
        responses={
            **problems(409, 500, 503),
            **ACCEPTED,
            200: _answers(
                "The version that answers now.",
                "RolledBack",
                {"repository": "/srv/model_repository", "version": 3, "version_before": 4, "servers": [8080],
                 "notes": [], "operation": "pQ3x0v_1TnkF"},
                has_page=False,
            ),
        },
        openapi_extra={"parameters": [_PREFER]},
    )  # fmt: skip
    async def roll_back(request: Request) -> Response:
        """Have the server answer with the version before. The folder of base images stays as it is."""
        visitor = console.access.require_change(request)
        with refusals():
            operation = console.changes.roll_back(person=visitor.name)
        return await answer(request, operation)

    @router.post(
        "/{class_name}",
        summary="Add images to a class",
        responses={
            **problems(404, 409, 500, 507, *READS_A_BODY),
            **ACCEPTED,
            200: _answers("The images are in the base set.", "Changed", _CHANGED, has_page=False),
        },
        openapi_extra=_form(
            {
                "files": _FILES,
                "rename": _RENAME,
                "checked": {"type": "string", "description": "The operation of a check whose files to take instead."},
            }
        ),
    )
    async def add(request: Request, class_name: str) -> Response:
        """Copy files into the class's folder, and have the server answer with them. The class may be new."""
        visitor = console.access.require_change(request)
        body = await read_form(request)
        with refusals():
            if checked := body.fields.get("checked"):
                check = find(console, checked)
                if any(name.partition("/")[0] != class_name for name in check.names):
                    raise ProblemError(HTTPStatus.CONFLICT, f"The check {checked} was about another class.")
                operation = console.changes.confirm(check, person=visitor.name)
            else:
                operation = await console.changes.add(
                    class_name, _uploads(body), rename=_wants_renaming(body), person=visitor.name
                )
        return await answer(request, operation)

    @router.delete(
        "/{class_name}/{file_name}",
        summary="Remove or forget a base image",
        responses={
            **problems(400, 404, 409, 500, 503),
            **ACCEPTED,
            200: _answers(
                "The image is not in the base set any more.",
                "Changed",
                _CHANGED | {"added": [], "removed": ["face/anna.jpg"]},
                has_page=False,
            ),
        },
        openapi_extra={"parameters": [_PREFER]},
    )
    async def remove(
        request: Request,
        class_name: str,
        file_name: str,
        forget: Annotated[
            bool,
            Query(
                description="Remove the image for good: from every version and cache, so that nothing brings it back."
            ),
        ] = False,
        confirm: Annotated[
            str, Query(description="To forget an image, its name, as class/file. The header `confirm` does as well.")
        ] = "",
    ) -> Response:
        """Move an image out of the folder of base images; or, with `forget`, delete it wherever it is kept."""
        visitor = console.access.require_change(request)
        name = f"{class_name}/{file_name}"
        with refusals():
            if forget:
                _require_confirmation(confirm or request.headers.get("confirm", ""), name)
                operation = console.changes.forget([name], person=visitor.name)
            else:
                operation = console.changes.remove([name], person=visitor.name)
        return await answer(request, operation)


def _answers(description: str, schema: str, example: dict[str, Any], *, has_page: bool = True) -> dict[str, Any]:
    content: dict[str, Any] = {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}}
    return {"description": description, "content": content | ({"text/html": {}} if has_page else {})}


def _form(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "parameters": [_PREFER],
        "requestBody": {
            "required": True,
            "content": {MULTIPART: {"schema": {"type": "object", "properties": properties}}},
        },
    }


def _class_name(body: Body) -> str:
    name = body.fields.get("new_class", "").strip() or body.fields.get("class", "")
    if not name:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "No class was named. Name the class that the images belong to.")
    return name


def _uploads(body: Body) -> list[tuple[str, bytes]]:
    if not body.uploads:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "No file was sent. Choose image files.")
    return [(upload.name, upload.data) for upload in body.uploads]


def _wants_renaming(body: Body) -> bool:
    rename = body.fields.get("rename", "false")
    if rename not in {"true", "false"}:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"The field rename is {rename[:40]!r}. Give true or false.")
    return rename == "true"


def _require_confirmation(given: str, wanted: str) -> None:
    """Refuse to forget images unless a person has typed what was asked for.

    Raises:
        ProblemError: 400.
    """
    if given.strip() != wanted:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            f"Forgetting can't be undone, so it has to be confirmed: give {wanted} as confirm. Nothing has changed.",
        )


def _doubt(name: str, doubt: Doubt) -> dict[str, Any]:
    return {"image": name, **vars(doubt)}
