"""Every failure, against a real socket, and the results of a list some of whose requests fail."""

import asyncio
import gc
import socket
import ssl
import time
from dataclasses import replace

import pytest
from stand_in import Reply, StandIn, echo, raw_server, refusal, unused_port

from inference_client import AsyncClassify, Classify
from inference_client.command_line.results.resuming import may_pass
from inference_client.failures import _TABLE, RefusedError, describe
from inference_client.settings import read_settings

HTML = Reply(502, b"<html><body>Bad Gateway</body></html>", {"Content-Type": "text/html"})
# Far longer than any of these tests takes, and far shorter than a test's timeout.
NEVER_HANGS_S = 20


@pytest.fixture(params=[Classify, AsyncClassify])
def classify(request):
    """Return a function that classifies images through one client, which is then closed."""

    def block(url, images=b"a", **options):
        with Classify(url, **{"timeout_s": 5, **options}) as target_server:
            return target_server(images)

    async def wait(url, images=b"a", **options):
        async with AsyncClassify(url, **{"timeout_s": 5, **options}) as target_server:
            return await target_server(images)

    return (
        block if request.param is Classify else lambda *arguments, **options: asyncio.run(wait(*arguments, **options))
    )


@pytest.mark.parametrize(
    ("reply", "status", "says"),
    [
        (refusal(400, "sim_thres must be -1 to 1"), 400, "sim_thres must be -1 to 1"),
        (refusal(400, "unexpected inference output 'VERSION' for model 'ensemble'"), 400, "export it again"),
        (refusal(401, "who are you"), 401, "Is api_key right"),
        (refusal(405, "Method Not Allowed"), 405, "port of tritonserver's metrics, usually 8002. Give the HTTP port"),
        (refusal(403, "restricted"), 403, "Is api_key right"),
        (refusal(404, "unknown model"), 404, "Is the model ensemble loaded"),
        (refusal(413, "too large"), 413, "raise its limit"),
        (refusal(429, "slow down"), 429, "too many requests"),
        (refusal(500, "ONNX Runtime failed"), 500, "ONNX Runtime failed. The server's log"),
        (HTML, 502, "a page that is not Triton's"),
        (Reply(500), 500, "empty response"),
        (Reply(500, b'{"detail": "no"}'), 500, "a page that is not Triton's"),
        (Reply(404, b"\xff\xfe"), 404, "a page that is not Triton's"),
        (Reply(301, headers={"Location": "https://elsewhere/"}), 301, "answered 301"),
        (Reply(204), 502, "answered 204"),
        (Reply(200, b"<html>log in to this network</html>"), 502, "something other than inference results"),
        (Reply(200, b"{}"), 502, "something other than inference results"),
        (Reply(200, b'{"outputs": []}'), 502, "output ERROR is missing"),
        (Reply(200, b""), 502, "something other than inference results"),
    ],
    ids=lambda value: f"{value.status}_{value.body[:12]!r}" if isinstance(value, Reply) else None,
)
def test_refusal_is_reported_with_its_status_and_a_remedy(classify, reply, status, says):
    with StandIn(lambda request: reply) as server:
        results, status_code = classify(server.url)
    assert status_code == status
    assert says in results["error"]
    assert server.url in results["error"]
    assert "<html" not in results["error"]
    assert len(server.inferences) == 1


def test_overload_is_retried_until_the_timeout_and_then_reported(classify):
    with StandIn(lambda request: refusal(503, "queue full")) as server:
        results, status_code = classify(server.url, timeout_s=1)
    assert status_code == 503
    assert "queue full. It was overloaded" in results["error"]
    assert len(server.inferences) > 2


def test_overload_that_ends_within_the_timeout_goes_unnoticed(classify):
    def answer(request):
        return echo(request) if len(server.inferences) == 4 else refusal(503, "queue full")

    with StandIn(answer) as server:
        assert classify(server.url) == ([{"Label": "a", "Probability": 0.5}], 200)


