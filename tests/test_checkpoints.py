"""What training left: every kind of checkpoint and of labels, and files that are something else."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from inference_export import ExportOptions
from inference_export.errors import ExportError, ResourcesError
from inference_export.network.loading import load_network, load_weights
from inference_export.regular_files import FileReader
from inference_export.repository.provenance import Provenance, describe, what_changed
from inference_export.resources.checkpoint_file import read_checkpoint_file, read_weights
from inference_export.resources.checkpoints import select_checkpoint
from inference_export.resources.labels import MAX_TEXT_BYTES, read_labels
from inference_export.resources.trained import locate
from tests import tiny_network
from tests.resources import write_resources

STATE = tiny_network.make_state(0)


def _load(path: Path, key: str | None = None) -> nn.Module:
    return load_weights(read_checkpoint_file(path, FileReader()), 2, tiny_network.NETWORK, key).module


def _notes(path: Path) -> list[str]:
    return load_weights(read_checkpoint_file(path, FileReader()), 2, tiny_network.NETWORK).notes


def _is_state(network: nn.Module, state: dict[str, Tensor] = STATE) -> bool:
    loaded = network.state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(loaded[key], value) for key, value in state.items())


def _prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in STATE.items()}


def _optimizer() -> dict[str, Any]:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize(
    ("checkpoint", "key"),
    [
        pytest.param({"epoch": 3, "state_dict": STATE}, "state_dict", id="state_dict"),
        pytest.param({"model": STATE, "optimizer": _optimizer()}, "model", id="with-an-optimizer"),
        pytest.param({"model": STATE, "other": _optimizer()}, "model", id="optimizer-under-another-name"),
        pytest.param({"best": np.float64(0.5), "epoch": np.int64(3), "net": STATE}, "net", id="numpy-scalars"),
        pytest.param({"args": argparse.Namespace(lr=0.1), "model": STATE}, "model", id="arguments"),
        pytest.param({"trainer": {"weights": STATE}, "acc": torch.ones(1)}, "trainer.weights", id="nested"),
        pytest.param({"metrics": {"acc": torch.ones(())}, "model": STATE}, "model", id="metrics-are-no-weights"),
        pytest.param({"state_dict": _prefixed("model."), "loops": {"a": STATE}}, "state_dict", id="lightning"),
    ],
)
def test_weights_are_found_in_a_training_checkpoint(tmp_path: Path, checkpoint: dict[str, Any], key: str) -> None:
    torch.save(checkpoint, tmp_path / "checkpoint")
    assert _is_state(_load(tmp_path / "checkpoint"))
    assert any(f"'{key}'" in note for note in _notes(tmp_path / "checkpoint"))


def test_several_sets_of_weights_are_listed_and_one_is_chosen_by_its_key(tmp_path: Path) -> None:
    other = tiny_network.make_state(1)
    torch.save({"model": STATE, "inner": {"ema": other}}, tmp_path / "checkpoint")
    with pytest.raises(
        ResourcesError, match=r"several sets of weights, under model, inner\.ema.*--checkpoint_key model"
    ):
        _load(tmp_path / "checkpoint")
    assert _is_state(_load(tmp_path / "checkpoint", "model"))
    assert _is_state(_load(tmp_path / "checkpoint", "inner.ema"), other)
    with pytest.raises(ResourcesError, match=r"--checkpoint_key emma: .* has no such key. Weights are under model"):
        _load(tmp_path / "checkpoint", "emma")


def test_key_of_weights_can_write_no_lines_of_its_own(tmp_path: Path) -> None:
    torch.save({"a\x1b[2J\nError: none": STATE, "model": STATE}, tmp_path / "checkpoint")
    with pytest.raises(ResourcesError, match="--checkpoint_key a") as raised:
        _load(tmp_path / "checkpoint")
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("prefix", "wrapper"),
    [
        ("module.", "DataParallel"),
        ("_orig_mod.", "torch.compile"),
        ("model.", "Lightning"),
        ("module._orig_mod.", "DataParallel and torch.compile"),
    ],
)
def test_prefix_of_a_wrapper_is_taken_off_with_a_note(tmp_path: Path, prefix: str, wrapper: str) -> None:
    torch.save(_prefixed(prefix), tmp_path / "checkpoint")
    assert _is_state(_load(tmp_path / "checkpoint"))
    (note,) = _notes(tmp_path / "checkpoint")
    assert repr(prefix) in note
    assert wrapper in note


def test_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    some = {(f"module.{key}" if key.startswith("conv") else key): value for key, value in STATE.items()}
    torch.save(some, tmp_path / "checkpoint")
    with pytest.raises(ResourcesError, match=r"lacks conv\.weight, conv\.bias; it has unknown module\.conv"):
        _load(tmp_path / "checkpoint")


class Whole:
    """An object of a class of the user's own."""


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        pytest.param(nn.Linear(2, 2), r"an object of torch\.nn\.modules\.linear\.Linear", id="module"),
        pytest.param({"model": STATE, "config": Whole()}, r"an object of tests\.test_checkpoints\.Whole", id="config"),
        pytest.param({"model": STATE, "path": Path("a")}, r"an object of pathlib\.PosixPath", id="path"),
    ],
)
def test_class_that_a_checkpoint_may_not_hold_is_named_with_the_line_that_saves_weights(
    tmp_path: Path, checkpoint: Any, message: str
) -> None:
    torch.save(checkpoint, tmp_path / "checkpoint")
    with pytest.raises(ResourcesError, match=message) as caught:
        _load(tmp_path / "checkpoint")
    assert "torch.save(network.state_dict(), file)" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "architecture"),
    [
        (["cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"], "a timm ViT"),
        (["features.0.0.weight", "features.1.conv.0.0.weight"], "torchvision's MobileNetV2"),
        (["backbone.layer1.0.conv1.weight", "backbone.layer3.22.conv1.weight", "backbone.layer3.22.conv3.weight"],
         "a ResNet-101"),
        (["stem.weight"], "stem.weight"),
    ],
)  # fmt: skip
def test_checkpoint_of_another_architecture_is_told_by_its_names(
    tmp_path: Path, names: list[str], architecture: str
) -> None:
    torch.save({name: torch.ones(2, 2) for name in names}, tmp_path / "checkpoint")
    with pytest.raises(ResourcesError, match=architecture) as caught:
        load_network(tmp_path / "checkpoint", 2, FileReader())
    assert "--network" in str(caught.value)


