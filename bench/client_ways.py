"""The ways to send a request for image files: our clients, those below them, and the bare socket."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tritonclient.http
import tritonclient.http.aio

from bench.binary_requests import INFER_PATH, OUTPUTS, binary_request, image_tensors
from bench.errors import BenchError
from inference_client import AsyncClassify, Classify

CLASSIFY, ASYNC_CLASSIFY = "Classify", "AsyncClassify"
TRITONCLIENT, ASYNC_TRITONCLIENT = "tritonclient.http", "tritonclient.http.aio"
BARE = "http.client, body made before"
_OK = 200

# Sends so many requests, one after the other, and returns the time of each in seconds.
Send = Callable[[int], list[float]]


def open_ways(url: str, paths: Sequence[Path], stack: ExitStack) -> Mapping[str, Send]:
    """Open a client of every kind.

    Args:
        url: The server's ``http://host:port``.
        paths: The files of each request, at most as many as the server takes at once. All but ``BARE`` read them anew
            for each request.
        stack: Closes the clients when it closes.

    Returns:
        How to send requests in each way, by the way's name. Sending raises BenchError if an image gets no result.
    """
    runner = stack.enter_context(asyncio.Runner())

    def blocking(request: Callable[[], object]) -> Send:
        return partial(_repeat, request)

    def in_event_loop(request: Callable[[], Awaitable[object]]) -> Send:
        return lambda requests: runner.run(_repeat_async(request, requests))

    return {
        CLASSIFY: blocking(_classify(url, paths, stack)),
        TRITONCLIENT: blocking(_tritonclient(url, paths, stack)),
        ASYNC_CLASSIFY: in_event_loop(_async_classify(url, paths, stack, runner)),
        ASYNC_TRITONCLIENT: in_event_loop(_async_tritonclient(url, paths, stack, runner)),
        BARE: blocking(_bare(url, paths, stack)),
    }


def _classify(url: str, paths: Sequence[Path], stack: ExitStack) -> Callable[[], object]:
    classify = stack.enter_context(Classify(url))
    return lambda: _check(classify(paths)[1])


def _async_classify(
    url: str, paths: Sequence[Path], stack: ExitStack, runner: asyncio.Runner
) -> Callable[[], Awaitable[object]]:
    classify = AsyncClassify(url)
    stack.callback(lambda: runner.run(classify.close()))

    async def request() -> None:
        _check((await classify(paths))[1])

    return request


def _tritonclient(url: str, paths: Sequence[Path], stack: ExitStack) -> Callable[[], object]:
    client = tritonclient.http.InferenceServerClient(url.removeprefix("http://"))
    stack.enter_context(contextlib.closing(client))

    def request() -> None:
        inputs, outputs = image_tensors([path.read_bytes() for path in paths])
        _read(client.infer("ensemble", inputs, outputs=outputs))

    return request


def _async_tritonclient(
    url: str, paths: Sequence[Path], stack: ExitStack, runner: asyncio.Runner
) -> Callable[[], Awaitable[object]]:
    async def open_client() -> Any:
        return tritonclient.http.aio.InferenceServerClient(url.removeprefix("http://"))

    client = runner.run(open_client())  # aiohttp wants a running event loop
    stack.callback(lambda: runner.run(client.close()))

    async def request() -> None:
        inputs, outputs = image_tensors([path.read_bytes() for path in paths])
        _read(await client.infer("ensemble", inputs, outputs=outputs))

    return request


def _bare(url: str, paths: Sequence[Path], stack: ExitStack) -> Callable[[], object]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
    stack.enter_context(contextlib.closing(connection))
    body, headers = binary_request([path.read_bytes() for path in paths])

    def request() -> None:
        connection.request("POST", INFER_PATH, body, dict(headers))
        answer = connection.getresponse()
        answer.read()
        _check(answer.status)

    return request


def _check(status: int) -> None:
    if status != _OK:
        raise BenchError(f"a request of the client's benchmark was answered with {status}.")


def _read(result: Any) -> None:
    missing = [name for name in OUTPUTS if result.as_numpy(name) is None]
    if missing:
        raise BenchError(f"an answer in the client's benchmark lacks {missing}.")


def _repeat(request: Callable[[], object], requests: int) -> list[float]:
    times_s = []
    for _ in range(requests):
        began_s = time.perf_counter()
        request()
        times_s.append(time.perf_counter() - began_s)
    return times_s


async def _repeat_async(request: Callable[[], Awaitable[object]], requests: int) -> list[float]:
    times_s = []
    for _ in range(requests):
        began_s = time.perf_counter()
        await request()
        times_s.append(time.perf_counter() - began_s)
    return times_s
