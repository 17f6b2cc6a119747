"""The exported graph compared with PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inference_export.base_set.scoring import normalize
from inference_export.errors import ParityError, ResourcesError
from inference_export.network.users_code import users_code
from inference_export.onnx_session import run_graph

if TYPE_CHECKING:
    import onnxruntime
    from torch import nn

PARITY_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the exported graph is from PyTorch on the same pixels.

    Args:
        images: Number of images compared.
        similarity: Largest difference of a cosine similarity between any two of the images.
        probability: Largest absolute difference of a probability.
    """

    images: int
    similarity: float
    probability: float


def compare_with_pytorch(
    session: onnxruntime.InferenceSession, served: nn.Module, pixels: npt.NDArray[np.uint8]
) -> Parity:
    """Compare the exported graph with PyTorch, each image alone and all as one batch.

    Args:
        session: The exported graph.
        served: The ``ServedNetwork`` that it was exported from.
        pixels: Preprocessed images, uint8 [N, S, S, 3].

    Returns:
        The largest differences, both at most ``PARITY_TOLERANCE``.

    Raises:
        ResourcesError: The network itself computes values that are not finite.
        ParityError: A difference is larger or not finite.
    """
    import torch

    with users_code("the network failed on images"), torch.inference_mode():
        expected = [tensor.numpy() for tensor in served(torch.from_numpy(pixels))]
    if not all(np.isfinite(values).all() for values in expected):
        raise ResourcesError(
            "the network computes values that are not finite, in PyTorch already. The training diverged, or the "
            "checkpoint is damaged: choose another."
        )
    alone = [np.concatenate(rows) for rows in zip(*(run_graph(session, row[None]) for row in pixels), strict=True)]
    together = run_graph(session, pixels)
    reference = normalize(expected[0])
    similarity = max(
        float(np.abs((normalize(found[0]) - reference) @ reference.T).max()) for found in (alone, together)
    )
    probability = max(float(np.abs(found[1] - expected[1]).max()) for found in (alone, together))
    if not (similarity <= PARITY_TOLERANCE and probability <= PARITY_TOLERANCE):  # also false for NaN
        raise ParityError(
            f"the exported graph differs from PyTorch by {similarity:.1e} in a similarity and {probability:.1e} in a "
            f"probability; at most {PARITY_TOLERANCE:.0e} is accepted. Install the versions that constraints.txt names."
        )
    return Parity(images=len(pixels), similarity=similarity, probability=probability)
