"""The requests of a call or a stream: when each is sent, and what the answers add up to.

Nothing in here waits: a caller that blocks and a caller in an event loop drive the same steps.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from http import HTTPStatus
from itertools import chain
from typing import Any, Protocol, TypeAlias

from inference_client.answers import ImageTensors
from inference_client.batches import MAX_AHEAD, MAX_IN_FLIGHT, requests_in_flight, split
from inference_client.client import Results
from inference_client.errors import StreamError
from inference_client.failures import RequestError
from inference_client.images import Image
from inference_client.transport import Answer, Options, Transport

# A stream ends after as many failures as requests can be in flight: the server has then failed for all of timeout_s.
MAX_FAILURES_IN_A_ROW = MAX_IN_FLIGHT

AnyFuture: TypeAlias = "Future[Any] | asyncio.Task[Any]"


class Submit(Protocol):
    """Starts coroutines."""

    def __call__(self, function: Callable[..., Coroutine[Any, Any, Any]], /, *arguments: Any) -> AnyFuture:
        """Run ``function(*arguments)``, and return its future."""


class Request:
    """Images that are sent together, and their answer.

    Attributes:
        images: Number of images.
        answer: The answer; None until it is there.
        ends: Whether nothing is sent any more because this request failed.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.answer: Answer | None = None
        self.ends = False

    @property
    def failure(self) -> RequestError | None:
        """Why the request got no results."""
        return self.answer.failure if self.answer else None

    def results(self, options: Options) -> Sequence[Any]:
        """Give each image's result, of a failed request its error."""
        if self.answer is None or self.answer.failure is None:
            return self.answer.results if self.answer else ()
        return failed_results(self.images, self.answer.failure, options)


def failed_results(images: int, failure: RequestError, options: Options) -> list[Any]:
    """Make the results of images that nobody answered."""
    return [options.read(ImageTensors(error=failure.message)) for _ in range(images)]


class Requests:
    """Sends images, and gives back each request in order, once it is answered.

    Args:
        transport: Sends the requests.
        submit: Starts the transport's coroutines.
        images: The images. Those of one request are taken at a time.
        options: What every request asks for.
        timeout_s: Deadline of one request, seconds.
        max_ahead: Most requests that are sent before the caller takes the first one's results.
    """

    def __init__(
        self,
        transport: Transport,
        submit: Submit,
        images: Iterable[Image],
        *,
        options: Options,
        timeout_s: float,
        max_ahead: float = MAX_AHEAD,
    ) -> None:
        self.options = options
        self._transport = transport
        self._submit = submit
        self._images = iter(images)
        self._timeout_s = timeout_s
        self._max_ahead = max_ahead
        self._ahead: deque[Request] = deque()  # sent and not yet given back, in order
        self._in_flight: dict[AnyFuture, Request | None] = {}
        self._slowest_answer_s: float | None = None
        self._source_failure: Exception | None = None
        self._ended = False

    @property
    def answered(self) -> bool:
        """Whether the server has answered any request."""
        return self._slowest_answer_s is not None

    @property
    def in_flight(self) -> Collection[AnyFuture]:
        """The futures that have no result yet, as far as is known."""
        return list(self._in_flight)

    def steps(self) -> Iterator[Request | Collection[AnyFuture]]:
        """Send everything.

        Yields:
            The next request in order if it is answered; otherwise futures, one of which must be done before the next
            step.

        Raises:
            RequestError: The server's batch limit could not be read.
            Exception: What the images' source raised, after the requests for the images before.
        """
        first = next(self._images, None)
        if first is None:
            return
        unsent = split(chain([first], self._images), (yield from self._max_images()))
        while True:
            self._receive()
            sent = self._send_next(unsent)
            if self._ahead and self._ahead[0].answer is not None:
                yield self._ahead.popleft()
            elif not sent and self._in_flight:
                yield self.in_flight
            elif not sent:
                break
        if self._source_failure is not None:
            raise self._source_failure

    def ends(self, failure: RequestError) -> bool:
        """Whether to send nothing more after this failure."""
        return failure.lost or (failure.ends_list and not self.answered)

    def _max_images(self) -> Generator[Collection[AnyFuture], None, int]:
        reading = self._submit(self._transport.max_batch_size)
        self._in_flight[reading] = None
        while not reading.done():
            yield self.in_flight
        del self._in_flight[reading]
        limit: int = reading.result()
        return limit

    def _send_next(self, unsent: Iterator[list[Image]]) -> bool:
        """Send one more request if it is time for it; say whether."""
        width = requests_in_flight(self._slowest_answer_s, self._timeout_s)
        if self._ended or len(self._in_flight) >= width or len(self._ahead) >= self._max_ahead:
            return False
        try:
            images = next(unsent, None)
        except Exception as error:
            self._source_failure = error
            return False
        if images is None:
            return False
        request = Request(len(images))
        self._ahead.append(request)
        self._in_flight[self._submit(self._transport.classify, images, self.options)] = request
        return True

    def _receive(self) -> None:
        for future in [future for future in self._in_flight if future.done()]:
            request = self._in_flight.pop(future)
            assert request is not None  # noqa: S101 - the limit was read before
            answer: Answer = future.result()
            if answer.failure is not None:
                request.ends = self.ends(answer.failure)
                self._ended = self._ended or request.ends
            elif answer.elapsed_s is not None:
                self._slowest_answer_s = max(self._slowest_answer_s or 0.0, answer.elapsed_s)
                self.succeeded()
            request.answer = answer
            self.finished(request.images)

    def finished(self, images: int) -> None:
        """Hear that a request for this many images is answered or has failed, in whichever order."""

    def succeeded(self) -> None:
        """Hear that the server has answered a request."""


