"""Reading the images of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from inference_console import json_bodies
from inference_console.problems import ProblemError
from inference_console.security.uploads import MAX_BODY_BYTES, body_too_long

MAX_IMAGES = 256
JSON, MULTIPART = "application/json", "multipart/form-data"
_MAX_FIELDS = 512  # such as the images that are chosen on a page
_MAX_FIELD_BYTES = 2**16
_PARSED_AT_ONCE_BYTES = 2**18  # longer JSON is parsed in a thread
_JSON_EXAMPLE = '{"images": ["<base64 of a file>", ...]}, or the list alone'


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One image of a request.

    Attributes:
        name: The file's name as the sender gave it; "" where there is none. Never a path to use.
        data: The file's bytes, or its base64 as text, which the server reads as well.
    """

    name: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Body:
    """The images of a request, and the other fields of its form.

    Attributes:
        uploads: The images.
        fields: Name of each other field to its last value.
        values: Name of each other field to all its values.
    """

    uploads: list[Upload]
    fields: dict[str, str] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)


class _InMemoryParser(MultiPartParser):
    """Keeps files in memory, however long: an image that is only classified is written nowhere."""

    spool_max_size = MAX_BODY_BYTES + 1
    is_complete = False

    def on_end(self) -> None:
        """Note that the last boundary was there: a form that was cut off would lack its last file."""
        self.is_complete = True


def media_type(request: Request) -> str:
    """Return the media type of a request's body, without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_images(request: Request) -> Body:
    """Read the images of a form or of JSON.

    Raises:
        ProblemError: The body is neither, is broken, or holds too many images.
    """
    kind = media_type(request)
    if kind == MULTIPART:
        body = await read_form(request)
        if "files" in body.fields:
            raise ProblemError(
                HTTPStatus.BAD_REQUEST,
                "The field files is a text. Send a file, with an @: curl -F files=@a.jpg.",
            )
        return body
    if kind == JSON:
        value = await read_json(request)
        images = value.get("images") if isinstance(value, dict) else value
        return Body(uploads=text_uploads(images))
    raise ProblemError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"The body is {kind or 'of no named type'}. Send the files as {MULTIPART}, or {JSON}: {_JSON_EXAMPLE}.",
    )


async def read_form(request: Request, *, max_bytes: int = MAX_BODY_BYTES) -> Body:
    """Read the files and fields of a form.

    Args:
        request: The request.
        max_bytes: Longest body.

    Raises:
        ProblemError: The body is no such form, is broken or too long, or holds too many files.
    """
    if media_type(request) != MULTIPART:
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send the files as {MULTIPART}.")
    parser = _InMemoryParser(
        Headers({"content-type": _type_of_form(request)}),
        _stream(request, max_bytes),
        max_files=MAX_IMAGES,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        said = error.message if isinstance(error, MultiPartException) else "it is broken"
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"The form can't be read: {said}") from error
    try:
        if not parser.is_complete:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "The form can't be read: it ends before its last boundary.")
        return await _take(form)
    finally:
        await form.close()


async def read_json(request: Request, *, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """Read a body of JSON.

    Args:
        request: The request.
        max_bytes: Longest body.

    Raises:
        ProblemError: The body is of another type, broken, or too long.
    """
    if media_type(request) != JSON:
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"The body is {media_type(request) or 'of no named type'}. Send {JSON}.",
        )
    body = bytearray()
    async for chunk in _stream(request, max_bytes):
        body += chunk
    try:
        if len(body) <= _PARSED_AT_ONCE_BYTES:
            return json_bodies.parse(body)
        return await asyncio.to_thread(json_bodies.parse, body)
    except json_bodies.JsonError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, str(error)) from error


def text_uploads(images: Any) -> list[Upload]:
    """Take a JSON list of images in base64.

    Raises:
        ProblemError: It is another value, or holds too many images.
    """
    return list(_uploads(images))


def _uploads(images: Any) -> Iterator[Upload]:
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"The images must be a list of base64 texts: {_JSON_EXAMPLE}.")
    _require_few(len(images))
    for image in images:
        yield Upload(name="", data=image.encode("utf-8", "replace"))


async def _stream(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the body's chunks. Unlike ``Request.body``, it keeps no copy until the answer is complete."""
    read_bytes = 0
    async for chunk in request.stream():
        read_bytes += len(chunk)
        if read_bytes > max_bytes:
            raise body_too_long(max_bytes)
        yield chunk


def _type_of_form(request: Request) -> str:
    """Return the type with its boundary only: other character sets than UTF-8 can be slow on purpose."""
    _, options = parse_options_header(request.headers["content-type"])
    if options.get(b"charset", b"utf-8").lower() not in {b"utf-8", b"utf8"}:
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The form's charset must be utf-8.")
    boundary = options.get(b"boundary", b"").decode("latin-1")
    if not boundary or '"' in boundary or "\\" in boundary:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "The form can't be read: its Content-Type names no boundary.")
    return f'{MULTIPART}; boundary="{boundary}"'


async def _take(form: FormData) -> Body:
    uploads: list[Upload] = []
    values: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            values.setdefault(name, []).append(value)
        elif value.filename or value.size:  # a form without a chosen file sends one without a name
            uploads.append(Upload(name=value.filename or "", data=await value.read()))
            await value.close()  # it holds a copy
    _require_few(len(uploads))
    return Body(uploads=uploads, fields={name: given[-1] for name, given in values.items()}, values=values)


def _require_few(images: int) -> None:
    if images > MAX_IMAGES:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST, f"{images} images are too many for one request: at most {MAX_IMAGES}."
        )
