"""Calls with lists: order, limits, connections, threads and their ends."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from stand_in import CERTIFICATE, Reply, StandIn, config, echo, raw_server, refusal

from inference_client import Classify

NEVER_HANGS_S = 20


def labels(results):
    return [entry["Label"] for entry in results]


def run_script(script, *arguments, **environment):
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error::ResourceWarning",
            "-W",
            "ignore:This process:DeprecationWarning",
            "-c",
            textwrap.dedent(script),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_order_is_kept_though_answers_come_in_another():
    def answer(request):
        first = int(request.images[0])
        time.sleep(0.05 if first % 8 else 0.15)
        return echo(request)

    images = [str(number).encode() for number in range(80)]
    with StandIn(answer) as server, Classify(server.url) as target_server:
        results, status_code = target_server(images)
    assert status_code == 200
    assert labels(results) == [str(number) for number in range(80)]
    assert max(len(request.images) for request in server.inferences) == 4


def test_batch_limit_is_read_once_and_only_for_lists():
    with StandIn() as server, Classify(server.url) as target_server:
        target_server(b"a")
        assert len(server.requests) == 1
        target_server([b"a"] * 5)
        target_server([b"a"] * 5)
    assert [request.method for request in server.requests] == ["POST", "GET", "POST", "POST", "POST", "POST"]


def test_threads_that_start_together_read_the_batch_limit_once():
    def configuration(request):
        time.sleep(0.2)
        return config()

    with (
        StandIn(configuration=configuration) as server,
        Classify(server.url) as target_server,
        ThreadPoolExecutor(8) as threads,
    ):
        answers = list(threads.map(target_server, [[b"a", b"b"]] * 8))
    assert all(status_code == 200 for _, status_code in answers)
    assert [request.method for request in server.requests].count("GET") == 1


@pytest.mark.parametrize(
    "reply",
    [refusal(403, "closed"), refusal(500, "no"), Reply(200, b"<html>"), Reply(200, b"{}"), Reply(200, b"[]")],
    ids=["403", "500", "html", "no_limit", "list"],
)
def test_without_the_batch_limit_each_image_goes_alone_and_the_next_call_asks_again(reply):
    with StandIn(configuration=lambda request: reply) as server, Classify(server.url) as target_server:
        assert target_server([b"a", b"b", b"c"])[1] == 200
        assert [len(request.images) for request in server.inferences] == [1, 1, 1]
        server.configuration = lambda request: config()
        assert target_server([b"a", b"b", b"c"])[1] == 200
    assert len(server.inferences[-1].images) == 3


def test_model_without_batching_gets_one_image_a_request():
    with StandIn(configuration=lambda request: config(0)) as server, Classify(server.url) as target_server:
        assert target_server([b"a", b"b"])[1] == 200
    assert [len(request.images) for request in server.inferences] == [1, 1]


def test_server_too_slow_to_tell_its_limit_is_sent_nothing_else():
    def configuration(request):
        time.sleep(2)
        return config()

    with StandIn(configuration=configuration) as server, Classify(server.url, timeout_s=0.5) as target_server:
        results, status_code = target_server([b"a", b"b"])
        assert (status_code, list(results)) == (504, ["error"])
        assert server.inferences == []


@pytest.mark.parametrize(("timeout_s", "most"), [(60, 8), (2, 3), (0.7, 1)])
def test_requests_in_flight_follow_the_slowest_answer(timeout_s, most):
    busy, busiest, lock = 0, [], threading.Lock()

    def answer(request):
        nonlocal busy
        with lock:
            busy += 1
            busiest.append(busy)
        time.sleep(0.27)
        with lock:
            busy -= 1
        return echo(request)

    with StandIn(answer) as server, Classify(server.url, timeout_s=timeout_s) as target_server:
        _, status_code = target_server([b"x"] * (36 if most == 8 else 20))
    assert status_code == 200
    assert busiest[0] == busiest[1 if most == 1 else 0] == 1
    assert 1 <= max(busiest) <= most
    assert max(busiest) > 1 or most == 1


def test_second_request_waits_for_the_first_answer():
    answered = threading.Event()
    early = []

    def answer(request):
        if len(server.inferences) > 1 and not answered.is_set():
            early.append(request)
        else:
            time.sleep(0.3)
            answered.set()
        return echo(request)

    with StandIn(answer) as server, Classify(server.url) as target_server:
        assert target_server([b"x"] * 20)[1] == 200
    assert early == []


def test_details_are_requested_and_returned_for_one_call():
    def answer(request):
        return echo(request, neighbors=("a/1.jpg", "ä/2.jpg", ""))

    with StandIn(answer) as server, Classify(server.url) as target_server:
        (plain,), _ = target_server(b"x")
        (entry,), _ = target_server(b"x", details=True)
    assert plain == {"Label": "x", "Probability": 0.5}
    assert entry == {
        "Label": "x",
        "Probability": 0.5,
        "Scores": {"a": 0.25, "ä": 0.5},
        "Matches": {"a": 1, "ä": 3},
        "Neighbors": [{"Image": "a/1.jpg", "Similarity": 0.75}, {"Image": "ä/2.jpg", "Similarity": 0.75}],
        "Version": 3,
        "Threshold": 0.8,
    }
    requested = [[output["name"] for output in request.body["outputs"]] for request in server.inferences]
    assert requested[0] == ["ERROR", "LABEL", "PROBABILITY"]
    assert "EMBEDDING" not in requested[1]


def test_details_without_a_base_set_have_no_matches_and_no_neighbors():
    with StandIn() as server, Classify(server.url, details=True) as target_server:
        (entry, bad), _ = target_server([b"x", b"bad"])
    assert (entry["Matches"], entry["Neighbors"], entry["Scores"]) == ({}, [], {"a": 0.25, "ä": 0.5})
    assert (entry["Version"], entry["Threshold"]) == (3, None)
    assert set(bad) == {"Label", "Probability", "Error"}


def test_details_have_the_note_of_an_image_where_the_server_says_one():
    with (
        StandIn(configuration=lambda _: config(outputs=("LABEL", "NOTE"))) as server,
        Classify(server.url) as target_server,
    ):
        (turned, upright, bad), status_code = target_server([b"turned", b"x", b"bad"], details=True)
        assert target_server(b"turned")[0] == [{"Label": "turned", "Probability": 0.5}]
    assert (turned["Note"], status_code) == ("it is turned", 207)
    assert "Note" not in upright
    assert "Note" not in bad


def test_server_exported_before_there_were_notes_answers_without_one():
    with StandIn() as server, Classify(server.url, details=True) as target_server:
        (entry,), status_code = target_server(b"turned")
        target_server(b"turned")
    assert (entry["Label"], status_code) == ("turned", 200)
    assert "Note" not in entry
    assert len(server.requests) == 3, "the configuration is read once"


def test_progress_hears_of_every_image_in_the_calling_thread():
    heard = []
    with StandIn() as server, Classify(server.url) as target_server:
        target_server([b"x", b"bad"] * 9, progress=lambda count: heard.append((count, threading.get_ident())))
    assert sum(count for count, _ in heard) == 18
    assert {thread for _, thread in heard} == {threading.get_ident()}


def test_progress_hears_of_answers_while_an_earlier_one_is_late():
    most_finished, in_time = threading.Event(), []

    def answer(request):
        if request.images[0] == b"late":
            in_time.append(most_finished.wait(NEVER_HANGS_S))
        return echo(request)

    finished = []

    def progress(count):
        finished.append(count)
        if sum(finished) == 16:
            most_finished.set()

    with StandIn(answer) as server, Classify(server.url) as target_server:
        target_server([*[b"x"] * 4, *[b"late"] * 4, *[b"x"] * 12], progress=progress)
    assert (in_time, sum(finished)) == ([True], 20)


def test_exception_of_progress_ends_the_call_and_leaves_the_client_usable():
    def answer(request):
        if len(server.inferences) > 1:
            time.sleep(0.5)
        return echo(request)

    with StandIn(answer) as server, Classify(server.url) as target_server:
        with pytest.raises(ZeroDivisionError):
            target_server([b"x"] * 40, progress=lambda count: count / 0 if len(server.inferences) > 3 else None)
        sent = len(server.inferences)
        assert sent < 10
        assert target_server([b"y"] * 5)[1] == 200


def test_requests_that_nobody_awaits_are_broken_off():
    broken_off = []

    def answer(request):
        if request.images[0] == b"hang":
            request.connection.settimeout(NEVER_HANGS_S)
            broken_off.append(request.connection.recv(1) == b"")
        elif len(server.inferences) > 1:
            time.sleep(0.3)
        return echo(request)

    def progress(count):
        if len(server.inferences) > 1:
            raise KeyboardInterrupt

    images = [*[b"x"] * 8, *[b"hang"] * 8]
    with StandIn(answer) as server, Classify(server.url) as target_server:
        with pytest.raises(KeyboardInterrupt):
            target_server(images, progress=progress)
        deadline_s = time.monotonic() + NEVER_HANGS_S / 2
        while len(broken_off) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert broken_off == [True, True]


def test_connection_is_kept_for_the_next_request():
    with StandIn() as server, Classify(server.url) as target_server:
        for _ in range(3):
            assert target_server(b"x")[1] == 200
    assert len({id(request.connection) for request in server.requests}) == 1


def test_kept_connection_that_the_server_closes_on_the_next_request_is_replaced_at_once():
    used = set()

    def answer(request):
        if id(request.connection) in used:
            return Reply(hang_up=True)
        used.add(id(request.connection))
        return echo(request)

    with StandIn(answer) as server, Classify(server.url) as target_server:
        assert [target_server(b"x")[1] for _ in range(4)] == [200] * 4


def test_connection_that_never_answered_is_not_tried_for_ever():
    with StandIn(lambda request: Reply(hang_up=True)) as server, Classify(server.url) as target_server:
        assert target_server(b"x")[1] == 503
    # geventhttpclient 2.0 repeats a request itself, twice.
    assert len(server.inferences) <= 3


def test_late_answer_is_never_read_as_that_of_the_next_request():
    def answer(request):
        if request.images == [b"slow"]:
            time.sleep(1)
        return echo(request)

    with StandIn(answer) as server, Classify(server.url, timeout_s=0.5) as target_server:
        assert target_server(b"slow")[1] == 504
        for _ in range(15):
            results, _ = target_server(b"fast")
            assert labels(results) == ["fast"]
            time.sleep(0.1)


def test_call_after_a_deadline_while_sending_gets_a_new_connection():
    connections = []

    def talk(connection):
        connections.append(connection)
        if len(connections) == 1:
            time.sleep(NEVER_HANGS_S / 4)  # without reading anything
        else:
            connection.recv(1 << 20)
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with raw_server(talk) as url, Classify(url, timeout_s=1) as target_server:
        assert target_server(bytes(64 << 20))[1] == 504
        assert target_server(b"x")[1] == 404


def test_hundred_threads_on_one_client_all_get_their_own_answers():
    def answer(request):
        time.sleep(0.05)
        return echo(request)

    def call(number):
        return target_server([f"{number}.{index}".encode() for index in range(6)])

    with (
        StandIn(answer) as server,
        Classify(server.url) as target_server,
        ThreadPoolExecutor(100) as threads,
    ):
        answers = list(threads.map(call, range(100)))
    for number, (results, status_code) in enumerate(answers):
        assert status_code == 200
        assert labels(results) == [f"{number}.{index}" for index in range(6)]


def test_slow_calls_do_not_hold_up_another_threads():
    release = threading.Event()

    def answer(request):
        if request.images == [b"slow"]:
            release.wait(NEVER_HANGS_S)
        return echo(request)

    with StandIn(answer) as server, Classify(server.url) as target_server, ThreadPoolExecutor(20) as threads:
        slow = [threads.submit(target_server, b"slow") for _ in range(20)]
        deadline_s = time.monotonic() + NEVER_HANGS_S
        while len(server.inferences) < 20 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert target_server(b"fast")[1] == 200
        assert not any(call.done() for call in slow)
        release.set()
        assert [call.result()[1] for call in slow] == [200] * 20


def test_closed_client_says_so_and_may_be_closed_again():
    with StandIn() as server:
        target_server = Classify(server.url)
        assert target_server(b"x")[1] == 200
        target_server.close()
        target_server.close()
        for images in (b"x", [b"x", b"y"]):
            with pytest.raises(RuntimeError, match=r"closed: make a new one"):
                target_server(images)


def test_closing_ends_calls_in_other_threads():
    def hang(connection):
        while connection.recv(65536):
            pass

    with raw_server(hang) as url, ThreadPoolExecutor(2) as threads:
        target_server = Classify(url)
        calls = [threads.submit(target_server, images) for images in (b"x", [b"x", b"y"])]
        time.sleep(0.5)
        target_server.close()
        for call in calls:
            with pytest.raises(RuntimeError, match="closed"):
                call.result(NEVER_HANGS_S)


def test_threads_end_with_their_client():
    def workers():
        return [thread for thread in threading.enumerate() if thread.name == "inference_client"]

    with StandIn() as server:
        target_server = Classify(server.url)
        target_server([b"x"] * 40)
        assert workers()
        del target_server
        gc.collect()
        assert not workers()


def test_exit_without_closing_is_quick_and_silent():
    with StandIn() as server:
        script = """
            import sys
            from inference_client import *
            target_server = Classify(sys.argv[1])
            print(target_server([b"x"] * 40)[1])
        """
        ended = run_script(script, server.url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "200\n", "")


def test_exit_while_a_background_thread_waits_for_an_answer_is_quick_and_silent():
    def hang(connection):
        while connection.recv(65536):
            pass

    script = """
        import sys, threading, time
        from inference_client import *
        def call():
            try:
                target_server(b"x")
            except RuntimeError as error:
                print(error)
        target_server = Classify(sys.argv[1], timeout_s=3600)
        threading.Thread(target=call, daemon=True).start()
        time.sleep(1)
    """
    with raw_server(hang) as url:
        ended = run_script(script, url)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_interrupt_from_the_keyboard_ends_a_call_at_once():
    def hang(connection):
        while connection.recv(65536):
            pass

    script = """
        import signal, sys
        from inference_client import *
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run in the background
        target_server = Classify(sys.argv[1], timeout_s=3600)
        print("calling", flush=True)
        try:
            target_server(b"x")
        except KeyboardInterrupt:
            print("interrupted")
    """
    with raw_server(hang) as url:
        command = [sys.executable, "-c", textwrap.dedent(script), url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout.readline() == "calling\n"
                time.sleep(0.5)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=NEVER_HANGS_S)
            finally:
                process.kill()
    assert (process.returncode, out, err) == (0, "interrupted\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_client_used_before_a_fork_works_in_the_child():
    script = """
        import os, sys
        from inference_client import *
        target_server = Classify(sys.argv[1])
        print(target_server([b"x"] * 9)[1], flush=True)
        child = os.fork()
        print(target_server([b"x"] * 9)[1], flush=True)
        if child:
            os.waitpid(child, 0)
    """
    with StandIn() as server:
        ended = run_script(script, server.url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "200\n" * 3, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_child_forked_while_the_limit_is_read_and_an_image_is_encoded_is_not_stuck():
    script = """
        import os, sys, threading, time
        from PIL import Image
        from inference_client import *

        class Slow(Image.Image):
            def save(self, *arguments, **options):
                encoding.set()
                time.sleep(3)

        encoding = threading.Event()
        target_server = Classify(sys.argv[1], timeout_s=10)
        slow = Slow()
        slow._size, slow._mode = (1, 1), "RGB"
        threading.Thread(target=target_server, args=(slow,), daemon=True).start()
        threading.Thread(target=target_server, args=([b"x", b"x"],), daemon=True).start()
        encoding.wait()
        time.sleep(0.2)
        child = os.fork()
        if child == 0:
            image = Image.new("RGB", (1, 1))
            print(target_server([image, image])[1], flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        os._exit(0)
    """

    def configuration(request):
        time.sleep(1)
        return config()

    def answer(request):
        request.images = [b"png"] * len(request.images)
        return echo(request)

    with StandIn(answer, configuration=configuration) as server:
        started_s = time.monotonic()
        ended = run_script(script, server.url)
    assert ended.stdout == "200\n", ended.stderr
    assert time.monotonic() - started_s < NEVER_HANGS_S


def test_program_that_gevent_has_patched_is_served():
    script = """
        from gevent import monkey
        monkey.patch_all()
        import gevent, sys
        from inference_client import *
        with Classify(sys.argv[1]) as target_server:
            calls = [gevent.spawn(target_server, [b"x"] * 9) for _ in range(4)]
            gevent.joinall(calls, timeout=20)
            print([call.value[1] for call in calls])
        gevent.sleep(0.1)
        print("alive")
    """
    with StandIn() as server:
        ended = run_script(script, server.url)
    assert (ended.returncode, ended.stdout) == (0, "[200, 200, 200, 200]\nalive\n"), ended.stderr


def test_certificate_named_in_ssl_cert_file_is_trusted():
    script = """
        import sys
        from inference_client import *
        print(Classify(sys.argv[1])([b"x"] * 9)[1])
    """
    with StandIn(tls=True) as server:
        ended = run_script(script, server.url, SSL_CERT_FILE=str(CERTIFICATE))
    assert (ended.stdout, ended.stderr) == ("200\n", "")
