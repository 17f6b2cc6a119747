"""Running a network on noise, to check that the server can serve its outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inference_export.descriptions import describe_type
from inference_export.errors import NetworkError
from inference_export.network.preprocessing import Preprocessing
from inference_export.network.users_code import users_code

if TYPE_CHECKING:
    from torch import Tensor, nn

_OUTPUTS = ("embedding", "logits")
_BATCH_SIZES = (1, 3)
_ROW_TOLERANCE = 1e-3  # of the largest value; kernels for other batch sizes round differently


def measure_embedding(network: nn.Module, name: str | None, preprocessing: Preprocessing, classes: int) -> int:
    """Run a network on noise, and check its outputs.

    Args:
        network: A network in evaluation mode, on the CPU.
        name: The network's name in messages; None: the built-in one.
        preprocessing: The preprocessing that the network asks for.
        classes: Number of classes C'.

    Returns:
        Length D of an embedding.

    Raises:
        NetworkError: The network fails, does not return the pair of embeddings [N, D] and logits [N, C'], or returns
            values for an image that depend on the other images of the batch.
    """
    import torch

    who = f"--network {name}: the network" if name else "the network"
    size, channels = preprocessing.image_size, len(preprocessing.channel_order)
    images = torch.randn(max(_BATCH_SIZES), channels, size, size, generator=torch.Generator().manual_seed(0))
    results = []
    for count in _BATCH_SIZES:
        what = f"{who} failed on {_images(count)}, float32 [{count}, {channels}, {size}, {size}]"
        remedy = "It must accept any number of images, of this size (--image_size)."
        with users_code(what, remedy), torch.inference_mode():
            output = network(images[:count])
        results.append(_check_output(output, who, count, classes))
    for what, alone, among in zip(_OUTPUTS, *results, strict=True):
        if alone.shape[1] != among.shape[1]:
            raise NetworkError(
                f"{who} returns {what} of {alone.shape[1]} values for one image, and of {among.shape[1]} for each of "
                f"several. Both must have the same number."
            )
        largest = float(among.abs().max())
        # The comparison with PyTorch refuses values that are not finite.
        if math.isfinite(largest) and float((alone[0] - among[0]).abs().max()) > _ROW_TOLERANCE * largest:
            raise NetworkError(
                f"{who} returns another {what} for an image alone than for the same image beside others. The server "
                f"puts images of different clients into one batch. An image's result must depend on that image only."
            )
    return int(results[0][0].shape[1])


def _check_output(output: Any, who: str, count: int, classes: int) -> tuple[Tensor, Tensor]:
    import torch

    if not isinstance(output, Sequence) or len(output) != len(_OUTPUTS):
        raise NetworkError(f"{who} returns {describe_type(output)}, and must return the pair (embedding, logits).")
    for what, values in zip(_OUTPUTS, output, strict=True):
        if not isinstance(values, torch.Tensor) or not values.is_floating_point():
            raise NetworkError(f"{who} returns {describe_type(values)} as {what}, and must return a float tensor.")
        if values.ndim != 2 or len(values) != count or not values.shape[1]:  # noqa: PLR2004 - [N, values]
            raise NetworkError(
                f"{who} returns {what} of shape {list(values.shape)} for {_images(count)}, and must return "
                f"[{count}, {'D' if what == 'embedding' else classes}]."
            )
    embedding, logits = output
    if logits.shape[1] != classes:
        raise NetworkError(
            f"{who} returns {logits.shape[1]} logits an image, and labels names {classes} classes. The second of the "
            f"pair (embedding, logits) must have one logit for each class."
        )
    return embedding, logits


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
