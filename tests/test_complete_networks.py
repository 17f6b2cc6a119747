"""Complete networks as .pt2 and .onnx: they are served as they compute, or refused with a remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import TensorProto, helper
from torch import Tensor, nn

from inference_export.command import main
from inference_export.errors import ExportError, NetworkError
from inference_export.network.complete.pt2_file import read_program
from inference_export.network.complete.pt2_program import ProgramNetwork
from inference_export.network.loading import load_network
from inference_export.network.preprocessing import Preprocessing
from inference_export.network.probing import measure_embedding
from inference_export.onnx_session import open_graph, run_graph
from inference_export.regular_files import FileReader
from inference_export.resources.checkpoint_file import read_checkpoint_file
from tests import formats, tiny_network
from tests.resources import write_faces

SIZE = formats.SIZE


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def _measure(path: Path, outputs: str | None = None, classes: int = 2, **preprocessing: Any) -> int:
    network = load_network(path, classes, FileReader(), outputs=outputs)
    asked = Preprocessing(image_size=SIZE, **preprocessing)
    assert network.complete is not None
    network.complete.check(asked)
    return measure_embedding(network, asked, classes)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_network_answers_alike_from_every_form_of_its_checkpoint(tmp_path: Path, name: str) -> None:
    network = formats.make_network()
    file = formats.write_format(name, tmp_path, network)
    factory = None if file.suffix in (".pt2", ".onnx") else tiny_network.NETWORK
    loaded = load_network(file, 2, FileReader(), factory)
    measure_embedding(loaded, Preprocessing(image_size=SIZE), 2)
    found = loaded.answer(formats.make_pixels(), Preprocessing(image_size=SIZE))
    for one, other in zip(found, formats.plain_answers(network, formats.make_pixels()), strict=True):
        assert np.abs(one - other).max() <= formats.TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weights.safetensors", "network.pt2", "network.onnx"])
def test_network_is_served_alike_from_weights_and_from_a_complete_file(tmp_path: Path, name: str) -> None:
    network = formats.make_network()
    file = formats.write_format(name, tmp_path / "trained", network)
    graph = formats.export_format(file, tmp_path / "repository")
    assert max(formats.difference(graph, network)) <= formats.TOLERANCE
    assert not onnx.load(graph, load_external_data=False).graph.initializer[0].external_data


class _Block(nn.Module):
    """What vision transformers are made of."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mixed = nn.Sequential(
            nn.Linear(width, 32), nn.GELU(approximate="tanh"), nn.Dropout(0.1), nn.Linear(32, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mixed(x)


class VisionTransformer(nn.Module):
    """A tiny one, with a class token that is expanded to the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 17, 16))
        self.blocks = nn.Sequential(_Block(), _Block())
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        x = self.blocks(x)[:, 0]
        return x, self.head(x)


class Convolutions(nn.Module):
    """Operators of many convolutional networks, in place where these are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(inplace=True))
        self.deep = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU6(inplace=True), nn.GroupNorm(2, 8), nn.SiLU()
        )
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.head = nn.Linear(16, 2)
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        x = x + self.deep(x) * self.gate(x) * self.scale
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        x = nn.functional.interpolate(x, size=(12, 12), mode="bilinear", align_corners=False)
        one, other = x.chunk(2, dim=1)
        y = torch.cat([one.mean((2, 3)), other.amax((2, 3)), x.flatten(1)[:, : x.shape[1]].clamp(-1, 1)], dim=1)
        y = nn.functional.normalize(y, dim=1)
        return {"logits": self.head(y), "embedding": y}


