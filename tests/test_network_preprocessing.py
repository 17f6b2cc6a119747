"""A network's preprocessing is read from its attribute, a file and options, in the forms of three projects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from inference_export.errors import ExportError, NetworkError, ResourcesError
from inference_export.network.asking import read_preprocessing
from inference_export.network.preprocessing import MEAN, STD, Preprocessing
from inference_export.network.served import as_served
from inference_export.regular_files import FileReader
from inference_export.resources.preprocessing_file import (
    PREPROCESSING_FILE,
    find_preprocessing_file,
    read_preprocessing_file,
)
from inference_export.resources.trained import list_checkpoints
from tests.preprocessing_parity import server_pixels
from tests.resources import PHOTOGRAPHS
from tests.training_transforms import ResNet50_Weights, create_transform, resolve_data_config, transforms, v2

IMAGES = ("chelsea.png", "rocket.jpg", "camera.png")
T = transforms
BICUBIC, LANCZOS, HAMMING = (T.InterpolationMode(name) for name in ("bicubic", "lanczos", "hamming"))
TENSOR = (T.ToTensor(), T.Normalize(MEAN, STD))
V2_TENSOR = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD))


class Network(nn.Module):
    """Says something about its preprocessing in an attribute."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


def _read(**attributes: Any) -> Preprocessing:
    return read_preprocessing(Network(**attributes), "nets:Net", None)


def _file(folder: Path, values: Any, name: str = PREPROCESSING_FILE, *, is_named: bool = False) -> Any:
    (folder / name).write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return read_preprocessing_file(folder / name, FileReader(), is_named=is_named)


def _assert_same(preprocessing: Preprocessing, transform: Any) -> None:
    """Compare what the network gets from the server with what the transform would give it, in levels of 255."""
    std = np.array(preprocessing.std)[:, None, None]
    served = as_served(nn.Identity(), preprocessing)
    for name in IMAGES:
        expected = np.asarray(transform(Image.open(PHOTOGRAPHS / name).convert("RGB")))
        pixels = torch.from_numpy(server_pixels(PHOTOGRAPHS / name, preprocessing)[None].copy())
        ours = served.normalize(pixels)[0].numpy()
        assert ours.shape == expected.shape
        assert np.abs((ours - expected) * std * 255).max() <= 1.01, name


@pytest.mark.parametrize(
    "transform",
    [
        pytest.param(ResNet50_Weights.IMAGENET1K_V1.transforms(), id="preset-V1"),
        pytest.param(ResNet50_Weights.IMAGENET1K_V2.transforms(), id="preset-V2"),
        pytest.param(T.Compose([T.Resize(256), T.CenterCrop(224), *TENSOR]), id="resize-crop"),
        pytest.param(T.Compose([T.Resize([73], BICUBIC), T.CenterCrop((64, 64)), *TENSOR]), id="bicubic"),
        pytest.param(T.Compose([T.Resize((80, 80), LANCZOS), T.ToTensor()]), id="squash-without-normalize"),
        pytest.param(T.Compose([T.Resize((80, 80)), T.CenterCrop(64), *TENSOR]), id="squash-crop"),
        pytest.param(
            T.Compose([T.Compose([T.Grayscale(3), T.Resize(70)]), T.CenterCrop(64), *TENSOR]), id="nested-grey"
        ),
        pytest.param(
            T.Compose([T.Grayscale(), T.Resize((64, 64)), T.ToTensor(), T.Normalize(0.4, 0.2)]), id="one-grey-channel"
        ),
        pytest.param(v2.Compose([v2.RGB(), v2.Resize(256), v2.CenterCrop(224), *V2_TENSOR]), id="v2"),
    ],
)
def test_torchvisions_transform_is_reproduced(transform: Any) -> None:
    _assert_same(_read(preprocessing=transform), transform)


