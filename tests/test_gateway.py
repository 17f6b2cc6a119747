"""The gateway before two real tritonservers: admitted clients, admitted requests, and the cost of a dead server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference_client import Classify
from inference_client.tensors import TensorClient
from inference_evaluation.labelled_images import LabelledImage
from inference_evaluation.server_answers import collect_answers
from inference_server.triton.process import RunningServer, free_ports, running_server
from tests.compressed import compressed_spaces
from tests.gateway import CERTIFICATE, Gateway, running_gateway
from tests.metrics import settled_metrics

pytestmark = pytest.mark.slow

KEY, OTHER_KEY = "correct-horse-battery-staple", "another-key-of-another-client"
ORIGIN = "https://photos.example.org"
INFER = "/v2/models/ensemble/infer"
HEAD = "/v2/models/cluster_head/versions/1"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, small_clustering: Path) -> Iterator[list[RunningServer]]:
    folder = tmp_path_factory.mktemp("servers")
    with (
        running_server(small_clustering, log=folder / "one.log") as one,
        running_server(small_clustering, log=folder / "other.log") as other,
    ):
        yield [one, other]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, servers: list[RunningServer]) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway") / "nginx"
    addresses = [server.url.removeprefix("http://") for server in servers]
    with (
        pytest.MonkeyPatch.context() as patch,
        running_gateway(
            folder, addresses, {KEY: "ward 7", OTHER_KEY: "ward 8"}, evaluators=["ward 7"], origins=[ORIGIN]
        ) as running,
    ):
        patch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        yield running


def _send(
    gateway: Gateway, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    connection = http.client.HTTPSConnection("localhost", gateway.port, context=context, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(text) if text else None


def _request(image: Path, **parameters: Any) -> bytes:
    import base64

    data = [base64.b64encode(image.read_bytes()).decode()]
    inputs = [{"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": data}]
    return json.dumps({"inputs": inputs, "outputs": [{"name": "LABEL"}], "parameters": parameters}).encode()


JSON = {"Content-Type": "application/json"}


def test_right_key_is_answered_and_the_id_of_its_client_counted(
    gateway: Gateway, servers: list[RunningServer], query_images: list[Path]
) -> None:
    with Classify(gateway.url, api_key=KEY, client_id="ward 8") as classify:
        results, status = classify(query_images)
    assert status == 200, results
    assert len(results) == len(query_images)
    body = _request(query_images[0], **{"X-Client-Id": "ward 8", "x-client-id": "ward 8"})
    assert _send(gateway, "POST", INFER, body, {**JSON, "X-API-Key": KEY, "X-Client-Id": "ward 8"})[0] == 200
    counted = "".join(settled_metrics(server.metrics_url) for server in servers)
    assert 'classify_images_total{client="ward 7"' in counted
    assert "ward 8" not in counted
    assert KEY not in counted


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "says"),
    [
        pytest.param("POST", INFER, JSON, 401, "X-API-Key", id="no-key"),
        pytest.param("POST", INFER, {**JSON, "X-API-Key": "wrong"}, 403, "not known", id="wrong-key"),
        pytest.param("GET", INFER, {"X-API-Key": KEY}, 405, "POST", id="method"),
        pytest.param(
            "POST",
            "/v2/models/ensemble/generate",
            JSON,
            404,
            "POST the image to /v2/models/ensemble/infer",
            id="generate",
        ),
        pytest.param("POST", "/v2/repository/index", {**JSON, "X-API-Key": KEY}, 404, "not served", id="repository"),
        pytest.param("POST", "/v2/models/ensemble/../preprocess/infer", {**JSON, "X-API-Key": KEY}, 404, "", id="dots"),
        pytest.param("POST", f"{HEAD}/infer", JSON, 401, "X-API-Key", id="head-no-key"),
        pytest.param("GET", f"{HEAD}/config", {"X-API-Key": "wrong"}, 403, "not known", id="head-wrong-key"),
        pytest.param("GET", f"{HEAD}/config", {"X-API-Key": OTHER_KEY}, 404, "evaluators", id="head-no-evaluator"),
        pytest.param("POST", f"{HEAD}/infer", {**JSON, "X-API-Key": OTHER_KEY}, 404, "not served", id="head-infer"),
        pytest.param("POST", f"{HEAD}/generate", {**JSON, "X-API-Key": KEY}, 404, "not served", id="head-generate"),
        pytest.param("GET", "/v2/logging", {"X-API-Key": KEY}, 404, "not served", id="logging"),
        pytest.param("GET", "/console/", {"X-API-Key": KEY}, 404, "not served", id="console-that-is-not-there"),
        pytest.param("GET", "/metrics", {"X-API-Key": KEY}, 404, "POST /v2/models/ensemble/infer", id="metrics"),
    ],
)
def test_request_that_is_not_for_clients_is_refused(
    gateway: Gateway, method: str, path: str, headers: dict[str, str], status: int, says: str
) -> None:
    answered, body = _send(gateway, method, path, b"{}" if method == "POST" else None, headers)
    assert answered == status
    assert says in body["error"]


def test_evaluation_is_told_the_answers_at_other_thresholds(gateway: Gateway, query_images: list[Path]) -> None:
    images = [LabelledImage(path=path, truth="alpha") for path in query_images[:2]]
    with TensorClient(gateway.url, api_key=KEY) as client:
        answers = collect_answers(client, images, sim_thres=None, progress=lambda _: None)
    assert answers.no_trials is None
    assert all(prediction.labels_at is not None for prediction in answers.predictions)


def test_scoring_embeddings_again_is_not_held_to_the_rate_of_images(gateway: Gateway) -> None:
    connection = http.client.HTTPSConnection(
        "localhost", gateway.port, context=ssl.create_default_context(cafile=str(CERTIFICATE)), timeout=30
    )
    answered = set()
    for _ in range(400):
        connection.request("GET", f"{HEAD}/config", headers={"X-API-Key": KEY})
        answer = connection.getresponse()
        answer.read()
        answered.add(answer.status)
    connection.close()
    assert answered == {200}


def test_missing_and_wrong_keys_are_told_through_the_client(gateway: Gateway, query_images: list[Path]) -> None:
    for key, status in ((None, 401), ("wrong", 403)):
        with Classify(gateway.url, api_key=key) as classify:
            assert classify(query_images)[1] == status


def _headers(gateway: Gateway, method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
    """Send a request without a body; return the status, and the headers that tell browsers what they may do."""
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    with contextlib.closing(
        http.client.HTTPSConnection("localhost", gateway.port, context=context, timeout=30)
    ) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
    prefix = "Access-Control-"
    return answer.status, {name.removeprefix(prefix): text for name, text in answer.getheaders() if prefix in name}


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-api-key"}


def test_page_of_a_named_origin_may_ask_and_read_errors_too(gateway: Gateway) -> None:
    status, allowed = _headers(gateway, "OPTIONS", INFER, {**PREFLIGHT, "Origin": ORIGIN})
    assert status == 204
    assert allowed == {
        "Allow-Origin": ORIGIN,
        "Allow-Methods": "GET, POST",
        "Allow-Headers": "Content-Type, Inference-Header-Content-Length, X-API-Key",
        "Max-Age": "600",
    }
    for method, path, headers, expected in (
        ("GET", "/v2/models/ensemble/config", {"X-API-Key": KEY}, 200),
        ("GET", "/v2/models/ensemble/config", {}, 401),
        ("POST", INFER, {"X-API-Key": "wrong"}, 403),
        ("GET", "/metrics", {}, 404),
    ):
        assert _headers(gateway, method, path, {**headers, "Origin": ORIGIN}) == (expected, {"Allow-Origin": ORIGIN})


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", f"{ORIGIN}.evil.example", "http://photos.example.org", "*"]
)
def test_page_of_another_origin_is_told_nothing_and_needs_a_key(gateway: Gateway, origin: str) -> None:
    assert _headers(gateway, "OPTIONS", INFER, {**PREFLIGHT, "Origin": origin}) == (401, {})
    assert _headers(gateway, "GET", "/v2/models/ensemble/config", {"X-API-Key": KEY, "Origin": origin}) == (200, {})


def test_preflight_opens_no_other_path_and_nothing_without_an_origin(gateway: Gateway) -> None:
    for path in ("/v2/repository/index", "/metrics", "/v2/models/ensemble/generate"):
        assert _headers(gateway, "OPTIONS", path, {**PREFLIGHT, "Origin": ORIGIN})[0] == 404
    assert _headers(gateway, "OPTIONS", INFER, PREFLIGHT) == (401, {})
    assert _headers(gateway, "OPTIONS", INFER, {"X-API-Key": KEY}) == (405, {})


def test_gateway_without_origins_says_nothing_to_browsers(tmp_path: Path) -> None:
    with (
        _StandIn(_answer("200 OK", b"{}")) as one,
        running_gateway(tmp_path / "nginx", [one.address], {KEY: "ward 7"}) as gateway,
    ):
        assert _headers(gateway, "OPTIONS", INFER, {**PREFLIGHT, "Origin": ORIGIN}) == (401, {})
        assert _headers(gateway, "GET", "/v2/models/ensemble/config", {"X-API-Key": KEY, "Origin": ORIGIN}) == (200, {})


def test_plain_http_is_refused(gateway: Gateway) -> None:
    connection = http.client.HTTPConnection("localhost", gateway.port, timeout=10)
    connection.request("GET", "/v2/health/ready")
    answer = connection.getresponse()
    assert answer.status == 400
    assert b"HTTPS" in answer.read()


@pytest.mark.parametrize("key", [None, KEY], ids=["without-key", "with-key"])
def test_form_encoded_body_of_100_mb_is_refused_and_harms_nobody(
    gateway: Gateway, query_images: list[Path], key: str | None
) -> None:
    headers = {"Content-Type": "Application/X-WWW-form-urlencoded", **({} if key is None else {"X-API-Key": key})}
    try:
        status, _ = _send(gateway, "POST", INFER, bytes(100 << 20), headers)
    except (BrokenPipeError, ConnectionResetError, ssl.SSLError):  # refused before it was sent completely
        status = 413
    assert status in {401, 413, 415}
    status, _ = _send(gateway, "POST", INFER, b"a=b", headers)
    assert status == (401 if key is None else 415)
    with Classify(gateway.url, api_key=KEY) as classify:
        assert classify(query_images)[1] == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity", "0"])
def test_every_content_encoding_is_refused(gateway: Gateway, query_images: list[Path], encoding: str) -> None:
    headers = {**JSON, "X-API-Key": KEY, "Content-Encoding": encoding}
    status, answer = _send(gateway, "POST", INFER, _request(query_images[0]), headers)
    assert status == 415
    assert "without Content-Encoding" in answer["error"]


def test_compressed_body_of_2100_mib_harms_nobody(
    gateway: Gateway, servers: list[RunningServer], query_images: list[Path]
) -> None:
    headers = {**JSON, "X-API-Key": KEY, "Content-Encoding": "gzip"}
    assert _send(gateway, "POST", INFER, compressed_spaces(2100), headers)[0] == 415
    assert [server.process.poll() for server in servers] == [None, None]
    with Classify(gateway.url, api_key=KEY) as classify:
        assert classify(query_images)[1] == 200


def test_chunked_body_is_answered(gateway: Gateway, query_images: list[Path]) -> None:
    body = _request(query_images[0])
    chunks = (body[start : start + 1000] for start in range(0, len(body), 1000))  # http.client then sends no length
    status, answer = _send(gateway, "POST", INFER, chunks, {**JSON, "X-API-Key": KEY})
    assert status == 200
    assert answer["outputs"][0]["name"] == "LABEL"


def test_client_keys_are_in_no_process_arguments_and_not_in_the_log(gateway: Gateway, query_images: list[Path]) -> None:
    with Classify(gateway.url, api_key=KEY) as classify:
        assert classify(query_images)[1] == 200
    arguments = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert any("nginx" in argument for argument in arguments)
    assert not any(KEY in argument for argument in arguments)
    log = gateway.log.read_text()
    assert '"client": "ward 7"' in log
    assert KEY not in log


def test_server_killed_under_load_costs_a_retrying_client_nothing(
    tmp_path: Path, small_clustering: Path, query_images: list[Path]
) -> None:
    with (
        running_server(small_clustering, log=tmp_path / "one.log") as one,
        running_server(small_clustering, log=tmp_path / "other.log") as other,
        running_gateway(
            tmp_path / "nginx", [server.url.removeprefix("http://") for server in (one, other)], {KEY: "ward 7"}
        ) as gateway,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        statuses: list[int] = []
        done = threading.Event()

        def ask() -> None:
            with Classify(gateway.url, api_key=KEY, timeout_s=20) as classify:
                while not done.is_set():
                    statuses.append(classify(query_images)[1])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        os.killpg(one.process.pid, signal.SIGKILL)
        time.sleep(3)
        done.set()
        for thread in threads:
            thread.join()
    assert len(statuses) > 8
    assert set(statuses) == {200}


class _StandIn:
    """A server that reads whole requests; it closes the connection unless it has an answer."""

    def __init__(self, answer: bytes | None = None, *, closes_after: bool = False) -> None:
        self.bodies: list[bytes] = []  # of its requests
        self._answer = answer
        self._closes_after = closes_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> _StandIn:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as file:
            while line := file.readline():
                length = 0
                while line not in {b"\r\n", b""}:
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                    line = file.readline()
                self.bodies.append(file.read(length))
                if self._answer is None:
                    return
                connection.sendall(self._answer)
                if self._closes_after:
                    return


def _answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _post(gateway: Gateway) -> tuple[int, Any]:
    return _send(gateway, "POST", INFER, b"{}", {**JSON, "X-API-Key": KEY})


def test_request_that_a_server_broke_off_is_given_to_no_other(tmp_path: Path) -> None:
    with (
        _StandIn() as one,
        _StandIn() as other,
        running_gateway(tmp_path / "nginx", [one.address, other.address], {KEY: "ward 7"}) as gateway,
    ):
        status, answer = _post(gateway)
        assert status == 502
        assert "no other server" in answer["error"]
        assert one.bodies + other.bodies == [b"{}"]


def test_request_that_reaches_no_server_goes_to_the_next_and_at_last_is_503(tmp_path: Path) -> None:
    closed = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with (
        _StandIn(_answer("200 OK", b"{}")) as sound,
        running_gateway(tmp_path / "one", [closed[0], sound.address], {KEY: "ward 7"}) as gateway,
    ):
        assert [_post(gateway)[0] for _ in range(4)] == [200] * 4
        assert len(sound.bodies) == 4
    with running_gateway(tmp_path / "none", closed, {KEY: "ward 7"}) as gateway:
        status, answer = _post(gateway)  # both are tried
        assert (status, answer) == (503, {"error": "no server is there; try again"})
        assert _post(gateway)[0] == 503  # neither


def test_servers_own_503_reaches_the_client_and_shuts_no_server_out(tmp_path: Path) -> None:
    busy = {"error": "Exceeds maximum queue size"}
    with (
        _StandIn(_answer("503 Service Unavailable", json.dumps(busy).encode())) as one,
        running_gateway(tmp_path / "nginx", [one.address, *_closed()], {KEY: "ward 7"}) as gateway,
    ):
        assert [_post(gateway) for _ in range(5)] == [(503, busy)] * 5
        assert len(one.bodies) == 5


def _closed() -> list[str]:
    return [f"127.0.0.1:{port}" for port in free_ports(1)]


def test_kept_connections_that_a_server_closed_lose_no_request(tmp_path: Path) -> None:
    with (
        _StandIn(_answer("200 OK", b"{}"), closes_after=True) as one,
        running_gateway(tmp_path / "nginx", [one.address], {KEY: "ward 7"}) as gateway,
    ):
        assert [_post(gateway)[0] for _ in range(50)] == [200] * 50


def test_questions_are_sent_on_without_their_bodies(tmp_path: Path) -> None:
    with (
        _StandIn(_answer("200 OK", b"{}")) as one,
        running_gateway(tmp_path / "nginx", [one.address], {KEY: "ward 7"}) as gateway,
    ):
        for path in ("/v2/health/ready", "/v2/models/ensemble/config"):
            assert _send(gateway, "POST", path, b"a body", {**JSON, "X-API-Key": KEY})[0] == 200
        assert one.bodies == [b"", b""]


_HEAD = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
_HEALTH = "GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        pytest.param("GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="null-in-path"),
        pytest.param("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="no-escape"),
        pytest.param("GET /../../x HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="dots"),
        pytest.param("nonsense\r\n\r\n", 400, id="no-http"),
        pytest.param("GET / HTTP/1.1\r\n\r\n", 400, id="no-host"),
        pytest.param("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, id="bad-host"),
        pytest.param(f"{_HEAD}Content-Length: x\r\n\r\n", 400, id="bad-length"),
        pytest.param(f"{_HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400, id="bad-chunk"),
        pytest.param(f"GET / HTTP/1.1\r\nHost: x\r\nX: {'a' * 9000}\r\n\r\n", 400, id="long-header"),
        pytest.param("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405, id="trace"),
        pytest.param(f"{_HEAD}Content-Length: 999999999\r\n\r\n", 413, id="long-body"),
        pytest.param(f"{_HEALTH}Content-Length: 2000\r\n\r\n", 413, id="long-body-without-key"),
        pytest.param(f"{_HEALTH}Transfer-Encoding: chunked\r\n\r\n7d0\r\nx", 413, id="long-chunk-without-key"),
        pytest.param(f"GET /{'a' * 9000} HTTP/1.1\r\nHost: x\r\n\r\n", 414, id="long-path"),
        pytest.param(f"{_HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n", 501, id="other-encoding"),
        pytest.param("GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505, id="other-http"),
        pytest.param("GET /errors/lost HTTP/1.1\r\nHost: x\r\n\r\n", 404, id="page-of-an-error"),
    ],
)
def test_every_error_of_the_gateway_itself_is_json(gateway: Gateway, request_text: str, status: int) -> None:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    with (
        socket.create_connection(("localhost", gateway.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(request_text.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == status
        assert answer.headers["Content-Type"] == "application/json"
        assert set(json.loads(answer.read())) == {"error"}
