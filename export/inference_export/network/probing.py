"""Running a network on noise, to check that the server can serve its outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from inference_export.descriptions import describe_type
from inference_export.errors import NetworkError
from inference_export.network.complete.first_run import BATCH_SIZES, noise
from inference_export.network.networks import Network, Pair, TorchNetwork
from inference_export.network.preprocessing import Preprocessing
from inference_export.network.users_code import users_code

_OUTPUTS = ("embedding", "logits")
_ROW_TOLERANCE = 1e-3  # of the largest value; kernels for other batch sizes round differently


def measure_embedding(network: Network, preprocessing: Preprocessing, classes: int) -> int:
    """Run a network on noise, and check its outputs.

    Args:
        network: A network. The outputs of a complete one are chosen here.
        preprocessing: The preprocessing that the network asks for.
        classes: Number of classes C'.

    Returns:
        Length D of an embedding.

    Raises:
        NetworkError: The network fails, does not return the pair of embeddings [N, D] and logits [N, C'], or returns
            values for an image that depend on the other images of the batch.
    """
    who = network.who
    if network.complete is not None:
        names, runs = network.complete.run_first(preprocessing, classes)
        network.name_outputs(names)
    else:
        runs = [_run_module(network, preprocessing, count) for count in BATCH_SIZES]
    for count, pair in zip(BATCH_SIZES, runs, strict=True):
        _check_shapes(pair, who, count, classes)
    for what, alone, among in zip(_OUTPUTS, *runs, strict=True):
        if alone.shape[1] != among.shape[1]:
            raise NetworkError(
                f"{who} returns {what} of {alone.shape[1]} values for one image, and of {among.shape[1]} for each of "
                f"several. Both must have the same number."
            )
        largest = float(np.abs(among).max())
        # The comparison with PyTorch refuses values that are not finite.
        if math.isfinite(largest) and float(np.abs(alone[0] - among[0]).max()) > _ROW_TOLERANCE * largest:
            raise NetworkError(
                f"{who} returns another {what} for an image alone than for the same image beside others. The server "
                f"puts images of different clients into one batch. An image's result must depend on that image only."
            )
    return int(runs[0][0].shape[1])


def _run_module(network: TorchNetwork, preprocessing: Preprocessing, count: int) -> Pair:
    import torch

    size, channels, who = preprocessing.image_size, len(preprocessing.channel_order), network.who
    what = f"{who} failed on {_images(count)}, float32 [{count}, {channels}, {size}, {size}]"
    remedy = "It must accept any number of images, of this size (--image_size)."
    with users_code(what, remedy), torch.inference_mode():
        output = network.module(torch.from_numpy(noise(channels, size)[:count]))
    if not isinstance(output, Sequence) or len(output) != len(_OUTPUTS):
        raise NetworkError(f"{who} returns {describe_type(output)}, and must return the pair (embedding, logits).")
    for name, values in zip(_OUTPUTS, output, strict=True):
        if not isinstance(values, torch.Tensor) or not values.is_floating_point():
            raise NetworkError(f"{who} returns {describe_type(values)} as {name}, and must return a float tensor.")
    embedding, logits = (values.float().numpy() for values in output)
    return embedding, logits


def _check_shapes(pair: Pair, who: str, count: int, classes: int) -> None:
    for what, values in zip(_OUTPUTS, pair, strict=True):
        if values.ndim != 2 or len(values) != count or not values.shape[1]:  # noqa: PLR2004 - [N, values]
            raise NetworkError(
                f"{who} returns {what} of shape {list(values.shape)} for {_images(count)}, and must return "
                f"[{count}, {'D' if what == 'embedding' else classes}]."
            )
    logits = pair[1]
    if logits.shape[1] != classes:
        raise NetworkError(
            f"{who} returns {logits.shape[1]} logits an image, and labels names {classes} classes. The second of the "
            f"pair (embedding, logits) must have one logit for each class."
        )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
