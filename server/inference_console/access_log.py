"""One line of JSON on standard output for each request: who, what, and how it ended; no image's name and no token."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_QUIET = ("/static/", "/health")  # unless they are refused or fail
_LONGEST_METHOD = 16  # any word may stand there


class AccessLog:
    """Writes the line when the answer is complete. A path that names an image appears as its pattern."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.monotonic()
        status = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            path = getattr(scope.get("route"), "path", "")
            if status >= HTTPStatus.BAD_REQUEST or not scope["path"].startswith(_QUIET):
                client = scope.get("client")
                values = {
                    "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "user": scope.get("state", {}).get("user", ""),
                    "address": client[0] if client else "",
                    "request": f"{scope['method'][:_LONGEST_METHOD]} {path or '(no such path)'}",
                    "status": status,
                    "seconds": round(time.monotonic() - began_s, 4),
                }
                sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")
                sys.stdout.flush()
