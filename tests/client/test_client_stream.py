"""Streams: order, images taken ahead, the cost of a bad image, and ends."""

import gc
import itertools
import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from stand_in import Reply, StandIn, config, echo, refusal, unused_port

from inference_client import Classify, StreamError

LIMIT = 4
MOST_AHEAD = 17 * LIMIT  # 16 requests, and the one whose results the caller is taking
NEVER_HANGS_S = 20


class Counted:
    """Endless images, each its own number. Counts the images taken, and notes the thread."""

    def __init__(self):
        self.taken = 0
        self.threads = set()

    def __iter__(self):
        for number in itertools.count():
            self.taken += 1
            self.threads.add(threading.get_ident())
            yield str(number).encode()


def labels(results):
    return [entry["Label"] for entry in results]


def numbers(count):
    return [str(number) for number in range(count)]


def eventually(condition):
    deadline_s = time.monotonic() + NEVER_HANGS_S / 2
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def until_it_ends(stream):
    given = []
    try:
        given.extend(stream)
    except StreamError as error:
        return given, error
    raise AssertionError("the stream did not end with an error")


def test_results_of_an_endless_stream_come_in_order_and_images_are_taken_little_ahead():
    def answer(request):
        time.sleep(random.choice([0, 0.002, 0.01]))
        return echo(request)

    images, ahead = Counted(), []
    with StandIn(answer) as server, Classify(server.url) as target_server:
        for given, entry in enumerate(itertools.islice(target_server.stream(images), 1000)):
            ahead.append(images.taken - given)
            assert entry == {"Label": str(given), "Probability": 0.5}
    assert LIMIT < max(ahead) <= MOST_AHEAD
    assert images.threads == {threading.get_ident()}
    assert {len(request.images) for request in server.inferences} == {LIMIT}


def test_consumer_that_stops_for_a_while_leaves_the_rest_untaken_however_late_the_first_answer():
    first = threading.Event()

    def answer(request):
        if b"4" in request.images:  # not the first request, which would hold up all others
            first.wait(NEVER_HANGS_S)
        return echo(request)

    images = Counted()
    with StandIn(answer) as server, Classify(server.url) as target_server:
        results = target_server.stream(images)
        assert labels(itertools.islice(results, 4)) == numbers(4)
        threading.Timer(0.3, first.set).start()
        assert next(results)["Label"] == "4"
        deadline_s = time.monotonic() + NEVER_HANGS_S
        while len(server.inferences) < 17 and time.monotonic() < deadline_s:
            time.sleep(0.01)  # the last one is on its way
        assert len(server.inferences) == 17
        assert images.taken == MOST_AHEAD
        results.close()


def test_nothing_is_taken_before_the_first_result_is_asked_for():
    images = Counted()
    with StandIn() as server, Classify(server.url) as target_server:
        results = target_server.stream(images)
        assert (images.taken, server.requests) == (0, [])
        next(results)


def test_images_that_come_slowly_have_their_results_before_many_more_are_taken():
    images = Counted()
    with StandIn() as server, Classify(server.url) as target_server:
        taken_at = []
        for _ in itertools.islice(target_server.stream(image for image in images if not time.sleep(0.01)), 40):
            taken_at.append(images.taken)
    assert max(taken - given for given, taken in enumerate(taken_at)) <= 3 * LIMIT


def test_empty_stream_asks_the_server_nothing():
    with Classify(f"localhost:{unused_port()}") as target_server:
        assert list(target_server.stream([])) == []


def test_bad_image_has_an_error_in_its_place_and_others_have_results(tmp_path):
    (tmp_path / "good").write_bytes(b"good")
    images = [
        b"a",
        tmp_path / "missing",
        b"bad",
        np.zeros((2, 2), np.uint8),
        tmp_path,
        "null\0byte",
        str(tmp_path / "good"),
    ]
    with StandIn() as server, Classify(server.url) as target_server:
        results = list(target_server.stream(images))
    assert labels(results) == ["a", None, None, None, None, None, "good"]
    assert results[1]["Error"] == f"{tmp_path / 'missing'} can't be read: No such file or directory"
    assert results[2]["Error"] == "bad is no image"
    assert "pass height x width x 3" in results[3]["Error"]
    assert str(tmp_path) in results[4]["Error"]
    assert "null byte" in results[5]["Error"]


@pytest.mark.parametrize("images", ["a.jpg", b"a", {"a.jpg"}, 7, None], ids=repr)
def test_other_objects_than_iterables_of_images_are_refused_at_once(images):
    with Classify("localhost:1") as target_server, pytest.raises(TypeError, match="pass an iterable"):
        target_server.stream(images)


@pytest.mark.parametrize(("source_raises", "expected"), [(7, TypeError), (ZeroDivisionError, ZeroDivisionError)])
def test_exception_of_the_iterable_comes_after_the_results_of_the_images_before(source_raises, expected):
    def images():
        yield from (str(number).encode() for number in range(10))
        if source_raises is ZeroDivisionError:
            raise ZeroDivisionError
        yield source_raises

    given = []
    with StandIn() as server, Classify(server.url) as target_server:
        with pytest.raises(expected):
            given.extend(entry["Label"] for entry in iter(target_server.stream(images())))
        results = target_server.stream(images())
        assert labels(itertools.islice(results, 10)) == numbers(10)
        with pytest.raises(expected):
            next(results)


