"""Fewer bits: the checks before such a network is exported, and its answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from inference_client import Classify
from inference_export.base_set.base_images import BaseImages
from inference_export.command import main
from inference_export.graph import precision as precision_module
from inference_export.graph.calibration import HELD_OUT_IMAGES, choose_images
from inference_export.graph.precision import PrecisionLoss
from inference_export.inspection.command import main as inspect_main
from inference_server.triton.process import running_server
from tests import tiny_network
from tests.conftest import SMALL, Trained
from tests.resources import write_faces

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_faces(folder / "face", range(30), "x")
    write_faces(folder / "other", range(100, 130), "x")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The arguments of an export of a network of a few weights."""
    trained = tiny_network.write_tiny_resources(tmp_path_factory.mktemp("tiny") / "trained")
    return ["-r", trained, "--network", tiny_network.NETWORK]


@pytest.fixture
def resnet(small: Trained) -> list[object]:
    """The arguments of an export of the built-in network."""
    return ["-r", small.folder, "--image_size", SMALL]


def _export(network: list[object], repository: Path, *arguments: object) -> Result:
    command = [*network, "--model_repository", repository, *arguments]
    return CliRunner().invoke(main, [str(argument) for argument in command], catch_exceptions=False)


def _operators(repository: Path) -> set[str]:
    return {node.op_type for node in onnx.load(repository / "classifier" / "1" / "model.onnx").graph.node}


