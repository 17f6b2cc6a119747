"""A call's images on their way: requests in flight, answers in order; the status of a list, the end of a stream."""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from inference_client.answers import failed_entry
from inference_client.batches import MAX_AHEAD, MAX_IN_FLIGHT, requests_in_flight, split
from inference_client.errors import StreamError
from inference_client.failures import RequestError, describe
from inference_client.images import Image, UnreadableImageError
from inference_client.settings import Settings
from inference_client.workers import LONGEST_WAIT_S, WorkerPool

if TYPE_CHECKING:
    from inference_client.transport import Connection

# After which a stream ends: as many as can be in flight together, so that the server has failed for all of timeout_s.
MAX_FAILURES_IN_A_ROW = MAX_IN_FLIGHT
# How long after its deadline a request is given up whose worker has not noticed, since it is busy with a huge answer.
LATE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every request of a call says.

    Attributes:
        sim_thres: Threshold, as text; None leaves it to the server.
        details: Whether the entries have the evidence.
        settings: Of the server.
    """

    sim_thres: str | None
    details: bool
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class _Answer:
    entries: Sequence[dict[str, Any]]
    elapsed_s: float | None  # None: nothing of it could be read, so nothing was sent


class _Request:
    """Images that go together, and what became of them."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.sent_s: float | None = None  # on the monotonic clock; None: not sent yet
        self.entries: Sequence[dict[str, Any]] | None = None  # None: not answered yet
        self.ends_stream: StreamError | None = None


class _Requests:
    """Sends images, and gives what became of each, in order.

    The images are taken in the caller's thread, those of one request at a time, and never those of more than
    ``max_ahead`` requests before their results are taken.
    """

    def __init__(
        self, pool: "WorkerPool[Connection]", images: Iterable[Image], *, max_images: int, options: Options
    ) -> None:
        self._pool = pool
        self._options = options
        self._unsent = split(images, max_images)
        self._ahead: deque[_Request] = deque()  # in order: sent, and not yet given
        self._in_flight: dict[Future[_Answer], _Request] = {}
        self._source_failure: Exception | None = None
        self._slowest_answer_s: float | None = None
        self._max_ahead: float = math.inf
        self._process = os.getpid()

    def _answered(self) -> Iterator[_Request]:
        """Give each request once it and all before it are answered, and have others in flight meanwhile."""
        try:
            while True:
                self._require_own_process()
                sent = self._send_next()
                if self._ahead and self._ahead[0].entries is not None:
                    yield self._ahead.popleft()
                elif self._in_flight and not sent:
                    self._receive(wait(self._in_flight, LONGEST_WAIT_S, FIRST_COMPLETED).done)
                    self._give_up_late_ones()
                elif not sent:
                    break
            if self._source_failure is not None:
                raise self._source_failure
        finally:
            # Nobody waits any more when the caller, or its progress, raised. A forked child can't cancel anything: the
            # locks of what its parent has in flight may be held for ever.
            if os.getpid() == self._process:
                for future in self._in_flight:
                    self._pool.cancel(future)

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                "the process was forked while these images were being classified, and their answers go to its parent: "
                "classify them anew in the child"
            )

    def _send_next(self) -> bool:
        """Send one more request if it is time for it; say whether."""
        self._receive([future for future in self._in_flight if future.done()])
        width = requests_in_flight(self._slowest_answer_s, self._options.settings.timeout_s)
        if len(self._in_flight) >= width or len(self._ahead) >= self._max_ahead:
            return False
        images = self._take()
        if images is None:
            return False
        request = _Request(len(images))
        self._ahead.append(request)
        self._send(request, images)
        return True

    def _take(self) -> list[Image] | None:
        try:
            return next(self._unsent, None)
        except Exception as error:
            # The caller's own, raised once the results of the images before it are given.
            self._source_failure = error
            return None

    def _send(self, request: _Request, images: list[Image]) -> None:
        classify = partial(_classify, images=images, options=self._options, request=request)
        self._in_flight[self._pool.submit(classify)] = request

    def _give_up_late_ones(self) -> None:
        settings = self._options.settings
        late_s = time.monotonic() - settings.timeout_s - LATE_S
        for future, request in list(self._in_flight.items()):
            if request.sent_s is not None and request.sent_s < late_s and not future.done():
                del self._in_flight[future]
                self._pool.cancel(future)
                self._fail_all_images(request, describe(TimeoutError(), settings))

    def _receive(self, done: Iterable["Future[_Answer]"]) -> None:
        for future in done:
            request = self._in_flight.pop(future)
            try:
                answer = future.result()
            except RequestError as failure:
                self._fail_all_images(request, failure)
            else:
                if answer.elapsed_s is not None:
                    self._slowest_answer_s = max(self._slowest_answer_s or 0.0, answer.elapsed_s)
                    self._succeed()
                self._enter(request, answer.entries)

    def _fail_all_images(self, request: _Request, failure: RequestError) -> None:
        self._fail(request, failure)
        self._enter(request, [failed_entry(failure.message) for _ in range(request.images)])

    def _enter(self, request: _Request, entries: Sequence[dict[str, Any]]) -> None:
        request.entries = entries

    def _fail(self, request: _Request, failure: RequestError) -> None:
        raise NotImplementedError

    def _succeed(self) -> None:
        pass


