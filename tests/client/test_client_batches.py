"""The split of a list into requests, and the number of requests in flight."""

from types import SimpleNamespace

import pytest

from inference_client.batches import MAX_REQUEST_BYTES, requests_in_flight, split


@pytest.mark.parametrize(
    ("sizes", "limit", "lengths"),
    [
        ([], 4, []),
        ([1], 4, [1]),
        ([1] * 4, 4, [4]),
        ([1] * 5, 4, [4, 1]),
        ([1] * 3, 1, [1, 1, 1]),
        ([MAX_REQUEST_BYTES] * 2, 4, [1, 1]),
        ([MAX_REQUEST_BYTES // 2] * 3, 4, [2, 1]),
        ([1, MAX_REQUEST_BYTES + 1, 1], 4, [1, 1, 1]),
        ([MAX_REQUEST_BYTES + 1], 4, [1]),
        ([0] * 3, 2, [2, 1]),
    ],
)
def test_requests_keep_to_the_batch_limit_and_the_byte_limit(sizes, limit, lengths):
    images = [SimpleNamespace(size_bytes=size) for size in sizes]
    requests = list(split(images, limit))
    assert [len(request) for request in requests] == lengths
    assert [id(image) for request in requests for image in request] == [id(image) for image in images]


def test_full_request_is_given_before_another_image_is_asked_for():
    taken = []
    images = (taken.append(number) or SimpleNamespace(size_bytes=1) for number in range(9))
    assert len(next(split(images, 4))) == 4
    assert taken == [0, 1, 2, 3]


def test_images_before_a_failure_of_their_source_are_given_first():
    def images():
        yield from [SimpleNamespace(size_bytes=1)] * 5
        raise ZeroDivisionError

    requests = split(images(), 4)
    assert [len(next(requests)), len(next(requests))] == [4, 1]
    with pytest.raises(ZeroDivisionError):
        next(requests)


@pytest.mark.parametrize(
    ("slowest_answer_s", "width"),
    [(None, 1), (0.0, 8), (3.75, 8), (3.76, 7), (10, 3), (15, 2), (15.1, 1), (30, 1), (31, 1), (60, 1)],
)
def test_requests_in_flight_fill_at_most_half_of_the_timeout(slowest_answer_s, width):
    assert requests_in_flight(slowest_answer_s, timeout_s=60) == width