class Call(Requests):
    """The requests of one list, and the caller's results and status code.

    Args:
        transport: Sends the requests.
        submit: Starts the transport's coroutines.
        images: At least one.
        options: What every request asks for.
        timeout_s: Deadline of one request, seconds.
        progress: Told how many more images are finished.
    """

    def __init__(
        self,
        transport: Transport,
        submit: Submit,
        images: Sequence[Image],
        *,
        options: Options,
        timeout_s: float,
        progress: Callable[[int], object] | None,
    ) -> None:
        super().__init__(transport, submit, images, options=options, timeout_s=timeout_s, max_ahead=math.inf)
        self._count = len(images)
        self._progress = progress
        self._entries: list[dict[str, Any]] = []
        self._first_failure: RequestError | None = None
        self._last_failure: RequestError | None = None  # after which nothing was sent

    def add(self, request: Request) -> None:
        """Add the next request in order."""
        self._first_failure = self._first_failure or request.failure
        if request.ends:
            self._last_failure = self._last_failure or request.failure
        self._entries.extend(request.results(self.options))

    def outcome(self) -> tuple[Results, int]:
        """Sum up.

        Returns:
            Results and status code, as :class:`inference_client.Classify` documents them.
        """
        unsent = self._count - len(self._entries)
        if self._last_failure is not None and unsent:
            self._entries.extend(failed_results(unsent, self._last_failure, self.options))
            self.finished(unsent)
        failure = self._first_failure
        if failure is not None and not self.answered:
            return {"error": failure.message}, failure.status
        without_result = sum("Error" in entry for entry in self._entries)
        if not without_result:
            return self._entries, int(HTTPStatus.OK)
        if failure is None and without_result == self._count:
            return self._entries, int(HTTPStatus.BAD_REQUEST)
        return self._entries, int(HTTPStatus.MULTI_STATUS)

    def finished(self, images: int) -> None:
        """Tell the caller's progress."""
        if self._progress is not None:
            self._progress(images)

    def _max_images(self) -> Generator[Collection[AnyFuture], None, int]:
        if self._count == 1:
            return 1
        return (yield from super()._max_images())


class Stream(Requests):
    """The requests of a stream."""

    _failures_in_a_row = 0

    def ends(self, failure: RequestError) -> bool:
        """Whether the server is lost."""
        if failure.about_one_request:
            return False
        self._failures_in_a_row += 1
        return super().ends(failure) or self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW

    def succeeded(self) -> None:
        """Count failures anew."""
        self._failures_in_a_row = 0

    def entries(self, request: Request) -> Sequence[dict[str, Any]]:
        """Give the entries of the next request in order.

        Raises:
            StreamError: The server is lost.
        """
        if request.ends and request.failure is not None:
            raise StreamError(request.failure.message, request.failure.status)
        return request.results(self.options)
