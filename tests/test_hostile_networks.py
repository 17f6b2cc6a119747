"""Hostile .pt2 and .onnx files: no code of theirs runs, time and memory are bounded, and the message is clear."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from inference_export import onnx_session
from inference_export.command import main
from inference_export.errors import NetworkError, ResourcesError
from inference_export.network.complete import first_run, pt2_file
from inference_export.network.loading import load_network
from inference_export.network.preprocessing import Preprocessing
from inference_export.network.probing import measure_embedding
from inference_export.regular_files import FileReader
from tests import formats
from tests.resources import write_faces
from tests.test_resources import Payload

SIZE = formats.SIZE


def _load_and_run(path: Path) -> None:
    measure_embedding(load_network(path, 2, FileReader()), Preprocessing(image_size=SIZE), 2)


@pytest.fixture(scope="module")
def pt2(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a harmless .pt2 file."""
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    formats.export_pt2(formats.make_network(), path)
    return path.read_bytes()


Entries = dict[str, bytes]
Program = dict[str, Any]


def _rewrite(content: bytes, change: Callable[[Entries], None], compression: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry.filename.partition("/")[2]: archive.read(entry) for entry in archive.infolist()}
    change(entries)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(f"net/{name}", data)
    return file.getvalue()


def _change_json(name: str, change: Callable[[Any], None]) -> Callable[[Entries], None]:
    def apply(entries: Entries) -> None:
        value = json.loads(entries[name])
        change(value)
        entries[name] = json.dumps(value).encode()

    return apply


def _program(change: Callable[[Program], None]) -> Callable[[Entries], None]:
    return _change_json("models/model.json", change)


def _graph(change: Callable[[Program], None]) -> Callable[[Entries], None]:
    return _program(lambda program: change(program["graph_module"]["graph"]))


def _weights(change: Callable[[Program], None]) -> Callable[[Entries], None]:
    return _change_json(
        "data/weights/model_weights_config.json", lambda config: change(config["config"]["conv.weight"])
    )


def _target(target: str, inputs: list[Any] | None = None) -> Callable[[Entries], None]:
    def change(graph: Program) -> None:
        graph["nodes"][0]["target"] = target
        if inputs is not None:
            graph["nodes"][0]["inputs"] = inputs

    return _graph(change)


def _argument(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "arg": value, "kind": 1}


def _set(*path: str | int, value: Any) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    return change


def _add(name: str, content: bytes) -> Callable[[Entries], None]:
    return lambda entries: entries.update({name: content})


def _many(entries: Entries) -> None:
    entries.update({f"extra/{number}": b"" for number in range(pt2_file.MAX_ENTRIES)})


