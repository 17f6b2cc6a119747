"""Threads that send requests over kept connections, as many at once as there are threads."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from queue import SimpleQueue
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from bench.binary_requests import INFER_PATH
from bench.errors import BenchError
from bench.load import TIMEOUT_S


class Request(NamedTuple):
    """One request.

    Attributes:
        encode: Returns the body and the headers; called in the thread that sends them.
        answered: Called in that thread when the answer is there, or will never be.
    """

    encode: Callable[[], tuple[bytes, Mapping[str, str]]]
    answered: Callable[[], object]


class Senders:
    """Sends requests to ``ensemble`` in the order in which they come, until the context ends.

    Args:
        url: The server's ``http://host:port``.
        threads: Most requests in flight. Later ones wait here.

    Raises:
        BenchError: When the context ends: a request failed in another way than that the server was overloaded.
    """

    def __init__(self, url: str, threads: int) -> None:
        self._url = url
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._failures: list[Exception] = []
        self._refusals: list[bytes] = []
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(threads)]

    @property
    def refused(self) -> int:
        """Number of requests that an overloaded server refused with 503."""
        return len(self._refusals)

    def send(self, request: Request) -> None:
        """Send a request as soon as a thread is free."""
        self._requests.put(request)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads:
            thread.join()
        if self._failures and error is None:
            raise BenchError(f"{len(self._failures)} requests to {self._url} failed.") from self._failures[0]

    def _send(self) -> None:
        parts = urlsplit(self._url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            while (request := self._requests.get()) is not None:
                try:
                    body, headers = request.encode()
                    connection.request("POST", INFER_PATH, body, dict(headers))
                    answer = connection.getresponse()
                    text = answer.read()
                    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
                        self._refusals.append(text)
                    elif answer.status != HTTPStatus.OK:
                        raise BenchError(f"{self._url} answered {answer.status}: {text[:200]!r}")
                except Exception as error:
                    self._failures.append(error)
                    connection.close()  # opens again by itself
                finally:
                    request.answered()