@pytest.mark.parametrize("network", [VisionTransformer, Convolutions])
def test_pt2_is_run_step_by_step_as_pytorch_runs_it(tmp_path: Path, network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    formats.export_pt2(network(), tmp_path / "net.pt2")
    program = read_program(read_checkpoint_file(tmp_path / "net.pt2", FileReader()))
    images = torch.randn(5, 3, SIZE, SIZE)
    expected = torch.export.load(tmp_path / "net.pt2").module()(images)
    with torch.no_grad():
        found = dict(zip(program.outputs, ProgramNetwork(program)(images), strict=True))
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    else:
        assert all(torch.equal(one, other) for one, other in zip(found.values(), expected, strict=True))


@pytest.mark.slow
def test_outputs_of_a_dictionary_are_told_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    torch.manual_seed(0)
    network = Convolutions()
    formats.export_pt2(network, tmp_path / "net.pt2")
    result = _run("-r", tmp_path / "net.pt2", "--model_repository", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "complete, in the .pt2 file, embeddings of 16" in result.stdout
    assert "ONNX - .pt2 file  at most" in result.stdout
    assert "image size        32 x 32" in result.stdout
    assert "image size is the default" not in result.stdout

    def plain(images: Tensor) -> tuple[Tensor, Tensor]:
        found = network.eval()(images)
        return found["embedding"], found["logits"]

    graph = tmp_path / "out" / "classifier" / "1" / "model.onnx"
    assert max(formats.difference(graph, plain)) <= formats.TOLERANCE  # type: ignore[arg-type]


def _graph(
    outputs: dict[str, tuple[str, int]],
    *,
    image: tuple[int | str, ...] = ("n", 3, SIZE, SIZE),
    kind: int = TensorProto.FLOAT,
    softmax: bool = False,
    opset: int = 17,
    nodes: list[onnx.NodeProto] | None = None,
    ir_version: int = 10,
) -> onnx.ModelProto:
    """Make a graph that pools each image's channels, and multiplies them by a matrix for each output.

    ``outputs``: Name of each output to the name of its weights and its width.
    """
    made = [
        helper.make_node("GlobalAveragePool", ["PIXELS"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["planes"]),
    ]
    weights = []
    for place, (name, (weight, width)) in enumerate(outputs.items()):
        values = np.random.default_rng(place).standard_normal((int(image[1]), width)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(values, weight))
        made.append(helper.make_node("MatMul", ["planes", weight], [f"{name}_" if softmax else name]))
        if softmax:
            made.append(helper.make_node("Softmax", [f"{name}_"], [name], axis=1))
    graph = helper.make_graph(
        [*made, *(nodes or [])],
        "graph",
        [helper.make_tensor_value_info("PIXELS", kind, image)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name, (_, width) in outputs.items()],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


PAIR = {"embedding": ("w", 4), "logits": ("v", 2)}


@pytest.mark.parametrize(
    ("outputs", "wanted", "found"),
    [
        pytest.param({"features": ("w", 4), "output": ("v", 2)}, None, ("features", "output"), id="names"),
        pytest.param({"logits": ("w", 2), "embedding": ("v", 2)}, None, ("embedding", "logits"), id="names-alone-tell"),
        pytest.param({"1": ("w", 2), "2": ("v", 4)}, None, ("2", "1"), id="shapes"),
        pytest.param({"1": ("w", 2), "2": ("v", 4), "3": ("u", 5)}, "3,1", ("3", "1"), id="named-by-the-user"),
    ],
)
def test_outputs_of_onnx_are_told_by_name_shape_or_option(
    tmp_path: Path, outputs: dict[str, tuple[str, int]], wanted: str | None, found: tuple[str, str]
) -> None:
    onnx.save(_graph(outputs), tmp_path / "net.onnx")
    network = load_network(tmp_path / "net.onnx", 2, FileReader(), outputs=wanted)
    width = measure_embedding(network, Preprocessing(image_size=SIZE), 2)
    assert vars(network)["outputs"] == found
    assert width == outputs[found[0]][1]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        pytest.param(
            _graph({"1": ("w", 2), "2": ("v", 2)}), {}, r"which of its outputs.*--outputs 1,2", id="ambiguous"
        ),
        pytest.param(
            _graph({"1": ("w", 2), "2": ("v", 4), "3": ("u", 5)}), {}, r"which of its outputs.*\[3, 5\]", id="three"
        ),
        pytest.param(
            _graph({"logits": ("w", 2)}), {}, r"must return two outputs, .* returns logits \[3, 2\]", id="one"
        ),
        pytest.param(_graph(PAIR), {"outputs": "emb,logits"}, r"--outputs emb,logits: .* no output emb", id="no-such"),
        pytest.param(_graph(PAIR), {"classes": 3}, r"returns 2 logits an image, and labels names 3", id="classes"),
        pytest.param(
            _graph({"logits": ("w", 4), "embedding": ("v", 2)}),
            {},
            r"exchanged.*--outputs logits,embedding",
            id="names",
        ),
        pytest.param(_graph(PAIR, softmax=True), {}, r"logits seems to hold probabilities", id="softmax"),
        pytest.param(_graph(PAIR, image=(8, 3, SIZE, SIZE)), {}, r"exactly 8 images.*dynamic_shapes", id="batch"),
        pytest.param(_graph(PAIR, image=("n", SIZE, SIZE, 3)), {}, r"channels last.*permute", id="channels-last"),
        pytest.param(_graph(PAIR, image=("n", 4, SIZE, SIZE)), {}, r"has 4 channels", id="channels"),
        pytest.param(_graph(PAIR, image=("n", 3, SIZE, 40)), {}, r"images must be square", id="oblong"),
        pytest.param(_graph(PAIR, image=("n", 3)), {}, r"has the shape \[any, 3\]", id="flat"),
        pytest.param(_graph(PAIR, image=("n", 3, 48, 48)), {}, r"images of 48 x 48 only, and 32 is asked", id="size"),
        pytest.param(_graph(PAIR, image=("n", 1, SIZE, SIZE)), {}, r"1 channels.*\"grey\"", id="grey-unsaid"),
        pytest.param(_graph(PAIR, kind=TensorProto.FLOAT16), {}, r"is float16, and must be float32", id="float16"),
        pytest.param(_graph(PAIR, opset=9), {}, r"opset 9, and opsets 11 to 21.*version_converter", id="old-opset"),
        pytest.param(_graph(PAIR, opset=23), {}, r"opset 23, and opsets 11 to 21", id="new-opset"),
        pytest.param(
            _graph(PAIR, nodes=[helper.make_node("Reshape", ["planes", "absent"], ["z"])]),
            {},
            r"failed on images",
            id="broken-graph",
        ),
    ],
)
def test_onnx_that_cannot_be_served_is_refused_with_a_remedy(
    tmp_path: Path, model: onnx.ModelProto, options: dict[str, Any], message: str
) -> None:
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ExportError, match=message):
        _measure(tmp_path / "net.onnx", **options)


def test_onnx_whose_answers_depend_on_the_other_images_is_refused(tmp_path: Path) -> None:
    model = _graph(PAIR)
    mean = helper.make_node("ReduceMean", ["planes"], ["of_all"], axes=[0], keepdims=1)
    nodes = [*model.graph.node[:2], mean, helper.make_node("Add", ["planes", "of_all"], ["x"]), *model.graph.node[2:]]
    for node in nodes[4:]:
        node.input[0] = "x"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(NetworkError, match="another embedding for an image alone"):
        _measure(tmp_path / "net.onnx")


def _answers(folder: Path, model: onnx.ModelProto, *arguments: object, **asked: Any) -> tuple[Any, Any]:
    """Export a model, and return what the exported graph and the model itself answer."""
    onnx.save(model, folder / "net.onnx")
    (folder / "labels.txt").write_text("a\nb\n")
    (folder / "preprocessing.json").write_text(json.dumps(asked))
    result = _run("-r", folder / "net.onnx", "--model_repository", folder / "out", *arguments)
    assert result.exit_code == 0, result.output
    return run_graph(open_graph(folder / "out" / "classifier" / "1" / "model.onnx"), formats.make_pixels()), result


@pytest.mark.slow
@pytest.mark.parametrize("ir_version", [8, 11])
def test_names_opset_and_file_version_of_an_onnx_file_are_kept_out_of_the_way(tmp_path: Path, ir_version: int) -> None:
    # PIXELS and planes are names of the exported graph, too.
    model = _graph(PAIR, opset=13, ir_version=ir_version)
    (embeddings, probabilities), result = _answers(tmp_path, model)
    assert "ONNX - .onnx file at most" in result.stdout
    served = onnx.load(tmp_path / "out" / "classifier" / "1" / "model.onnx")
    assert served.ir_version <= 10
    assert [opset.version for opset in served.opset_import] == [13]
    mean, std = (np.array(each, np.float32) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    means = ((formats.make_pixels() / np.float32(255) - mean) / std).mean((1, 2))
    weights = [onnx.numpy_helper.to_array(each) for each in model.graph.initializer]
    assert np.allclose(embeddings, means @ weights[0], atol=1e-5)
    powers = np.exp(means @ weights[1])
    assert np.allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)


@pytest.mark.slow
def test_subgraphs_may_use_the_weights_and_values_outside_of_them(tmp_path: Path) -> None:
    model = _graph(PAIR)
    inner = [
        helper.make_node("MatMul", ["planes", "w"], ["then_out"]),
        helper.make_node("MatMul", ["planes", "w"], ["else_out"]),
    ]
    branches = {
        f"{name}_branch": helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)]
        )
        for name, node in zip(("then", "else"), inner, strict=True)
    }
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node[2].CopyFrom(helper.make_node("If", ["yes"], ["embedding"], **branches))
    (embeddings, _), _ = _answers(tmp_path, model)
    assert np.ptp(embeddings) > 0