_FULL = [_argument("size", {"as_ints": [10**6, 10**6]}), _argument("fill_value", {"as_float": 1.0})]
_OPEN = [_argument("filename", {"as_string": "/etc/hostname"}), _argument("size", {"as_int": 4})]
_HUGE = [{"as_int": 2**30}] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(_target("torch.hub.load"), r"it calls torch\.hub\.load", id="function-of-torch"),
        pytest.param(_target("os.system"), r"it calls os\.system", id="function-of-another-module"),
        pytest.param(_target("#ext:load"), "it calls #ext:load", id="extension"),
        pytest.param(_target("_operator.methodcaller"), r"it calls _operator\.methodcaller", id="operator-of-python"),
        pytest.param(_target("torch.ops.aten.relu.__class__"), "it calls", id="attribute-of-an-operator"),
        pytest.param(
            _target("torch.ops.aten.from_file.default", _OPEN), r"it calls torch\.ops\.aten\.from_file", id="file"
        ),
        pytest.param(_target("torch.ops.aten.pad.default", _OPEN), r"takes the argument '/etc/hostname'", id="text"),
        pytest.param(_target("torch.ops.evil.run.default"), r"it calls torch\.ops\.evil\.run", id="custom-operator"),
        pytest.param(_weights(_set("use_pickle", value=True)), "a pickle can run code", id="pickled-weights"),
        pytest.param(_weights(_set("tensor_meta", "sizes", value=_HUGE)), "larger than its bytes", id="huge-sizes"),
        pytest.param(
            _weights(lambda weight: weight["tensor_meta"].update(sizes=_HUGE, strides=[{"as_int": 0}] * 4)),
            "repeats its bytes",
            id="strides-of-0",
        ),
        pytest.param(
            _weights(_set("tensor_meta", "storage_offset", value={"as_int": 2**39})),
            "larger than its bytes",
            id="offset",
        ),
        pytest.param(
            _weights(_set("tensor_meta", "storage_offset", value={"as_int": -8})),
            "with the size -8",
            id="negative-offset",
        ),
        pytest.param(_weights(_set("path_name", value="../../../etc/passwd")), "is broken", id="path"),
        pytest.param(
            _program(_set("schema_version", "major", value=99)), r"version 99 of the format.*2\.", id="version"
        ),
        pytest.param(_program(_set("graph_module", value=[])), "list of 0 where its format has an object", id="form"),
        pytest.param(_graph(_set("nodes", value=[{}] * 100_001)), "100,000 are run", id="nodes"),
        pytest.param(_add("models/model.json", b"[" * 10**6), "is broken", id="deep-json"),
        pytest.param(_add("models/model.json", b" " * (64 * 2**20 + 1)), "may have 67,108,864", id="long-json"),
        pytest.param(_add("data/aotinductor/model/a.so", b"\x7fELF"), "holds machine code", id="machine-code"),
        pytest.param(_many, "entries, and at most", id="entries"),
        pytest.param(lambda entries: entries.pop("models/model.json"), "lacks models/model.json", id="no-program"),
    ],
)
def test_hostile_pt2_is_refused(tmp_path: Path, pt2: bytes, change: Callable[[Entries], None], message: str) -> None:
    (tmp_path / "net.pt2").write_bytes(_rewrite(pt2, change))
    with pytest.raises(ResourcesError, match=message):
        load_network(tmp_path / "net.pt2", 2, FileReader())


def test_compressed_pt2_is_refused_before_it_is_unpacked(tmp_path: Path, pt2: bytes) -> None:
    bomb = _rewrite(pt2, _add("data/weights/weight_0", bytes(2**28)), zipfile.ZIP_DEFLATED)
    (tmp_path / "net.pt2").write_bytes(bomb)
    with pytest.raises(ResourcesError, match="is compressed"):
        load_network(tmp_path / "net.pt2", 2, FileReader())


@pytest.mark.slow
def test_pt2_that_takes_all_memory_ends_only_its_own_process(tmp_path: Path, pt2: bytes) -> None:
    (tmp_path / "net.pt2").write_bytes(_rewrite(pt2, _target("torch.ops.aten.full.default", _FULL)))
    with pytest.raises(NetworkError, match="failed on images"):
        _load_and_run(tmp_path / "net.pt2")


