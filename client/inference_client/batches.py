"""How to split images into requests, and how many requests to keep in flight."""

from collections.abc import Iterable, Iterator

from inference_client.images import Image

MAX_REQUEST_BYTES = 32 * 2**20
MAX_IN_FLIGHT = 8
# Most requests of a stream, in flight or answered, whose results the caller has not taken yet.
MAX_AHEAD = 2 * MAX_IN_FLIGHT


def split(images: Iterable[Image], max_images: int) -> Iterator[list[Image]]:
    """Split images into requests, in order. Each request takes no more images than it holds.

    Args:
        images: The images. If the iterable raises, the images before still come first.
        max_images: Most images in one request, >= 1.

    Yields:
        The images of one request: at most ``max_images``, and at most ``MAX_REQUEST_BYTES`` of files or a single file.

    >>> from types import SimpleNamespace
    >>> half = SimpleNamespace(size_bytes=MAX_REQUEST_BYTES // 2)
    >>> [len(request) for request in split([half] * 3, max_images=32)]
    [2, 1]
    """
    request: list[Image] = []
    request_bytes = 0
    failure: Exception | None = None
    try:
        for image in images:
            if request and request_bytes + image.size_bytes > MAX_REQUEST_BYTES:
                yield request
                request, request_bytes = [], 0
            request.append(image)
            request_bytes += image.size_bytes
            if len(request) == max_images:
                yield request
                request, request_bytes = [], 0
    except Exception as error:
        failure = error
    if request:
        yield request
    if failure is not None:
        raise failure


def requests_in_flight(slowest_answer_s: float | None, timeout_s: float) -> int:
    """Choose how many requests of one call are in flight, so that they do not time each other out.

    A server that answers one request at a time answers the last of W requests after W times the time of one. Half of
    the timeout is left for other clients' requests.

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
