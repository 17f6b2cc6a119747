"""Loading a checkpoint: its weights into their network, or a complete network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from inference_export.descriptions import describe_keys
from inference_export.errors import ResourcesError
from inference_export.network.architectures import guess_architecture
from inference_export.network.complete.onnx_file import read_model
from inference_export.network.complete.pt2_file import read_program
from inference_export.network.factory import make_network
from inference_export.network.networks import CompleteFile, Network, OnnxNetwork, TorchNetwork
from inference_export.network.users_code import users_code
from inference_export.regular_files import FileReader
from inference_export.resources.checkpoint_file import CheckpointFile, read_checkpoint_file, read_weights
from inference_export.resources.file_kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor

# What wrappers put before the name of every weight.
_WRAPPERS = {
    "module.": "DataParallel",
    "_orig_mod.": "torch.compile",
    "model.": "Lightning, or another wrapper",
}


def load_network(
    checkpoint: Path,
    classes: int,
    reader: FileReader,
    name: str | None = None,
    *,
    key: str | None = None,
    outputs: str | None = None,
) -> Network:
    """Load a checkpoint.

    Args:
        checkpoint: Weights, or a complete network as .pt2 or .onnx.
        classes: Number of classes C' that the labels name.
        reader: Reads the checkpoint.
        name: ``package.module:factory`` that makes the network; None: the built-in one, or a complete one.
        key: The key of the weights in a training checkpoint; None: the only candidate.
        outputs: ``EMBEDDING,LOGITS``, the outputs of a complete network; None: told by their names or shapes.

    Returns:
        The network with its weights, in evaluation mode on the CPU.

    Raises:
        NetworkError: The network can't be made.
        ResourcesError: The checkpoint is unreadable or unsafe, belongs to another network or number of classes, or has
            values that are not finite; or an option does not go with its kind.
    """
    file = read_checkpoint_file(checkpoint, reader)
    is_complete = file.kind in (Kind.PT2, Kind.ONNX)
    misplaced = {"--network": name, "--checkpoint_key": key} if is_complete else {"--outputs": outputs}
    for option, value in misplaced.items():
        if value is not None:
            what = "is a complete network" if is_complete else "holds weights, no complete network"
            raise ResourcesError(
                f"{option} {value} has no meaning here: {checkpoint} {what}. Leave it out.", checkpoint
            )
    if file.kind is Kind.ONNX:
        return _load_onnx(file, reader, outputs)
    if file.kind is Kind.PT2:
        return _load_pt2(file, outputs)
    return load_weights(file, classes, name, key)


def _load_onnx(file: CheckpointFile, reader: FileReader, outputs: str | None) -> OnnxNetwork:
    model = read_model(file, reader)
    complete = CompleteFile(
        path=file.path,
        kind=file.kind,
        content=model.model.SerializeToString(),
        image_shape=model.image_shape,
        wanted=outputs,
        data_files=model.data_files,
    )
    return OnnxNetwork(model=model, complete=complete)


def _load_pt2(file: CheckpointFile, outputs: str | None) -> TorchNetwork:
    from inference_export.network.complete.pt2_program import ProgramNetwork

    program = read_program(file)
    complete = CompleteFile(
        path=file.path, kind=file.kind, content=file.content, image_shape=program.image_shape, wanted=outputs
    )
    return TorchNetwork(module=ProgramNetwork(program).eval(), complete=complete)


def load_weights(file: CheckpointFile, classes: int, name: str | None = None, key: str | None = None) -> TorchNetwork:
    """Load weights into their network.

    Args:
        file: The weights.
        classes: Number of classes C' that the labels name.
        name: ``package.module:factory`` that makes the network; None: the built-in one.
        key: The key of the weights in a training checkpoint; None: the only candidate.

    Raises:
        NetworkError: The network can't be made.
        ResourcesError: The weights are unreadable or unsafe, belong to another network or number of classes, or have
            values that are not finite.
    """
    import torch

    checkpoint = file.path
    state, notes = read_weights(file, key)
    network = make_network(name, classes)
    with users_code("moving the network to the CPU failed"):
        network = network.to("cpu")
        expected = network.state_dict()
    state, unwrapped = _unwrap(state, expected)
    _compare_shapes(state, expected, checkpoint, classes, name)
    if unusual := [each for each, value in state.items() if not _is_plain(value, expected[each])]:
        raise ResourcesError(
            f"{checkpoint} has tensors that are quantized, sparse, complex or of another unusual kind: "
            f"{describe_keys(unusual)}. Save the float32 network's state_dict.",
            checkpoint,
        )
    with users_code(f"loading {checkpoint} into the network failed"):
        network.load_state_dict(state)
    if broken := [each for each, value in network.state_dict().items() if not torch.isfinite(value).all()]:
        raise ResourcesError(
            f"{checkpoint} has values that are not finite, in {describe_keys(broken)}. The training diverged. Choose "
            f"another checkpoint.",
            checkpoint,
        )
    with users_code("putting the network into evaluation mode failed"):
        return TorchNetwork(module=network.eval(), name=name, notes=[*notes, *unwrapped])


def _unwrap(state: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Take a wrapper's prefix off the names of the weights, where the result fits the network better."""
    best, prefix = max(_unwrapped(state, ""), key=lambda each: (len(each[0].keys() & expected.keys()), -len(each[1])))
    if not prefix:
        return state, []
    wrappers = " and ".join(wrapper for part, wrapper in _WRAPPERS.items() if part in prefix)
    return best, [f"the prefix {prefix!r} was taken off the names of the weights ({wrappers})"]


