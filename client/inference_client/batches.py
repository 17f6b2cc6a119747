"""How images are split into requests, and how many requests are in flight."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

MAX_REQUEST_BYTES = 32 * 2**20
MAX_IN_FLIGHT = 8
# A stream's requests, in flight or answered, whose results the caller has not taken yet.
MAX_AHEAD = 2 * MAX_IN_FLIGHT


class Sized(Protocol):
    """Anything that is sent and has a size."""

    @property
    def size_bytes(self) -> int:
        """Size of the file to send, bytes."""


I = TypeVar("I", bound=Sized)  # noqa: E741  (Image, and whatever the tests send)


def split(images: Iterable[I], max_images: int) -> Iterator[list[I]]:
    """Split images into requests, in order, taking no more images than the next request needs.

    Args:
        images: The images. If the iterable raises, the images before are still given.
        max_images: Most images in one request, >= 1.

    Yields:
        The images of one request: at most ``max_images``, and at most ``MAX_REQUEST_BYTES`` of files or a single file.

    >>> from types import SimpleNamespace
    >>> half = SimpleNamespace(size_bytes=MAX_REQUEST_BYTES // 2)
    >>> [len(request) for request in split([half] * 3, max_images=32)]
    [2, 1]
    """
    request: list[I] = []
    request_bytes = 0
    source = iter(images)
    failure: Exception | None = None
    while True:
        try:
            image = next(source)
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        if request and request_bytes + image.size_bytes > MAX_REQUEST_BYTES:
            yield request
            request, request_bytes = [], 0
        request.append(image)
        request_bytes += image.size_bytes
        if len(request) == max_images:
            yield request
            request, request_bytes = [], 0
    if request:
        yield request
    if failure is not None:
        raise failure


def requests_in_flight(slowest_answer_s: float | None, timeout_s: float) -> int:
    """Choose how many requests of one call are in flight, so that they never time each other out.

    A server that handles one request at a time answers the last of W requests after W times the time of one. Half of
    the timeout is left for the requests of other clients.

    Args:
        slowest_answer_s: Time of this call's slowest answer so far, seconds; None before the first answer.
        timeout_s: Deadline of one request, seconds.

    Returns:
        1 before the first answer; then the largest W of 1 to ``MAX_IN_FLIGHT`` with W * slowest <= timeout / 2, or 1 if
        there is none.

    >>> [requests_in_flight(slowest_answer_s, timeout_s=60) for slowest_answer_s in (None, 40, 10, 0.1)]
    [1, 1, 3, 8]
    """
    if slowest_answer_s is None:
        return 1
    fitting = (width for width in range(MAX_IN_FLIGHT, 1, -1) if width * slowest_answer_s <= timeout_s / 2)
    return next(fitting, 1)
