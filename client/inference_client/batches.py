"""How a list is cut into requests, and how many of them are in flight."""

from collections.abc import Iterator, Sequence

MAX_REQUEST_BYTES = 32 * 2**20
MAX_IN_FLIGHT = 8


def split(sizes_bytes: Sequence[int], max_images: int) -> Iterator[range]:
    """Cut a list into requests, in order.

    Args:
        sizes_bytes: Size of each image's file, bytes.
        max_images: Most images in one request, >= 1.

    Yields:
        The indices of each request's images; at most ``max_images``, and at most ``MAX_REQUEST_BYTES`` of files unless
        it is a single file.

    >>> list(split([MAX_REQUEST_BYTES // 2] * 3, max_images=32))
    [range(0, 2), range(2, 3)]
    """
    start = 0
    request_bytes = 0
    for index, size_bytes in enumerate(sizes_bytes):
        full = index - start == max_images or request_bytes + size_bytes > MAX_REQUEST_BYTES
        if full and index > start:
            yield range(start, index)
            start, request_bytes = index, 0
        request_bytes += size_bytes
    if start < len(sizes_bytes):
        yield range(start, len(sizes_bytes))


def requests_in_flight(slowest_answer_s: float | None, timeout_s: float) -> int:
    """Choose how many requests of one list are in flight, so that they never time each other out.

    A server that takes one request after the other answers the last of W in W times the time of one. Half of the
    timeout is left for what other clients send.

    Args:
        slowest_answer_s: Longest time that an answer of this list took, seconds; None before the first answer.
        timeout_s: Deadline of one request, seconds.

    Returns:
        1 before the first answer, then the largest W of 1 to ``MAX_IN_FLIGHT`` with W * slowest <= timeout / 2; 1 where
        even that is more.

    >>> [requests_in_flight(slowest_answer_s, timeout_s=60) for slowest_answer_s in (None, 40, 10, 0.1)]
    [1, 1, 3, 8]
    """
    if slowest_answer_s is None:
        return 1
    fitting = (width for width in range(MAX_IN_FLIGHT, 1, -1) if width * slowest_answer_s <= timeout_s / 2)
    return next(fitting, 1)