@pytest.mark.parametrize(
    "reply",
    [
        refusal(503, "queue full"),
        refusal(404, "Request for unknown model: 'ensemble' has no available versions"),
        refusal(500, "Stub process 'a' is not healthy."),
        HTML,
        Reply(hang_up=True),
    ],
    ids=["overloaded", "ending", "dead-process", "proxy-without-server", "connection-lost"],
)
@pytest.mark.parametrize("images", [b"a", [b"a", b"b"]], ids=["one", "list"])
def test_server_that_is_back_within_the_timeout_costs_no_result(reply, images):
    def answer(request):
        return echo(request) if len(server.inferences) in {1, 4} else reply

    with StandIn(answer) as server, Classify(server.url, timeout_s=10) as target_server:
        assert target_server(b"a") == ([{"Label": "a", "Probability": 0.5}], 200)
        _, status_code = target_server(images)
        assert (status_code, len(server.inferences)) == (200, 4)


def test_server_lost_while_it_is_sent_a_large_image_and_back_within_the_timeout_costs_no_result():
    def answer(request):
        return echo(replace(request, images=[b"a"]))

    with StandIn(answer) as server, Classify(server.url, timeout_s=10) as target_server:
        assert target_server(b"a") == ([{"Label": "a", "Probability": 0.5}], 200)
        server.resets = 6
        assert target_server(bytes(2**25)) == ([{"Label": "a", "Probability": 0.5}], 200)
        assert server.resets == 0


def test_dead_process_is_waited_for_even_by_the_first_call(classify):
    with StandIn(lambda request: refusal(500, "Stub process 'a' is not healthy.")) as server:
        results, status_code = classify(server.url, timeout_s=1)
    assert (status_code, len(server.inferences) > 2) == (500, True)
    assert "is not healthy" in results["error"]


def test_server_that_is_gone_for_good_ends_a_list_after_one_timeout():
    def answer(request):
        return Reply(hang_up=True) if len(server.inferences) > 2 else echo(request)

    started_s = time.monotonic()
    with StandIn(answer) as server, Classify(server.url, timeout_s=2) as target_server:
        finished = []
        results, status_code = target_server([b"x"] * 200, progress=finished.append)
    assert status_code == 207
    assert [entry["Label"] for entry in results[:4]] == ["x"] * 4
    assert results[-1]["Label"] is None
    assert server.url in results[-1]["Error"]
    assert sum(finished) == 200
    assert time.monotonic() - started_s < NEVER_HANGS_S


def test_last_try_after_overload_that_is_cut_short_is_still_reported_as_overload(classify):
    def answer(request):
        if len(server.inferences) > 1:
            time.sleep(3)
        return refusal(503, "queue full")

    with StandIn(answer) as server:
        results, status_code = classify(server.url, timeout_s=1)
    assert (status_code, len(server.inferences)) == (503, 2)
    assert "queue full" in results["error"]


def silent(connection):
    while connection.recv(65536):
        pass


def trickle(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.1)


def deaf(connection):
    time.sleep(NEVER_HANGS_S)


def close_at_once(connection):
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def close_politely(connection):
    connection.recv(1 << 20)


def cut_off(connection):
    connection.recv(1 << 20)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


def nonsense(connection):
    connection.recv(1 << 20)
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.mark.parametrize(
    ("talk", "status", "says"),
    [
        (silent, 504, "gave no answer in time"),
        (trickle, 504, "gave no answer in time"),
        (close_politely, 503, "closed the connection without an answer"),
        (close_at_once, 503, "curl"),
        (cut_off, 503, "broke off its answer"),
        (nonsense, 503, "does not speak HTTP"),
    ],
)
@pytest.mark.parametrize("images", [b"a", [b"a", b"b"]], ids=["one", "list"])
def test_server_that_does_not_answer_is_reported(classify, talk, status, says, images):
    started_s = time.monotonic()
    with raw_server(talk) as url:
        results, status_code = classify(url, images, timeout_s=1)
    assert status_code == status
    assert says in results["error"]
    assert url in results["error"]
    assert time.monotonic() - started_s < NEVER_HANGS_S


