"""Limits that are too large, or too long, to reach in a test: the same code, with smaller ones."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference_console.problems import ProblemError
from inference_console.security import connections, uploads
from inference_console.security.uploads import Uploads
from inference_server.triton.process import free_ports
from tests.console.wire import HOST, connection

HEAD: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}


async def _no_answer(_message: Message) -> None:
    return


def _body(size: int) -> Receive:
    async def receive_all() -> Message:
        return {"type": "http.request", "body": bytes(size), "more_body": False}

    return receive_all


def test_bodies_together_have_a_limit_and_are_forgotten_with_their_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_ALL_BODIES_BYTES", 100)

    async def run() -> None:
        answered = asyncio.Event()

        async def slow(_scope: Scope, receive_more: Receive, _send: Send) -> None:
            await receive_more()
            await answered.wait()

        limited = Uploads(slow)
        first = asyncio.create_task(limited(HEAD, _body(60), _no_answer))
        await asyncio.sleep(0)
        with pytest.raises(ProblemError, match="Too many uploads") as caught:
            await limited(HEAD, _body(60), _no_answer)
        assert caught.value.status == 503
        answered.set()
        await first
        await limited(HEAD, _body(60), _no_answer)

    asyncio.run(run())


@contextlib.contextmanager
def _served(app: ASGIApp) -> Iterator[int]:
    (port,) = free_ports(1)
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, http=connections.PromptProtocol, log_config=None, lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield port
    finally:
        server.should_exit = True
        thread.join()


def test_client_that_reads_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "READ_TIMEOUT_S", 0.2)
    content = bytes(64 * 2**20)
    ended = threading.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": content, "more_body": True})
        await send({"type": "http.response.body", "body": b""})  # waits for the client to read
        ended.set()

    with _served(app) as port, connection(port) as opened:
        opened.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert ended.wait(30)
