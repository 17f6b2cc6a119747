"""One call's list on its way: requests in flight, answers in order, and the status of the whole."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from inference_client.answers import failed_entry
from inference_client.batches import requests_in_flight, split
from inference_client.failures import RequestError
from inference_client.images import Image, UnreadableImageError
from inference_client.workers import WorkerPool

if TYPE_CHECKING:
    from inference_client.transport import Connection


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every request of a call says.

    Attributes:
        sim_thres: Threshold, as text; None leaves it to the server.
        details: Whether the entries have the evidence.
        timeout_s: Deadline of one request, seconds.
    """

    sim_thres: str | None
    details: bool
    timeout_s: float


@dataclass(frozen=True, kw_only=True)
class _Answer:
    entries: Sequence[dict[str, Any]]
    elapsed_s: float | None  # None: nothing of it could be read, so nothing was sent


class Call:
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
        images: Sequence[Image],
        *,
        max_images: int,
        options: Options,
        progress: Callable[[int], object] | None,
    ) -> None:
        self._pool = pool
        self._images = images
        self._options = options
        self._progress = progress
        self._waiting = deque(split([image.size_bytes for image in images], max_images))
        self._in_flight: dict[Future[_Answer], range] = {}
        self._entries: list[dict[str, Any]] = [{}] * len(images)
        self._slowest_answer_s: float | None = None
        self._first_failure: tuple[dict[str, str], int] | None = None

    def run(self) -> "tuple[list[dict[str, Any]] | dict[str, str], int]":
        """Send everything.

        Returns:
            Results and status code, as :class:`inference_client.Classify` documents them.
        """
        try:
            while self._waiting or self._in_flight:
                width = requests_in_flight(self._slowest_answer_s, self._options.timeout_s)
                while self._waiting and len(self._in_flight) < width:
                    self._send(self._waiting.popleft())
                for future in wait(self._in_flight, return_when=FIRST_COMPLETED).done:
                    self._receive(self._in_flight.pop(future), future)
        finally:
            # Nobody waits any more when the caller, or its progress, raised.
            for future in self._in_flight:
                self._pool.cancel(future)
        return self._outcome()

    def _send(self, indices: range) -> None:
        images = [self._images[index] for index in indices]
        self._in_flight[self._pool.submit(partial(_classify, images=images, options=self._options))] = indices

    def _receive(self, indices: range, future: "Future[_Answer]") -> None:
        try:
            answer = future.result()
        except RequestError as failure:
            # Not the exception itself: its traceback would keep the request's files.
            self._first_failure = self._first_failure or ({"error": failure.message}, failure.status)
            entries: Sequence[dict[str, Any]] = [failed_entry(failure.message) for _ in indices]
            if failure.lost or (self._slowest_answer_s is None and failure.ends_list):
                for unsent in self._waiting:
                    self._enter(unsent, [failed_entry(failure.message) for _ in unsent])
                self._waiting.clear()
        else:
            entries = answer.entries
            if answer.elapsed_s is not None:
                self._slowest_answer_s = max(self._slowest_answer_s or 0.0, answer.elapsed_s)
        self._enter(indices, entries)

    def _enter(self, indices: range, entries: Sequence[dict[str, Any]]) -> None:
        self._entries[indices.start : indices.stop] = entries
        if self._progress is not None:
            self._progress(len(indices))

    def _outcome(self) -> "tuple[list[dict[str, Any]] | dict[str, str], int]":
        if self._first_failure is not None and self._slowest_answer_s is None:
            return self._first_failure
        without_result = sum("Error" in entry for entry in self._entries)
        if not without_result:
            return self._entries, int(HTTPStatus.OK)
        if self._first_failure is None and without_result == len(self._entries):
            return self._entries, int(HTTPStatus.BAD_REQUEST)
        return self._entries, int(HTTPStatus.MULTI_STATUS)


def _classify(connection: "Connection", *, images: Sequence[Image], options: Options) -> _Answer:
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
    started_s = time.monotonic()
    answered = iter(connection.classify(contents, sim_thres=options.sim_thres, details=options.details))
    elapsed_s = time.monotonic() - started_s
    return _Answer(entries=[next(answered) if entry is None else entry for entry in entries], elapsed_s=elapsed_s)
