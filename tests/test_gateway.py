"""The gateway before two real tritonservers: who is let in, what is let through, and what a dead server costs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference_client import Classify
from inference_client.evaluation.asking import ask
from inference_client.evaluation.labelled_images import LabelledImage
from inference_client.settings import read_settings
from inference_server.process import RunningServer, running_server
from tests.gateway import CERTIFICATE, Gateway, running_gateway

KEY, OTHER_KEY = "correct-horse-battery-staple", "another-key-of-another-client"
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
        running_gateway(folder, addresses, {KEY: "ward 7", OTHER_KEY: "ward 8"}, evaluators=["ward 7"]) as running,
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
    counted = "".join(urllib.request.urlopen(server.metrics_url).read().decode() for server in servers)
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
            "POST", "/v2/models/ensemble/generate", {**JSON, "X-API-Key": KEY}, 404, "not served", id="generate"
        ),
        pytest.param("POST", "/v2/repository/index", {**JSON, "X-API-Key": KEY}, 404, "not served", id="repository"),
        pytest.param("POST", "/v2/models/ensemble/../preprocess/infer", {**JSON, "X-API-Key": KEY}, 404, "", id="dots"),
        pytest.param("POST", f"{HEAD}/infer", JSON, 401, "X-API-Key", id="head-no-key"),
        pytest.param("GET", f"{HEAD}/config", {"X-API-Key": "wrong"}, 403, "not known", id="head-wrong-key"),
        pytest.param("GET", f"{HEAD}/config", {"X-API-Key": OTHER_KEY}, 404, "evaluators", id="head-no-evaluator"),
        pytest.param("POST", f"{HEAD}/infer", {**JSON, "X-API-Key": OTHER_KEY}, 404, "not served", id="head-infer"),
        pytest.param("POST", f"{HEAD}/generate", {**JSON, "X-API-Key": KEY}, 404, "not served", id="head-generate"),
        pytest.param("GET", "/v2/logging", {"X-API-Key": KEY}, 404, "not served", id="logging"),
        pytest.param("GET", "/metrics", {"X-API-Key": KEY}, 404, "not served", id="metrics"),
    ],
)
def test_request_that_is_not_for_clients_is_refused(
    gateway: Gateway, method: str, path: str, headers: dict[str, str], status: int, says: str
) -> None:
    answered, body = _send(gateway, method, path, b"{}" if method == "POST" else None, headers)
    assert answered == status
    assert says in body["error"]


def test_evaluation_is_told_the_answers_at_other_thresholds(gateway: Gateway, query_images: list[Path]) -> None:
    settings = read_settings(gateway.url, timeout_s=60, connect_timeout_s=5, client_id=None, api_key=KEY)
    images = [LabelledImage(path=path, truth="alpha") for path in query_images[:2]]
    answers = ask(settings, images, sim_thres=None, progress=lambda _: None)
    assert answers.no_sweep is None
    assert all(each.labels is not None for each in answers.predictions)


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
    except (BrokenPipeError, ConnectionResetError, ssl.SSLError):  # refused before it was sent in full
        status = 413
    assert status in {401, 413, 415}
    status, _ = _send(gateway, "POST", INFER, b"a=b", headers)
    assert status == (401 if key is None else 415)
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
    assert any("nginx" in each for each in arguments)
    assert not any(KEY in each for each in arguments)
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