def _unwrapped(state: dict[str, Tensor], taken: str) -> Iterator[tuple[dict[str, Tensor], str]]:
    yield state, taken
    for prefix in _WRAPPERS:
        if state and prefix not in taken and all(name.startswith(prefix) for name in state):
            yield from _unwrapped({name.removeprefix(prefix): value for name, value in state.items()}, taken + prefix)


def _compare_shapes(
    state: dict[str, Tensor], expected: dict[str, Tensor], checkpoint: Path, classes: int, name: str | None
) -> None:
    head = state.get("classifier.weight")
    if name is None and "resnet.conv1.weight" in state and head is not None and head.ndim and len(head) != classes:
        raise ResourcesError(
            f"{checkpoint} was trained for {len(head)} classes, and labels names {classes}. Both must come from the "
            f"same training.",
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
        misshapen = next(iter(differences["has other shapes for"]), None)
        shapes = (
            f" {describe_keys([misshapen])} is {list(state[misshapen].shape)} in the file, and "
            f"{list(expected[misshapen].shape)} in the network."
            if misshapen is not None
            else ""
        )
        raise ResourcesError(
            f"{checkpoint} does not fit --network {name}: it {problems}.{shapes}\n"
            f"  Expected: the state_dict of the network that {name} makes for {classes} classes, as many as labels "
            f"names, with the same keys and shapes.",
            checkpoint,
        )
    fits_nothing = not expected.keys() & state.keys()
    architecture = guess_architecture(state)
    if fits_nothing and state:
        looks = (
            f"Its weights look like {architecture}" if architecture else f"Its weights are {describe_keys([*state])}"
        )
        raise ResourcesError(
            f"{checkpoint} belongs to another network than the built-in one, torchvision's ResNet-50 under 'resnet' "
            f"with an embedding head, and 'classifier'. {looks}.\n"
            f"  Name the function that makes the network with --network package.module:factory; it must return "
            f"(embedding, logits).",
            checkpoint,
        )
    raise ResourcesError(
        f"{checkpoint} belongs to another network: it {problems}.\n"
        f"  Expected: torchvision's ResNet-50 as 'resnet' with fc = Sequential(Linear(2048, 512), Tanh()), and "
        f"'classifier' = Linear(512, {classes}). For another architecture, name the function that makes it with "
        f"--network package.module:factory.",
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
