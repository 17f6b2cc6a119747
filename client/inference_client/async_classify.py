"""The class for callers in an asyncio event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from inference_client.client import Client, Results
from inference_client.errors import StreamError
from inference_client.images import Image, ImageInput, collect_lazily, collect_to_send

if TYPE_CHECKING:
    from inference_client.calls import Requests
    from inference_client.transport import Answer, Options


class AsyncClassify(Client):
    """An inference server that classifies images, for asyncio.

    Options, results, status codes and retries are those of :class:`inference_client.Classify`. Any number of tasks of
    one event loop may use one ``AsyncClassify`` at the same time. It is an async context manager.

    Args:
        url: ``http://host:port``, ``host:port`` or ``https://host:port``; a base path may follow. No connection is
            opened yet.
        timeout_s: Deadline of each request with its retries, seconds, finite and > 0. A long list is several requests.
        connect_timeout_s: Deadline of opening a connection, seconds, finite and > 0.
        sim_thres: Lowest cosine similarity at which a base image is a match, -1 to 1; None leaves it to the server.
        details: Whether each entry also has the evidence for its label.
        client_id: Name of this client in the server's metrics; sent as ``X-Client-Id``, printable ASCII.
        api_key: Sent as ``X-API-Key``, printable ASCII.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is wrong; the message says what to give instead.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 60,
        connect_timeout_s: float = 5,
        sim_thres: float | None = None,
        details: bool = False,
        client_id: str | None = None,
        api_key: str | None = None,
    ) -> None:
        from inference_client.transport import Transport  # here, so that importing this module is quick

        super().__init__(
            url,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            sim_thres=sim_thres,
            details=details,
            client_id=client_id,
            api_key=api_key,
        )
        self._transport = Transport(self._settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def __call__(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        sim_thres: float | None = None,
        details: bool | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> tuple[Results, int]:
        """Classify images. Cancelling the task breaks off the requests in flight.

        Args:
            images: As :meth:`inference_client.Classify.__call__` takes them.
            sim_thres: As in the constructor, for this call.
            details: As in the constructor, for this call.
            progress: Called in the event loop with the number of images finished since the last call.

        Returns:
            ``(results, status_code)``, as :meth:`inference_client.Classify.__call__` gives them.

        Raises:
            OSError: A path can't be read, for example FileNotFoundError; raised before anything is sent.
            TypeError: Not an image; the message shows what to pass.
            ValueError: An array of another shape, or a file that is not a regular one.
            RuntimeError: This AsyncClassify is closed, was closed during the call, or belongs to another event loop.
        """
        from inference_client.calls import Call
        from inference_client.failures import RequestError

        options = self._options(sim_thres=sim_thres, details=details)
        self._require_open()
        if _is_in_memory(images):
            collected = collect_to_send(images)
        else:  # this opens files, which may take long on a network file system
            images = list(images) if isinstance(images, Iterator) else images
            collected = await asyncio.to_thread(collect_to_send, images)
        self._require_open()
        if not collected:
            return [], 200
        call = Call(self._transport, self._submit, collected, options=options, progress=progress)
        try:
            async with aclosing(self._drive(call)) as answers:
                return call.outcome([answer async for answer in answers])
        except RequestError as failure:
            return {"error": failure.message}, failure.status

    def stream(
        self, images: Iterable[ImageInput], *, sim_thres: float | None = None, details: bool | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Classify any number of images, in bounded memory.

        The stream takes images as you take results, in the event loop, at most 16 requests ahead: an iterable that
        blocks holds up the event loop. ``aclose()``, or cancelling the task, breaks off the requests in flight.

        Args:
            images: As :meth:`inference_client.Classify.stream` takes them.
            sim_thres: As in the constructor, for this stream.
            details: As in the constructor, for this stream.

        Yields:
            Each image's entry, in order, as :meth:`inference_client.Classify.stream` gives it.

        Raises:
            TypeError: As :meth:`inference_client.Classify.stream` raises it.
            StreamError: The server is gone, refuses the first request, or has failed 8 requests in a row.
            RuntimeError: This AsyncClassify is closed, was closed meanwhile, or belongs to another event loop.
        """
        options = self._options(sim_thres=sim_thres, details=details)
        collected = collect_lazily(images)
        if self._closed:
            raise self._closed_error()
        return self._stream(collected, options)

    async def _stream(self, images: Iterator[Image], options: "Options") -> AsyncGenerator[dict[str, Any], None]:
        from inference_client.calls import Stream
        from inference_client.failures import RequestError

        self._require_open()
        stream = Stream(self._transport, self._submit, images, options=options)
        try:
            async with aclosing(self._drive(stream)) as answers:
                async for answer in answers:
                    for entry in answer.results_or_raise():
                        yield entry
        except RequestError as failure:
            raise StreamError(failure.message, failure.status) from None

    async def close(self) -> None:
        """End all connections.

        Calls and streams in flight raise RuntimeError, and lose the results that they had not given yet. Every later
        call raises RuntimeError too.
        """
        self._closed = True
        await _cancel(self._tasks)
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _drive(self, requests: "Requests") -> "AsyncGenerator[Answer, None]":
        """Send requests, and give the answers in order."""
        from inference_client.transport import Answer

        try:
            for step in requests.steps():
                if isinstance(step, Answer):
                    yield step
                else:
                    await asyncio.wait(step, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
                self._require_open()
        finally:
            await _cancel(requests.in_flight)  # type: ignore[arg-type]

    def _submit(self, function: Callable[..., Coroutine[Any, Any, Any]], /, *arguments: Any) -> "asyncio.Task[Any]":
        task = asyncio.create_task(function(*arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _require_open(self) -> None:
        if self._closed:
            raise self._closed_error()
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("this AsyncClassify belongs to another event loop: make one for each event loop")


def _is_in_memory(images: ImageInput | Iterable[ImageInput]) -> bool:
    return isinstance(images, bytes) or (isinstance(images, list) and all(isinstance(each, bytes) for each in images))


async def _cancel(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    cancelled = list(tasks)  # a task that ends leaves the set that it is in
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