def test_server_that_reads_nothing_is_reported_as_too_slow(classify):
    started_s = time.monotonic()
    with raw_server(deaf) as url:
        _, status_code = classify(url, bytes(64 << 20), timeout_s=1)
    assert status_code == 504
    gc.collect()  # a socket left open would warn
    assert time.monotonic() - started_s < NEVER_HANGS_S


def test_refused_connection_is_reported_at_once_with_the_command_to_try(classify):
    url = f"http://127.0.0.1:{unused_port()}"
    started_s = time.monotonic()
    for images in (b"a", [b"a", b"b"]):
        results, status_code = classify(url, images, timeout_s=60)
        assert status_code == 503
        assert results["error"] == (
            f"{url} refused the connection. Is inference-server or tritonserver running there? "
            f"Try: curl {url}/v2/health/ready"
        )
    assert time.monotonic() - started_s < NEVER_HANGS_S


def test_unknown_host_is_reported_as_such(classify):
    results, status_code = classify("http://host.invalid:8080")
    assert status_code == 503
    assert "host.invalid:8080 was not found" in results["error"]


def test_port_that_accepts_no_connection_is_reported_as_too_slow(classify):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = []
        for _ in range(8):  # fill the queue of unaccepted connections
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(address)
        results, status_code = classify(f"127.0.0.1:{address[1]}", timeout_s=10, connect_timeout_s=0.5)
        for connection in waiting:
            connection.close()
    assert status_code == 504
    assert "connect_timeout_s=0.5" in results["error"]


def test_certificate_that_is_not_trusted_is_reported_with_its_remedy(classify):
    with StandIn(tls=True) as server:
        results, status_code = classify(server.url)
    assert status_code == 503
    assert "certificate that is not trusted" in results["error"]
    assert "SSL_CERT_FILE" in results["error"]
    assert server.requests == []