def _zip(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return file.getvalue()


def _directory_of_many() -> bytes:
    """Make a zip archive that is almost nothing but the list of its contents."""
    entry = b"PK\1\2" + bytes(24) + b"\1\0" + bytes(16) + b"a"
    count = 200_000
    start = b"PK\3\4" + bytes(26)
    end = b"PK\5\6" + bytes(4) + b"\xff\xff\xff\xff" + (count * len(entry)).to_bytes(4, "little")
    return start + entry * count + end + len(start).to_bytes(4, "little") + bytes(2)


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return file.getvalue()


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.ones(2))
    return file.getvalue()


def _torch(state: Any = STATE) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def _onnx(nodes: int = 1) -> bytes:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 32, 32])
    relu = [onnx.helper.make_node("Relu", ["x"], [f"y{number}"]) for number in range(nodes)]
    graph = onnx.helper.make_graph(relu, "g", [value], [value])
    return onnx.helper.make_model(graph).SerializeToString()


# Content, and what the message must say.
OTHER_FILES: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "empty": (b"", r"an empty file of 0 bytes"),
    "html": (b"\n<!DOCTYPE html><html><title>Log in</title>", r"an HTML page"),
    "lfs-pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"LFS pointer.*\n.*git lfs pull"),
    "torchscript": (lambda: _zip("n/data.pkl", "n/constants.pkl", "n/code/a.py"), r"TorchScript.*\n.*holds code"),
    "keras-h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), r"Keras or HDF5 file.*\n.*tf2onnx"),
    "keras": (lambda: _zip("config.json", "metadata.json", "model.weights.h5"), r"Keras file \(\.keras\)"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(100), r"TensorFlow Lite"),
    "ort": (b"\x1c\0\0\0ORTM" + bytes(100), r"ONNX Runtime file"),
    "executorch": (b"\x1c\0\0\0ET12" + bytes(100), r"ExecuTorch"),
    "openvino": (b'<?xml version="1.0"?>\n<net name="a" version="11">', r"OpenVINO network"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(100), r"GGUF"),
    "tensorrt": (b"ftrt" + bytes(100), r"TensorRT engine"),
    "json": (b'{"a": 1}', r"JSON file"),
    "text": (b"learning rate 0.1\nepochs 3\n", r"a text file"),
    "gzip": (lambda: gzip.compress(b"x"), r"gzip archive.*\n.*Unpack"),
    "zip": (lambda: _zip("models/model_1"), r"zip archive that torch.save did not write"),
    "tar": (_tar, r"tar archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(100), r"7z archive"),
    "npy": (b"\x93NUMPY\1\0" + bytes(100), r"NumPy array"),
    "npz": (_npz, r"NumPy arrays \(\.npz\)"),
    "pickle": (lambda: pickle.dumps({"a": 1}), r"plain pickle"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(100), r"JPEG image.*\n.*-data"),
    "elf": (b"\x7fELF" + bytes(100), r"compiled library"),
    "noise": (bytes(range(130, 250)), r"120 bytes of no kind"),
    "zip-of-many": (_directory_of_many, r"zip archive of 200,000 entries"),
    "truncated-torch": (lambda: _torch()[:900], r"breaks off: its 900 bytes"),
    "truncated-safetensors": (lambda: safetensors.torch.save(STATE)[:-100], r"has \d+ of the \d+ bytes"),
    "truncated-safetensors-header": (lambda: safetensors.torch.save(STATE)[:40], r"has 40 bytes, and its header alone"),
    "truncated-onnx": (lambda: _onnx(50)[:-60], r"\.onnx file that breaks off: it has [\d,]+ of at least [\d,]+ bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_FILES)
def test_file_that_is_something_else_is_told_what_it_is_and_what_to_do(tmp_path: Path, name: str) -> None:
    content, message = OTHER_FILES[name]
    (tmp_path / "model_1").write_bytes(content if isinstance(content, bytes) else content())
    with pytest.raises(ResourcesError, match=message) as caught:
        load_network(tmp_path / "model_1", 2, FileReader())
    assert "opy it again" not in str(caught.value)


def test_file_is_read_by_its_content_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(safetensors.torch.save(STATE))
    (tmp_path / "b.safetensors").write_bytes(_torch())
    assert _is_state(_load(tmp_path / "a.onnx"))
    assert _is_state(_load(tmp_path / "b.safetensors"))


def _lying(change: Callable[[dict[str, Any]], None]) -> bytes:
    content = safetensors.torch.save(STATE)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["conv.weight"].update({key: value})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(_lying(_set("shape", [2**31, 2**31])), "broken .safetensors", id="shape"),
        pytest.param(
            _lying(_set("data_offsets", [0, 2**40])), r"has [\d,]+ of the 1,099,511", id="offsets-beyond-the-end"
        ),
        pytest.param(_lying(_set("data_offsets", [16, 4])), "broken .safetensors", id="offsets-reversed"),
        pytest.param(_lying(_set("dtype", "EVAL")), "broken .safetensors", id="type"),
        pytest.param(
            _lying(lambda header: header.update({"a": header["conv.bias"]})), "broken .safetensors", id="overlap"
        ),
        pytest.param(
            (2**40).to_bytes(8, "little") + b"{}" + bytes(100), "claims 1,099,511,627,776", id="header-length"
        ),
        pytest.param((8).to_bytes(8, "little") + b"{not js}", "broken .safetensors", id="no-json"),
        pytest.param(b"\x40\x0d\x03\0\0\0\0\0" + b'{"a":' * 40_000, "broken .safetensors", id="deep-header"),
    ],
)
def test_safetensors_with_a_lying_header_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model_1").write_bytes(content)
    with pytest.raises(ResourcesError, match=message):
        load_network(tmp_path / "model_1", 2, FileReader())


