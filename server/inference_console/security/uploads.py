"""Limits on a request's body, enforced while it is read: its length, its speed, and what all bodies hold together."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference_console.problems import ProblemError, problem_response

MAX_BODY_BYTES = 96 * 2**20  # an image file of 64 MiB in base64, as at the gateway
MAX_ALL_BODIES_BYTES = 512 * 2**20
GRACE_S = 10.0
LEAST_BYTES_PER_S = 16 * 2**10
LONGEST_S = 300.0
_LONGEST_LENGTH = 18  # digits


class Uploads:
    """Refuses bodies that are too long, too slow, compressed, or too many at a time.

    A body must be there after ``GRACE_S`` and a second for each ``LEAST_BYTES_PER_S``, and within ``LONGEST_S``. What
    is left of a refused body is thrown away as it comes, for as long as a request's headers may take: clients that send
    everything before they read get to see the refusal.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; whoever reads its body gets a ``ProblemError`` where a limit is passed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if problem := _refusal(Headers(scope=scope)):
            await problem_response(problem)(scope, receive, send)
            return
        began_s = asyncio.get_running_loop().time()
        read_bytes = 0
        is_read = False

        async def receive_within_limits() -> Message:
            nonlocal read_bytes, is_read
            if is_read:
                return await receive()  # waits for the client to leave
            try:
                async with asyncio.timeout_at(began_s + min(GRACE_S + read_bytes / LEAST_BYTES_PER_S, LONGEST_S)):
                    message = await receive()
            except TimeoutError:
                raise ProblemError(
                    HTTPStatus.REQUEST_TIMEOUT,
                    "The upload was too slow, and was broken off.",
                    headers={"Connection": "close"},
                ) from None
            if message["type"] == "http.request":
                chunk_bytes = len(message.get("body", b""))
                read_bytes += chunk_bytes
                self._held_bytes += chunk_bytes
                is_read = not message.get("more_body", False)
                if read_bytes > MAX_BODY_BYTES:
                    raise body_too_long(MAX_BODY_BYTES)
                if self._held_bytes > MAX_ALL_BODIES_BYTES:
                    raise ProblemError(
                        HTTPStatus.SERVICE_UNAVAILABLE,
                        "Too many uploads at a time. Try again in a few seconds.",
                        headers={"Retry-After": "5"},
                    )
            return message

        try:
            await self._app(scope, receive_within_limits, send)
        finally:
            self._held_bytes -= read_bytes


def body_too_long(max_bytes: int) -> ProblemError:
    """Make the answer to a body that is longer than the limit."""
    limit = f"{max_bytes // 2**20} MiB" if max_bytes >= 2**20 else f"{max_bytes // 2**10} KiB"
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The request is longer than {limit}. Send less at a time.",
    )


def _refusal(headers: Headers) -> ProblemError | None:
    length = headers.get("content-length", "")
    if length.isdecimal() and (len(length) > _LONGEST_LENGTH or int(length) > MAX_BODY_BYTES):
        return body_too_long(MAX_BODY_BYTES)
    coding = headers.get("content-encoding", "identity")
    if coding.strip().lower() != "identity":
        return ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"The body is compressed ({coding[:40]}). Send it as it is: images are compressed already.",
            headers={"Accept-Encoding": "identity"},
        )
    return None