@pytest.mark.parametrize(
    "cfg",
    [
        pytest.param({"input_size": (3, 224, 224)}, id="defaults"),
        pytest.param({"input_size": (3, 96, 96), "crop_pct": 0.95, "interpolation": "bilinear"}, id="crop-0.95"),
        pytest.param({"input_size": (3, 96, 96), "crop_pct": 1.0, "crop_mode": "squash"}, id="squash"),
        pytest.param({"input_size": (3, 96, 96), "crop_pct": 0.9, "crop_mode": "squash"}, id="squash-crop"),
        pytest.param({"input_size": (3, 96, 96), "crop_pct": 1.0, "crop_mode": "border", "mean": (0.5,) * 3,
                      "std": (0.5,) * 3}, id="border"),
        pytest.param({"input_size": (3, 96, 96), "crop_pct": 0.8, "crop_mode": "border"}, id="border-crop"),
        pytest.param({"input_size": (3, 64, 64), "interpolation": "lanczos"}, id="lanczos"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("given", ["pretrained_cfg", "preprocessing", "file", "file-with-architecture"])
def test_timms_configuration_is_reproduced(cfg: dict[str, Any], given: str, tmp_path: Path) -> None:
    if given.startswith("file"):
        file = _file(tmp_path, {"architecture": "resnet50", "pretrained_cfg": cfg} if given != "file" else cfg)
        preprocessing = read_preprocessing(None, None, None, file)
    else:
        preprocessing = _read(**{given: cfg})
    _assert_same(preprocessing, create_transform(**resolve_data_config(pretrained_cfg=cfg)))


@pytest.mark.parametrize(
    ("attribute", "says"),
    [
        pytest.param(T.Compose([T.Resize(256), *TENSOR]), "Resize(256) without CenterCrop", id="no-crop"),
        pytest.param(T.Compose([T.Resize(64), T.CenterCrop(80), *TENSOR]), "adds black borders", id="large-crop"),
        pytest.param(T.Compose([T.Resize((64, 80)), *TENSOR]), "not square", id="not-square"),
        pytest.param(T.Compose([T.Resize((64, 64), HAMMING), *TENSOR]), "the interpolation hamming", id="hamming"),
        pytest.param(T.Compose([T.Resize((64, 64)), T.Lambda(abs), *TENSOR]), "no ToTensor after", id="lambda"),
        pytest.param(T.Compose([T.RandomCrop(64), *TENSOR]), "no Resize before", id="random"),
        pytest.param(T.Compose([*TENSOR, T.Resize((64, 64))]), "resizes tensors", id="tensor-first"),
        pytest.param(T.Compose([T.Resize((64, 64)), *TENSOR, T.RandomErasing()]), "has RandomErasing", id="erasing"),
        pytest.param(T.Compose([T.Resize((64, 64)), T.Grayscale(3), *TENSOR]), "no ToTensor after", id="late-grey"),
        pytest.param(T.Compose([T.Resize(64, max_size=90), T.CenterCrop(64), *TENSOR]), "max_size", id="max-size"),
        pytest.param(v2.Compose([v2.Resize((64, 64)), v2.ToImage(), v2.ToDtype(torch.float32)]), "scale=", id="scale"),
        pytest.param({"input_size": (3, 224, 280)}, "not square", id="timm-not-square"),
        pytest.param({"input_size": (1, 64, 64)}, "Only three channels", id="timm-one-channel"),
        pytest.param({"input_size": (3, 64, 64), "crop_mode": "random"}, "crop_mode 'random'", id="timm-mode"),
        pytest.param({"input_size": (3, 64, 64), "interpolation": "box"}, "has interpolation 'box'", id="timm-filter"),
        pytest.param({"input_size": "large"}, "needs [channels, height, width]", id="timm-size"),
        pytest.param({"input_size": (3, 64, 64), "crop_mode": "border", "mean": "x"}, "has mean 'x'", id="timm-mean"),
        pytest.param({"image_size": 96, "crop_pct": 0.9}, "mixes crop_pct, which timm has, with image_size", id="mix"),
        pytest.param({"input_size": (3, 64, 64), "resize": "pad", "orientation": "upright"}, "with resize, orientation",
                     id="mix-ours"),
        pytest.param({"resize": "stretch"}, "has resize 'stretch', and needs one of squash, crop, pad", id="resize"),
        pytest.param({"orientation": 6}, "needs one of as_stored, upright", id="orientation"),
        pytest.param({"crop_fraction": 0.9}, "must say resize too", id="fraction-alone"),
        pytest.param({"resize": "crop", "crop_fraction": 0}, "needs a number of 0.1 to 1", id="fraction"),
        pytest.param({"resize": "crop", "crop_fraction": float("nan")}, "needs a number of 0.1 to 1", id="nan"),
        pytest.param({"resize": "crop", "crop_fraction": 1, "resize_size": 400}, "one of them at most", id="both"),
        pytest.param({"resize": "crop", "resize_size": 383}, "needs a whole number of 384", id="small-resize"),
        pytest.param({"resize": "pad", "pad_color": [0, 0, 256]}, "needs three whole numbers of 0 to 255", id="color"),
        pytest.param({"resize": "pad", "pad_color": None}, "needs three whole numbers of 0 to 255", id="no-color"),
        pytest.param({"resize": "crop", "pad_color": [0, 0, 0]}, "no resize 'pad'", id="unused-color"),
        pytest.param({"channels": "grey"}, "needs mean and std", id="grey"),
        pytest.param({"channels": "grey", "mean": [0.5], "std": [0.1] * 3}, "different lengths", id="grey-lengths"),
        pytest.param({"image_size": [224, 280]}, "needs a whole number of 32 to 2048", id="sides"),
    ],
)  # fmt: skip
def test_preprocessing_that_the_server_can_not_do_is_refused_by_name(attribute: Any, says: str) -> None:
    with pytest.raises(NetworkError) as refused:
        _read(preprocessing=attribute)
    assert "--network nets:Net: its attribute preprocessing " in str(refused.value)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("{", "is no JSON text (JSONDecodeError", id="broken"),
        pytest.param("[1]", "holds list of 1. It must be a JSON object", id="list"),
        pytest.param("[" * 100_000, "is no JSON text (RecursionError", id="deep"),
        pytest.param('{"image_size": ' + "9" * 5000 + "}", "is no JSON text (ValueError", id="digits"),
        pytest.param("\udcff", "is no JSON text (UnicodeDecodeError", id="not-utf-8"),
        pytest.param(" " * (2**20 + 1), "can't be read: it has 1048577 bytes, and may have 1048576", id="long"),
        pytest.param('{"image_size": 7}', "it has image_size 7, and needs", id="value"),
        pytest.param('{"mean": [NaN, 0, 0]}', "it has mean [nan, 0, 0], and needs", id="nan"),
        pytest.param('{"resize": {"a": []}}', "it has resize {'a': []}, and needs one of", id="object"),
    ],
)
def test_file_that_describes_no_preprocessing_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / PREPROCESSING_FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ResourcesError) as refused:
        read_preprocessing(None, None, None, read_preprocessing_file(tmp_path / PREPROCESSING_FILE, FileReader()))
    assert str(tmp_path / PREPROCESSING_FILE) in str(refused.value)
    assert says in str(refused.value)
    assert refused.value.path == tmp_path / PREPROCESSING_FILE