def _everywhere(victim: Path) -> Callable[[Entries], None]:
    """Put code into every place from which PyTorch's own loader would run it, or might."""
    code = f"__import__('pathlib').Path({str(victim)!r}).touch()"

    def change(entries: Entries) -> None:
        program = json.loads(entries["models/model.json"])
        graph = program["graph_module"]["graph"]
        for meta in graph["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
        program["guards_code"] = [code]
        for node in graph["nodes"]:
            node["metadata"]["custom"] = code
        entries["models/model.json"] = json.dumps(program).encode()
        entries["data/sample_inputs/model.pt"] = pickle.dumps(Payload(victim))
        entries["data/constants/opaque_obj_0"] = pickle.dumps(Payload(victim))
        entries["data/constants/custom_obj_0"] = pickle.dumps(Payload(victim))

    return change


def test_python_operator_of_a_pt2_file_takes_numbers_only(tmp_path: Path, pt2: bytes) -> None:
    """A list times 2**26 takes half a gigabyte, in the export's own process too."""
    repetition = {
        "target": "_operator.mul",
        "inputs": [_argument("a", {"as_ints": [1]}), _argument("b", {"as_int": 2**26})],
        "outputs": [{"as_sym_int": {"as_name": "many"}}],
        "metadata": {},
    }
    content = _rewrite(pt2, _graph(lambda graph: graph["nodes"].insert(0, repetition)))
    (tmp_path / "net.pt2").write_bytes(content)
    with pytest.raises(NetworkError, match=r"calls _operator\.mul with a list"):
        _load_and_run(tmp_path / "net.pt2")


def test_code_in_a_pt2_file_does_not_run(tmp_path: Path, pt2: bytes) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "net.pt2").write_bytes(_rewrite(pt2, _everywhere(victim)))
    with contextlib.suppress(Exception):  # of any type; it has run the code by then
        torch.export.load(tmp_path / "net.pt2")
    assert victim.exists(), "the attack is none"
    victim.unlink()
    network = load_network(tmp_path / "net.pt2", 2, FileReader())
    with torch.no_grad():
        vars(network)["module"](torch.zeros(2, 3, SIZE, SIZE))
    assert not victim.exists()


def _model(*nodes: onnx.NodeProto, initializers: list[Any] | None = None, **attributes: Any) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.ones((3, width), np.float32), f"w{width}") for width in (4, 2)]
    body = [
        helper.make_node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "w4"], ["embedding"]),
        helper.make_node("MatMul", ["means", "w2"], ["logits"]),
    ]
    graph = helper.make_graph(
        [*nodes, *body],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None]) for name in ("embedding", "logits")],
        [*weights, *(initializers or [])],
    )
    opsets = [helper.make_opsetid("", 17), *attributes.pop("opsets", [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **attributes)


def _body(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "body", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])


def _nested(depth: int) -> onnx.NodeProto:
    node = helper.make_node("Identity", ["x"], ["y"])
    for _ in range(depth):
        node = helper.make_node("If", ["yes"], ["y"], then_branch=_body(node), else_branch=_body())
    return node


_FUNCTION = helper.make_function(
    "own", "f", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 17)]
)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(_model(helper.make_node("Run", ["x"], ["y"], domain="evil")), "an operator of evil", id="domain"),
        pytest.param(_model(opsets=[helper.make_opsetid("evil", 1)]), "needs operators of evil", id="library"),
        pytest.param(
            _model(
                helper.make_node(
                    "If",
                    ["yes"],
                    ["y"],
                    then_branch=_body(helper.make_node("Run", [], ["y"], domain="evil")),
                    else_branch=_body(),
                )
            ),
            "an operator of evil",
            id="domain-in-a-subgraph",
        ),
        pytest.param(_model(opsets=[helper.make_opsetid("ai.onnx", 20)]), "names 2 opsets of ONNX itself", id="opsets"),
        pytest.param(_model(helper.make_node("Loop", ["n", ""], ["y"], body=_body())), "is Loop, a loop", id="loop"),
        pytest.param(
            _model(helper.make_node("Scan", ["x"], ["y"], body=_body(), num_scan_inputs=1)), "is Scan", id="scan"
        ),
        pytest.param(
            _model(functions=[_FUNCTION]), r"functions of its own \(f\).*inline_local_functions", id="function"
        ),
        pytest.param(
            _model(*[helper.make_node("Identity", ["x"], [f"y{n}"]) for n in range(100_001)]),
            "may have 100,000",
            id="nodes",
        ),
        pytest.param(
            _model(helper.make_node("Concat", ["x"] * 1_000_001, ["y"], axis=0)),
            "more than 1,000,000 fields",
            id="inputs",
        ),
        pytest.param(_model(_nested(20)), "nest more than 16 deep", id="nested"),
        pytest.param(
            _model(helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")), "compiled code", id="compiled"
        ),
    ],
)
def test_hostile_onnx_is_refused_before_it_runs(tmp_path: Path, model: onnx.ModelProto, message: str) -> None:
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ResourcesError, match=message):
        load_network(tmp_path / "net.onnx", 2, FileReader())


