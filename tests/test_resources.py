"""The choice of a checkpoint, and the messages about unsafe or malformed resources."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference_export.errors import ResourcesError
from inference_export.network.loading import load_network, load_weights
from inference_export.network.resnet50 import TwoHeadedResNet50
from inference_export.regular_files import FileReader
from inference_export.resources import pickle_limits
from inference_export.resources.checkpoint_file import read_checkpoint_file
from inference_export.resources.checkpoints import select_checkpoint
from inference_export.resources.labels import read_labels
from inference_export.resources.trained import locate
from inference_export.resources.unpickling import read_plain_pickle
from tests.resources import write_resources

LABELS = {"autistic": 0, "non_autistic": 1}


class Payload:
    """An object that creates a file if an ordinary unpickler reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Resources of four epochs. The modes prefer different epochs; the first of equals is best."""
    return write_resources(
        tmp_path / "trained",
        {f"model_{epoch}": {} for epoch in (1, 2, 3, 10)},
        LABELS,
        epochs=[np.int64(1), 2, 3, 10.0],
        classification_accuracy=[0.5, 0.9, 0.9, 0.7],
        embedding_accuracy=[0.1, float("nan"), 0.2, 0.8],
    )


@pytest.mark.parametrize(("mode", "name"), [("classification", "model_2"), ("clustering", "model_10")])
def test_best_epoch_of_the_mode_is_selected(several: Path, mode: str, name: str) -> None:
    assert select_checkpoint(locate(several), mode, FileReader()).path.name == name


def test_only_checkpoint_is_selected_under_any_name_and_without_logs(several: Path) -> None:
    for name in ("model_1", "model_2", "model_10"):
        (several / "models" / name).unlink()
    (several / "logs" / "logs").unlink()
    (several / "models" / "model_3").rename(several / "models" / "best.pth")
    assert select_checkpoint(locate(several), "clustering", FileReader()).path.name == "best.pth"


def test_missing_checkpoint_of_the_best_epoch_is_named(several: Path) -> None:
    (several / "models" / "model_10").unlink()
    with pytest.raises(ResourcesError, match=r"model_10 is missing.*at epoch 10.*model_1, model_2, model_3"):
        select_checkpoint(locate(several), "clustering", FileReader())


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        pytest.param({}, "lacks", id="empty"),
        pytest.param({"epochBased": {"validation": {"epoch": [1]}}}, "embeddingAccuracy", id="no-accuracy"),
        pytest.param(
            {"epochBased": {"validation": {"epoch": [1, 2], "embeddingAccuracy": [0.5]}}},
            "2 epochs and 1",
            id="lengths",
        ),
        pytest.param(
            {"epochBased": {"validation": {"epoch": [1], "embeddingAccuracy": [float("nan")]}}}, "is a number", id="nan"
        ),
        pytest.param(["what"], "lacks", id="list"),
        pytest.param(
            {"epochBased": {"validation": {"epoch": [10**4500], "embeddingAccuracy": [0.5]}}},
            "the epoch an integer of 14949 bits",
            id="huge-epoch",
        ),
        pytest.param(
            {"epochBased": {"validation": {"epoch": [1], "embeddingAccuracy": [10**4500]}}}, "lacks", id="huge-accuracy"
        ),
        pytest.param(
            {"epochBased": {"validation": {"epoch": torch.zeros(1).expand(10**9), "embeddingAccuracy": [0.5]}}},
            "no list",
            id="endless-tensor",
        ),
    ],
)
def test_malformed_logs_are_refused(several: Path, logs: Any, message: str) -> None:
    (several / "logs" / "logs").write_bytes(pickle.dumps(logs))
    with pytest.raises(ResourcesError, match=message):
        select_checkpoint(locate(several), "clustering", FileReader())


def test_missing_logs_are_named(several: Path) -> None:
    (several / "logs" / "logs").unlink()
    with pytest.raises(ResourcesError, match=r"logs/logs is missing"):
        select_checkpoint(locate(several), "clustering", FileReader())


@pytest.mark.parametrize("name", ["labels", "logs/logs"])
def test_pipe_in_place_of_a_file_is_refused_at_once(several: Path, name: str) -> None:
    (several / name).unlink()
    os.mkfifo(several / name)
    read: Any = read_labels if name == "labels" else partial(select_checkpoint, mode="clustering")
    with pytest.raises(ResourcesError, match=r"pipe"):
        read(locate(several), reader=FileReader())


def test_labels_are_read_in_index_order(tmp_path: Path) -> None:
    folder = write_resources(tmp_path / "trained", {}, {"b": np.int64(0), "a": 1})
    assert read_labels(locate(folder), FileReader()) == ["b", "a"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param({}, "must hold", id="empty"),
        pytest.param(["autistic"], "must hold", id="list"),
        pytest.param({"a": 0, "b": 2}, "0 to 1, each once", id="gap"),
        pytest.param({"a": 0, "b": 0}, "0 to 1, each once", id="twice"),
        pytest.param({"a": "0"}, "no whole number", id="text-index"),
        pytest.param({"a": True}, "no whole number", id="bool-index"),
        pytest.param({1: 0}, "class name is printable text", id="number-name"),
        pytest.param({"": 0}, "class name is printable text", id="empty-name"),
        pytest.param({"\udcff": 0}, "class name is printable text", id="not-utf-8"),
        pytest.param({"a" * 256: 0}, "1 to 255 characters", id="long-name"),
        pytest.param({(((),),): 0}, "a key that is neither text nor a number", id="tuple-name"),
        pytest.param({"a": 10**4500}, "an integer of 14949 bits", id="huge-index"),
        pytest.param({"a": {}}, "the index dict of 0, which is no whole number", id="dict-index"),
        pytest.param({"0": "a"}, "whole number. It must hold {class name: index}, the name first", id="text-first"),
        pytest.param({"caf\u00e9": 0, "cafe\u0301": 1}, "the same text in two spellings", id="two-spellings"),
    ],
)
def test_malformed_labels_are_refused(tmp_path: Path, labels: Any, message: str) -> None:
    (tmp_path / "labels").write_bytes(pickle.dumps(labels))
    with pytest.raises(ResourcesError, match=message):
        read_labels(locate(tmp_path), FileReader())


def _nested(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


# If loaded, each would take gigabytes or hours, or end the process.
HOSTILE_PICKLES = {
    "numbered-2^28": b"\x80\x02}r\xff\xff\xff\x0f.",
    "key-hashed-for-hours": b"\x80\x02})" + b"2\x86" * 60 + b"K\x00s.",
    "key-of-nested-tuples": b"\x80\x02})" + b"\x85" * 3_000_000 + b"K\x00s.",
    "nested-lists": _nested(100_000),
    "copied-again-and-again": b"\x80\x02(" + b"K\x01" * 1000 + b"lq\0" + b"cbuiltins\nlist\nh\0\x85R0" * 100_000 + b".",
    "colliding-members-of-a-set": b"\x80\x02cbuiltins\nset\n](" + b"".join(
        b"\x8a\x0f" + (number * (2**61 - 1)).to_bytes(15, "little") for number in range(2**50, 2**50 + 30_000)
    ) + b"e\x85R.",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE_PICKLES)
@pytest.mark.parametrize("where", ["labels", "checkpoint"])
def test_pickle_that_would_take_gigabytes_or_hours_is_refused_before_it_is_loaded(
    tmp_path: Path, name: str, where: str
) -> None:
    folder = write_resources(tmp_path / "trained", {"model_1": {}}, LABELS)
    content = HOSTILE_PICKLES[name]
    if where == "labels":
        (folder / "labels").write_bytes(content)
        with pytest.raises(ResourcesError, match=r"labels was not read: it "):
            read_labels(locate(folder), FileReader())
    else:
        checkpoint = folder / "models" / "model_1"
        _replace_entry(checkpoint, "data.pkl", content)
        with pytest.raises(ResourcesError, match=r"model_1 was not read: it "):
            load_network(checkpoint, 2, FileReader())


def test_pickle_of_too_many_operations_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_limits, "MAX_OPERATIONS", 10_000)  # the real 2,000,000 would take half a minute
    labels = {str(index): index for index in range(1000)}  # about 5 operations each
    (tmp_path / "labels").write_bytes(pickle.dumps(labels))
    assert read_labels(locate(tmp_path), FileReader()) == list(labels)
    (tmp_path / "labels").write_bytes(b"\x80\x04(" + b"\x8f" * 10_000 + b"t.")  # sets
    with pytest.raises(ResourcesError, match=r"labels was not read: it takes more than 10000 operations"):
        read_labels(locate(tmp_path), FileReader())


def test_ordinary_pickle_is_far_from_every_limit(tmp_path: Path) -> None:
    logs = {name: [[np.float64(value), value, str(value)] for value in range(1500)] for name in ("train", "validation")}
    for protocol in (0, 2, 4, 5):
        (tmp_path / "logs").write_bytes(pickle.dumps(logs, protocol))
        assert read_plain_pickle(FileReader(), tmp_path / "logs", "logs") == logs


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps({"a": 0})[:-3]], ids=["empty", "junk", "truncated"])
def test_broken_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(ResourcesError, match=r"labels is no readable pickle"):
        read_labels(locate(tmp_path), FileReader())


def test_missing_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(ResourcesError, match=r"labels is missing"):
        read_labels(locate(tmp_path), FileReader())


class _TensorWithPayload:
    """An object that pickles like a tensor, with a storage that an ordinary unpickler would execute."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload

    def __reduce__(self) -> tuple[Any, ...]:
        return (torch.storage._load_from_bytes, (pickle.dumps(self._payload),))


