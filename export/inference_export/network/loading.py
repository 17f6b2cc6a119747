"""Loading a checkpoint into its network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inference_export.descriptions import describe_keys
from inference_export.errors import ResourcesError
from inference_export.network.factory import make_network
from inference_export.network.users_code import users_code
from inference_export.regular_files import FileReader
from inference_export.resources.checkpoint_file import read_state_dict
from inference_export.resources.labels import LABELS

if TYPE_CHECKING:
    from torch import Tensor, nn

_DATA_PARALLEL = "module."


def load_network(checkpoint: Path, classes: int, reader: FileReader, name: str | None = None) -> nn.Module:
    """Load a checkpoint into its network, in evaluation mode on the CPU.

    Args:
        checkpoint: A ``state_dict`` file.
        classes: Number of classes C' that the labels name.
        reader: Reads the checkpoint.
        name: ``package.module:factory`` that makes the network; None: the built-in one.

    Returns:
        The network with the checkpoint's weights.

    Raises:
        NetworkError: The network can't be made.
        ResourcesError: The checkpoint is not a readable ``state_dict``, belongs to another network or number of
            classes, or has values that are not finite.
    """
    import torch

    state = read_state_dict(checkpoint, reader)
    network = make_network(name, classes)
    with users_code("moving the network to the CPU failed"):
        network = network.to("cpu")
        expected = network.state_dict()
    _compare_shapes(state, expected, checkpoint, classes, name)
    if unusual := [key for key, value in state.items() if not _is_plain(value, expected[key])]:
        raise ResourcesError(
            f"{checkpoint} has tensors that are quantized, sparse, complex or of another unusual kind: "
            f"{describe_keys(unusual)}. Save the float32 network's state_dict.",
            checkpoint,
        )
    with users_code(f"loading {checkpoint} into the network failed"):
        network.load_state_dict(state)
    if broken := [key for key, value in network.state_dict().items() if not torch.isfinite(value).all()]:
        raise ResourcesError(
            f"{checkpoint} has values that are not finite, in {describe_keys(broken)}. The training diverged. Choose "
            f"another checkpoint.",
            checkpoint,
        )
    with users_code("putting the network into evaluation mode failed"):
        return network.eval()


def _compare_shapes(
    state: dict[str, Tensor], expected: dict[str, Tensor], checkpoint: Path, classes: int, name: str | None
) -> None:
    head = state.get("classifier.weight")
    if name is None and head is not None and head.ndim and len(head) != classes:
        raise ResourcesError(
            f"{checkpoint} was trained for {len(head)} classes, and {checkpoint.parents[1] / LABELS} names {classes}. "
            f"Both must come from the same training.",
            checkpoint,
        )
    if state and all(str(key).startswith(_DATA_PARALLEL) for key in state):
        raise ResourcesError(
            f"{checkpoint} was saved from a DataParallel wrapper: its keys begin with {_DATA_PARALLEL!r}. Save it with "
            f"torch.save(network.module.state_dict(), file).",
            checkpoint,
        )
    differences = {
        "lacks": [key for key in expected if key not in state],
        "has unknown": [key for key in state if key not in expected],
        "has other shapes for": [key for key in state if key in expected and state[key].shape != expected[key].shape],
    }
    problems = "; it ".join(f"{verb} {describe_keys(keys)}" for verb, keys in differences.items() if keys)
    if not problems:
        return
    if name is not None:
        raise ResourcesError(
            f"{checkpoint} does not fit --network {name}: it {problems}.\n"
            f"  Expected: the state_dict of the network that {name} makes for {classes} classes, with the same keys "
            f"and shapes.",
            checkpoint,
        )
    raise ResourcesError(
        f"{checkpoint} belongs to another network: it {problems}.\n"
        f"  Expected: torchvision's ResNet-50 as 'resnet' with fc = Sequential(Linear(2048, 512), Tanh()), and "
        f"'classifier' = Linear(512, {classes}).",
        checkpoint,
    )


def _is_plain(value: Tensor, expected: Tensor) -> bool:
    import torch

    is_float = value.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return (
        value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and is_float == expected.dtype.is_floating_point
    )