def test_onnx_of_millions_of_empty_nodes_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    nodes = b"\x0a\x00" * 3_000_000
    length = len(nodes)
    varint = b""
    while length:
        varint += bytes([length & 0x7F | (0x80 if length > 0x7F else 0)])
        length >>= 7
    (tmp_path / "net.onnx").write_bytes(b"\x08\x0a" + b"\x3a" + varint + nodes + b"\x42\x02\x10\x11")
    with pytest.raises(ResourcesError, match=r"has more than 1,000,000 fields"):
        load_network(tmp_path / "net.onnx", 2, FileReader())


def _external(**entries: str) -> onnx.ModelProto:
    weight = TensorProto(name="w4", data_type=TensorProto.FLOAT, dims=[3, 4], data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": "net.data", "offset": "0", "length": "48"} | entries).items():
        weight.external_data.add(key=key, value=value)
    model = _model()
    model.graph.initializer[0].CopyFrom(weight)
    return model


def _in_a_constant() -> onnx.ModelProto:
    model = _model(helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(1, np.float32), "c")))
    model.graph.node[0].attribute[0].t.CopyFrom(_external(location="/etc/passwd").graph.initializer[0])
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_external(location="/etc/passwd"), r"said to lie in '/etc/passwd'.*under a plain name"),
        (_external(location="../net.data"), r"said to lie in '\.\./net\.data'"),
        (_external(location="sub/net.data"), r"said to lie in 'sub/net\.data'"),
        (_external(location=".."), r"said to lie in '\.\.'"),
        (_external(location=""), r"said to lie in ''"),
        (_external(location="link.data"), r"link\.data, which is a link"),
        (_external(location="pipe.data"), r"pipe\.data can't be read \(is a folder, pipe"),
        (_external(location="absent.data"), r"absent\.data beside it, and there is no such file"),
        (_external(offset="40"), r"bytes 40 to 88 of net\.data, which has 48"),
        (_external(offset="-4"), r"the offset or length '-4'"),
        (_external(length="9" * 30), r"the offset or length"),
        (_external(length="44"), r"has 44 bytes in net\.data, and needs 48"),
        (_in_a_constant(), r"said to lie in '/etc/passwd'"),
    ],
    ids=[
        "absolute",
        "parent",
        "folder",
        "dots",
        "empty",
        "link",
        "pipe",
        "absent",
        "beyond",
        "negative",
        "digits",
        "length",
        "constant",
    ],
)
def test_external_data_lie_in_a_plain_file_beside_the_network(
    tmp_path: Path, model: onnx.ModelProto, message: str
) -> None:
    (tmp_path / "net.data").write_bytes(bytes(48))
    (tmp_path / "link.data").symlink_to(tmp_path / "net.data")
    os.mkfifo(tmp_path / "pipe.data")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ResourcesError, match=message):
        load_network(tmp_path / "net.onnx", 2, FileReader())


def _constant_of(*sizes: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Constant", [], ["size"], value_ints=list(sizes)),
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
    ]


def test_onnx_that_takes_all_memory_ends_only_its_own_process(tmp_path: Path) -> None:
    model = _model(*_constant_of(2**20, 2**20), helper.make_node("Relu", ["big"], ["bigger"]))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(NetworkError, match="failed on images"):
        _load_and_run(tmp_path / "net.onnx")


def test_onnx_that_runs_for_ever_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_run, "TIMEOUT_S", 4)  # the real two minutes would take as long
    products = [helper.make_node("MatMul", ["big", "big" if n == 0 else f"p{n}"], [f"p{n + 1}"]) for n in range(1000)]
    model = _model(*_constant_of(4096, 4096), *products)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(NetworkError, match=r"did not answer 4 images, .*within 4 s"):
        _load_and_run(tmp_path / "net.onnx")