@pytest.mark.parametrize("wrap", [lambda payload: payload, _TensorWithPayload], ids=["plain", "inside-a-tensor"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, wrap: Callable[[Payload], Any], protocol: int) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "labels").write_bytes(pickle.dumps({"a": wrap(Payload(victim))}, protocol))
    with pytest.raises(ResourcesError):
        read_labels(locate(tmp_path), FileReader())
    assert not victim.exists()
    pickle.loads((tmp_path / "labels").read_bytes()) if wrap is not _TensorWithPayload else None
    assert victim.exists() or wrap is _TensorWithPayload, "the payload must be a working one"


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_numpy_scalars_and_tensors_are_read(tmp_path: Path, protocol: int) -> None:
    value = {"a": np.float32(0.5), "b": np.int64(3), "c": torch.arange(3), "d": [1.5, "x", None, (1, {2})]}
    (tmp_path / "logs").write_bytes(pickle.dumps(value, protocol))
    read = read_plain_pickle(FileReader(), tmp_path / "logs", "anything plain")
    assert read["a"] == np.float32(0.5)
    assert read["b"] == 3
    assert torch.equal(read["c"], torch.arange(3))
    assert read["d"] == value["d"]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return TwoHeadedResNet50(2).state_dict()


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda state: [1, 2], "no state_dict", id="list"),
        pytest.param(lambda state: {**state, "epoch": 3}, "no state_dict", id="not-a-tensor"),
        pytest.param(_without("resnet.bn1.bias"), "lacks resnet.bn1.bias", id="missing-key"),
        pytest.param(lambda state: {**state, "extra": torch.ones(1)}, "has unknown extra", id="unknown-key"),
        pytest.param(lambda state: {"conv.weight": torch.ones(1)}, "belongs to another network", id="another-network"),
        pytest.param(
            lambda state: {**state, "resnet.fc.0.bias": torch.ones(3)}, "other shapes for resnet.fc.0.bias", id="shape"
        ),
        pytest.param(
            lambda state: {**state, "resnet.fc.0.bias": torch.full((512,), torch.nan)}, "not finite", id="nan"
        ),
        pytest.param(lambda state: TwoHeadedResNet50(3).state_dict(), "3 classes, and .* names 2", id="classes"),
    ],
)
def test_unusable_checkpoint_is_refused(
    tmp_path: Path, state: dict[str, torch.Tensor], spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    folder = write_resources(tmp_path / "trained", {"model_1": spoil(dict(state))}, LABELS)
    with pytest.raises(ResourcesError, match=message):
        load_network(folder / "models" / "model_1", 2, FileReader())


@pytest.mark.parametrize("content", [b"", b"junk"], ids=["empty", "junk"])
def test_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model_1").write_bytes(content)
    with pytest.raises(ResourcesError, match=r"model_1 "):
        load_network(tmp_path / "model_1", 2, FileReader())


def _replace_entry(checkpoint: Path, ending: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Write a checkpoint's archive again with one entry replaced."""
    with zipfile.ZipFile(checkpoint) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(checkpoint, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, content if name.endswith(ending) else data)


def _peak_mb_of(checkpoint: Path) -> float:
    """Load a checkpoint in a process of its own, and return the added memory in MB."""
    script = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from inference_export.errors import ResourcesError\n"
        "from inference_export.regular_files import FileReader\n"
        "from inference_export.network.loading import load_network\n"
        "peak_kb = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "torch.load, before = torch.load, peak_kb()\n"
        "try: load_network(Path(sys.argv[1]), 2, FileReader())\n"
        "except ResourcesError: print((peak_kb() - before) / 1024)\n"
    )
    command = [sys.executable, "-c", script, str(checkpoint)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _deflated(checkpoint: Path) -> None:
    torch.save({"a": torch.zeros(2**28, dtype=torch.uint8)}, checkpoint)
    _replace_entry(checkpoint, "nothing", b"", zipfile.ZIP_DEFLATED)
    assert checkpoint.stat().st_size < 2**20


def _one_entry_many_times(checkpoint: Path) -> None:
    """Make many entries of the archive's directory point to the same bytes."""
    with zipfile.ZipFile(checkpoint, "w") as archive:
        archive.writestr("archive/data/0", bytes(2**20))
        first = archive.infolist()[0]
        for number in range(1, 300):
            entry = copy.copy(first)
            entry.filename = f"archive/data/{number}"
            archive.filelist.append(entry)
            archive.NameToInfo[entry.filename] = entry


def _function_with_a_size(checkpoint: Path) -> None:
    torch.save({}, checkpoint)
    gigabytes = (2**33).to_bytes(5, "little")
    _replace_entry(checkpoint, "data.pkl", b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + gigabytes + b"\x85R.")


@pytest.mark.slow
@pytest.mark.parametrize("make", [_deflated, _one_entry_many_times, _function_with_a_size])
def test_checkpoint_takes_no_more_memory_than_its_length_admits(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model_1")
    assert _peak_mb_of(tmp_path / "model_1") < 64


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before-1.6"])
def test_checkpoint_is_loaded_as_pytorch_loads_it(tmp_path: Path, state: dict[str, torch.Tensor], legacy: bool) -> None:
    torch.save(state, tmp_path / "model_1", _use_new_zipfile_serialization=not legacy)
    loaded = load_weights(read_checkpoint_file(tmp_path / "model_1", FileReader()), 2).module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_checkpoint_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "model_1").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ResourcesError, match=r"has 1099511627776 bytes, and may have"):
        load_network(tmp_path / "model_1", 2, FileReader())


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    torch.save({"a": Payload(victim)}, tmp_path / "model_1")
    with pytest.raises(ResourcesError, match=r"more than the weights"):
        load_network(tmp_path / "model_1", 2, FileReader())
    assert not victim.exists()
