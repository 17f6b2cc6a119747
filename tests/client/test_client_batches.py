"""How a list is cut, and how many requests are in flight."""

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
    requests = list(split(sizes, limit))
    assert [len(request) for request in requests] == lengths
    assert [index for request in requests for index in request] == list(range(len(sizes)))


@pytest.mark.parametrize(
    ("slowest_answer_s", "width"),
    [(None, 1), (0.0, 8), (3.75, 8), (3.76, 7), (10, 3), (15, 2), (15.1, 1), (30, 1), (31, 1), (60, 1)],
)
def test_requests_in_flight_fill_at_most_half_of_the_timeout(slowest_answer_s, width):
    assert requests_in_flight(slowest_answer_s, timeout_s=60) == width
