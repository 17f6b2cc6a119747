"""The fate of calls when their client is closed, the process is forked, or Ctrl-C comes at a bad moment."""

import os
import random
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from stand_in import StandIn, echo, raw_server
from test_client_calls import NEVER_HANGS_S, run_script

from inference_client import Classify

TRIES_S = 1.5
THREADS = 10
KINDS = (
    lambda target_server: list(target_server.stream([b"x"] * 60)),
    lambda target_server: target_server([b"x"] * 40),
    lambda target_server: target_server(b"x"),
)


def loop_threads():
    return [thread for thread in threading.enumerate() if thread.name == "inference_client"]


def silent(connection):
    while connection.recv(65536):
        pass


class Call(threading.Thread):
    """A call in a thread of its own. A failed test leaves the thread behind."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self._call = call
        self.outcome = None
        self.start()

    def run(self):
        try:
            self.outcome = self._call()
        except BaseException as error:
            self.outcome = error

    def was_closed(self):
        self.join(NEVER_HANGS_S)
        return isinstance(self.outcome, RuntimeError) and "this Classify is closed" in str(self.outcome)


@pytest.fixture
def held():
    """Hold every new thread at the start of a function of the client, and tell when a thread arrives."""
    there, go_on = threading.Event(), threading.Event()

    def hold(file, function):
        def hook(frame, event, _):
            code = frame.f_code
            if event == "call" and code.co_name == function and Path(code.co_filename).name == file:
                there.set()
                go_on.wait(NEVER_HANGS_S)

        threading.setprofile(hook)
        return there, go_on

    yield hold
    threading.setprofile(None)
    go_on.set()


def test_closing_ends_a_call_whose_event_loop_does_not_run_yet(held):
    there, _ = held("background.py", "_run")
    with StandIn() as server:
        target_server = Classify(server.url)
        call = Call(lambda: target_server(b"x"))
        assert there.wait(NEVER_HANGS_S)
        target_server.close()
        assert call.was_closed()
        assert server.requests == []


def test_request_that_has_just_begun_is_not_sent_after_closing(held):
    there, go_on = held("transport.py", "classify")
    with StandIn() as server:
        target_server = Classify(server.url)
        call = Call(lambda: target_server(b"x"))
        assert there.wait(NEVER_HANGS_S)
        closing = Call(target_server.close)
        assert call.was_closed()
        go_on.set()
        closing.join(NEVER_HANGS_S)
        assert loop_threads() == []
        assert server.requests == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_closing_ends_a_call_whose_image_is_still_being_read(tmp_path):
    path, hangs = tmp_path / "image", threading.Event()
    path.write_bytes(b"x")

    def progress(_):
        if not hangs.is_set():
            path.unlink()
            os.mkfifo(path)
            hangs.set()

    with StandIn() as server:
        target_server = Classify(server.url)
        call = Call(lambda: target_server([*[b"x"] * 4, path], progress=progress))
        assert hangs.wait(NEVER_HANGS_S)
        with path.open("wb"):  # opens once a thread reads; the thread hangs until this closes
            target_server.close()
            assert call.was_closed()
        assert len(server.inferences) == 1


def test_calls_and_streams_that_are_closed_at_any_moment_end_and_leave_no_thread():
    def answer(request):
        time.sleep(random.choice([0, 0.001, 0.01, NEVER_HANGS_S]))
        return echo(request)

    moment = random.Random(4)
    ends_s = time.monotonic() + TRIES_S
    with StandIn(answer) as server:
        while time.monotonic() < ends_s:
            target_server = Classify(server.url)
            calls = [Call(partial(KINDS[number % len(KINDS)], target_server)) for number in range(THREADS)]
            time.sleep(moment.choice([0, moment.random() * 0.02, moment.random() * 0.1]))
            target_server.close()
            for call in calls:
                assert call.was_closed() or isinstance(call.outcome, (list, tuple)), call.outcome
            assert loop_threads() == []


@pytest.mark.parametrize("images", ["b'x'", "[b'x', b'x']"], ids=["one", "list"])
def test_interrupt_that_another_thread_of_the_process_gets_ends_a_call(images):
    # It stands for a signal just before the main thread waits: Python notes the signal, but nothing wakes the thread.
    script = f"""
        import signal, sys, threading, time
        from inference_client import *
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def interrupt():
            time.sleep(0.5)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        target_server = Classify(sys.argv[1], timeout_s=3600)
        threading.Thread(target=interrupt).start()
        try:
            print(target_server({images}))
        except KeyboardInterrupt:
            print("interrupted")
    """
    with raw_server(silent) as url:
        ended = run_script(script, url)
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")


def test_signal_handler_may_close_the_client_in_the_thread_that_calls():
    script = """
        import os, signal, sys, threading
        from inference_client import *
        signal.signal(signal.SIGTERM, lambda *_: target_server.close())
        target_server = Classify(sys.argv[1])
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        try:
            print(target_server([b"x"] * 40))
        except RuntimeError as error:
            print(error)
    """
    with raw_server(silent) as url:
        ended = run_script(script, url)
    assert ended.stdout.startswith("this Classify is closed"), ended


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_stream_that_was_begun_before_a_fork_says_so_in_the_child_and_goes_on_in_the_parent():
    script = """
        import os, sys
        from inference_client import *
        target_server = Classify(sys.argv[1])
        results = target_server.stream([b"x"] * 200)
        next(results)
        child = os.fork()
        if child == 0:
            try:
                list(results)
            except RuntimeError as error:
                print(error, flush=True)
            print(len(list(target_server.stream([b"x"] * 9))), flush=True)
        else:
            os.waitpid(child, 0)
            print(len(list(results)))
    """

    def answer(request):
        time.sleep(0.01)
        return echo(request)

    with StandIn(answer) as server:
        ended = run_script(script, server.url)
    first, *others = ended.stdout.splitlines()
    assert first.startswith("the process was forked"), ended
    assert others == ["9", "199"]


def test_neither_closing_nor_the_exit_waits_for_a_host_name_that_is_looked_up_slowly():
    # It stands for the C library's look-up, which can't be interrupted, and which only root can slow down.
    script = f"""
        import socket, threading, time
        from inference_client import *
        looking_up = threading.Event()
        def slow(*arguments, **options):
            looking_up.set()
            time.sleep({3 * NEVER_HANGS_S})
        socket.getaddrinfo = slow
        def call():
            try:
                target_server(b"x")
            except RuntimeError as error:
                print(error)
        target_server = Classify("host.invalid:80")
        calling = threading.Thread(target=call)
        calling.start()
        looking_up.wait()
        target_server.close()
        left = [thread.name for thread in threading.enumerate() if thread.name == "inference_client"]
        calling.join()
        print(left)
    """
    started_s = time.monotonic()
    ended = run_script(script)
    closed, threads = ended.stdout.splitlines()
    assert (closed[:23], threads, ended.stderr) == ("this Classify is closed", "[]", "")
    assert time.monotonic() - started_s < 2 * NEVER_HANGS_S
