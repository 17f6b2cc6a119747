"""Odd images, broken images and many images through the real server."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference_client import Classify
from inference_server.triton.process import RunningServer
from tests import reference
from tests.conftest import LABELS, Trained

TOLERANCE = 1e-4


def _post(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def _save(folder: Path, name: str, image: Image.Image, **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


@pytest.fixture(scope="module")
def odd_images(tmp_path_factory: pytest.TempPathFactory, query_images: list[Path]) -> list[Path]:
    """Valid images of unusual kinds, each of which plain Pillow reads as the contract says."""
    folder = tmp_path_factory.mktemp("odd")
    photograph = Image.open(query_images[0])
    exif = Image.Exif()
    exif[0x0112] = 8
    return [
        _save(folder, "grey.png", photograph.convert("L")),
        _save(folder, "palette.png", photograph.quantize(64)),
        _save(folder, "rgba.png", photograph.convert("RGBA")),
        _save(folder, "cmyk.jpg", photograph.convert("CMYK")),
        _save(folder, "progressive.jpg", photograph, progressive=True),
        _save(folder, "rotated.jpg", photograph, exif=exif),
        _save(folder, "photograph.webp", photograph),
        _save(folder, "photograph.bmp", photograph),
        _save(folder, "photograph.avif", photograph),
        _save(folder, "IMG_0001.HEIC", photograph),
        _save(folder, "photograph.tiff", photograph),
        _save(folder, "animated.gif", photograph, save_all=True, append_images=[photograph.rotate(90)]),
        _save(folder, "one_pixel.png", Image.new("RGB", (1, 1), (10, 200, 30))),
        _save(folder, "large.jpg", photograph.resize((4000, 3000))),
    ]


def test_odd_but_valid_images_are_classified_as_plain_pytorch_does(
    classification_server: RunningServer, small: Trained, odd_images: list[Path]
) -> None:
    with Classify(classification_server.url) as classify:
        results, status = classify(odd_images)
    assert status == 200
    for entry, wanted in zip(
        results, reference.classify(small.state, LABELS, odd_images, small.image_size), strict=True
    ):
        assert entry["Label"] == wanted["Label"]
        assert entry["Probability"] == pytest.approx(wanted["Probability"], abs=TOLERANCE)


def test_16_bit_grey_is_classified_as_its_8_bit_image(classification_server: RunningServer, tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)
    wide = np.add.outer(ramp // 2, ramp // 2)
    files = [
        _save(tmp_path, "16.png", Image.fromarray(wide)),
        _save(tmp_path, "8.png", Image.fromarray((wide // 257).astype(np.uint8))),
    ]
    with Classify(classification_server.url) as classify:
        (sixteen, eight), status = classify(files)
    assert status == 200
    assert sixteen["Label"] == eight["Label"]
    assert sixteen["Probability"] == pytest.approx(eight["Probability"], abs=TOLERANCE)


def test_undecodable_images_in_a_batch_leave_the_others_classified(
    clustering_server: RunningServer, query_images: list[Path]
) -> None:
    good = [file.read_bytes() for file in query_images]
    mixed: list[bytes] = []
    for data in good:
        mixed += [data, b"no image", data[: len(data) // 2]]
    with Classify(clustering_server.url, details=True) as classify:
        alone, status_alone = classify(good)
        together, status = classify(mixed)
    assert (status_alone, status) == (200, 207)
    for row, expected in zip(together[::3], alone, strict=True):
        assert row["Label"] == expected["Label"]
        assert row["Scores"] == pytest.approx(expected["Scores"], abs=TOLERANCE)
    for row in (*together[1::3], *together[2::3]):
        assert row["Label"] is None
        assert row["Probability"] is None
        assert row["Error"]


def test_rows_of_undecodable_images_hold_zeros_and_their_classes(
    clustering_server: RunningServer, query_images: list[Path], base_data: dict[str, list[Path]]
) -> None:
    data = [base64.b64encode(query_images[0].read_bytes()).decode(), "junk"]
    body = {"inputs": [{"name": "IMAGE", "shape": [2, 1], "datatype": "BYTES", "data": data}]}
    status, answer = _post(f"{clustering_server.url}/v2/models/ensemble/infer", body)
    assert status == 200
    outputs = {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in answer["outputs"]}
    assert outputs["ERROR"].tolist()[0] == [""]
    assert outputs["ERROR"].tolist()[1] != [""]
    assert outputs["LABEL"].tolist()[1] == [""]
    assert outputs["CLASSES"].tolist()[1] == sorted(base_data)
    assert set(outputs["NEIGHBOR"][1]) == {""}
    for name in ("PROBABILITY", "SCORES", "MATCHES", "NEIGHBOR_SIMILARITY", "EMBEDDING"):
        assert not outputs[name][1].any(), name
        assert outputs[name][0].any() or name == "MATCHES", name


def test_request_without_a_decodable_image_is_400_with_a_reason_for_each(clustering_server: RunningServer) -> None:
    body = {"inputs": [{"name": "IMAGE", "shape": [2, 1], "datatype": "BYTES", "data": ["junk", ""]}]}
    status, answer = _post(f"{clustering_server.url}/v2/models/ensemble/infer", body)
    assert status == 400
    reasons = json.loads(answer["error"].split("no decodable image: ")[1])
    assert reasons == [
        "no image in a supported format (AVIF, BMP, GIF, HEIC, JPEG, PNG, TIFF, WebP), but text; send the image's "
        "bytes, or their base64 text",
        "empty: 0 bytes",
    ]


def test_base64_is_answered_through_generate_and_infer_as_the_file_through_the_client(
    clustering_server: RunningServer, query_images: list[Path], classify: Classify
) -> None:
    file = query_images[1].read_bytes()
    (expected,), _ = classify(query_images[1], details=True)
    standard, url_safe = base64.b64encode(file).decode(), base64.urlsafe_b64encode(file).decode().rstrip("=")
    texts = [standard, url_safe, f"data:image/png;base64,{standard}"]
    for text in texts:
        status, generated = _post(f"{clustering_server.url}/v2/models/ensemble/generate", {"IMAGE": text})
        assert status == 200
        assert generated["LABEL"] == expected["Label"]
        assert generated["PROBABILITY"] == pytest.approx(expected["Probability"], abs=TOLERANCE)
    body = {"inputs": [{"name": "IMAGE", "shape": [len(texts), 1], "datatype": "BYTES", "data": texts}]}
    status, inferred = _post(f"{clustering_server.url}/v2/models/ensemble/infer", body)
    assert status == 200
    outputs = {output["name"]: output["data"] for output in inferred["outputs"]}
    assert outputs["LABEL"] == [expected["Label"]] * len(texts)


@pytest.mark.parametrize("value", ["nan", "inf", 1.5, -2, "high", True, "1e9"], ids=str)
def test_unusable_threshold_is_400(clustering_server: RunningServer, query_images: list[Path], value: Any) -> None:
    text = base64.b64encode(query_images[0].read_bytes()).decode()
    body = {"IMAGE": text, "sim_thres": value}
    status, answer = _post(f"{clustering_server.url}/v2/models/ensemble/generate", body)
    assert status == 400
    assert "sim_thres" in answer["error"]


def test_requests_of_one_batch_keep_their_own_thresholds(
    clustering_server: RunningServer, query_images: list[Path]
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Classify(clustering_server.url, details=True) as classify, ThreadPoolExecutor(12) as threads:

        def matches(threshold: float) -> int:
            (row,), status = classify(query_images[0], sim_thres=threshold)
            assert status == 200
            return sum(row["Matches"].values())

        counts = list(threads.map(matches, [-1, 1] * 30))
    assert counts == [21, 0] * 30


def test_parameter_that_is_no_text_costs_nobody_else_an_answer(
    clustering_server: RunningServer, query_images: list[Path]
) -> None:
    import http.client
    import threading

    host, port = clustering_server.url.removeprefix("http://").split(":")
    row = {"EMBEDDING": ("FP32", [1, 512], [0.1] * 512), "PROBABILITIES": ("FP32", [1, 3], [0.1] * 3)}
    body = json.dumps(
        {
            "inputs": [
                {"name": name, "datatype": kind, "shape": shape, "data": data}
                for name, (kind, shape, data) in {**row, "ERROR": ("BYTES", [1, 1], [""])}.items()
            ],
        }
    )
    done = threading.Event()
    statuses: set[tuple[int, bool]] = set()  # and whether a path shows

    def poison() -> None:
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        while not done.is_set():
            connection.request("POST", "/v2/models/cluster_head/infer", body, {"X-Client-Id": b"caf\xe9"})
            answer = connection.getresponse()
            statuses.add((answer.status, b".py" in answer.read()))
        connection.close()

    threads = [threading.Thread(target=poison) for _ in range(3)]
    for thread in threads:
        thread.start()
    with Classify(clustering_server.url) as classify:
        answered = [classify(query_images)[1] for _ in range(30)]
    done.set()
    for thread in threads:
        thread.join()
    assert statuses == {(400, False)}
    assert answered == [200] * 30


def test_header_that_is_no_text_is_named(clustering_server: RunningServer, query_images: list[Path]) -> None:
    text = base64.b64encode(query_images[0].read_bytes()).decode()
    body = {"inputs": [{"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}
    request = urllib.request.Request(
        f"{clustering_server.url}/v2/models/ensemble/infer",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "X-Client-Id": "caf\xe9"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    assert caught.value.code == 400
    assert b"X-Client-Id, is not UTF-8" in caught.value.read()


def test_every_model_reports_the_time_it_spends(
    clustering_server: RunningServer, classify: Classify, query_images: list[Path]
) -> None:
    classify(query_images)
    for model in ("preprocess", "classifier", "cluster_head"):
        with urllib.request.urlopen(f"{clustering_server.url}/v2/models/{model}/stats", timeout=10) as answer:
            (stats,) = json.load(answer)["model_stats"]
        for phase in ("queue", "compute_input", "compute_infer", "compute_output"):
            assert stats["inference_stats"][phase]["ns"] > 0, (model, phase)


def test_embedding_alone_can_be_requested(clustering_server: RunningServer, query_images: list[Path]) -> None:
    buffer = io.BytesIO(query_images[0].read_bytes())
    data = [base64.b64encode(buffer.getvalue()).decode()]
    body = {
        "inputs": [{"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": data}],
        "outputs": [{"name": "EMBEDDING"}],
    }
    status, answer = _post(f"{clustering_server.url}/v2/models/ensemble/infer", body)
    assert status == 200
    assert answer["outputs"][0]["shape"] == [1, 512]


@pytest.mark.parametrize(
    ("served", "wanted", "threshold"),
    [
        pytest.param("clustering_server", {}, 0.4, id="clustering"),  # the export's
        pytest.param("clustering_server", {"sim_thres": "-0.25"}, -0.25, id="clustering-parameter"),
        pytest.param("classification_server", {"sim_thres": 0.5}, 0.0, id="classification-parameter"),
    ],
)
def test_every_row_names_the_version_and_the_threshold_in_force(
    request: pytest.FixtureRequest, served: str, wanted: dict[str, Any], threshold: float, query_images: list[Path]
) -> None:
    server: RunningServer = request.getfixturevalue(served)
    files = [query_images[0].read_bytes(), b"no image"]
    image = {
        "name": "IMAGE",
        "shape": [2, 1],
        "datatype": "BYTES",
        "data": [base64.b64encode(f).decode() for f in files],
    }
    status, body = _post(f"{server.url}/v2/models/ensemble/infer", {"inputs": [image], "parameters": wanted})
    assert status == 200
    outputs = {output["name"]: output for output in body["outputs"]}
    _, config = _get(f"{server.url}/v2/models/ensemble/config")
    (version,) = {int(step["model_version"]) for step in config["ensemble_scheduling"]["step"]}
    assert (outputs["VERSION"]["datatype"], outputs["VERSION"]["data"]) == ("INT64", [version] * 2)
    assert (outputs["THRESHOLD"]["datatype"], outputs["THRESHOLD"]["data"]) == (
        "FP32",
        [float(np.float32(threshold))] * 2,
    )
    assert outputs["ERROR"]["data"][0] == ""
    assert outputs["ERROR"]["data"][1].startswith("no image in a supported format")


def _get(url: str) -> tuple[int, Any]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.status, json.load(answer)


def _ask_head(
    server: RunningServer, embeddings: Any, errors: list[str], thresholds: Any = None, **parameters: Any
) -> Any:
    tensors = {
        "EMBEDDING": ("FP32", embeddings),
        "PROBABILITIES": ("FP32", np.zeros((len(embeddings), len(LABELS)))),
        "ERROR": ("BYTES", np.array(errors, np.object_)[:, None]),
    }
    if thresholds is not None:
        tensors["THRESHOLDS"] = ("FP32", thresholds)
    inputs = [
        {"name": name, "shape": list(data.shape), "datatype": kind, "data": data.ravel().tolist()}
        for name, (kind, data) in tensors.items()
    ]
    status, body = _post(f"{server.url}/v2/models/cluster_head/infer", {"inputs": inputs, "parameters": parameters})
    if status != 200:
        return status, body["error"]
    return status, {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in body["outputs"]}


def test_classes_at_thresholds_are_the_answers_of_requests_with_these_thresholds(
    clustering_server: RunningServer, query_images: list[Path]
) -> None:
    data = [base64.b64encode(image.read_bytes()).decode() for image in query_images]
    image = {"name": "IMAGE", "shape": [len(data), 1], "datatype": "BYTES", "data": data}
    _, body = _post(f"{clustering_server.url}/v2/models/ensemble/infer",
                    {"inputs": [image], "outputs": [{"name": "EMBEDDING"}]})  # fmt: skip
    embeddings = np.array(body["outputs"][0]["data"]).reshape(len(data), -1)
    errors = ["", *[""] * (len(data) - 2), "broken\tbroken file"]
    thresholds = np.array([[0.99, -1, 0.5, 0.75, 1]] * len(data))
    status, outputs = _ask_head(clustering_server, embeddings, errors, thresholds)
    assert status == 200
    assert outputs["CLASS_AT"].shape == thresholds.shape
    assert (outputs["CLASS_AT"][-1] == -1).all()
    assert outputs["ERROR"][-1].tolist() == ["broken file"]
    winners = set()
    for column, threshold in enumerate(thresholds[0]):
        _, answer = _ask_head(clustering_server, embeddings, errors, sim_thres=str(threshold))
        assert answer["CLASS_AT"].shape == (len(data), 0)
        for row in range(len(data) - 1):
            matched = answer["MATCHES"][row].any()
            wanted = answer["CLASSES"][row].tolist().index(answer["LABEL"][row, 0]) if matched else -1
            assert outputs["CLASS_AT"][row, column] == wanted, (row, threshold)
            winners.add(wanted)
    assert -1 in winners
    assert len(winners) > 1


@pytest.mark.parametrize(
    ("thresholds", "says"),
    [
        pytest.param(np.zeros((1, 1001)), "THRESHOLDS has 1,001 values", id="many"),
        pytest.param(np.array([[0.5, 1.5]]), "THRESHOLDS has the value 1.5", id="high"),
    ],
)
def test_unusable_thresholds_are_400(clustering_server: RunningServer, thresholds: Any, says: str) -> None:
    status, message = _ask_head(clustering_server, np.ones((1, 512)), [""], thresholds)
    assert status == 400
    assert says in message