class Call(_Requests):
    """Sends the images of one call, and collects what became of each.

    Args:
        pool: Whose workers send the requests.
        images: At least one.
        max_images: Most images in one request.
        options: Of every request.
        progress: Told how many more images are finished, in the calling thread.
    """

    def __init__(
        self,
        pool: "WorkerPool[Connection]",
        images: Iterable[Image],
        *,
        max_images: int,
        options: Options,
        progress: Callable[[int], object] | None,
    ) -> None:
        super().__init__(pool, images, max_images=max_images, options=options)
        self._progress = progress
        self._first_failure: tuple[dict[str, str], int] | None = None
        self._ended: str | None = None  # why nothing is sent any more

    def run(self) -> "tuple[list[dict[str, Any]] | dict[str, str], int]":
        """Send everything.

        Returns:
            Results and status code, as :class:`inference_client.Classify` documents them.
        """
        entries = [entry for request in self._answered() for entry in request.entries or ()]
        if self._first_failure is not None and self._slowest_answer_s is None:
            return self._first_failure
        without_result = sum("Error" in entry for entry in entries)
        if not without_result:
            return entries, int(HTTPStatus.OK)
        if self._first_failure is None and without_result == len(entries):
            return entries, int(HTTPStatus.BAD_REQUEST)
        return entries, int(HTTPStatus.MULTI_STATUS)

    def _send(self, request: _Request, images: list[Image]) -> None:
        if self._ended is None:
            super()._send(request, images)
        else:
            self._enter(request, [failed_entry(self._ended) for _ in images])

    def _fail(self, request: _Request, failure: RequestError) -> None:
        # Not the exception itself: its traceback would keep the request's files.
        self._first_failure = self._first_failure or ({"error": failure.message}, failure.status)
        if failure.lost or (self._slowest_answer_s is None and failure.ends_list):
            self._ended = failure.message

    def _enter(self, request: _Request, entries: Sequence[dict[str, Any]]) -> None:
        super()._enter(request, entries)
        if self._progress is not None:
            self._progress(request.images)


class Stream(_Requests):
    """Sends images as they are asked for, and gives what became of each.

    Args:
        pool: Whose workers send the requests.
        images: Any number.
        max_images: Most images in one request.
        options: Of every request.
    """

    def __init__(
        self, pool: "WorkerPool[Connection]", images: Iterable[Image], *, max_images: int, options: Options
    ) -> None:
        super().__init__(pool, images, max_images=max_images, options=options)
        self._max_ahead = MAX_AHEAD
        self._failures_in_a_row = 0

    def entries(self) -> Iterator[dict[str, Any]]:
        """Give each image's entry, in order.

        Raises:
            StreamError: The server is lost.
        """
        for request in self._answered():
            if request.ends_stream is not None:
                raise request.ends_stream
            yield from request.entries or ()

    def _fail(self, request: _Request, failure: RequestError) -> None:
        if failure.about_one_request:
            return
        self._failures_in_a_row += 1
        if (
            failure.lost
            or (self._slowest_answer_s is None and failure.ends_list)
            or self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW
        ):
            self._max_ahead = 0
            request.ends_stream = StreamError(failure.message, failure.status)

    def _succeed(self) -> None:
        self._failures_in_a_row = 0


def _classify(connection: "Connection", *, images: Sequence[Image], options: Options, request: _Request) -> _Answer:
    entries: list[dict[str, Any] | None] = []
    contents = []
    for image in images:
        try:
            contents.append(image.read())
            entries.append(None)
        except UnreadableImageError as error:
            entries.append(failed_entry(str(error)))
    if not contents:
        return _Answer(entries=[entry for entry in entries if entry is not None], elapsed_s=None)
    started_s = request.sent_s = time.monotonic()
    answered = iter(connection.classify(contents, sim_thres=options.sim_thres, details=options.details))
    elapsed_s = time.monotonic() - started_s
    return _Answer(entries=[next(answered) if entry is None else entry for entry in entries], elapsed_s=elapsed_s)
