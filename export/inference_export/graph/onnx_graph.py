"""The ONNX graph of the served network: written by PyTorch's exporter, compared with PyTorch, run by ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inference_export.base_set.scoring import normalize
from inference_export.errors import NetworkError, ParityError, ResourcesError, Terminated
from inference_export.full_disk import find_full_disk
from inference_export.network.users_code import FAILURES, said, users_code

if TYPE_CHECKING:
    import onnxruntime
    from torch import nn

INPUT = "PIXELS"
OUTPUTS = ("EMBEDDING", "PROBABILITIES")
# The newest that Triton's stock containers of the last years read.
MAX_IR_VERSION = 10
OPSET = 20
PARITY_TOLERANCE = 1e-4
_BATCH = 8


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


def export_graph(served: nn.Module, image_size: int, path: Path) -> None:
    """Write the network as ONNX: ``PIXELS`` uint8 [N, S, S, 3] in, ``EMBEDDING`` and ``PROBABILITIES`` out.

    Args:
        served: A ``ServedNetwork`` in evaluation mode.
        image_size: Side S in pixels.
        path: The file to write, weights inside.

    Raises:
        NetworkError: PyTorch can't export it.
        OSError: The disk is full.
        ParityError: It came out in a form that Triton does not read.
    """
    import onnx
    import torch

    pixels = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # PyTorch's exporter warns of its own internals
        for talkative in ("onnxscript", "torch.onnx"):
            logging.getLogger(talkative).setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                served,
                (pixels,),
                path,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Terminated:
            raise
        except FAILURES as error:  # of many kinds, about what the network's own code does
            full = find_full_disk(error)
            if full is not None:
                raise OSError(full.errno, full.strerror, str(path)) from error
            raise NetworkError(
                f"PyTorch can't export this network to ONNX: {_cause(error)}\n"
                f"  Python conditions on the values of tensors, shapes tied to a number of images, and operators "
                f"without an ONNX form are what usually stands in the way; see torch.onnx.export(dynamo=True)."
            ) from error
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    if model.ir_version > MAX_IR_VERSION:
        raise ParityError(
            f"the installed PyTorch wrote ONNX IR version {model.ir_version}; Triton's containers read up to "
            f"{MAX_IR_VERSION}. Install the PyTorch version that constraints.txt names.",
            path,
        )


def open_graph(path: Path) -> onnxruntime.InferenceSession:
    """Open an exported graph on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run_graph(
    session: onnxruntime.InferenceSession, pixels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Run pixels, uint8 [N, S, S, 3], to embeddings float32 [N, D] and probabilities float32 [N, C']."""
    embeddings, probabilities = session.run(list(OUTPUTS), {INPUT: pixels})
    return embeddings, probabilities


def run_batches(
    session: onnxruntime.InferenceSession, pixels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Run any number of pixels as ``run_graph`` does, a batch at a time."""
    embeddings, probabilities = zip(*(run_graph(session, batch) for batch in batches(pixels)), strict=True)
    return np.concatenate(embeddings), np.concatenate(probabilities)


def batches(pixels: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """Cut pixels, uint8 [N, S, S, 3], into batches that fit into memory."""
    return (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))


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


def _cause(error: BaseException) -> str:
    """Return the first line of what was raised first: the exporter wraps it in reports of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return said(error)
