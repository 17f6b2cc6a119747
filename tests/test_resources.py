"""Which checkpoint is chosen, and what is said of resources that are unsafe or malformed."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference_export.errors import ResourcesError
from inference_export.network import TwoHeadedResNet50
from inference_export.resources import load_network, read_labels, select_checkpoint
from inference_export.unpickling import read_plain_pickle
from tests.resources import write_resources

LABELS = {"autistic": 0, "non_autistic": 1}


class Payload:
    """Creates a file when an ordinary unpickler reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Resources of four epochs, of which one mode prefers another than the other does; first best on a tie."""
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
    assert select_checkpoint(several, mode).path.name == name


def test_only_checkpoint_is_selected_whatever_its_name_and_without_logs(several: Path) -> None:
    for name in ("model_1", "model_2", "model_10"):
        (several / "models" / name).unlink()
    (several / "logs" / "logs").unlink()
    (several / "models" / "model_3").rename(several / "models" / "best.pth")
    assert select_checkpoint(several, "clustering").path.name == "best.pth"


def test_missing_checkpoint_of_the_best_epoch_is_named(several: Path) -> None:
    (several / "models" / "model_10").unlink()
    with pytest.raises(ResourcesError, match=r"model_10 is missing.*at epoch 10.*model_1, model_2, model_3"):
        select_checkpoint(several, "clustering")


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
    ],
)
def test_malformed_logs_are_refused(several: Path, logs: Any, message: str) -> None:
    (several / "logs" / "logs").write_bytes(pickle.dumps(logs))
    with pytest.raises(ResourcesError, match=message):
        select_checkpoint(several, "clustering")


def test_missing_logs_are_named(several: Path) -> None:
    (several / "logs" / "logs").unlink()
    with pytest.raises(ResourcesError, match=r"logs/logs is missing"):
        select_checkpoint(several, "clustering")


@pytest.mark.parametrize("name", ["labels", "logs/logs"])
def test_pipe_in_place_of_a_file_is_refused_at_once(several: Path, name: str) -> None:
    (several / name).unlink()
    os.mkfifo(several / name)
    with pytest.raises(ResourcesError, match=r"pipe"):
        read_labels(several) if name == "labels" else select_checkpoint(several, "clustering")


def test_labels_are_read_in_index_order(tmp_path: Path) -> None:
    folder = write_resources(tmp_path / "trained", {}, {"b": np.int64(0), "a": 1})
    assert read_labels(folder) == ["b", "a"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param({}, "must hold", id="empty"),
        pytest.param(["autistic"], "must hold", id="list"),
        pytest.param({"a": 0, "b": 2}, "0 to 1, each once", id="gap"),
        pytest.param({"a": 0, "b": 0}, "0 to 1, each once", id="twice"),
        pytest.param({"a": "0"}, "no whole number", id="text-index"),
        pytest.param({"a": True}, "no whole number", id="bool-index"),
        pytest.param({1: 0}, "class name is text", id="number-name"),
        pytest.param({"": 0}, "class name is text", id="empty-name"),
        pytest.param({"\udcff": 0}, "class name is text", id="not-utf-8"),
    ],
)
def test_malformed_labels_are_refused(tmp_path: Path, labels: Any, message: str) -> None:
    (tmp_path / "labels").write_bytes(pickle.dumps(labels))
    with pytest.raises(ResourcesError, match=message):
        read_labels(tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps({"a": 0})[:-3]], ids=["empty", "junk", "truncated"])
def test_broken_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(ResourcesError, match=r"labels is no readable pickle"):
        read_labels(tmp_path)


def test_missing_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(ResourcesError, match=r"labels is missing"):
        read_labels(tmp_path)


class _TensorWithPayload:
    """Pickles as a tensor does, with a storage that an ordinary unpickler would execute."""

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
        read_labels(tmp_path)
    assert not victim.exists()
    pickle.loads((tmp_path / "labels").read_bytes()) if wrap is not _TensorWithPayload else None
    assert victim.exists() or wrap is _TensorWithPayload, "the payload must be a working one"


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_numpy_scalars_and_tensors_are_read(tmp_path: Path, protocol: int) -> None:
    value = {"a": np.float32(0.5), "b": np.int64(3), "c": torch.arange(3), "d": [1.5, "x", None, (1, {2})]}
    (tmp_path / "logs").write_bytes(pickle.dumps(value, protocol))
    found = read_plain_pickle(tmp_path / "logs", "anything plain")
    assert found["a"] == np.float32(0.5)
    assert found["b"] == 3
    assert torch.equal(found["c"], torch.arange(3))
    assert found["d"] == value["d"]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return TwoHeadedResNet50(2).state_dict()


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda state: [1, 2], "no state_dict", id="list"),
        pytest.param(lambda state: {**state, "epoch": 3}, "no state_dict", id="not-a-tensor"),
        pytest.param(_without("resnet.bn1.bias"), "lacks resnet.bn1.bias", id="missing-key"),
        pytest.param(lambda state: {**state, "extra": torch.ones(1)}, "has unknown extra", id="unknown-key"),
        pytest.param(lambda state: {"conv.weight": torch.ones(1)}, "of another network", id="another-network"),
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
        load_network(folder / "models" / "model_1", 2)


@pytest.mark.parametrize("content", [b"", b"junk"], ids=["empty", "junk"])
def test_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model_1").write_bytes(content)
    with pytest.raises(ResourcesError, match=r"model_1 "):
        load_network(tmp_path / "model_1", 2)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    torch.save({"a": Payload(victim)}, tmp_path / "model_1")
    with pytest.raises(ResourcesError, match=r"more than the weights"):
        load_network(tmp_path / "model_1", 2)
    assert not victim.exists()
