"""Servers whose answers would keep a client busy: every call ends in time and takes little memory."""

import contextlib
import gc
import gzip
import json
import ssl
import threading
import time
import tracemalloc

import pytest
from stand_in import CERTIFICATE, StandIn, config, raw_server, refusal
from test_client_calls import NEVER_HANGS_S, run_script

from inference_client import Classify
from inference_client.transport import MAX_ANSWER_BYTES

OK = b"HTTP/1.1 200 OK\r\n"
MOST_MEMORY_BYTES = 64 << 20


def for_ever(head, block):
    """Make a server that answers with ``head``, and then with ``block`` again and again without a pause."""

    def talk(connection):
        connection.recv(1 << 20)
        connection.sendall(head)
        while True:
            connection.sendall(block)

    return talk


def once(answer):
    def talk(connection):
        connection.recv(1 << 20)
        connection.sendall(answer)
        connection.recv(1 << 20)

    return talk


def tensors_head(json_bytes, body_bytes):
    return OK + b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (json_bytes, body_bytes)


@pytest.mark.parametrize(
    ("talk", "status", "says"),
    [
        (for_ever(OK, b"name: value\r\n" * 1000), 503, "does not speak HTTP"),
        (for_ever(OK + b"name: ", b"x" * 10_000), 503, "does not speak HTTP"),
        (for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), 504, "gave no answer in time"),
        (for_ever(OK + b"Content-Length: 1000000000000\r\n\r\n", bytes(1 << 20)), 502, "body took more than"),
        (for_ever(OK + b"\r\n", bytes(1 << 20)), 502, "body took more than"),
        (
            for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n", (b"400\r\n%01024d\r\n" % 0) * 100),
            502,
            "body took more than",
        ),
        (once(tensors_head(10**12, 10**12)), 502, "Inference-Header-Content-Length"),
        (once(OK + b"Inference-Header-Content-Length: 9\r\n" * 2 + b"\r\n"), 502, "Inference-Header-Content-Length"),
        (once(OK + b"Content-Encoding: gzip\r\n\r\n"), 502, "compressed"),
        (once(OK + b"Content-Encoding: deflate\r\n\r\n"), 502, "compressed"),
    ],
    ids=[
        "endless_headers",
        "endless_header",
        "endless_interim_answers",
        "body_of_a_terabyte",
        "body_without_end",
        "endless_chunks",
        "json_of_a_terabyte",
        "two_lengths_of_json",
        "gzip",
        "deflate",
    ],
)
@pytest.mark.parametrize("images", [b"a", [b"a", b"b"]], ids=["one", "list"])
def test_answer_beyond_all_bounds_is_reported_and_costs_little_memory(talk, status, says, images):
    with raw_server(talk) as url, Classify(url, timeout_s=1 if status == 504 else NEVER_HANGS_S) as target_server:
        tracemalloc.start()
        try:
            results, status_code = target_server(images)
            _, most_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (status_code, most_bytes < MOST_MEMORY_BYTES) == (status, True), (results, most_bytes)
    assert says in results["error"]
    assert url in results["error"]


def test_compressed_error_is_not_inflated_either():
    body = gzip.compress(json.dumps({"error": "no"}).encode())

    def answer(request):
        reply = refusal(400, "")
        reply.body, reply.headers = body, {"Content-Encoding": "gzip"}
        return reply

    with StandIn(answer) as server, Classify(server.url) as target_server:
        results, status_code = target_server(b"x")
    assert (status_code, "compressed" in results["error"]) == (502, True)


def test_reasons_nested_beyond_all_depth_are_an_ordinary_refusal_of_readable_length():
    refused = refusal(400, f"no decodable image: {'[' * 100_000}")
    with StandIn(lambda request: refused) as server, Classify(server.url) as target_server:
        results, status_code = target_server(b"x")
    assert (status_code, len(results["error"]) < 3000) == (400, True)


PUMP = for_ever(
    OK + b"Inference-Header-Content-Length: 4000000\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10_000
)


def test_deadline_holds_while_an_answer_comes_without_a_pause():
    with raw_server(PUMP) as url, Classify(url, timeout_s=0.2) as target_server:
        assert target_server(b"x")[1] == 504


def test_closing_ends_a_request_whose_answer_comes_without_a_pause():
    comes = threading.Event()

    def talk(connection):
        comes.set()
        PUMP(connection)

    def call():
        with contextlib.suppress(RuntimeError):
            target_server(b"x")

    with raw_server(talk) as url:
        target_server = Classify(url)
        threading.Thread(target=call, daemon=True).start()
        assert comes.wait(NEVER_HANGS_S)
        time.sleep(0.1)
        target_server.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "inference_client"]


def test_deadline_holds_while_an_answer_within_the_bounds_is_read():
    # In a process of its own, because at its end a worker may still count empty strings.
    script = """
        import os, sys
        from inference_client import *
        results, status_code = Classify(sys.argv[1], timeout_s=0.5)(b"x")
        print(status_code, "gave no answer in time" in results["error"], flush=True)
        os._exit(0)
    """
    size = MAX_ANSWER_BYTES - (1 << 20)
    parameters = {"binary_data_size": size}
    output = {"name": "ERROR", "datatype": "BYTES", "shape": [1, size // 4], "parameters": parameters}
    head = json.dumps({"outputs": [output]}).encode()
    with raw_server(once(tensors_head(len(head), len(head) + size) + head + bytes(size))) as url:
        ended = run_script(script, url)
    assert ended.stdout == "504 True\n", ended.stderr


def trickle(connection):
    connection.recv(65536)
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


def silent(connection):
    while connection.recv(65536):
        pass


def over_tls(talk):
    def talk_over_tls(connection):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        with context.wrap_socket(connection, server_side=True) as encrypted:
            talk(encrypted)

    return talk_over_tls


def trickle_body(connection):
    connection.recv(65536)
    connection.sendall(OK + b"Content-Length: 1000\r\n\r\n")
    trickle(connection)


@pytest.mark.parametrize(
    "talk",
    [silent, over_tls(silent), over_tls(trickle_body), over_tls(PUMP)],
    ids=["no_handshake", "no_answer", "trickled_answer", "endless_answer"],
)
def test_deadline_holds_over_tls(talk, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with raw_server(talk) as url:
        target_server = Classify(url.replace("http:", "https:"), timeout_s=0.5, connect_timeout_s=3600)
        assert target_server(b"x")[1] == 504
        target_server.close()
        gc.collect()  # a socket left open would warn


def test_closing_ends_a_request_over_tls(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    asked = threading.Event()

    def talk(connection):
        connection.recv(1)
        asked.set()
        silent(connection)

    def call():
        with contextlib.suppress(RuntimeError):
            target_server(b"x")

    with raw_server(over_tls(talk)) as url:
        target_server = Classify(url.replace("http:", "https:"))
        threading.Thread(target=call, daemon=True).start()
        assert asked.wait(NEVER_HANGS_S)
        target_server.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "inference_client"]


def test_limit_beyond_all_bounds_is_taken_for_no_limit_of_a_request():
    with StandIn(configuration=lambda request: config(10**30)) as server, Classify(server.url) as target_server:
        assert target_server([b"x"] * 40)[1] == 200
    assert [len(request.images) for request in server.inferences] == [40]