def test_defaults_are_the_originals() -> None:
    assert read_preprocessing(nn.Identity(), None, None) == Preprocessing(
        image_size=384, mean=MEAN, std=STD, resize="squash", interpolation="bilinear", orientation="as_stored",
        channels="rgb",
    )  # fmt: skip


def test_file_with_timms_configuration_and_other_names_beside_it_is_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, {"pretrained_cfg": {"input_size": [3, 64, 64]}, "orientation": "upright"})
    with pytest.raises(ResourcesError, match="mixes pretrained_cfg, which timm has, with orientation"):
        read_preprocessing(None, None, None, file)


def test_file_and_attribute_add_to_each_other(tmp_path: Path) -> None:
    file = _file(tmp_path, {"image_size": 64, "orientation": "upright", "mean": [0.5, 0.5, 0.5]})
    network = Network(preprocessing={"image_size": 64, "mean": (0.5, 0.5, 0.5), "interpolation": "bicubic"})
    read = read_preprocessing(network, "nets:Net", None, file)
    assert (read.image_size, read.orientation, read.interpolation) == (64, "upright", "bicubic")
    assert read.origin == f"{file.path} and the network's preprocessing"


@pytest.mark.parametrize(
    ("attribute", "says"),
    [
        pytest.param({"image_size": 32}, "has image_size 64 in the file and 32 in the attribute", id="value"),
        pytest.param({"resize": "squash", "crop_fraction": 0.9}, "has resize 'crop' in the file", id="resize"),
        pytest.param({"resize": "crop", "crop_fraction": 0.9}, "has both crop_fraction and resize_size", id="together"),
    ],
)
def test_file_that_contradicts_the_attribute_is_refused_naming_both(
    attribute: dict[str, Any], says: str, tmp_path: Path
) -> None:
    file = _file(tmp_path, {"image_size": 64, "resize": "crop", "resize_size": 73})
    with pytest.raises(ResourcesError) as refused:
        read_preprocessing(Network(preprocessing=attribute), "nets:Net", None, file)
    assert f"{file.path} and the network's attribute preprocessing contradict each other" in str(refused.value)
    assert says in str(refused.value)


