"""``TensorClient``: outputs and models of the caller's choice."""

import json

import numpy as np
import pytest
from stand_in import Reply, StandIn, echo, refusal, unused_port

from inference_client.answers import output_names, read_entry
from inference_client.background import StoppedError
from inference_client.failures import RequestError
from inference_client.tensors import TensorClient


def test_images_have_the_tensors_asked_for_or_their_error(tmp_path):
    with StandIn() as server, TensorClient(server.url) as client:
        answers = list(client.images([b"a", b"bad", *[b"b"] * 7], ["LABEL", "SCORES"], sim_thres=0.5))
    assert [answer.error for answer in answers] == ["", "bad is no image", *[""] * 7]
    assert answers[0].tensors["LABEL"].tolist() == [b"a"]
    assert answers[8].tensors["SCORES"].tolist() == [0.25, 0.5]
    assert answers[1].tensors == {}
    assert sorted(len(request.images) for request in server.inferences) == [1, 4, 4]
    for request in server.inferences:
        assert [output["name"] for output in request.body["outputs"]] == ["ERROR", "LABEL", "SCORES"]
        assert request.body["parameters"]["sim_thres"] == "0.5"


def test_entry_is_read_from_tensors_as_classify_gives_it():
    with StandIn() as server, TensorClient(server.url) as client:
        (answer,) = client.images(b"a", output_names(details=True))
    entry = read_entry(answer, details=True)
    assert (entry["Label"], entry["Version"], entry["Threshold"]) == ("a", 3, None)


def test_first_failure_is_raised_after_the_results_before_it():
    def answer(request):
        return refusal(500, "broken") if request.images[0] == b"lost" else echo(request)

    given = []
    with StandIn(answer) as server, TensorClient(server.url) as client:
        with pytest.raises(RequestError, match="broken") as raised:
            given.extend(client.images([*[b"a"] * 8, *[b"lost"] * 4, *[b"b"] * 400], ["LABEL"]))
        assert (len(given), raised.value.status) == (8, 500)
        assert len(server.inferences) < 30


def test_path_that_is_missing_is_reported_before_anything_is_sent(tmp_path):
    with StandIn() as server, TensorClient(server.url) as client:
        with pytest.raises(FileNotFoundError):
            client.images([b"a", tmp_path / "missing"], ["LABEL"])
        assert server.requests == []


def test_another_model_is_asked_at_its_version_with_parameters():
    with StandIn() as server, TensorClient(server.url, api_key="k") as client:
        inputs = {"NAME": np.array([[b"a"], [b"b"]], object)}
        tensors = client.infer("cluster_head", inputs, ["LABEL"], version="7", parameters={"sim_thres": "0.5"})
    (request,) = server.inferences
    assert tensors["LABEL"].tolist() == [[b"a"], [b"b"]]
    assert request.path == "/v2/models/cluster_head/versions/7/infer"
    assert request.headers["x-api-key"] == "k"
    assert request.body["parameters"]["sim_thres"] == "0.5"
    assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in request.body["inputs"]] == [
        ("NAME", "BYTES", [2, 1])
    ]


def test_output_that_the_answer_lacks_is_reported():
    reply = Reply(body=json.dumps({"outputs": []}).encode())
    inputs = {"NAME": np.array([[b"a"]], object)}
    with (
        StandIn(lambda request: reply) as server,
        TensorClient(server.url) as client,
        pytest.raises(RequestError, match="output LABEL is missing"),
    ):
        client.infer("cluster_head", inputs, ["LABEL"])


def test_configuration_is_read_of_any_model_and_version():
    with StandIn() as server, TensorClient(server.url) as client:
        assert client.config("cluster_head", version="2")["max_batch_size"] == 4
        assert client.config("ensemble")["name"] == "ensemble"
    assert [request.path for request in server.requests] == [
        "/v2/models/cluster_head/versions/2/config",
        "/v2/models/ensemble/config",
    ]


def test_server_that_is_not_there_is_reported_by_every_request():
    with TensorClient(f"localhost:{unused_port()}") as client:
        for request in (
            lambda: list(client.images([b"a", b"b"], ["LABEL"])),
            lambda: client.config("ensemble"),
            lambda: client.infer("cluster_head", {"NAME": np.array([[b"a"]], object)}, ["LABEL"]),
        ):
            with pytest.raises(RequestError, match="refused the connection"):
                request()
    with pytest.raises(StoppedError):
        client.config("ensemble")
