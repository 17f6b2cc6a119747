"""Limits on a request's body, enforced while it is read: its length, its speed, and what all bodies hold together."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference_console.problems import ProblemError, problem_response

MAX_BODY_BYTES = 96 * 2**20  # an image file of 64 MiB in base64, as at the gateway
MAX_ALL_BODIES_BYTES = 512 * 2**20
GRACE_S = 10.0
LEAST_BYTES_PER_S = 16 * 2**10
LONGEST_S = 300.0
_CLOSE = {"Connection": "close"}  # the rest of the body is not read


class Uploads:
    """Refuses bodies that are too long, too slow, or too many at a time.

    A body must be there after ``GRACE_S`` and a second for each ``LEAST_BYTES_PER_S``, and within ``LONGEST_S``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; whoever reads its body gets a ``ProblemError`` where a limit is passed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            await problem_response(_too_long())(scope, receive, send)
            return
        began_s = time.monotonic()
        read_bytes = 0
        is_read = False

        async def receive_within_limits() -> Message:
            nonlocal read_bytes, is_read
            if is_read:
                return await receive()  # waits for the client to leave
            left_s = began_s + min(GRACE_S + read_bytes / LEAST_BYTES_PER_S, LONGEST_S) - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(left_s, 0))
            except TimeoutError:
                raise ProblemError(
                    HTTPStatus.REQUEST_TIMEOUT, "The upload was too slow, and was broken off.", headers=_CLOSE
                ) from None
            if message["type"] == "http.request":
                chunk_bytes = len(message.get("body", b""))
                read_bytes += chunk_bytes
                self._held_bytes += chunk_bytes
                is_read = not message.get("more_body", False)
                if read_bytes > MAX_BODY_BYTES:
                    raise _too_long()
                if self._held_bytes > MAX_ALL_BODIES_BYTES:
                    raise ProblemError(
                        HTTPStatus.SERVICE_UNAVAILABLE,
                        "Too many uploads at a time. Try again in a few seconds.",
                        headers={"Retry-After": "5", **_CLOSE},
                    )
            return message

        try:
            await self._app(scope, receive_within_limits, send)
        finally:
            self._held_bytes -= read_bytes


def _too_long() -> ProblemError:
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The request is longer than {MAX_BODY_BYTES // 2**20} MiB. Send fewer images at a time.",
        headers=_CLOSE,
    )