def _fails_for(count: int) -> onnx.ModelProto:
    """Make a network that can't be run on this number of images: it would need 4 TiB."""
    model = _model(
        helper.make_node("Constant", [], ["count"], value_ints=[count]),
        helper.make_node("Constant", [], ["many"], value_ints=[2**40]),
        helper.make_node("Shape", ["x"], ["images"], start=0, end=1),
        helper.make_node("Equal", ["images", "count"], ["is_it"]),
        helper.make_node("Cast", ["is_it"], ["one_or_zero"], to=TensorProto.INT64),
        helper.make_node("Mul", ["one_or_zero", "many"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    )
    next(node for node in model.graph.node if node.op_type == "ReduceMean").input[0] = "y"
    return model


@pytest.mark.parametrize("count", [8, 13])  # of the comparison, and of the base images
def test_network_that_fails_for_some_number_of_images_is_refused_in_words(tmp_path: Path, count: int) -> None:
    write_faces(tmp_path / "base" / "a", range(6), "face_")
    write_faces(tmp_path / "base" / "b", range(100, 107), "other_")
    (tmp_path / "net.onnx").write_bytes(_fails_for(count).SerializeToString())
    (tmp_path / "labels.txt").write_text("a\nb\n")
    before = sorted(tmp_path.iterdir())
    arguments = ["-r", tmp_path / "net.onnx", "-data", tmp_path / "base", "--model_repository", tmp_path / "out"]
    result = CliRunner().invoke(
        main, [str(each) for each in [*arguments, "--image_size", SIZE]], catch_exceptions=False
    )
    assert result.exit_code == 1
    assert f"network failed on {count} images: " in result.stderr
    assert "It must accept any number of images" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_memory_of_a_run_is_limited_for_every_number_of_images(
    tmp_path: Path, pt2: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process of the first run sees 1 and 3 images only."""
    (tmp_path / "net.pt2").write_bytes(pt2)
    network = load_network(tmp_path / "net.pt2", 2, FileReader())
    asked = Preprocessing(image_size=SIZE)
    measure_embedding(network, asked, 2)
    network.answer(np.zeros((8, SIZE, SIZE, 3), np.uint8), asked)
    monkeypatch.setattr(onnx_session, "MOST_RUN_BYTES", 2**20)
    with pytest.raises(NetworkError, match="failed on 20000 images"):
        network.answer(np.zeros((20_000, SIZE, SIZE, 3), np.uint8), asked)


@pytest.mark.parametrize("exists", [True, False])
def test_name_of_external_data_can_write_no_lines_of_its_own(tmp_path: Path, exists: bool) -> None:
    name = "w\x1b[2J\nError: none"
    if exists:
        (tmp_path / name).write_bytes(b"short")
    (tmp_path / "net.onnx").write_bytes(_external(location=name).SerializeToString())
    with pytest.raises(ResourcesError, match=r"w\ufffd\[2J\ufffdError: none") as raised:
        load_network(tmp_path / "net.onnx", 2, FileReader())
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", ["net.pt2", "net.onnx"])
def test_refused_network_ends_with_exit_code_1_and_nothing_written(tmp_path: Path, pt2: bytes, name: str) -> None:
    hostile = {
        "net.pt2": _rewrite(pt2, _target("torch.hub.load")),
        "net.onnx": _model(helper.make_node("Run", ["x"], ["y"], domain="evil")).SerializeToString(),
    }
    (tmp_path / name).write_bytes(hostile[name])
    (tmp_path / "labels.txt").write_text("a\nb\n")
    before = sorted(tmp_path.iterdir())
    arguments = ["-r", str(tmp_path / name), "--model_repository", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 1
    assert f"{name} was not read: it" in result.stderr
    assert sorted(tmp_path.iterdir()) == before