LABELS = {
    "labels": pickle.dumps({"b": 0, "a": 1}),
    "labels.json": b'\xef\xbb\xbf{"a": 1, "b": 0}',
    "labels.txt": b"b\r\na\n\n\n",
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_read_in_every_form(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(LABELS[name])
    assert read_labels(locate(tmp_path), FileReader()) == ["b", "a"]


def test_list_in_labels_json_is_in_index_order(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('["b", "a"]')
    assert read_labels(locate(tmp_path), FileReader()) == ["b", "a"]


def test_labels_in_several_forms_must_agree(tmp_path: Path) -> None:
    for name, content in LABELS.items():
        (tmp_path / name).write_bytes(content)
    assert read_labels(locate(tmp_path), FileReader()) == ["b", "a"]
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(ResourcesError, match=r"labels and .*labels\.txt contradict each other.*class 0 is b and a"):
        read_labels(locate(tmp_path), FileReader())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.json", b'{"a": 0, "a": 1}', "twice"),
        ("labels.json", b'["a", "a"]', "'a' twice"),
        ("labels.json", b'{"0": "a"}', "no whole number"),
        ("labels.json", b'{"a": 1}', "0 to 0, each once"),
        ("labels.json", b'["a", 1]', "printable text"),
        ("labels.json", b"[]", "must hold"),
        ("labels.json", b"[" * 100_000, "no JSON"),
        ("labels.json", b"{'a': 0}", "no JSON"),
        ("labels.json", b"\xff\xfe[", "not UTF-8"),
        ("labels.json", b" " * (MAX_TEXT_BYTES + 1), "can't be read"),
        ("labels.txt", b"\n\n", "is empty"),
        ("labels.txt", b"a\n\nb\n", "printable text"),
        ("labels.txt", b"a\na\n", "twice"),
        ("labels.txt", "caf\u00e9\ncafe\u0301\n".encode(), "two spellings"),
    ],
    ids=[
        "json-twice",
        "json-list-twice",
        "json-reversed",
        "json-gap",
        "json-number",
        "json-empty",
        "json-deep",
        "json-quotes",
        "json-utf-16",
        "json-long",
        "txt-empty",
        "txt-gap",
        "txt-twice",
        "txt-two-spellings",
    ],
)
def test_malformed_labels_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ResourcesError, match=message):
        read_labels(locate(tmp_path), FileReader())


