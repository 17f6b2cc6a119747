"""A checkpoint loaded into its network."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_export.brief import brief, some
from inference_export.errors import ResourcesError
from inference_export.network.own_network import make_network
from inference_export.network.users_code import users_code
from inference_export.regular_files import FileReader
from inference_export.resources.checkpoint_file import MAX_CHECKPOINT_BYTES, CompressedError, load_tensors
from inference_export.resources.labels import LABELS
from inference_export.resources.pickle_limits import PickleLimitError

if TYPE_CHECKING:
    from torch import nn

_DATA_PARALLEL = "module."


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
            f"{checkpoint} holds {brief(state)}, no state_dict{_hint(state)}. Save it with "
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
            f"{checkpoint} has tensors that are quantized, sparse, complex or of another unusual kind: {some(odd)}. "
            f"Save the float32 network's state_dict.",
            checkpoint,
        )
    with users_code(f"loading {checkpoint} into the network failed"):
        network.load_state_dict(state)
    broken = [key for key, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ResourcesError(
            f"{checkpoint} has values that are not finite, in {some(broken)}. The training diverged: choose another.",
            checkpoint,
        )
    with users_code("putting the network into evaluation mode failed"):
        return network.eval()


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
        f"{problem} {some(keys)}"
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
    return f" (that may lie in it under {some(inside)})" if inside else ""
