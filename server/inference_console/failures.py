"""Answers a request that fails in the console's own code."""

from __future__ import annotations

import logging
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference_console.problems import ProblemError, problem_response

_log = logging.getLogger(__name__)


class Failures:
    """Logs the traceback, and answers with a problem that tells nothing about the code.

    Starlette's own handler would answer outside of all other middleware: without the security headers, and with no line
    in the access log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        has_begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            if has_begun or scope["type"] != "http":
                raise
            _log.exception("a request failed")
            problem = ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "The console failed. Its log says why.")
            await problem_response(problem)(scope, receive, send)
