"""The requests of a call or a stream: when to send each, and the sum of the answers.

Nothing in here waits: a caller that blocks and a caller in an event loop take the same steps.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from http import HTTPStatus
from itertools import chain
from typing import Any, Protocol, TypeAlias

from inference_client.batches import MAX_AHEAD, MAX_IN_FLIGHT, requests_in_flight, split
from inference_client.client import Results
from inference_client.failures import RequestError
from inference_client.images import Image
from inference_client.transport import Answer, Options, Transport

# As many as can be in flight: after so many failures, the server has failed for all of timeout_s.
MAX_FAILURES_IN_A_ROW = MAX_IN_FLIGHT

AnyFuture: TypeAlias = "Future[Any] | asyncio.Task[Any]"


class Submit(Protocol):
    """Starts coroutines."""

    def __call__(self, function: Callable[..., Coroutine[Any, Any, Any]], /, *arguments: Any) -> AnyFuture:
        """Run ``function(*arguments)``, and return its future."""


class Requests:
    """Sends images, and gives back the answers in the images' order.

    Args:
        transport: Sends the requests.
        submit: Starts the transport's coroutines.
        images: The images, taken when their request is sent.
        options: What every request asks for.
        max_ahead: Most requests that are sent before the caller takes the first one's results.

    Attributes:
        in_flight: The futures that had no result when they were last looked at.
    """

    def __init__(
        self,
        transport: Transport,
        submit: Submit,
        images: Iterable[Image],
        *,
        options: Options,
        max_ahead: float = MAX_AHEAD,
    ) -> None:
        self.in_flight: list[AnyFuture] = []
        self._transport = transport
        self._submit = submit
        self._images = iter(images)
        self._options = options
        self._max_ahead = max_ahead
        self._sent: deque[AnyFuture] = deque()  # requests that were not yet given back, in order
        self._answers: dict[AnyFuture, Answer] = {}  # their answers, so far
        self._slowest_answer_s: float | None = None
        self._source_failure: Exception | None = None
        self._ended = False

    @property
    def answered(self) -> bool:
        """Whether the server has answered any request."""
        return self._slowest_answer_s is not None

    def steps(self) -> Iterator[Answer | Collection[AnyFuture]]:
        """Send everything.

        Yields:
            The answer to the next request in order, once it is there; until then futures. One of the futures must be
            done before the next step.

        Raises:
            RequestError: The server's batch limit could not be read.
            Exception: What the images' source raised, after the answers for the images before.
        """
        first = next(self._images, None)
        if first is None:
            return
        unsent = split(chain([first], self._images), (yield from self._max_images()))
        while True:
            self._receive()
            was_sent = self._send_next(unsent)
            if self._sent and self._sent[0] in self._answers:
                yield self._answers.pop(self._sent.popleft())
            elif not was_sent and self.in_flight:
                yield self.in_flight
            elif not was_sent:
                break
        if self._source_failure is not None:
            raise self._source_failure

    def ends(self, failure: RequestError) -> bool:
        """Whether to send nothing more after this failure."""
        return failure.lost or (failure.ends_list and not self.answered)

    def finished(self, images: int) -> None:
        """Hear that this many more images are answered or have failed, in any order."""

    def succeeded(self) -> None:
        """Hear that the server has answered a request."""

    def _max_images(self) -> Generator[Collection[AnyFuture], None, int]:
        reading = self._submit(self._transport.max_batch_size)
        self.in_flight.append(reading)
        while not reading.done():
            yield self.in_flight
        self.in_flight.remove(reading)
        limit: int = reading.result()
        return limit

    def _send_next(self, unsent: Iterator[list[Image]]) -> bool:
        """Send one more request if it is time for it; say whether."""
        width = requests_in_flight(self._slowest_answer_s, self._transport.settings.timeout_s)
        if self._ended or len(self.in_flight) >= width or len(self._sent) >= self._max_ahead:
            return False
        try:
            images = next(unsent, None)
        except Exception as error:
            self._source_failure = error
            return False
        if images is None:
            return False
        future = self._submit(self._transport.classify, images, self._options)
        self._sent.append(future)
        self.in_flight.append(future)
        return True

    def _receive(self) -> None:
        for future in [future for future in self.in_flight if future.done()]:
            self.in_flight.remove(future)
            answer: Answer = future.result()
            if answer.failure is not None:
                answer = replace(answer, ends=self.ends(answer.failure))
                self._ended = self._ended or answer.ends
            elif answer.elapsed_s is not None:
                self._slowest_answer_s = max(self._slowest_answer_s or 0.0, answer.elapsed_s)
                self.succeeded()
            self._answers[future] = answer
            self.finished(len(answer.results))


class Call(Requests):
    """The requests of one list.

    Args:
        transport: Sends the requests.
        submit: Starts the transport's coroutines.
        images: At least one.
        options: What every request asks for.
        progress: Called with the number of images finished since the last call.
    """

    def __init__(
        self,
        transport: Transport,
        submit: Submit,
        images: Sequence[Image],
        *,
        options: Options,
        progress: Callable[[int], object] | None,
    ) -> None:
        super().__init__(transport, submit, images, options=options, max_ahead=math.inf)
        self._count = len(images)
        self._progress = progress

    def outcome(self, answers: Sequence[Answer]) -> tuple[Results, int]:
        """Sum up all answers.

        Returns:
            Results and status code, as :class:`inference_client.Classify` documents them.
        """
        entries = [entry for answer in answers for entry in answer.results]
        unsent = self._count - len(entries)
        ending = next((answer.failure for answer in answers if answer.ends), None)
        if ending is not None and unsent:
            entries += self._options.failed(ending, unsent)
            self.finished(unsent)
        failure = next((answer.failure for answer in answers if answer.failure is not None), None)
        if failure is not None and not self.answered:
            return {"error": failure.message}, failure.status
        without_result = sum("Error" in entry for entry in entries)
        if not without_result:
            return entries, int(HTTPStatus.OK)
        if failure is None and without_result == self._count:
            return entries, int(HTTPStatus.BAD_REQUEST)
        return entries, int(HTTPStatus.MULTI_STATUS)

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
