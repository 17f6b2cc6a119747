"""Notices that a client has left while its answer is computed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

CLIENT_LEFT = 499  # as nginx calls it in its log
T = TypeVar("T")


async def unless_client_leaves(request: Request, answer: Coroutine[Any, Any, T]) -> T:
    """Compute an answer, and cancel it when the client closes the connection.

    Args:
        request: A request whose body has been read.
        answer: What computes the answer.

    Raises:
        ClientDisconnect: The client has left. Nobody reads the answer.
    """
    computing = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_has_left(request))
    try:
        await asyncio.wait({computing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if computing.done():
            return computing.result()
        raise ClientDisconnect
    finally:
        for task in (computing, leaving):
            task.cancel()
        await asyncio.gather(computing, leaving, return_exceptions=True)


async def _has_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