def test_labels_of_a_named_file_lie_beside_it_or_beside_its_folder_models(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name in ("models/net.pth", "net.pth"):
        (tmp_path / name).write_bytes(_torch())
    (tmp_path / "labels.txt").write_text("a\nb\n")
    for name in ("models/net.pth", "net.pth"):
        assert read_labels(locate(tmp_path / name), FileReader()) == ["a", "b"]
    (tmp_path / "models" / "labels.json").write_text('["a", "c"]')
    with pytest.raises(ResourcesError, match="contradict each other"):
        read_labels(locate(tmp_path / "models" / "net.pth"), FileReader())
    assert read_labels(locate(tmp_path / "net.pth"), FileReader()) == ["a", "b"]


def test_one_of_several_checkpoints_is_named(tmp_path: Path) -> None:
    folder = write_resources(tmp_path / "trained", {"first": STATE, "last": STATE}, {"a": 0, "b": 1})
    (folder / "logs" / "logs").unlink()
    with pytest.raises(ResourcesError, match=r"first, last, and .*logs is missing.*--checkpoint last"):
        select_checkpoint(locate(folder), "classification", FileReader())
    for name in (Path("first"), folder / "models" / "first"):
        assert (
            select_checkpoint(locate(folder, name), "classification", FileReader()).path == folder / "models" / "first"
        )
    with pytest.raises(ResourcesError, match="--checkpoint third: there is no such file"):
        locate(folder, Path("third"))
    with pytest.raises(ResourcesError, match="Name one checkpoint"):
        locate(folder / "models" / "first", Path("last"))


def test_best_epoch_may_have_any_ending(tmp_path: Path) -> None:
    folder = write_resources(
        tmp_path / "trained", {"model_1.pth": {}, "model_2.pth": {}}, {"a": 0}, epochs=[1, 2],
        classification_accuracy=[0.1, 0.2],
    )  # fmt: skip
    assert select_checkpoint(locate(folder), "classification", FileReader()).path.name == "model_2.pth"
    (folder / "models" / "model_2.onnx").write_bytes(b"")
    with pytest.raises(ResourcesError, match="stands there 2 times"):
        select_checkpoint(locate(folder), "classification", FileReader())


def test_files_that_accompany_a_checkpoint_are_no_checkpoints(tmp_path: Path) -> None:
    folder = write_resources(tmp_path / "trained", {"model.onnx": {}}, {"a": 0})
    for name in ("model.onnx.data", "preprocessing.json", "labels.txt"):
        (folder / "models" / name).write_bytes(b"")
    assert select_checkpoint(locate(folder), "classification", FileReader()).reason == "the only one"


def test_folder_of_another_framework_is_told(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ResourcesError, match="TensorFlow SavedModel"):
        select_checkpoint(locate(tmp_path), "classification", FileReader())


def test_option_that_does_not_go_with_the_kind_of_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(_onnx())
    (tmp_path / "net.pth").write_bytes(_torch())
    with pytest.raises(ResourcesError, match=r"--network a:b has no meaning here: .*complete network"):
        load_network(tmp_path / "net.onnx", 2, FileReader(), "a:b")
    with pytest.raises(ResourcesError, match=r"--outputs a,b has no meaning here: .*holds weights"):
        load_network(tmp_path / "net.pth", 2, FileReader(), outputs="a,b")


def test_changed_file_of_any_part_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"1")
    (tmp_path / "net.onnx.data").write_bytes(b"2")
    (tmp_path / "labels.txt").write_text("a\n")
    options = ExportOptions(resources=tmp_path / "net.onnx")
    before = _provenance(options)
    assert what_changed(before, options) == []
    for name in ("net.onnx", "net.onnx.data", "labels.txt"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"changed")
        assert what_changed(before, options) == ["resources"], name
        (tmp_path / name).write_bytes(content)
    (tmp_path / "labels.json").write_text('["a"]')
    assert what_changed(before, options) == ["resources"]


def _provenance(options: ExportOptions) -> Provenance:
    file = options.resources
    reader = FileReader()
    files = [file, file.with_name("net.onnx.data"), file.with_name("labels.txt")]
    for each in files:
        reader.read(each, 100)
    return describe(
        options, base=None, calibration=None, labels=files[2:], checkpoint=file, candidates=[file.name],
        data_files=[files[1]], described=None, network_source=None, precision="fp32",
        sha256=lambda path, _: reader.sha256(path),
        graph="", preprocessing="", exported=None,
    )  # fmt: skip


def test_safetensors_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net").write_bytes(safetensors.torch.save(STATE))
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ExportError, match=r"pip install 'classify-triton\[export\]'"):
        read_weights(read_checkpoint_file(tmp_path / "net", FileReader()))
