"""Running the exported graph with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnxruntime

INPUT = "PIXELS"
OUTPUTS = ("EMBEDDING", "PROBABILITIES")
_BATCH = 8


def open_graph(path: Path) -> onnxruntime.InferenceSession:
    """Open an exported graph on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run_graph(
    session: onnxruntime.InferenceSession, pixels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Compute embeddings, float32 [N, D], and probabilities, float32 [N, C'], from pixels, uint8 [N, S, S, 3]."""
    embeddings, probabilities = session.run(list(OUTPUTS), {INPUT: pixels})
    return embeddings, probabilities


def run_batches(
    session: onnxruntime.InferenceSession, pixels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Compute what ``run_graph`` computes, for any number of images, in batches."""
    embeddings, probabilities = zip(*(run_graph(session, batch) for batch in batches(pixels)), strict=True)
    return np.concatenate(embeddings), np.concatenate(probabilities)


def batches(pixels: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """Split pixels, uint8 [N, S, S, 3], into batches that fit into memory."""
    return (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))
