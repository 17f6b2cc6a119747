"""Comparing the exported graph with the network that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inference_export.base_set.base_images import BaseImages
from inference_export.base_set.image_files import ImageFiles
from inference_export.base_set.scoring import normalize
from inference_export.errors import ParityError, ResourcesError
from inference_export.network.networks import Network
from inference_export.network.preprocessing import Preprocessing
from inference_export.onnx_session import run_graph

if TYPE_CHECKING:
    import onnxruntime

PARITY_TOLERANCE = 1e-4
PARITY_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The largest differences between the exported graph and the network that it was made from, on the same pixels.

    Attributes:
        reference: What the graph was compared with: ``PyTorch``, ``.pt2 file`` or ``.onnx file``.
        images: Number of compared images.
        source: ``base images`` or ``generated images``.
        similarity: Largest absolute difference of a cosine similarity between two of the images.
        probability: Largest absolute difference of a probability.
    """

    reference: str
    images: int
    source: str
    similarity: float
    probability: float


def compare_with_network(
    session: onnxruntime.InferenceSession,
    network: Network,
    preprocessing: Preprocessing,
    *,
    base: BaseImages | None,
    images: ImageFiles,
) -> Parity:
    """Compare the exported graph with its network on a few images, one at a time and as one batch.

    Args:
        session: The exported graph.
        network: The network that was exported.
        preprocessing: The preprocessing that the network asks for.
        base: Base images that decode; None: generated images are compared.
        images: Reads and decodes the base images.

    Returns:
        The largest differences, both at most ``PARITY_TOLERANCE``.

    Raises:
        NetworkError: The network fails.
        ResourcesError: The network computes values that are not finite.
        ParityError: A difference is larger, or not finite.
        ChangedError: A base image has changed since it was read.
    """
    pixels, source = _choose_pixels(base, images, preprocessing.image_size)
    expected = network.answer(pixels, preprocessing)
    if not all(np.isfinite(values).all() for values in expected):
        raise ResourcesError(
            f"the network computes values that are not finite, already in the {network.reference}. The training "
            f"diverged, or the checkpoint is damaged. Choose another checkpoint."
        )
    alone = [np.concatenate(rows) for rows in zip(*(run_graph(session, row[None]) for row in pixels), strict=True)]
    together = run_graph(session, pixels)
    reference = normalize(expected[0])
    similarity = max(
        float(np.abs((normalize(embeddings) - reference) @ reference.T).max()) for embeddings, _ in (alone, together)
    )
    probability = max(float(np.abs(probabilities - expected[1]).max()) for _, probabilities in (alone, together))
    if not (similarity <= PARITY_TOLERANCE and probability <= PARITY_TOLERANCE):  # also false for NaN
        raise ParityError(
            f"the exported graph differs from the {network.reference} by {similarity:.1e} in a similarity and "
            f"{probability:.1e} in a probability; at most {PARITY_TOLERANCE:.0e} is accepted. Install the versions "
            f"that constraints.txt names."
        )
    return Parity(
        reference=network.reference,
        images=len(pixels),
        source=source,
        similarity=similarity,
        probability=probability,
    )


def _choose_pixels(base: BaseImages | None, images: ImageFiles, image_size: int) -> tuple[npt.NDArray[np.uint8], str]:
    if base is not None:
        step = max(1, len(base.files) // PARITY_IMAGES)
        return images.decode(base.files[::step][:PARITY_IMAGES])[0], "base images"
    # Smooth color gradients of different frequencies.
    axis = np.linspace(0, np.pi, image_size, dtype=np.float32)
    waves = [np.sin(np.add.outer(k * axis, k / 2 * axis)[..., None] + [0, 2, 4]) for k in range(1, PARITY_IMAGES + 1)]
    return np.rint((np.stack(waves) + 1) * 127.5).astype(np.uint8), "generated images"