def test_int8_is_calibrated_with_base_images_checked_on_others_and_served(
    tiny: list[object], base: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    result = _export(tiny, repository, "-data", base, "--precision", "int8", "--accept_loss", "-thres", 0.4)
    assert result.exit_code == 0, result.output
    assert "on 30 held-out images" in result.stdout
    assert "% of labels equal those of float32 (by 30 base images)" in result.stdout
    assert "QuantizeLinear" in _operators(repository)
    model = onnx.load(repository / "classifier" / "1" / "model.onnx")
    assert model.ir_version <= 10
    assert all(opset.version <= 21 for opset in model.opset_import if not opset.domain)
    files = sorted(base.glob("*/*.png"))
    with running_server(repository, log=tmp_path / "log") as server, Classify(server.url, details=True) as classify:
        results, status = classify(files)
    assert status == 200
    # The base embeddings come from the quantized graph, so each image finds itself.
    itself = [row["Neighbors"][0]["Similarity"] for row in results]
    assert itself == pytest.approx(np.ones(len(files)), abs=1e-4)


def test_too_large_a_loss_is_refused_and_nothing_is_written(resnet: list[object], base: Path, tmp_path: Path) -> None:
    # The test network's heads enlarge every difference, so it loses much.
    result = _export(resnet, tmp_path / "repository", "-data", base, "--precision", "int8")
    assert result.exit_code == 1
    assert "int8 was not exported" in result.stderr
    assert "--accept_loss" in result.stderr
    assert not (tmp_path / "repository").exists()


def test_fp16_is_exported_for_a_gpu_and_its_loss_is_reported(tiny: list[object], base: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    # Without the last option, a network of random weights is refused on some processors.
    arguments = ("--precision", "fp16", "--device", "gpu", "--calibration", base, "--accept_loss")
    result = _export(tiny, repository, *arguments)
    assert result.exit_code == 0, result.output
    assert "(by the classifier)" in result.stdout
    graph = onnx.load(repository / "classifier" / "1" / "model.onnx").graph
    kinds = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 4}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert [value.type.tensor_type.elem_type for value in graph.output] == [onnx.TensorProto.FLOAT] * 2
    assert "KIND_GPU" in (repository / "classifier" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("least_speedup", "least_agreement", "precision", "reason"),
    [
        pytest.param(0, 0, "int8", "times as fast as fp32 on this machine", id="gains-and-loses-little"),
        pytest.param(1000, 0, "fp32", "at least 1000 times would be a gain", id="gains-nothing"),
        pytest.param(0, 1.1, "fp32", "of labels equal those of float32", id="loses-much"),
    ],
)
def test_auto_takes_int8_where_the_check_passes_and_this_machine_gains(
    tiny: list[object], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    least_speedup: float, least_agreement: float, precision: str, reason: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(precision_module, "MIN_SPEEDUP", least_speedup)
    monkeypatch.setattr(precision_module, "MIN_AGREEMENT", least_agreement)
    monkeypatch.setattr(precision_module, "MIN_COSINE", -1)
    repository = tmp_path / "repository"
    result = _export(tiny, repository, "-data", base, "--precision", "auto")
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("precision ")]
    assert line.split()[1] == f"{precision},"
    assert "chosen by auto" in line
    assert reason in line
    assert ("QuantizeLinear" in _operators(repository)) == (precision == "int8")
    assert [file.name for file in (repository / "classifier" / "1").iterdir()] == ["model.onnx"]
    inspected = CliRunner().invoke(inspect_main, [str(repository), "--json"], catch_exceptions=False)
    assert json.loads(inspected.stdout)["precision"] == precision


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_graph_that_does_not_run_in_int8_is_explained(
    tiny: list[object], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr(
        precision_module, "quantize", lambda graph, pixels, destination, advance: destination.write_bytes(b"no graph")
    )
    result = _export(tiny, tmp_path / "out", "-data", base, "--precision", precision)
    assert result.exit_code == (precision == "int8"), result.output
    assert "the network does not run in int8 (" in result.output
    assert (tmp_path / "out").exists() == (precision == "auto")


@pytest.mark.parametrize("images", [0, 15])
def test_auto_without_images_to_check_with_exports_fp32_and_names_the_remedy(
    tiny: list[object], tmp_path: Path, images: int
) -> None:
    write_faces(tmp_path / "few", range(images), "x")
    calibration = ["--calibration", tmp_path / "few"] if images else []
    result = _export(tiny, tmp_path / "out", "--precision", "auto", *calibration)
    assert result.exit_code == 0, result.output
    assert "fp32, chosen by auto: there are fewer than 16 images to check int8 with. Name a folder" in result.stdout
    assert "--calibration" in result.stdout
    assert "QuantizeLinear" not in _operators(tmp_path / "out")


def test_auto_takes_fp16_on_a_gpu_whose_speed_can_not_be_measured_here(
    tiny: list[object], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_module, "MIN_AGREEMENT", 0)
    monkeypatch.setattr(precision_module, "MIN_COSINE", -1)
    result = _export(tiny, tmp_path / "out", "--precision", "auto", "--device", "gpu", "--calibration", base)
    assert result.exit_code == 0, result.output
    assert "fp16, chosen by auto: its loss is small; its speed was not measured" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--precision", "int8"], "--calibration", id="no-images"),
        pytest.param(["--precision", "int8", "--device", "gpu"], "int8 is for --device cpu", id="int8-gpu"),
        pytest.param(["--precision", "fp16"], "fp16 is for --device gpu", id="fp16-cpu"),
    ],
)
def test_precision_that_cannot_be_had_is_refused_with_a_remedy(
    tiny: list[object], tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = _export(tiny, tmp_path / "repository", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


def test_too_few_images_to_calibrate_and_check_are_refused(tiny: list[object], tmp_path: Path) -> None:
    write_faces(tmp_path / "few", range(15), "x")
    result = _export(tiny, tmp_path / "out", "--precision", "int8", "--calibration", tmp_path / "few")
    assert result.exit_code == 1
    assert "need 16 images or more" in result.stderr


def test_images_to_calibrate_with_and_to_check_on_are_different_ones_of_all_classes() -> None:
    classes = {name: [str(number) for number in range(500)] for name in ("a", "b")}
    base = BaseImages(folder=Path(), classes=classes)
    images = choose_images(None, base, "int8")
    assert images is not None
    assert not set(images.calibration) & set(images.held_out)
    for chosen in (images.calibration, images.held_out):
        assert len(chosen) <= HELD_OUT_IMAGES
        assert {file.parent.name for file in chosen} == {"a", "b"}


@pytest.mark.parametrize(
    ("agreement", "cosine", "acceptable"), [(0.99, 0.999, True), (0.989, 1, False), (1, 0.9989, False)]
)
def test_acceptable_loss(agreement: float, cosine: float, acceptable: bool) -> None:
    loss = PrecisionLoss(images=100, agreement=agreement, cosine=cosine, judged_by="")
    assert loss.is_acceptable == acceptable
