"""Embeddings of the base images: the server's preprocessing, then the exported graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .graph import run_graph
from .preprocessing import decode_batch

if TYPE_CHECKING:
    import onnxruntime


def embed_images(
    session: onnxruntime.InferenceSession,
    files: list[Path],
    *,
    image_size: int,
    batch_size: int,
    skip_unreadable: bool,
    advance: Callable[[int], None],
) -> tuple[npt.NDArray[np.float32], dict[Path, str]]:
    """Compute the embeddings of image files.

    Args:
        session: The exported graph.
        files: B image files.
        image_size: Side S in pixels.
        batch_size: Images in a run of the graph, at least 1.
        skip_unreadable: Go on past files that do not decode; otherwise the rest is only decoded, to list them all.
        advance: Told after each batch how many files are done.

    Returns:
        L2-normalized embeddings of the files that decode, float32 [at most B, D], in their order; and the reason for
        each file that does not.
    """
    unreadable: dict[Path, str] = {}
    embeddings = []
    for batch in _batches(files, batch_size):
        pixels, reasons = decode_files(batch, image_size)
        unreadable.update({file: reason for file, reason in zip(batch, reasons, strict=True) if reason})
        good = pixels[[not reason for reason in reasons]]
        if len(good) and (skip_unreadable or not unreadable):
            embeddings.append(run_graph(session, good)[0])
        advance(len(batch))
    found = np.concatenate(embeddings) if embeddings else np.zeros((0, 1), np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True), unreadable


def decode_files(files: list[Path], image_size: int) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Decode N image files to pixels, uint8 [N, S, S, 3], and N reasons, "" for a decoded file."""
    contents, failures = [], []
    for file in files:
        try:
            contents.append(file.read_bytes())
            failures.append("")
        except OSError as error:
            contents.append(b"")
            failures.append(error.strerror or "unreadable")
    pixels, reasons = decode_batch(contents, image_size)
    return pixels, [failure or reason for failure, reason in zip(failures, reasons, strict=True)]


def _batches(files: list[Path], size: int) -> list[list[Path]]:
    return [files[start : start + size] for start in range(0, len(files), size)]