@pytest.mark.slow
def test_int8_is_made_from_an_onnx_file_and_fp16_is_refused(tmp_path: Path) -> None:
    network = formats.make_network()
    file = formats.write_format("network.onnx", tmp_path / "trained", network)
    write_faces(tmp_path / "images", range(80, 120), "face")
    common = ["-r", file, "--calibration", tmp_path / "images", "--model_repository", tmp_path / "out", "--accept_loss"]
    result = _run(*common, "--precision", "fp16", "--device", "gpu")
    assert result.exit_code == 1
    assert "fp16 is made from a PyTorch network" in result.stderr
    result = _run(*common, "--precision", "int8")
    assert result.exit_code == 0, result.output
    assert "precision         int8; " in result.stdout
    operators = {node.op_type for node in onnx.load(tmp_path / "out" / "classifier" / "1" / "model.onnx").graph.node}
    assert "QuantizeLinear" in operators


class _Returns(nn.Module):
    """Returns what a function makes of an embedding."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network = formats.make_network()
        self.norm = nn.BatchNorm2d(3)
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.network(self.norm(x))[1])


def _save_pt2(path: Path, network: nn.Module, *, batch: bool = True, size: int = SIZE, train: bool = False) -> None:
    network.train(train)
    shapes = ({0: torch.export.Dim.DYNAMIC},) if batch else None
    torch.export.save(torch.export.export(network, (torch.randn(2, 3, size, size),), dynamic_shapes=shapes), path)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        pytest.param(lambda y: (y, y), {"batch": False}, r"exactly 2 images.*dynamic_shapes", id="batch"),
        pytest.param(
            lambda y: (y, y), {"train": True}, r"exported in training mode. Call network.eval\(\)", id="training"
        ),
        pytest.param(lambda y: (y, y.softmax(1)), {}, r"seems to hold probabilities", id="softmax"),
        pytest.param(lambda y: (y, y), {"size": 48}, r"images of 48 x 48 only, and 32", id="size"),
    ],
)
def test_pt2_that_cannot_be_served_is_refused_with_a_remedy(
    tmp_path: Path, make: Callable[[Tensor], Any], options: dict[str, Any], message: str
) -> None:
    _save_pt2(tmp_path / "net.pt2", _Returns(make), **options)
    with pytest.raises(ExportError, match=message):
        _measure(tmp_path / "net.pt2")


class _WithoutGradient(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            y = x.mean((2, 3))
        return y, y[:, :2]


def test_pt2_with_another_operator_names_it(tmp_path: Path) -> None:
    _save_pt2(tmp_path / "net.pt2", _WithoutGradient())
    with pytest.raises(
        ExportError, match=r"it calls torch\.ops\.higher_order\.wrap_with_set_grad_enabled.*\n.*no_grad"
    ):
        load_network(tmp_path / "net.pt2", 2, FileReader())


def test_grey_and_bgr_reach_an_onnx_file_in_its_order(tmp_path: Path) -> None:
    asked = Preprocessing(image_size=SIZE, channels="bgr", mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    onnx.save(_graph(PAIR), tmp_path / "net.onnx")
    network = load_network(tmp_path / "net.onnx", 2, FileReader())
    measure_embedding(network, asked, 2)
    from inference_export.graph.onnx_export import export_network

    export_network(network, asked, tmp_path / "served.onnx")
    pixels = formats.make_pixels()
    embeddings, _ = run_graph(open_graph(tmp_path / "served.onnx"), pixels)
    means = ((pixels[..., ::-1] / np.float32(255) - np.array(asked.mean)) / np.array(asked.std)).mean((1, 2))
    weights = onnx.numpy_helper.to_array(_graph(PAIR).graph.initializer[0])
    assert np.allclose(embeddings, means @ weights, atol=1e-5)
    assert np.allclose(network.answer(pixels, asked)[0], embeddings, atol=1e-5)