@pytest.mark.slow
def test_server_that_is_lost_ends_the_stream_after_the_results_before():
    def answer(request):
        return Reply(hang_up=True) if int(request.images[0]) >= 100 else echo(request)

    images = Counted()
    with StandIn(answer) as server, Classify(server.url, timeout_s=5) as target_server:
        given, error = until_it_ends(target_server.stream(images))
    assert labels(given) == numbers(100)
    assert images.taken <= 100 + MOST_AHEAD
    assert error.status_code == 503
    assert "closed the connection" in error.message == str(error)


@pytest.mark.parametrize(
    ("reply", "status_code"),
    [(refusal(401, "no"), 401), (refusal(404, "no"), 404), (refusal(429, "no"), 429)],
    ids=["401", "404", "429"],
)
def test_server_that_refuses_the_first_request_ends_the_stream(reply, status_code):
    with StandIn(lambda request: reply) as server, Classify(server.url) as target_server:
        with pytest.raises(StreamError) as raised:
            next(target_server.stream(Counted()))
        assert raised.value.status_code == status_code
        assert len(server.inferences) == 1


def test_server_that_is_not_there_ends_the_stream_with_one_image_taken():
    images = Counted()
    with Classify(f"localhost:{unused_port()}") as target_server:
        given, error = until_it_ends(target_server.stream(images))
    assert (given, images.taken) == ([], 1)
    assert "refused the connection" in error.message


def test_server_that_fails_again_and_again_ends_the_stream():
    def answer(request):
        return refusal(500, "broken") if int(request.images[0]) >= 100 else echo(request)

    with StandIn(answer) as server, Classify(server.url) as target_server:
        given, error = until_it_ends(target_server.stream(Counted()))
    assert labels(given[:100]) == numbers(100)
    assert all("broken" in entry["Error"] for entry in given[100:])
    assert error.status_code == 500
    assert 8 <= len(server.inferences) - 25 <= 3 * 8  # an answer that comes late starts the count anew


@pytest.mark.parametrize("status", [500, 413, 400], ids=str)
def test_request_that_fails_alone_has_errors_and_the_stream_goes_on(status):
    def answer(request):
        number = int(request.images[0])
        # Failures that depend on the images never end a stream, however many come in a row.
        bad = 40 <= number < (48 if status == 500 else 140)
        return refusal(status, "not these") if bad else echo(request)

    with StandIn(answer) as server, Classify(server.url) as target_server:
        results = list(itertools.islice(target_server.stream(Counted()), 200))
    for number, entry in enumerate(results):
        bad = 40 <= number < (48 if status == 500 else 140)
        assert entry["Label"] == (None if bad else str(number))
        assert ("not these" in entry.get("Error", "")) == bad


@pytest.mark.parametrize("leave", ["close", "let_go"])
def test_abandoned_stream_breaks_off_its_requests(leave):
    broken_off = []

    def answer(request):
        if int(request.images[0]) >= 8:
            request.connection.settimeout(NEVER_HANGS_S)
            broken_off.append(request.connection.recv(1) == b"")
        return echo(request)

    with StandIn(answer) as server, Classify(server.url) as target_server:
        results = target_server.stream(Counted())
        assert labels(itertools.islice(results, 8)) == numbers(8)
        eventually(lambda: len(server.inferences) > 2)
        if leave == "close":
            results.close()
        del results
        gc.collect()
        eventually(lambda: len(broken_off) == len(server.inferences) - 2)
        assert all(broken_off)
        assert target_server([b"1"] * 5)[1] == 200


def test_closing_the_client_ends_its_streams():
    with StandIn() as server:
        target_server = Classify(server.url)
        results = target_server.stream(Counted())
        next(results)
        target_server.close()
        with pytest.raises(RuntimeError, match="closed"):
            list(results)
        with pytest.raises(RuntimeError, match="closed"):
            target_server.stream([])


def test_threads_stream_through_one_client():
    def stream(thread):
        images = [f"{thread}.{number}".encode() for number in range(200)]
        return labels(target_server.stream(images)) == [image.decode() for image in images]

    with StandIn() as server, Classify(server.url) as target_server, ThreadPoolExecutor(8) as threads:
        assert all(threads.map(stream, range(8)))


def test_memory_does_not_grow_with_the_stream():
    class Traced(bytes):
        alive = 0

        def __init__(self, *_):
            Traced.alive += 1

        def __del__(self):
            Traced.alive -= 1

    most = 0
    with StandIn(configuration=lambda request: config(64)) as server, Classify(server.url) as target_server:
        for _ in target_server.stream(Traced(b"x") for _ in range(10_000)):
            most = max(most, Traced.alive)
    assert most <= 17 * 64
    assert Traced.alive == 0


def test_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(StreamError("gone", 503)))
    assert (error.message, error.status_code, str(error)) == ("gone", 503, "gone")


def test_stream_answers_as_a_list_does(classify, query_images, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no image")
    images = [*query_images * 8, broken, *query_images]
    expected, status_code = classify(images, sim_thres=0.9, details=True)
    assert status_code == 207
    for entry, wanted in zip(classify.stream(iter(images), sim_thres=0.9, details=True), expected, strict=True):
        assert entry.keys() == wanted.keys()
        assert (entry["Label"], entry.get("Error")) == (wanted["Label"], wanted.get("Error"))
        if entry["Label"] is not None:
            assert entry["Probability"] == pytest.approx(wanted["Probability"], abs=1e-5)
            assert entry["Matches"] == wanted["Matches"]
