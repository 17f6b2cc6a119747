"""Running the exported graph with ONNX Runtime."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inference_export.descriptions import describe_error
from inference_export.errors import NetworkError
from inference_export.resources.memory_limit import memory_limit

if TYPE_CHECKING:
    import onnxruntime

INPUT = "PIXELS"
SPIN_DURATION_US = "100"
OUTPUTS = ("EMBEDDING", "PROBABILITIES")
MOST_RUN_BYTES = 12 * 2**30  # that one run on the CPU may add; a GPU's driver reserves far more addresses
_USUAL_PIXEL_BYTES = 32 * 512 * 512 * 3  # of a run; larger ones may add more in proportion
CPU = "CPUExecutionProvider"
SHOWN_ERROR_LENGTH = 300
_BATCH = 8
_M_MMAP_THRESHOLD = -3  # mallopt(3): blocks of this size are returned to the system as soon as they are freed
_TENSOR_BYTES = 2**17
_MOST_THRESHOLD_BYTES = 2**25


def open_graph(path: Path, providers: Sequence[str] | None = None) -> onnxruntime.InferenceSession:
    """Open an exported graph, on the CPU unless other providers of ONNX Runtime are named."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Threads that spin for longer while they wait take cores from decoding, and from a server that runs beside.
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_DURATION_US)
    options.log_severity_level = 4  # what fails is in the exception
    with _freeing_at_once():
        return onnxruntime.InferenceSession(str(path), options, providers=providers or [CPU])


def run_graph(
    session: onnxruntime.InferenceSession, pixels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Compute embeddings, float32 [N, D], and probabilities, float32 [N, C'], from pixels, uint8 [N, S, S, 3].

    Raises:
        NetworkError: The graph fails for this number of images or for their content, or takes too much memory.
    """
    try:
        with limited_run(session, pixels):
            embeddings, probabilities = session.run(list(OUTPUTS), {INPUT: pixels})
    except Exception as error:  # ONNX Runtime raises many types
        raise NetworkError(
            f"the network failed on {len(pixels)} images: {describe_error(error)[:SHOWN_ERROR_LENGTH]}. It must accept "
            f"any number of images, whatever they show. If memory was short, name a smaller --batch_size."
        ) from error
    return embeddings, probabilities


def limited_run(
    session: onnxruntime.InferenceSession, pixels: npt.NDArray[np.uint8]
) -> contextlib.AbstractContextManager[None]:
    """Limit the memory of a run: a complete network may take any amount for a number of images that it never saw."""
    return memory_limit(most_run_bytes(pixels)) if session.get_providers() == [CPU] else contextlib.nullcontext()


def most_run_bytes(pixels: npt.NDArray[np.uint8]) -> int:
    """Return how much memory a run on the CPU may add for these images."""
    return MOST_RUN_BYTES * max(1, -(-pixels.nbytes // _USUAL_PIXEL_BYTES))


def run_batches(
    session: onnxruntime.InferenceSession, pixels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Compute what ``run_graph`` computes, for any number of images, in batches."""
    embeddings, probabilities = zip(*(run_graph(session, batch) for batch in batches(pixels)), strict=True)
    return np.concatenate(embeddings), np.concatenate(probabilities)


@contextlib.contextmanager
def _freeing_at_once() -> Iterator[None]:
    """Have glibc return the memory of freed tensors, which it otherwise keeps: loading a graph copies its weights."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: 0)
    set_option(_M_MMAP_THRESHOLD, _TENSOR_BYTES)
    try:
        yield
    finally:
        set_option(_M_MMAP_THRESHOLD, _MOST_THRESHOLD_BYTES)


def batches(pixels: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """Split pixels, uint8 [N, S, S, 3], into batches that fit into memory."""
    return (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))
