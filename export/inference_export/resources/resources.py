"""Trained resources: class labels, checkpoints, and the training logs that say which checkpoint is best."""

from __future__ import annotations

import itertools
import math
import numbers
import pickle
from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference_export.class_names import equal_names
from inference_export.errors import ResourcesError
from inference_export.network.own_network import make_network
from inference_export.network.users_code import said, users_code
from inference_export.regular_files import FileReader
from inference_export.resources.checkpoint_file import MAX_CHECKPOINT_BYTES, CompressedError, load_tensors
from inference_export.resources.pickle_limits import PickleLimitError
from inference_export.resources.unpickling import read_plain_pickle

if TYPE_CHECKING:
    from torch import nn

LABELS = "labels"
MODELS = "models"
LOGS = "logs/logs"
_ACCURACY = {"classification": "classificationAccuracy", "clustering": "embeddingAccuracy"}
_SHOWN_KEYS = 3
_SHOWN_LENGTH = 40
_SHOWN_KEY_LENGTH = 100
_SHOWN_ERROR_LENGTH = 200
_SHOWN_BITS = 64
MAX_NAME_LENGTH = 255  # of a class, as of a folder
MAX_EPOCH = 10**9
_DATA_PARALLEL = "module."


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The chosen ``state_dict`` file.

    Args:
        path: The file.
        reason: Why it was chosen, in words.
        candidates: Names of the files that it was chosen from, sorted.
    """

    path: Path
    reason: str
    candidates: list[str]


def read_labels(resources: Path, reader: FileReader) -> list[str]:
    """Read the class names.

    Args:
        resources: The trained resources; ``labels`` in it is a pickle of {class name: index}.
        reader: Remembers what was read.

    Returns:
        The C' class names in index order.

    Raises:
        ResourcesError: ``labels`` is missing, unsafe, or does not number its classes from 0 to C' - 1, or
            two of its names are the same after Unicode normalization.
    """
    path = resources / LABELS
    labels = read_plain_pickle(reader, path, "{class name: index}")
    if not isinstance(labels, dict) or not labels:
        raise ResourcesError(f"{path} holds {_brief(labels)}, and must hold {{class name: index}}.", path)
    for name, index in labels.items():
        if not _is_name(name):
            raise ResourcesError(
                f"{path} names a class {_brief(name)}; a class name is printable text of 1 to {MAX_NAME_LENGTH} "
                f"characters.",
                path,
            )
        if isinstance(index, bool) or not isinstance(index, numbers.Integral):
            raise ResourcesError(
                f"{path} gives class {name!r} the index {_brief(index)}, which is no whole number.", path
            )
        if not 0 <= int(index) < len(labels):
            raise ResourcesError(
                f"{path} gives class {name!r} the index {_brief(index)}; the indices of {len(labels)} classes must be "
                f"0 to {len(labels) - 1}, each once.",
                path,
            )
    names = sorted(labels, key=lambda name: int(labels[name]))
    for name, after in itertools.pairwise(names):
        if labels[name] == labels[after]:
            raise ResourcesError(
                f"{path} gives the classes {name!r} and {after!r} the same index, {int(labels[name])}; the indices "
                f"must be 0 to {len(labels) - 1}, each once.",
                path,
            )
    if same := equal_names(names):
        raise ResourcesError(
            f"{path} names two classes {same[0]!a} and {same[1]!a}, which are the same text in two spellings (Unicode "
            f"normalization). Give one of them another name.",
            path,
        )
    return names


def list_checkpoints(resources: Path) -> list[Path]:
    """List the files of ``models/``, sorted by name, hidden ones left out.

    Raises:
        ResourcesError: There is no such folder, or no file in it, or a link that leads nowhere.
    """
    folder = resources / MODELS
    if not folder.is_dir():
        raise ResourcesError(f"{folder} is missing. It must hold one or more PyTorch state_dict files.", folder)
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in visible:
        if not path.exists():
            raise ResourcesError(f"{path} is a link that leads nowhere. Mend or remove it.", path)
    files = [path for path in visible if path.is_file()]
    if not files:
        raise ResourcesError(f"{folder} holds no file. It must hold one or more PyTorch state_dict files.", folder)
    return files


def select_checkpoint(resources: Path, mode: str, reader: FileReader) -> Checkpoint:
    """Choose the only checkpoint, or the one of the epoch that validated best.

    Args:
        resources: The trained resources.
        mode: ``classification`` (judged by ``classificationAccuracy``) or ``clustering`` (``embeddingAccuracy``).
        reader: Remembers what was read: the logs, where there are several checkpoints.

    Returns:
        The checkpoint of the first epoch of highest accuracy.

    Raises:
        ResourcesError: No checkpoint, unusable logs, or no checkpoint of the best epoch.
    """
    files = list_checkpoints(resources)
    candidates = [file.name for file in files]
    if len(files) == 1:
        return Checkpoint(path=files[0], reason="the only one", candidates=candidates)
    accuracy = _ACCURACY[mode]
    path = resources / LOGS
    epochs, values = _read_validation(reader, path, accuracy)
    usable = [value for value in values if not math.isnan(value)]
    if not usable:
        raise ResourcesError(f"{path} has no {accuracy} that is a number. Keep one file in {resources / MODELS}.", path)
    best = max(usable)
    epoch = epochs[values.index(best)]
    chosen = resources / MODELS / f"model_{epoch}"
    if chosen not in files:
        raise ResourcesError(
            f"{chosen} is missing: {path} has the best validation {accuracy}, {best:.4g}, at epoch {epoch}; "
            f"{resources / MODELS} holds {', '.join(candidates)}.\n"
            f"  Put that checkpoint back, or keep only the file that is to be served.",
            chosen,
        )
    reason = f"best validation {accuracy}, {best:.4g}, of {len(values)} epochs"
    return Checkpoint(path=chosen, reason=reason, candidates=candidates)


def load_network(checkpoint: Path, classes: int, reader: FileReader, name: str | None = None) -> nn.Module:
    """Load a checkpoint into the network, in evaluation mode on the CPU.

    Args:
        checkpoint: A ``state_dict`` file.
        classes: Number of classes C' that the labels name.
        reader: Remembers what was read.
        name: ``package.module:factory`` that makes the network; None: the built-in one.

    Raises:
        NetworkError: The network can't be made.
        ResourcesError: Not a readable state dict, of another network or number of classes, or with a weight that is
            not finite.
    """
    import torch

    try:
        state = load_tensors(reader.read(checkpoint, MAX_CHECKPOINT_BYTES))
    except CompressedError as error:
        raise ResourcesError(
            f"{checkpoint} is compressed, which torch.save never does: how much memory it takes can't be told from its "
            f"length. Save it again with torch.save(network.state_dict(), file).",
            checkpoint,
        ) from error
    except PickleLimitError as error:
        raise ResourcesError(
            f"{checkpoint} was not read: {error}. Save it again with torch.save(network.state_dict(), file), from a "
            f"source you trust.",
            checkpoint,
        ) from error
    except pickle.UnpicklingError as error:
        raise ResourcesError(
            f"{checkpoint} was not read: it is no PyTorch file, or holds more than the weights of a state_dict, and a "
            f"pickle can run code.\n"
            f"  Save it again with torch.save(network.state_dict(), file), from a source you trust.",
            checkpoint,
        ) from error
    except OSError as error:
        raise ResourcesError(f"{checkpoint} can't be read ({error.strerror}). Check the file.", checkpoint) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError and more on broken files
        raise ResourcesError(f"{checkpoint} is no PyTorch file, or broken. Copy it again.", checkpoint) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ResourcesError(
            f"{checkpoint} holds {_brief(state)}, no state_dict{_hint(state)}. Save it with "
            f"torch.save(network.state_dict(), file).",
            checkpoint,
        )
    network = make_network(name, classes)
    with users_code("moving the network to the CPU failed"):
        network = network.to("cpu")
        expected = network.state_dict()
    _compare_shapes(state, expected, checkpoint, classes, name)
    odd = [key for key, value in state.items() if not _is_plain(value, expected[key])]
    if odd:
        raise ResourcesError(
            f"{checkpoint} has tensors that are quantized, sparse, complex or of another unusual kind: {_some(odd)}. "
            f"Save the float32 network's state_dict.",
            checkpoint,
        )
    with users_code(f"loading {checkpoint} into the network failed"):
        network.load_state_dict(state)
    broken = [key for key, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ResourcesError(
            f"{checkpoint} has values that are not finite, in {_some(broken)}. The training diverged: choose another.",
            checkpoint,
        )
    with users_code("putting the network into evaluation mode failed"):
        return network.eval()


def _read_validation(reader: FileReader, path: Path, accuracy: str) -> tuple[list[int], list[float]]:
    form = "training logs: ['epochBased']['validation'] with the lists epoch, " + " and ".join(_ACCURACY.values())
    logs = read_plain_pickle(reader, path, form)
    try:
        validation = logs["epochBased"]["validation"]
        epochs = [int(epoch) for epoch in _list(validation, "epoch")]
        values = [float(value) for value in _list(validation, accuracy)]
    except (KeyError, TypeError, ValueError, IndexError, ArithmeticError, RuntimeError) as error:
        raise ResourcesError(
            f"{path} lacks the {form} ({said(error)[:_SHOWN_ERROR_LENGTH]}). It says which of the checkpoints is best: "
            f"mend it, or keep only one file in {MODELS}/.",
            path,
        ) from error
    if odd := [epoch for epoch in epochs if not 0 <= epoch <= MAX_EPOCH]:
        raise ResourcesError(f"{path} lists the epoch {_brief(odd[0])}; epochs are 0 to {MAX_EPOCH}.", path)
    if len(epochs) != len(values) or not epochs:
        raise ResourcesError(f"{path} lists {len(epochs)} epochs and {len(values)} values of {accuracy}.", path)
    return epochs, values


def _list(validation: Any, key: str) -> list[Any]:
    values = validation[key]
    if not isinstance(values, list):
        raise TypeError(f"{key} is {_brief(values)}, no list")
    return values


def _compare_shapes(
    state: dict[str, Any], expected: dict[str, Any], checkpoint: Path, classes: int, name: str | None
) -> None:
    head = state.get("classifier.weight")
    if name is None and head is not None and head.ndim and len(head) != classes:
        raise ResourcesError(
            f"{checkpoint} was trained for {len(head)} classes, and {checkpoint.parents[1] / LABELS} names {classes}. "
            f"They must come from the same training.",
            checkpoint,
        )
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    misshapen = [key for key in state if key in expected and state[key].shape != expected[key].shape]
    if state and all(str(key).startswith(_DATA_PARALLEL) for key in state):
        raise ResourcesError(
            f"{checkpoint} was saved from a DataParallel wrapper: its keys begin with {_DATA_PARALLEL!r}. Save it with "
            f"torch.save(network.module.state_dict(), file).",
            checkpoint,
        )
    problems = [
        f"{problem} {_some(keys)}"
        for problem, keys in (("lacks", missing), ("has unknown", unexpected), ("has other shapes for", misshapen))
        if keys
    ]
    if problems and name is not None:
        raise ResourcesError(
            f"{checkpoint} is not of --network {name}: it {'; it '.join(problems)}.\n"
            f"  Expected: the state_dict of what it gives for {classes} classes, with these keys and shapes.",
            checkpoint,
        )
    if problems:
        raise ResourcesError(
            f"{checkpoint} is of another network: it {'; it '.join(problems)}.\n"
            f"  Expected: torchvision's ResNet-50 as 'resnet' with fc = Sequential(Linear(2048, 512), Tanh()), and "
            f"'classifier' = Linear(512, {classes}).",
            checkpoint,
        )


def _is_plain(value: Any, expected: Any) -> bool:
    import torch

    return (
        value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and (value.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64))
        == expected.dtype.is_floating_point
    )


def _hint(state: Any) -> str:
    inside = [key for key, value in state.items() if isinstance(value, dict)] if isinstance(state, dict) else []
    return f" (that may lie in it under {_some(inside)})" if inside else ""


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= MAX_NAME_LENGTH and bool(name.strip()) and name.isprintable()


def _brief(value: Any) -> str:
    """Say what a value is, in a few characters whatever it holds."""
    kind = type(value).__name__
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value[:_SHOWN_LENGTH]) + ("..." if len(value) > _SHOWN_LENGTH else "")
    if isinstance(value, (int, float, np.number, type(None))):
        return f"{value!r}"
    return f"{kind} of {len(value)}" if isinstance(value, Sized) else kind


def _some(keys: list[Any]) -> str:
    names = ", ".join(key[:_SHOWN_KEY_LENGTH] if isinstance(key, str) else _brief(key) for key in keys[:_SHOWN_KEYS])
    return names if len(keys) <= _SHOWN_KEYS else f"{names} and {len(keys) - _SHOWN_KEYS} more"