@pytest.mark.parametrize(
    ("file", "reason"),
    [("missing.pem", "No such file or directory"), (".", "Is a directory"), ("text.pem", "no certificates in PEM")],
)
def test_certificates_that_can_not_be_read_are_named(classify, file, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pem").write_text("my certificate")
    monkeypatch.setenv("SSL_CERT_FILE", file)
    with StandIn(tls=True) as server:
        results, status_code = classify(server.url)
    assert status_code == 503
    assert results["error"] == (
        f"{server.url} was not asked: the environment variable SSL_CERT_FILE names {file!r}, which can't be read "
        f"({reason}). Set it to a file of certificates in PEM that you trust, or unset it to trust the system's."
    )


def test_grpc_port_is_recognized(classify):
    settings = b"\0\0\x18\x04\0\0\0\0\0\0\x04\0@\0\0\0\x05\0@\0\0\0\x06\0\0@\0\xfe\x03\0\0\0\x01"  # a real server's
    with raw_server(lambda connection: (connection.recv(100), connection.sendall(settings))) as url:
        results, status_code = classify(url)
    assert status_code == 503
    assert results["error"] == (
        f"{url} speaks gRPC: this is a gRPC port of tritonserver, usually 8001. Give the HTTP port of the server: 8080 "
        "with inference-server, 8000 with tritonserver, unless another was chosen."
    )


def test_https_to_a_plain_server_is_reported_as_such(classify):
    with StandIn() as server:
        results, status_code = classify(server.url.replace("http:", "https:"))
    assert status_code == 503
    assert "Is it http:// instead of https://" in results["error"]


def test_http_to_a_tls_server_is_reported(classify):
    with StandIn(tls=True) as server:
        results, status_code = classify(server.url.replace("https:", "http:"))
    assert status_code == 503
    assert "curl" in results["error"]


def test_every_message_begins_with_the_url_which_tells_it_from_what_the_server_says_of_an_image():
    # classify --resume sends again the images whose requests failed.
    assert all(failure.says.startswith("{url} ") for failure in _TABLE)
    settings = read_settings("h:1", timeout_s=1, connect_timeout_s=1, client_id=None, api_key=None)
    assert may_pass("a.jpg", describe(RefusedError(400, "no"), settings).message)


def test_table_ends_in_a_row_for_everything_else():
    settings = read_settings("h:1", timeout_s=1, connect_timeout_s=1, client_id=None, api_key=None)
    assert _TABLE[-1].raised is Exception
    assert describe(KeyError("x"), settings).status == 502
    assert describe(ssl.SSLError(1, "wrong version number"), settings).status == 503


@pytest.mark.parametrize("status", [401, 403, 404, 429])
def test_failure_that_the_whole_list_would_meet_ends_it(classify, status):
    with StandIn(lambda request: refusal(status, "no")) as server:
        _, status_code = classify(server.url, [b"x"] * 12)
    assert status_code == status
    assert len(server.inferences) == 1


@pytest.mark.parametrize("status", [400, 413, 500])
def test_failure_about_one_requests_content_does_not_end_the_list(classify, status):
    def answer(request):
        return refusal(status, "this one") if request.images[0] == b"bad luck" else echo(request)

    with StandIn(answer) as server:
        results, status_code = classify(server.url, [b"bad luck", *[b"x"] * 7])
    assert status_code == 207
    assert [entry["Label"] for entry in results] == [None] * 4 + ["x"] * 4
    assert "this one" in results[0]["Error"]


def test_first_failures_status_is_reported_when_nothing_was_answered(classify):
    def answer(request):
        return refusal(413 if request.images[0] == b"first" else 400, "no")

    with StandIn(answer) as server:
        _, status_code = classify(server.url, [b"first", *[b"x"] * 7])
    assert (status_code, len(server.inferences)) == (413, 2)


def test_failure_after_an_answer_costs_only_its_own_images(classify):
    def answer(request):
        return refusal(404, "unloaded") if request.images[0] == b"lost" else echo(request)

    with StandIn(answer) as server:
        results, status_code = classify(server.url, [*[b"x"] * 4, *[b"lost"] * 4, *[b"y"] * 4])
    assert status_code == 207
    assert [entry["Label"] for entry in results] == ["x"] * 4 + [None] * 4 + ["y"] * 4
    assert "unloaded" in results[4]["Error"]


@pytest.mark.parametrize(
    ("images", "labels", "status"),
    [
        ([b"a", b"b"], ["a", "b"], 200),
        ([b"a", b"bad"], ["a", None], 207),
        ([b"bad", b"bad"], [None, None], 400),
        (b"bad", [None], 400),
        ([*[b"bad"] * 4, b"a"], [None] * 4 + ["a"], 207),
        ([b"bad"] * 9, [None] * 9, 400),
    ],
    ids=["all", "some", "none", "single", "a_whole_request", "every_request"],
)
def test_undecodable_images_have_their_reason_and_are_not_sent_again(classify, images, labels, status):
    with StandIn() as server:
        results, status_code = classify(server.url, images)
    assert status_code == status
    assert [entry["Label"] for entry in results] == labels
    for entry in results:
        if entry["Label"] is None:
            assert entry == {"Label": None, "Probability": None, "Error": "bad is no image"}
    assert sum(len(request.images) for request in server.inferences) == len(results)


@pytest.mark.parametrize("reasons", ["", "nonsense", '["only one"]', '{"a": 1, "b": 2}'])
def test_refusal_without_a_reason_for_each_image_is_an_ordinary_one(classify, reasons):
    with StandIn(lambda request: refusal(400, f"no decodable image: {reasons}")) as server:
        results, status_code = classify(server.url, [b"a", b"b"])
    assert status_code == 400
    assert "no decodable image" in results["error"]


def test_refusal_of_another_status_is_no_list_of_reasons(classify):
    with StandIn(lambda request: refusal(500, 'no decodable image: ["a"]')) as server:
        results, status_code = classify(server.url)
    assert (status_code, "error" in results) == (500, True)