def test_file_that_is_named_replaces_the_attribute(tmp_path: Path) -> None:
    file = _file(tmp_path, {"image_size": 64}, is_named=True)
    read = read_preprocessing(Network(preprocessing={"image_size": 32, "channels": "bgr"}), "nets:Net", None, file)
    assert (read.image_size, read.channels, read.origin) == (64, "rgb", f"--preprocessing {file.path}")


@pytest.mark.parametrize("values", [{"crop_fraction": 0.875}, {"resize_size": 256}], ids=["fraction", "sides"])
def test_other_image_size_keeps_the_part_of_the_image(values: dict[str, Any]) -> None:
    network = Network(preprocessing={"image_size": 224, "resize": "crop"} | values)
    assert read_preprocessing(network, "nets:Net", None).resized_to == 256
    read = read_preprocessing(network, "nets:Net", 448)
    assert (read.image_size, read.resized_to, read.own_image_size) == (448, 512, 224)


def test_file_is_found_beside_the_checkpoint_or_the_labels_but_not_in_both(tmp_path: Path) -> None:
    checkpoint = tmp_path / "models" / "model_1"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert find_preprocessing_file(checkpoint, tmp_path) is None
    beside = _file(tmp_path / "models", {}).path
    assert find_preprocessing_file(checkpoint, tmp_path) == beside
    assert list_checkpoints(tmp_path) == [checkpoint], "it is no checkpoint"
    _file(tmp_path, {})
    with pytest.raises(ExportError, match="both describe the preprocessing"):
        find_preprocessing_file(checkpoint, tmp_path)
    assert find_preprocessing_file(checkpoint, tmp_path, tmp_path / "named") == tmp_path / "named"
    beside.unlink()
    assert find_preprocessing_file(checkpoint, tmp_path) == tmp_path / PREPROCESSING_FILE
    assert find_preprocessing_file(tmp_path / "net.onnx", tmp_path / "net.onnx") == tmp_path / PREPROCESSING_FILE


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param({"channels": "bgr", "mean": (0.3, 0.2, 0.1)}, (0.3 - 0.3, 0.2 - 0.2, 0.1 - 0.1), id="bgr"),
        pytest.param({"channels": "grey", "mean": (0.1,), "std": (1.0,)}, (0.0,), id="one-grey"),
        pytest.param({"mean": (0.1, 0.2, 0.3)}, (0.0, 0.0, 0.0), id="rgb"),
    ],
)
def test_graph_brings_the_channels_into_the_networks_order(values: dict[str, Any], expected: tuple[float, ...]) -> None:
    served = as_served(nn.Identity(), _read(preprocessing={"std": (1.0, 1.0, 1.0)} | values))
    pixels = torch.tensor([0.1, 0.2, 0.3]).mul(255).round().to(torch.uint8).expand(1, 2, 2, 3)
    np.testing.assert_allclose(served.normalize(pixels)[0, :, 0, 0].numpy(), expected, atol=0.003)
